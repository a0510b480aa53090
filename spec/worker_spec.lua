-- Worker processes as they stop, die and work side by side; and jobs that are stopped while they run.

local database = require "spec.support.database"
local jobs = require "spec.support.jobs"
local worker = require "spec.support.worker"

local db, folder

before_each(function()
    db, folder = database.new(), worker.folder()
    db:query "create table public.done (id bigint, worker text)"
    folder:task("records", [[
        assert(require("tidemill.pg").query("insert into public.done values ($1, $2)", ctx.id, args.by or ""))]])
    folder:task("sleeps", "ctx:sleep(args.seconds)", "timeout = 600")
end)

after_each(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- in_state is the condition that as many jobs are in a state.
local function in_state(state, count)
    return ("(select count(*) from tidemill.jobs where state = '%s') = %d"):format(state, count)
end

-- enqueue_sleeping enqueues jobs that sleep.
local function enqueue_sleeping(count, seconds)
    db:query(([[select count(*) from tidemill.enqueue_many('sleeps',
        array_fill('{"seconds": %s}'::jsonb, array[%d]))]]):format(seconds, count))
end

-- histories returns how many jobs have had each history of outcomes, such as { ["returned completed"] = 100 }.
local function histories()
    local counts = {}
    for _, row in ipairs(db:query [[
        select history, count(*) from (
            select string_agg(outcome || ' ' || attempt, ', ' order by run) as history
            from tidemill.attempts group by job_id
        ) h group by history]]) do
        counts[row.history] = tonumber(row.count)
    end
    return counts
end

describe("SIGTERM", function()
    it("gives back the jobs that sleep beyond the grace period, and another worker completes them", function()
        enqueue_sleeping(100, 600)
        local first = worker.start(db, folder, "--grace 1 --name first")
        db:wait_for(in_state("running", 100))
        local began = db:value "clock_timestamp()"
        first:signal "TERM"
        assert.equal(0, first:wait())
        local took = tonumber(db:value(("extract(epoch from clock_timestamp() - '%s')"):format(began)))
        assert.is_true(took >= 1 and took < 6, "it took " .. took .. " s")
        local stopped = first:find { message = "stopped" }[1]
        assert.same({ 0, 100 }, { stopped.ended, stopped.returned })
        assert.equal("100", db:value "select count(*) from tidemill.jobs where state = 'available' and attempt = 0")
        folder:task("sleeps", "")
        worker.start(db, folder, "--name second")
        db:wait_for(in_state("completed", 100))
        assert.same({ ["returned 1, completed 1"] = 100 }, histories())
        assert.equal("100", db:value "select count(*) from tidemill.jobs where attempt = 1 and attempted_by = 'second'")
    end)

    it("lets jobs end that do so within the grace period, and starts no others", function()
        enqueue_sleeping(10, 1)
        local w = worker.start(db, folder, "--grace 20 --queue default=5")
        db:wait_for(in_state("running", 5))
        w:signal "TERM"
        assert.equal(0, w:wait())
        assert.same({ ["completed 1"] = 5 }, histories())
        assert.equal("5", db:value "select count(*) from tidemill.jobs where state = 'available' and attempt = 0")
    end)
end)

describe("a worker that is killed", function()
    it("has its jobs run elsewhere, which count no attempt, but for those that are cancelled", function()
        enqueue_sleeping(20, 600)
        local unwanted = jobs.enqueue(db, [['sleeps', '{"seconds": 600}']])
        local first = worker.start(db, folder, "--name first")
        db:wait_for(in_state("running", 21))
        folder:task("sleeps", "")
        worker.start(db, folder, "--name second")
        first:signal "KILL"
        assert.equal(137, first:wait())
        assert.equal("running", db:value(("tidemill.cancel(%s, 'not today')"):format(unwanted)))
        db:wait_for(in_state("completed", 20))
        db:wait_for(in_state("cancelled", 1))
        assert.same({ ["lost 1, completed 1"] = 20, ["lost 1"] = 1 }, histories())
        assert.equal("not today", jobs.get(db, unwanted).last_error)
        assert.equal("41", db:value [[select count(*) from tidemill.attempts
            where worker = case outcome when 'lost' then 'first' else 'second' end]])
        local late = tonumber(db:value [[select extract(epoch from max(b.started_at - a.finished_at))
            from tidemill.attempts a join tidemill.attempts b on b.job_id = a.job_id and a.run = 1 and b.run = 2]])
        assert.is_true(late < 5, "they started " .. late .. " s after they were given back")
    end)
end)

describe("a worker that was taken for dead", function()
    local TAKEN = "this process was taken for dead and its jobs were given to others: those that run here are ended"

    it("cannot record what it did, and works on as a new process", function()
        enqueue_sleeping(5, 3)
        local first = worker.start(db, folder, "--name first")
        db:wait_for(in_state("running", 5))
        first:signal "STOP"
        local second = worker.start(db, folder, "--name second")
        db:wait_for "(select count(*) from tidemill.jobs where state = 'running' and attempted_by = 'second') = 5"
        first:signal "CONT" -- its jobs have slept long enough, those of the second have not
        first:record { message = TAKEN }
        db:wait_for(in_state("completed", 5))
        assert.same({ ["lost 1, completed 1"] = 5 }, histories())
        assert.equal("5", db:value [[select count(*) from tidemill.attempts where run = 2 and worker = 'second'
            and finished_at - started_at >= '3 s']])
        second:stop()
        assert.equal("first", jobs.run(db, "'records'").attempted_by)
    end)
end)

describe("a job that was given to another while it ran", function()
    it("is not recorded by the one that lost it, who tells so", function()
        local w = worker.start(db, folder)
        local id = jobs.enqueue(db, [['sleeps', '{"seconds": 1.5}']])
        db:wait_for(in_state("running", 1))
        db:query "select tidemill.give_back(id, null, 'lost') from tidemill.process"
        w:record { job = tonumber(id), message = "the job was lost to another process before its end was recorded" }
        db:wait_for(in_state("completed", 1))
        assert.same({ ["lost 1, completed 1"] = 1 }, histories())
    end)
end)

describe("a running job", function()
    for call, expected in pairs { cancel = { "cancelled", "cancelled" }, discard = { "dead", "discarded" } } do
        it("is stopped by tidemill." .. call, function()
            local w = worker.start(db, folder)
            local id = jobs.enqueue(db, [['sleeps', '{"seconds": 600}']])
            db:wait_for(in_state("running", 1))
            assert.equal("running", db:value(("tidemill.%s(%s, 'not today')"):format(call, id)))
            local job = jobs.rested(db, id)
            assert.same({ expected[1], "not today" }, { job.state, job.last_error })
            assert.equal(expected[2], job.attempts[1].outcome)
            w:record { job = tonumber(id), outcome = expected[2] }
            if call == "discard" then
                assert.equal("not today", db:value("select reason from tidemill.dead_letters where id = " .. id))
            end
        end)
    end

    it("is stopped at once, not at the next heartbeat", function()
        local late = {}
        worker.start(db, folder)
        for i = 1, 6 do
            local id = jobs.enqueue(db, [['sleeps', '{"seconds": 600}']])
            db:wait_for(in_state("running", 1))
            local asked = db:value(("select clock_timestamp() from tidemill.cancel(%s)"):format(id))
            local ended = jobs.rested(db, id).finished_at
            late[i] = tonumber(db:value(("extract(epoch from '%s'::timestamptz - '%s')"):format(ended, asked)))
        end
        table.sort(late)
        assert.is_true(late[5] < 0.5, "late by " .. table.concat(late, " "))
    end)

    it("is cancelled when its attempt ends, if it could not be stopped before", function()
        folder:task("computes", [[
            local stop = os.clock() + 0.5
            while os.clock() < stop do end
            error "failed"]])
        worker.start(db, folder)
        local id = jobs.enqueue(db, "'computes'")
        db:wait_for(in_state("running", 1))
        db:query(("select tidemill.cancel(%s, 'not today')"):format(id))
        local job = jobs.rested(db, id)
        assert.equal("cancelled", job.state)
        assert.equal(1, #job.attempts)
        assert.equal("0", db:value "select count(*) from tidemill.stop_request")
    end)

    it("is stopped by the program", function()
        worker.start(db, folder)
        local id = jobs.enqueue(db, [['sleeps', '{"seconds": 600}']])
        db:wait_for(in_state("running", 1))
        assert.is_true(select(2, db:tidemill("jobs cancel " .. id)))
        assert.equal("cancelled", jobs.rested(db, id).state)
    end)
end)

describe("a large number of jobs", function()
    local MANY = 10000

    -- wait waits for the last one. (A count in the view every few milliseconds would keep a processor busy.)
    local function wait()
        db:wait_for("(select count(*) from public.done) >= " .. MANY, 120)
        db:wait_for(in_state("completed", MANY))
    end

    -- check checks that all have been done once.
    local function check(workers)
        assert.same({ count = tostring(MANY), different = tostring(MANY) },
            db:query("select count(*), count(distinct id) as different from public.done")[1])
        assert.equal("0", db:value "select count(*) from tidemill.jobs where id not in (select id from public.done)")
        assert.same({ ["completed 1"] = MANY }, histories())
        local queue = db:query("select * from tidemill.queues")
        assert.same({ { queue = "default", scheduled = "0", available = "0", running = "0", completed = tostring(MANY),
            cancelled = "0", dead = "0" } }, queue)
        local shown = db:tidemill "queues --json"
        assert.matches('"completed": ?' .. MANY, shown)
        assert.equal(tostring(workers), db:value "select count(distinct worker) from tidemill.attempts")
        db:wait_for "not exists (select from tidemill.lease)"
    end

    local function enqueue()
        db:query(("select tidemill.enqueue_many('records', array_fill('{}'::jsonb, array[%d]))"):format(MANY))
    end

    it("that were enqueued in one call are each done once", function()
        enqueue()
        worker.start(db, folder)
        wait()
        check(1)
    end)

    it("are shared by two workers, each done once", function()
        worker.start(db, folder, "--name first")
        worker.start(db, folder, "--name second")
        enqueue()
        wait()
        check(2)
    end)
end)
