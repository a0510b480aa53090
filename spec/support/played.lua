-- A worker process, played: what the runtime does with jobs, by the SQL functions that it calls.
--
--     local worker = require("spec.support.played").new(db)
--     worker:publish '[{"name": "mail", "queue": "fast"}]'
--     local job = worker:claim("mail", "fast")   -- a row of tidemill.claim; nil: nothing is due
--     worker:finish(job, "completed")

local worker = {}
worker.__index = worker

local lease = 0

function worker.new(db)
    return setmetatable({ db = db, id = db:value "tidemill.start_process('played')" }, worker)
end

-- publish declares tasks, as JSON.
function worker:publish(tasks)
    self.db:query(("select tidemill.publish(%s, '%s')"):format(self.id, tasks))
end

-- claim starts the next job of a task. Tags are as PostgreSQL writes an array.
function worker:claim(task, queue)
    lease = lease + 1
    local rows = self.db:query(("select * from tidemill.claim(%s, %d, array['%s'], array[1], array['%s'])")
        :format(self.id, lease, queue or "default", task))
    if rows[1] then rows[1].lease = lease end
    return rows[1]
end

-- finish ends the attempt of a claimed job.
function worker:finish(job, outcome)
    self.db:query(([[
        select tidemill.finish(array[%s]::bigint[], array[%s]::bigint[], array['%s'], array[null]::text[],
            array[null]::text[], array[null]::jsonb[], array[null]::float8[])]]):format(job.id, job.lease, outcome))
end

-- work claims the next job of a task and ends it. Returns its id.
function worker:work(task, outcome)
    local job = assert(self:claim(task), "nothing of " .. task .. " is due")
    self:finish(job, outcome)
    return job.id
end

return worker
