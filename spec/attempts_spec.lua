-- How an attempt can end, and what comes after it: the handlers' results and errors, retries, the dead-letter queue.

local database = require "spec.support.database"
local jobs = require "spec.support.jobs"
local worker = require "spec.support.worker"

local db, folder, w

-- The handlers of most tests by their name: the body of handle(ctx, args).
local BODIES = {
    returns_nothing = "",
    returns_nil = "return nil",
    returns_nil_nil = "return nil, nil",
    returns_table = [[return { mail = 7, to = { "a", "b" }, none = tidemill.null }]],
    returns_text = [[return ""]],
    returns_zero = "return 0",
    returns_true = "return true",
    returns_null = "return tidemill.null",
    returns_two = [[return "first", "second"]],
    returns_largest = "return ('x'):rep(65534)", -- with its quotes 64 KiB
    returns_too_large = "return ('x'):rep(65535)",
    returns_function = "return { deep = { print } }",
    returns_nan = "return 0/0",
    returns_mixed = "return { 1, x = 2 }",
    returns_nul = [[return "a\0b"]],
    returns_latin1 = [[return "caf\xe9"]],
    returns_false = "return false",
    returns_false_nil = "return false, nil",
    returns_nil_error = [[return nil, "the mailbox is full"]],
    returns_false_error = [[return false, "the mailbox is away"]],
    returns_nil_false = "return nil, false",
    returns_nil_table = [[return nil, { message = "from a field" }]],
    raises_text = [[
        local function mail() error("no route to " .. args.host) end
        mail()
        return 1]],
    raises_odd_text = [[error("a\0b\xffc", 0)]],
    raises_table = "error({ code = 42 })",
    raises_message = [[error({ code = 42, message = "quota exceeded" })]],
    raises_object = [[error(setmetatable({}, { __tostring = function() return "I am an object" end }))]],
    raises_nil = "error(nil)",
    raises_false = "error(false)",
    indexes_nil = "return args.user.name",
    overflows = "local function f(...) return 1 + f(...) end return f(table.unpack({}, 1, 100))",
}

setup(function()
    db, folder = database.new(), worker.folder()
    for name, body in pairs(BODIES) do folder:task(name, body) end
    folder:task("snoozes", [[
        if ctx.run <= args.times then ctx:snooze(args.seconds) end
        return { attempt = ctx.attempt, run = ctx.run }]])
    folder:task("snoozes_after_failure", [[
        if ctx.run == 1 then error "first" end
        if ctx.run == 2 then ctx:snooze(0) end
        return { attempt = ctx.attempt, run = ctx.run }]], "backoff = function() return 0 end")
    folder:task("snoozes_oddly", "ctx:snooze(args.seconds)")
    folder:task("ends", [[
        ctx[args.how](ctx, table.unpack(args.with or {}))
        return "went on"]])
    folder:task("ends_in_pcall", [[
        pcall(ctx[args.how], ctx, table.unpack(args.with or {}))
        error "went on"]])
    folder:task("ends_deep_in_pcalls", [[
        local function deep(n)
            if n == 0 then ctx[args.how](ctx, table.unpack(args.with or {})) end
            local ok, err = xpcall(deep, function(e) return e end, n - 1)
            coroutine.wrap(function() pcall(error, "again") end)()
            return ok, err
        end
        while true do pcall(deep, 5) end]])
    folder:task("fails", [[error("due " .. ctx.scheduled_at)]])
    folder:task("fails_twice", "error(('attempt %d of %d'):format(ctx.attempt, ctx.max_attempts))",
        "max_attempts = 2, backoff = function() return 0 end")
    folder:task("backs_off", "error 'later'", "backoff = function(attempt) return 1000 + attempt end")
    folder:task("backs_off_badly", "error 'later'", "backoff = function() return args.nothing end")
    folder:task("backs_off_to_text", "error 'later'", "backoff = function() return 'soon' end")
    folder:task("mendable", [[
        local broken = require("tidemill.pg").query("select 1 from public.broken")
        if broken.count > 0 then error("run " .. ctx.run .. " found it broken") end
        return { attempt = ctx.attempt, run = ctx.run, max = ctx.max_attempts }]],
        "max_attempts = 2, backoff = function() return 0 end")
    folder:task("typed", "return args", [[args = { user_id = "string", count = "integer?" }]])
    folder:task("times_out", "ctx:sleep(600)", "timeout = 0.2, max_attempts = 1")
    folder:task("hogs", "local t = {} while true do t[#t + 1] = ('x'):rep(1 << 20) .. #t end", "max_attempts = 1")
    db:query "create table public.broken (); insert into public.broken default values"
    -- Before anybody has published the task, so that it is accepted.
    jobs.misfit = jobs.enqueue(db, [['typed', '{"user_id": 42}']])
    jobs.missing = jobs.enqueue(db, [['typed', '{"count": 1}']])
    w = worker.start(db, folder)
end)

teardown(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- ran runs a task once (its failure is the end) and returns the job and its only attempt.
local function ran(task, args)
    local job = jobs.run(db, ("'%s', '%s', max_attempts => 1"):format(task, args or "{}"))
    assert.equal(1, #job.attempts)
    return job, job.attempts[1]
end

describe("an attempt that completes", function()
    for name, result in pairs {
        returns_nothing = false, returns_nil = false, returns_nil_nil = false,
        returns_table = '{"to": ["a", "b"], "mail": 7, "none": null}', returns_text = '""', returns_zero = "0",
        returns_true = "true", returns_null = "null", returns_two = '"first"',
    } do
        it("keeps the result of one that " .. name, function()
            local job, attempt = ran(name)
            assert.equal("completed", job.state)
            assert.equal(result or nil, job.result)
            assert.equal("completed", attempt.outcome)
            assert.is_nil(attempt.error)
            assert.is_nil(job.last_error)
            assert.equal("1", job.attempt)
        end)
    end

    it("warns of a second value after a true first one", function()
        local job = ran "returns_two"
        local warning = w:record { job = tonumber(job.id), level = "warn" }
        assert.matches("second value", warning.message)
    end)

    it("keeps a result of 64 KiB", function()
        local job = ran "returns_largest"
        assert.equal(65536, #job.result)
        assert.same({}, w:find { job = tonumber(job.id), level = "warn" })
    end)

    for name, reason in pairs {
        returns_too_large = "65536", returns_function = "result.deep%[1%]: a function", returns_nan = "NaN",
        returns_mixed = "result", returns_nul = "NUL", returns_latin1 = "UTF%-8",
    } do
        it("completes with a warning and without a result when it " .. name, function()
            local job = ran(name)
            assert.equal("completed", job.state)
            assert.is_nil(job.result)
            local warning = w:record { job = tonumber(job.id), level = "warn" }
            assert.matches(reason, warning.message)
            assert.matches("the result was not kept", warning.message)
        end)
    end
end)

describe("an attempt that fails", function()
    for name, message in pairs {
        returns_false = "^the handler returned false$", returns_false_nil = "^the handler returned false$",
        returns_nil_error = "^the mailbox is full$", returns_false_error = "^the mailbox is away$",
        returns_nil_false = "^false$", returns_nil_table = "^from a field$", raises_odd_text = "^a\\x00b\u{FFFD}c$",
        raises_table = "table", raises_message = "^quota exceeded$", raises_object = "^I am an object$",
        raises_nil = "nil", raises_false = "^false$", indexes_nil = "indexes_nil.lua:2: .*index a nil value",
        overflows = "stack overflow",
    } do
        it("keeps the message when it " .. name, function()
            local job, attempt = ran(name)
            assert.equal("dead", job.state)
            assert.equal("failed", attempt.outcome)
            assert.matches(message, attempt.error)
            assert.equal(attempt.error, job.last_error)
            assert.is_nil(job.result)
        end)
    end

    it("keeps the place and the traceback of what was raised", function()
        local _, attempt = ran("raises_text", '{"host": "mars"}')
        assert.equal("raises_text.lua:2: no route to mars", attempt.error)
        assert.matches("^stack traceback:\n", attempt.traceback)
        assert.matches("raises_text.lua:2: in .*'mail'", attempt.traceback)
        assert.matches("raises_text.lua:3: in function <raises_text.lua:1>", attempt.traceback)
    end)

    it("has a line in the log that tells job, task, attempt, duration, outcome and error", function()
        local job = ran("raises_text", '{"host": "venus"}')
        local record = w:record { job = tonumber(job.id), outcome = "failed" }
        assert.equal("raises_text", record.task)
        assert.equal("default", record.queue)
        assert.equal(1, record.attempt)
        assert.equal("error", record.level)
        assert.equal("raises_text.lua:2: no route to venus", record.error)
        assert.is_true(record.duration_ms >= 0)
    end)

    it("ends a job that waits for longer than its timeout", function()
        local job = jobs.run(db, "'times_out'")
        assert.equal("timeout", job.attempts[1].outcome)
        assert.matches("timeout of 0.2 s", job.last_error)
        assert.matches("times_out.lua:2: ", job.attempts[1].traceback)
        assert.equal("dead", job.state)
    end)

    it("ends a job that needs more memory than it may have", function()
        local job = jobs.run(db, "'hogs'")
        assert.same({ "memory", "dead" }, { job.attempts[1].outcome, job.state })
        assert.matches("64 MiB", job.last_error)
    end)
end)

describe("ctx:snooze", function()
    it("runs the job again later and counts no attempt", function()
        local job = jobs.run(db, [['snoozes', '{"times": 1, "seconds": 3600}', max_attempts => 1]])
        assert.equal("scheduled", job.state)
        assert.equal("0", job.attempt)
        assert.equal("3600.000", job.delay)
        assert.equal("snoozed", job.attempts[1].outcome)
        assert.is_nil(job.attempts[1].error)
        db:query(("select tidemill.retry(%s)"):format(job.id))
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'completed'"):format(job.id))
        job = jobs.get(db, job.id)
        assert.equal('{"run": 2, "attempt": 1}', job.result)
        assert.equal("1", job.attempt)
    end)

    it("repeats the attempt's number, and the run goes up", function()
        local id = jobs.enqueue(db, [['snoozes', '{"times": 3, "seconds": 0}', max_attempts => 1]])
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'completed'"):format(id))
        local job, seen = jobs.get(db, id), {}
        for i, a in ipairs(job.attempts) do seen[i] = { a.run, a.attempt, a.outcome } end
        assert.same({ { 1, 1, "snoozed" }, { 2, 1, "snoozed" }, { 3, 1, "snoozed" }, { 4, 1, "completed" } }, seen)
    end)

    it("keeps the count of the failures before it", function()
        local id = jobs.enqueue(db, "'snoozes_after_failure', max_attempts => 2")
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'completed'"):format(id))
        local job = jobs.get(db, id)
        assert.equal('{"run": 3, "attempt": 2}', job.result)
        assert.equal("2", job.attempt)
        assert.matches("first$", job.last_error)
    end)

    for _, seconds in ipairs { "-1", "31557601", '"x"', "null" } do
        it("refuses " .. seconds .. " seconds", function()
            local job, attempt = ran("snoozes_oddly", ('{"seconds": %s}'):format(seconds))
            assert.equal("dead", job.state)
            assert.equal("failed", attempt.outcome)
            assert.matches("^snoozes_oddly.lua:2: .*snooze", attempt.error)
        end)
    end
end)

describe("ctx:cancel and ctx:discard", function()
    it("end in cancelled and dead, with the reason, and do not return", function()
        local job, attempt = ran("ends", '{"how": "cancel", "with": ["no longer wanted"]}')
        assert.same({ "cancelled", "cancelled", "no longer wanted" }, { job.state, attempt.outcome, attempt.error })
        assert.equal("no longer wanted", job.last_error)
        assert.is_nil(job.result)
        job, attempt = ran("ends", '{"how": "discard", "with": ["never possible"]}')
        assert.same({ "dead", "discarded", "never possible" }, { job.state, attempt.outcome, attempt.error })
        assert.equal("never possible", db:value("select reason from tidemill.dead_letters where id = " .. job.id))
    end)

    it("need no reason", function()
        assert.equal("cancelled", ran("ends", '{"how": "cancel"}').state)
        local job = ran("ends", '{"how": "discard"}')
        assert.equal("dead", job.state)
        assert.equal("discarded", db:value("select reason from tidemill.dead_letters where id = " .. job.id))
    end)

    it("discards without a retry, whatever attempts are left", function()
        local job = jobs.run(db, [['ends', '{"how": "discard"}', max_attempts => 10]])
        assert.same({ "dead", "1", "10" }, { job.state, job.attempt, job.max_attempts })
    end)
end)

describe("a pcall around an end", function()
    for _, task in ipairs { "ends_in_pcall", "ends_deep_in_pcalls" } do
        for how, expected in pairs {
            snooze = { with = "[3600]", state = "scheduled", outcome = "snoozed" },
            cancel = { with = '["why"]', state = "cancelled", outcome = "cancelled" },
            discard = { with = '["why"]', state = "dead", outcome = "discarded" },
        } do
            it(("does not undo it: %s in %s"):format(how, task), function()
                local job, attempt = ran(task, ('{"how": "%s", "with": %s}'):format(how, expected.with))
                assert.equal(expected.state, job.state)
                assert.equal(expected.outcome, attempt.outcome)
            end)
        end
    end
end)

describe("a retry", function()
    -- delays returns the least and the largest delay, in seconds, after failure n of the jobs between two ids.
    local function delays(n, due)
        local row = db:query(([[
            select min(%s - extract(epoch from a.finished_at)) as least,
                max(%s - extract(epoch from a.finished_at)) as largest, count(*)
            from tidemill.attempts a join tidemill.jobs j on j.id = a.job_id
            left join tidemill.attempts b on b.job_id = a.job_id and b.run = a.run + 1
            where j.task = 'fails' and a.run = %d]]):format(due, due, n))[1]
        assert.equal("100", row.count)
        return tonumber(row.least), tonumber(row.largest)
    end

    it("waits n^4 seconds, 10% either way", function()
        local function failed(n)
            return ("(select count(*) from tidemill.attempts a join tidemill.jobs j on j.id = a.job_id "
                .. "where j.task = 'fails' and a.run = %d and a.outcome = 'failed') = 100"):format(n)
        end
        db:query "select tidemill.enqueue('fails') from generate_series(1, 100)"
        db:wait_for(failed(2))
        -- The second start has told when it was due: jobs show only the latest time.
        local least, largest = delays(1, "substring(b.error from 'due (.*)')::numeric")
        assert.is_true(least > 0.899 and least < 0.95 and largest > 1.05 and largest < 1.101, least .. " " .. largest)
        least, largest = delays(2, "extract(epoch from j.scheduled_at)")
        assert.is_true(least > 14.39 and least < 15.2 and largest > 16.8 and largest < 17.61, least .. " " .. largest)
        db:query "select tidemill.retry(id) from tidemill.jobs where task = 'fails'"
        db:wait_for(failed(3))
        least, largest = delays(3, "extract(epoch from j.scheduled_at)")
        assert.is_true(least > 72.89 and least < 77 and largest > 85 and largest < 89.11, least .. " " .. largest)
        local job = db:query("select state, attempt, max_attempts from tidemill.jobs where task = 'fails' limit 1")[1]
        assert.same({ state = "scheduled", attempt = "3", max_attempts = "25" }, job)
    end)

    it("waits as long as backoff(attempt) says", function()
        local job = jobs.run(db, "'backs_off'")
        assert.same({ "scheduled", "1001.000" }, { job.state, job.delay })
        db:query(("select tidemill.retry(%s)"):format(job.id))
        db:wait_for(("exists (select from tidemill.attempts where job_id = %s and run = 2 and outcome = 'failed')")
            :format(job.id))
        assert.equal("1002.000", jobs.get(db, job.id).delay)
    end)

    it("waits as usual, with a warning, when backoff fails or returns no seconds", function()
        for task, reason in pairs { backs_off_badly = "backoff: .*nil value", backs_off_to_text = 'backoff: "soon"' } do
            local id = jobs.enqueue(db, ("'%s'"):format(task))
            w:record { job = tonumber(id), message = "job failed" }
            db:wait_for(("exists (select from tidemill.attempts where job_id = %s and outcome = 'failed')"):format(id))
            local warning = w:find { job = tonumber(id), level = "warn" }[2]
            assert.matches(reason .. ".*; the usual delay is used$", warning.message)
        end
    end)

    it("comes until the declared number of attempts, then the job is dead", function()
        local job = jobs.run(db, "'fails_twice'")
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'dead'"):format(job.id))
        job = jobs.get(db, job.id)
        assert.same({ "2", "2", 2 }, { job.attempt, job.max_attempts, #job.attempts })
        assert.equal("fails_twice.lua:2: attempt 1 of 2", job.attempts[1].error)
        assert.equal("fails_twice.lua:2: attempt 2 of 2", job.last_error)
        local letter = db:query("select reason, died_at from tidemill.dead_letters where id = " .. job.id)
        assert.same({ { reason = job.last_error, died_at = job.finished_at } }, letter)
    end)

    it("comes as often as the enqueue says, if it says so", function()
        local id = jobs.enqueue(db, "'fails_twice', max_attempts => 4")
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'dead'"):format(id))
        assert.equal(4, #jobs.get(db, id).attempts)
    end)
end)

describe("a dead job", function()
    it("is requeued under its id with its history and its task's attempts anew", function()
        local id = jobs.enqueue(db, "'mendable', tags => '{a}', priority => 3, max_attempts => 3")
        db:wait_for(("(select state from tidemill.jobs where id = %s) = 'dead'"):format(id))
        local before = jobs.get(db, id)
        assert.equal("3", before.attempt)
        db:query "truncate public.broken"
        assert.equal("available", db:value(("tidemill.requeue(%s)"):format(id)))
        local job = jobs.rested(db, id)
        assert.equal("completed", job.state)
        assert.equal('{"max": 2, "run": 4, "attempt": 1}', job.result)
        assert.equal(before.enqueued_at, job.enqueued_at)
        assert.same({ "{a}", "3", "2" }, { job.tags, job.priority, job.max_attempts })
        local seen = {}
        for i, a in ipairs(job.attempts) do seen[i] = { a.run, a.attempt, a.outcome } end
        assert.same({ { 1, 1, "failed" }, { 2, 2, "failed" }, { 3, 3, "failed" }, { 4, 1, "completed" } }, seen)
        assert.same({}, db:query("select id from tidemill.dead_letters where id = " .. id))
    end)
end)

describe("arguments that do not fit the declaration", function()
    it("send the job to dead with the field named, without a retry", function()
        for id, message in pairs {
            [jobs.misfit] = "^args%.user_id: 42 is not allowed; the task declares a string$",
            [jobs.missing] = "^args%.user_id: is missing; the task declares a string$",
        } do
            local job = jobs.rested(db, id)
            assert.same({ "dead", "1", "25" }, { job.state, job.attempt, job.max_attempts })
            assert.equal("discarded", job.attempts[1].outcome)
            assert.matches(message, job.attempts[1].error)
            assert.matches(message, db:value("select reason from tidemill.dead_letters where id = " .. id))
        end
    end)

    it("are refused at the enqueue once the task is published", function()
        assert.equal("args.user_id", db:refusal([[select tidemill.enqueue('typed', '{"user_id": 42}')]]).column)
    end)

    it("does not happen to those that fit", function()
        assert.equal('{"count": 3, "user_id": "42"}', ran("typed", '{"user_id": "42", "count": 3}').result)
        assert.equal('{"count": null, "user_id": "42"}', ran("typed", '{"user_id": "42", "count": null}').result)
    end)
end)
