-- The views that people read: their columns, states, counts and times.

local database = require "spec.support.database"
local jobs = require "spec.support.jobs"
local worker = require "spec.support.worker"

local db, folder

setup(function()
    db, folder = database.new(), worker.folder()
    folder:task("completes", "return { n = 1 }", "queue = 'served'")
    folder:task("fails", "error 'no luck'", "queue = 'served', max_attempts = 1")
    folder:task("retries", "error 'later'", "queue = 'served', backoff = function() return 3600 end")
    folder:task("cancels", "ctx:cancel 'why'", "queue = 'served'")
    folder:task("snoozes", "ctx:snooze(3600)", "queue = 'served'")
    folder:task("waits", "ctx:sleep(600)", "queue = 'served'")
    worker.start(db, folder, "--queue served --name viewed")
end)

teardown(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- columns returns the first columns of a view and their types, in order, as many as are promised.
local function columns(view, count)
    return db:value(([[select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)
        from pg_attribute where attrelid = 'tidemill.%s'::regclass and attnum between 1 and %d]]):format(view, count))
end

local JOBS = "id bigint, task text, queue text, state text, priority smallint, attempt integer, max_attempts integer, "
    .. "args jsonb, tags text[], unique_key text, enqueued_at timestamp with time zone, "
    .. "scheduled_at timestamp with time zone, attempted_at timestamp with time zone, "
    .. "finished_at timestamp with time zone, attempted_by text, last_error text, result jsonb"

describe("a view has the columns that were promised, in that order:", function()
    it("jobs", function() assert.equal(JOBS, columns("jobs", 17)) end)

    it("attempts", function()
        assert.equal("job_id bigint, run integer, attempt integer, outcome text, error text, traceback text, "
            .. "started_at timestamp with time zone, finished_at timestamp with time zone, worker text",
            columns("attempts", 9))
    end)

    it("dead_letters", function()
        assert.equal(JOBS .. ", reason text, died_at timestamp with time zone", columns("dead_letters", 19))
    end)

    it("queues", function()
        assert.equal("queue text, scheduled bigint, available bigint, running bigint, completed bigint, "
            .. "cancelled bigint, dead bigint, oldest_due timestamp with time zone", columns("queues", 8))
    end)
end)

describe("a job that", function()
    -- times returns, as one text, which of its times are set, and whether they are in order.
    local function times(id)
        return db:value(([[select concat_ws(' ',
            case when scheduled_at >= enqueued_at then 'scheduled' end,
            case when attempted_at >= enqueued_at then 'attempted' end,
            case when finished_at >= coalesce(attempted_at, enqueued_at) and finished_at <= clock_timestamp()
                then 'finished' end, attempted_by) from tidemill.jobs where id = %s]]):format(id))
    end

    it("waits for its time is scheduled", function()
        local id = jobs.enqueue(db, "'completes', schedule_in => '1 hour'")
        local job = jobs.get(db, id)
        assert.same({ "scheduled", "0", "served" }, { job.state, job.attempt, job.queue })
        assert.same({ "{}", "{}" }, { job.args, job.tags })
        assert.equal("scheduled", times(id))
    end)

    it("is due is available, whether or not anything has moved it", function()
        local id = jobs.enqueue(db, "'completes', queue => 'nobody', schedule_in => '0.2 s'")
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'available'"):format(id))
        assert.equal("true", db:value("select scheduled_at <= clock_timestamp() from tidemill.jobs where id = " .. id))
        assert.equal("0", db:value("select count(*) from tidemill.attempts where job_id = " .. id))
    end)

    it("runs is running, and its attempt is not over", function()
        local id = jobs.enqueue(db, "'waits'")
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'running'"):format(id))
        local job = jobs.get(db, id)
        assert.equal("1", job.attempt)
        assert.equal("scheduled attempted viewed", times(id))
        local attempt = job.attempts[1]
        assert.same({ 1, 1, nil, nil, "viewed" },
            { attempt.run, attempt.attempt, attempt.outcome, attempt.finished_at, attempt.worker })
        db:query(("select tidemill.cancel(%s)"):format(id))
        assert.equal("cancelled", jobs.rested(db, id).state)
    end)

    it("completed has its result and all its times", function()
        local job = jobs.run(db, [['completes', '{"a": 1}', tags => '{t}', unique_key => 'k', priority => 3]])
        assert.same({ "completed", "1", "25", '{"a": 1}', "{t}", "k", "3", '{"n": 1}' }, { job.state, job.attempt,
            job.max_attempts, job.args, job.tags, job.unique_key, job.priority, job.result })
        assert.equal("scheduled attempted finished viewed", times(job.id))
        assert.is_nil(job.last_error)
        local same = db:value(([[select a.started_at = j.attempted_at and a.finished_at = j.finished_at
            from tidemill.attempts a join tidemill.jobs j on j.id = a.job_id where j.id = %s]]):format(job.id))
        assert.equal("true", same)
    end)

    it("failed and has attempts left is scheduled for the next", function()
        local job = jobs.run(db, "'retries'")
        assert.same({ "scheduled", "1", "3600.000" }, { job.state, job.attempt, job.delay })
        assert.equal("scheduled attempted viewed", times(job.id))
        assert.matches("later$", job.last_error)
    end)

    it("snoozes is scheduled, with no attempt", function()
        local job = jobs.run(db, "'snoozes'")
        assert.same({ "scheduled", "0", "3600.000" }, { job.state, job.attempt, job.delay })
    end)

    it("died is a dead letter with what the jobs' view shows of it", function()
        local job = jobs.run(db, [['fails', '{"a": 1}', tags => '{x}', unique_key => 'dead']])
        assert.equal("dead", job.state)
        assert.equal("scheduled attempted finished viewed", times(job.id))
        assert.equal("true", db:value(([[select to_jsonb(j) || jsonb_build_object('reason', j.last_error, 'died_at',
            j.finished_at) = to_jsonb(d) from tidemill.dead_letters d join tidemill.jobs j on j.id = d.id
            where d.id = %s]]):format(job.id)))
    end)

    it("was cancelled by its handler is cancelled", function()
        local job = jobs.run(db, "'cancels'")
        assert.same({ "cancelled", "1", "why" }, { job.state, job.attempt, job.last_error })
    end)

    it("was cancelled or discarded before its first start has no attempts", function()
        for call, state in pairs { cancel = "cancelled", discard = "dead" } do
            local id = jobs.enqueue(db, "'completes', schedule_in => '1 hour'")
            assert.equal(state, db:value(("tidemill.%s(%s, 'a reason')"):format(call, id)))
            local job = jobs.get(db, id)
            assert.same({ state, "0", "a reason", {} }, { job.state, job.attempt, job.last_error, job.attempts })
            assert.equal("scheduled finished", times(id))
        end
    end)
end)

it("queues counts jobs by state, and tells the time of the one that has been due longest", function()
    db:query [[
        select tidemill.enqueue('nobody_knows', queue => 'counted');
        select tidemill.enqueue('nobody_knows', queue => 'counted');
        select tidemill.enqueue('nobody_knows', queue => 'counted', schedule_in => '1 hour');
        select tidemill.cancel(id) from tidemill.enqueue('nobody_knows', queue => 'counted');
        select tidemill.discard(id) from tidemill.enqueue('nobody_knows', queue => 'counted');
    ]]
    local row = db:query([[select *, oldest_due = (select min(scheduled_at) from tidemill.jobs
        where queue = 'counted' and state = 'available') as is_oldest from tidemill.queues where queue = 'counted']])[1]
    assert.equal("t", row.is_oldest)
    assert.same({ "1", "2", "0", "0", "1", "1" },
        { row.scheduled, row.available, row.running, row.completed, row.cancelled, row.dead })
    assert.is_nil(db:query("select oldest_due from tidemill.queues where queue = 'served'")[1].oldest_due)
end)
