-- Jobs as the views show them.
--
--     local jobs = require "spec.support.jobs"
--     local job = jobs.run(db, "'greets', '{}'")        -- enqueues; returns it when it is over, or waits for its time
--     job.state, job.attempts[1].outcome                -- columns as text; attempts in the order of the runs
--     jobs.get(db, job.id)                              -- as it is now

local cjson = require "cjson"

local jobs = {}

-- What is shown of job %s.
local SHOWN = [[
    select j.*, (select json_agg(a order by a.run) from tidemill.attempts a where a.job_id = j.id) as attempts,
        round(extract(epoch from j.scheduled_at - f.finished_at), 3) as delay
    from tidemill.jobs j
    left join lateral (select max(finished_at) as finished_at from tidemill.attempts where job_id = j.id) f on true
    where j.id = %s;
]]

-- A job has come to rest: it is over, or waits after an attempt.
local RESTS = [[exists (select from tidemill.jobs j where j.id = %s and (j.state in ('completed', 'cancelled', 'dead')
    or j.state = 'scheduled' and exists (select from tidemill.attempts a where a.job_id = j.id)))]]

local CURRENT = "current_setting('spec.job')::bigint"

-- decoded makes attempts a list, without null.
local function decoded(job)
    if not job then return nil end
    local list = job.attempts and cjson.decode(job.attempts) or {}
    for _, attempt in ipairs(list) do
        for name, value in pairs(attempt) do
            if value == cjson.null then attempt[name] = nil end
        end
    end
    job.attempts = list
    return job
end

-- enqueue stores a job, with the arguments of tidemill.enqueue as SQL, and returns its id.
function jobs.enqueue(db, arguments)
    return db:query(("select id from tidemill.enqueue(%s)"):format(arguments))[1].id
end

-- get returns a job as it is now, or nil. job.delay is how long after its last attempt it is due, in seconds.
function jobs.get(db, id)
    return decoded(db:query(SHOWN:format(id))[1])
end

-- rested waits until a job has come to rest, and returns it.
function jobs.rested(db, id)
    return decoded(db:query(db.until_true(RESTS:format(id)) .. SHOWN:format(id))[1])
end

-- run enqueues a job, and returns it when it has come to rest.
function jobs.run(db, arguments)
    local enqueue = "select set_config('spec.job', id::text, false) as job from tidemill.enqueue(%s) \\gset\n"
    local wait = db.until_true(RESTS:format(CURRENT))
    return decoded(db:query(enqueue:format(arguments) .. wait .. SHOWN:format(CURRENT))[1])
end

return jobs
