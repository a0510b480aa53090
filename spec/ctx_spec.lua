-- What a handler is given: ctx, its log, enqueue and sleep, its arguments exactly as they were sent, and secrets.

local cjson = require "cjson"
local database = require "spec.support.database"
local jobs = require "spec.support.jobs"
local worker = require "spec.support.worker"

local db, folder, w

-- Values that have to arrive as they were sent, as JSON by field.
local EXACT = [==[{
    "large": 9007199254740993, "least": -9223372036854775808, "most": 9223372036854775807, "tenth": 0.1,
    "huge": 1e300, "tiny": 5e-324, "third": 0.3333333333333333, "whole": 3.0, "zero": 0, "empty": "", "list": [],
    "object": {}, "null": null, "emoji": "🌊é\t\"\\", "nested": [[], {}, [null, [1, 2.5]], {"a": {"b": []}}],
    "yes": true, "no": false
}]==]

setup(function()
    db, folder = database.new(), worker.folder()
    folder:task("tells_ctx", [[
        local told = { now = os.time() }
        for name, value in pairs(ctx) do
            if type(value) ~= "userdata" and name ~= "log" then told[name] = value end
        end
        local names = { "scheduled_at", "enqueued_at", "deadline" }
        for _, name in ipairs(names) do told[name .. "_type"] = math.type(ctx[name]) end
        told.tags_array = tidemill.is_array(ctx.tags)
        return told]], [[timeout = 30]])
    folder:task("logs", [[
        for _, level in ipairs { "debug", "info", "warn", "error" } do
            ctx.log[level](ctx.log, "said " .. level, { level_given = level, n = 9007199254740993, half = 0.5,
                list = tidemill.array { 1, "two" }, yes = true, none = tidemill.null, fun = print })
        end
        ctx.log:info("without fields")]])
    folder:task("enqueues", [[
        local id, duplicate, code = ctx:enqueue(args.task, args.args, args.options)
        return { id = id, duplicate = duplicate, code = code }]])
    folder:task("enqueues_together", [[
        local pg = require "tidemill.pg"
        local ids, seen = {}, nil
        local ok = pg.transaction(function(tx)
            for i = 1, 2 do ids[i] = assert(ctx:enqueue("later", { n = i }, { schedule_in = 1000 })) end
            seen = tx:query("select count(*) as n from tidemill.jobs where id in ($1, $2)", ids[1], ids[2])[1].n
            return args.keep
        end)
        local after = pg.query("select count(*) as n from tidemill.jobs where id in ($1, $2)", ids[1], ids[2])[1].n
        return { ok = ok, seen = seen, after = after }]])
    folder:task("enqueues_odd", [[
        local options = { nan = { schedule_in = 0/0 }, unknown = { prioritty = 1 }, negative = { schedule_in = -1 } }
        local _, message, code = ctx:enqueue("target", args.how == "args" and { f = print } or {}, options[args.how])
        return { message = message, code = code }]])
    folder:task("target", "return args", "queue = 'targets', unique_for = 50")
    folder:task("strict", "return args", "args = { user_id = 'string' }")
    folder:task("returns_args", "return args")
    folder:task("sends_args_on", "return { id = assert(ctx:enqueue('returns_args', args)) }")
    folder:task("tells_types", [[
        local types = {}
        for name, value in pairs(args) do
            types[name] = value == tidemill.null and "null" or math.type(value)
                or type(value) == "table" and (tidemill.is_array(value) and "array" or "object") or type(value)
        end
        return types]])
    folder:task("computes", [[
        return { sum = args.large + 1, same = args.tenth == 0.1, huge = args.huge == 1e300, neg = args.neg == 0,
            beyond = args.beyond == 2.0 ^ 64, list = tidemill.array {}, object = {} }]])
    folder:task("uses_cjson", [[
        local cjson = require "cjson"
        return { same = tidemill.null == cjson.null, arg = args.none == cjson.null, text = cjson.encode { 1, 2 },
            decoded = cjson.decode('{"none": null}').none == tidemill.null }]])
    folder:task("sleeps", [[
        local before = require("tidemill.pg").query("select clock_timestamp() as now")[1].now
        ctx:sleep(args.seconds)
        return { before = before, after = require("tidemill.pg").query("select clock_timestamp() as now")[1].now }]])
    folder:task("keeps_secrets", [[
        if args.password ~= "hunter2" then return nil, "the handler did not get it" end
        if args.fail then error "failed" end
        if args.discard then ctx:discard() end
        if args.cancel then ctx:cancel() end
        if args.wait then ctx:sleep(600) end
        return "signed in"]], [[args = { password = "string", n = "integer?" }, secret = { "password" }]])
    jobs.misfit = jobs.enqueue(db, [['keeps_secrets', '{"password": "hunter2", "n": "x"}']])
    jobs.odd_secret = jobs.enqueue(db, [['keeps_secrets', '{"password": 4711470, "n": 1}']])
    w = worker.start(db, folder, "--log-level debug --threads 1")
end)

teardown(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- result runs a task, which has to complete, and returns its result, decoded, and the job.
local function result(task, args)
    local job = jobs.run(db, ("'%s', '%s', max_attempts => 1"):format(task, args or "{}"))
    assert.equal("completed", job.state, job.last_error)
    return job.result and cjson.decode(job.result), job
end

describe("ctx", function()
    it("carries the job's facts", function()
        local job = jobs.run(db, "'tells_ctx', tags => '{a,b c}', priority => 7, max_attempts => 9")
        local told = cjson.decode(job.result)
        assert.equal(job.id, ("%d"):format(told.id))
        assert.same({ "tells_ctx", "default", 1, 9, 7, 1 },
            { told.task, told.queue, told.attempt, told.max_attempts, told.priority, told.run })
        assert.same({ "a", "b c" }, told.tags)
        assert.is_true(told.tags_array)
    end)

    it("has times in Unix seconds with a fraction", function()
        local told, job = result "tells_ctx"
        local times = db:query(([[select extract(epoch from enqueued_at) as enqueued_at,
            extract(epoch from scheduled_at) as scheduled_at, extract(epoch from attempted_at) as started
            from tidemill.jobs where id = %s]]):format(job.id))[1]
        for _, name in ipairs { "enqueued_at", "scheduled_at" } do
            assert.is_true(math.abs(told[name] - tonumber(times[name])) < 1e-5, name)
        end
        for _, name in ipairs { "enqueued_at", "scheduled_at", "deadline" } do
            assert.equal("float", told[name .. "_type"])
        end
        local allowed = told.deadline - tonumber(times.started)
        assert.is_true(allowed > 29.9 and allowed < 33, "the deadline is " .. allowed .. " s after the start")
    end)

    it("has tags that are an empty list when there are none", function()
        assert.matches('"tags": %[%]', jobs.run(db, "'tells_ctx'").result)
    end)
end)

describe("ctx.log", function()
    it("writes a record of each level with the job's fields and the handler's own", function()
        local _, job = result "logs"
        for _, level in ipairs { "debug", "info", "warn", "error" } do
            local r = w:record { message = "said " .. level }
            assert.same({ tonumber(job.id), "logs", 1 }, { r.job, r.task, r.attempt })
            assert.same({ level, level }, { r.level, r.level_given })
            assert.same({ 0.5, { 1, "two" }, true, cjson.null }, { r.half, r.list, r.yes, r.none })
            assert.equal("string", type(r.fun))
        end
        assert.matches('"n":9007199254740993[,}]', w:said())
        w:record { message = "without fields", job = tonumber(job.id) }
    end)
end)

describe("ctx:enqueue", function()
    it("stores a job with every option", function()
        local told = result("enqueues", [[{"task": "target", "args": {"n": 1}, "options": {"schedule_in": 3600,
            "queue": "other", "max_attempts": 3, "unique_for": 60, "unique_key": "k", "priority": 9, "tags": ["t"]}}]])
        assert.is_false(told.duplicate)
        local job = jobs.get(db, told.id)
        assert.same({ "target", "other", "scheduled", "9", "3", '{"n": 1}', "{t}", "k" },
            { job.task, job.queue, job.state, job.priority, job.max_attempts, job.args, job.tags, job.unique_key })
        assert.equal("01:00:00", db:value("select scheduled_at - enqueued_at from tidemill.jobs where id = " .. job.id))
    end)

    it("takes effect with the transaction that is open", function()
        local kept = result("enqueues_together", '{"keep": true}')
        local undone = result("enqueues_together", '{"keep": false}')
        assert.same({ true, 2, 2 }, { kept.ok, kept.seen, kept.after })
        assert.same({ false, 2, 0 }, { undone.ok, undone.seen, undone.after })
    end)

    it("returns the job that stands for a duplicate", function()
        local first = result("enqueues", [[{"task": "target", "args": {"n": 2}}]])
        local second = result("enqueues", [[{"task": "target", "args": {"n": 2}}]])
        assert.same({ first.id, true }, { second.id, second.duplicate })
        assert.equal("targets", jobs.get(db, first.id).queue)
    end)

    it("takes a time, as a number and as text", function()
        for _, given in ipairs { "4102444800", '"2100-01-01T02:00:00+02:00"' } do
            local told = result("enqueues", ([[{"task": "later", "options": {"schedule_at": %s}}]]):format(given))
            assert.equal("4102444800", db:value(("select extract(epoch from scheduled_at)::bigint "
                .. "from tidemill.jobs where id = %d"):format(told.id)))
        end
    end)

    for name, case in pairs {
        ["an unknown option"] = { [[{"task": "target", "options": {"prority": 1}}]], "did you mean priority" },
        ["a wrong type"] = { [[{"task": "target", "options": {"queue": 7}}]], "^queue: " },
        ["a negative delay"] = { [[{"task": "target", "options": {"schedule_in": -1}}]], "^schedule_in: " },
        ["a time that is none"] = { [[{"task": "target", "options": {"schedule_at": "soon"}}]], "^schedule_at: " },
        ["no attempts"] = { [[{"task": "target", "options": {"max_attempts": 0}}]], "^max_attempts: 0 " },
        ["a priority of 101"] = { [[{"task": "target", "options": {"priority": 101}}]], "^priority: 101 " },
        ["an empty task"] = { [[{"task": ""}]], "^task: " },
        ["a list as arguments"] = { [[{"task": "target", "args": [1]}]], "^args: " },
        ["arguments that do not fit"] = { [[{"task": "strict", "args": {"user_id": 42}}]], "^args.user_id: " },
    } do
        it("refuses " .. name .. " as nil, message, code", function()
            local told = result("enqueues", case[1])
            assert.is_nil(told.id)
            assert.matches(case[2], told.duplicate)
            assert.equal("invalid", told.code)
        end)
    end

    it("refuses what only Lua can express", function()
        for how, message in pairs { nan = "^schedule_in: NaN ", unknown = "^prioritty: .*did you mean priority",
            negative = "^schedule_in: %-1 ", args = "^args.f: a function" } do
            local told = result("enqueues_odd", ('{"how": "%s"}'):format(how))
            assert.matches(message, told.message)
            assert.equal("invalid", told.code)
        end
    end)
end)

describe("ctx:sleep", function()
    it("waits for the time given", function()
        local told = result("sleeps", '{"seconds": 0.3}')
        local slept = db:value(("extract(epoch from '%s'::timestamptz - '%s')"):format(told.after, told.before))
        slept = tonumber(slept)
        assert.is_true(slept >= 0.3 and slept < 5, "it slept for " .. slept .. " s")
    end)

    it("does not hold its thread", function() -- of which there is one: one after the other takes 60 s
        db:query [[select tidemill.enqueue('sleeps', '{"seconds": 1.5}', tags => '{together}')
            from generate_series(1, 40)]]
        db:wait_for "(select count(*) from tidemill.jobs where tags = '{together}' and state = 'completed') = 40"
        local took = tonumber(db:value [[select extract(epoch from max(finished_at) - min(attempted_at))
            from tidemill.jobs where tags = '{together}']])
        assert.is_true(took < 20, "40 sleeps of 1.5 s took " .. took .. " s")
    end)
end)

describe("arguments", function()
    -- same says whether two columns of a job are the same text.
    local function same(id, a, b)
        return db:value(("select %s::text = %s::text from tidemill.jobs where id = %s"):format(a, b, id))
    end

    it("come back unchanged from a handler that returns them", function()
        local _, job = result("returns_args", EXACT)
        assert.equal("true", same(job.id, "args", "result"))
        assert.equal("true", db:value(([[select args::text = '%s'::jsonb::text from tidemill.jobs where id = %s]])
            :format(EXACT, job.id)))
    end)

    it("come back unchanged from one that enqueues them again", function()
        local told, job = result("sends_args_on", EXACT)
        local again = jobs.rested(db, told.id)
        assert.equal(job.args, again.args)
        assert.equal(job.args, again.result)
    end)

    it("keep value and subtype", function()
        assert.same({
            large = "integer", least = "integer", most = "integer", tenth = "float", huge = "float", tiny = "float",
            third = "float", whole = "float", zero = "integer", empty = "string", list = "array", object = "object",
            null = "null", emoji = "string", nested = "array", yes = "boolean", no = "boolean",
        }, (result("tells_types", EXACT)))
    end)

    it("are numbers to compute with", function()
        local _, job = result("computes",
            '{"large": 9007199254740993, "tenth": 0.1, "huge": 1e300, "neg": -0.0, "beyond": 18446744073709551616}')
        assert.equal('{"neg": true, "sum": 9007199254740994, "huge": true, "list": [], "same": true, "beyond": true, '
            .. '"object": {}}', job.result)
    end)

    it("come with nesting to 100", function()
        local deep = ("["):rep(97) .. ("]"):rep(97)
        local _, job = result("returns_args", ('{"deep": %s}'):format(deep))
        assert.equal(job.args, job.result)
    end)
end)

it("cjson can be required, and its null is ours", function()
    assert.same({ same = true, arg = true, text = "[1,2]", decoded = true }, (result("uses_cjson", '{"none": null}')))
end)

describe("a secret argument", function()
    -- shown returns all that anybody can read about a job.
    local function shown(id)
        return db:value(([[jsonb_build_array((select jsonb_agg(j) from tidemill.jobs j where id = %s),
            (select jsonb_agg(a) from tidemill.attempts a where job_id = %s),
            (select jsonb_agg(d) from tidemill.dead_letters d where id = %s))]]):format(id, id, id))
            .. db:tidemill("jobs show --json " .. id)
    end

    for state, extra in pairs { completed = "", dead = ', "fail": true', cancelled = ', "cancel": true' } do
        it("reaches the handler and is not shown of a job that is " .. state, function()
            local args = '{"password": "hunter2"' .. extra .. "}"
            local job = jobs.run(db, ("'keeps_secrets', '%s', max_attempts => 1"):format(args))
            assert.equal(state, job.state, job.last_error)
            assert.not_matches("did not get it", job.last_error or "")
            assert.equal("[secret]", cjson.decode(job.args).password)
            assert.not_matches("hunter2", shown(job.id))
        end)
    end

    it("is not shown while the job waits, is due, or runs", function()
        local args = '{"password": "hunter2", "wait": true}'
        for state, options in pairs { scheduled = "schedule_in => '1 hour'", available = "queue => 'unserved'",
            running = "tags => '{}'" } do
            local id = jobs.enqueue(db, ("'keeps_secrets', '%s', %s"):format(args, options))
            db:wait_for(("(select state from tidemill.jobs where id = %s) = '%s'"):format(id, state))
            assert.not_matches("hunter2", shown(id))
        end
    end)

    it("is not shown where the arguments do not fit", function()
        local job = jobs.rested(db, jobs.misfit)
        assert.matches("^args%.n: ", job.last_error)
        assert.not_matches("hunter2", shown(job.id))
        job = jobs.rested(db, jobs.odd_secret)
        assert.matches("^args%.password: an integer is not allowed", job.last_error)
        assert.not_matches("4711470", shown(job.id))
        local refusal = db:refusal [[select tidemill.enqueue('keeps_secrets', '{"password": 4711470}')]]
        assert.not_matches("4711470", refusal.message)
    end)

    it("is in no log", function()
        assert.not_matches("hunter2", w:said())
        assert.not_matches("4711470", w:said())
    end)
end)
