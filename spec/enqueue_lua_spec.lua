-- client:enqueue and client:enqueue_many of require "tidemill": options, arguments, checks. Connections and
-- transactions are in client_lua_spec.lua; that what the database checks is complete, in enqueue_sql_spec.lua.

local database = require "spec.support.database"
local new_worker = require("spec.support.played").new
local cjson = require "cjson"
local tidemill = require "tidemill"

local db, client

setup(function()
    db = database.new()
    client = assert(tidemill.connect(db.url))
end)

teardown(function()
    client:close()
    db:drop()
end)

-- enqueued stores a job and returns its row in tidemill.jobs, with `delay`, the time from its enqueue to its start.
local function enqueued(task, args, options)
    local id, duplicate, code = client:enqueue(task, args, options)
    assert.equal("integer", math.type(id), duplicate)
    assert.is_false(duplicate)
    assert.is_nil(code)
    return db:query("select *, extract(epoch from scheduled_at - enqueued_at)::float8 as delay from tidemill.jobs "
        .. "where id = " .. id)[1]
end

-- stored counts the jobs, over the client's own connection, since there is much to be counted.
local function stored()
    return assert(client:transaction(function(tx) return tx:exec "select count(*) as n from tidemill.jobs" end))[1].n
end

-- assert_refused checks that a call, of the client's method, is answered with an error, and stored nothing.
local function assert_refused(message, method, ...)
    local before = stored()
    assert.same({ n = 3, nil, message, "invalid" }, table.pack(client[method](client, ...)))
    assert.equal(before, stored())
end

describe("client:enqueue", function()
    it("stores a job with the defaults when nothing but the task is given", function()
        local job = enqueued "plain"
        assert.same({ "plain", "default", "available", "1", "25", "{}", "{}", "0" }, {
            job.task, job.queue, job.state, job.priority, job.max_attempts, job.args, job.tags, job.delay,
        })
        assert.is_nil(job.unique_key)
        assert.equal("{}", enqueued("plain", nil, {}).args)
    end)

    it("takes every option", function()
        local job = enqueued("named", { b = 1, a = { tidemill.null } }, {
            schedule_in = 90.5, queue = "fast", max_attempts = 1000, unique_for = 3600, unique_key = "k1", priority = 0,
            tags = { "a", 'b "c" \\' },
        })
        assert.same({ "named", "fast", "scheduled", "0", "1000" },
            { job.task, job.queue, job.state, job.priority, job.max_attempts })
        assert.same({ '{"a": [null], "b": 1}', [[{a,"b \"c\" \\"}]], "k1", "90.5" },
            { job.args, job.tags, job.unique_key, job.delay })
    end)

    it("takes times as Unix seconds and as RFC 3339 text", function()
        local times = {
            [4076668800] = "2099-03-08 16:00:00+00", [4076668800.5] = "2099-03-08 16:00:00.5+00",
            ["2099-03-08T16:00:00Z"] = "2099-03-08 16:00:00+00",
            ["2099-03-08t16:00:00.000001z"] = "2099-03-08 16:00:00.000001+00",
            ["2099-03-08 16:00:00+02:30"] = "2099-03-08 13:30:00+00",
            ["2099-03-08T16:00:00.25-11"] = "2099-03-09 03:00:00.25+00",
        }
        for given, expected in pairs(times) do
            assert.equal(expected, enqueued("at", nil, { schedule_at = given }).scheduled_at)
        end
    end)

    it("takes a past time as now", function()
        for _, past in ipairs { 0, -1.5, -62135596800, "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z" } do
            local job = enqueued("past", nil, { schedule_at = past })
            assert.same({ "available", "0" }, { job.state, job.delay })
        end
    end)

    it("accepts every option at its bounds", function()
        local job = enqueued(("t"):rep(100), {}, {
            schedule_in = 3155760000, queue = ("q"):rep(100), max_attempts = 1, unique_for = 315576000.0,
            unique_key = ("k"):rep(200), priority = 100.0, tags = {},
        })
        assert.same({ "3155760000", "1", "100", "{}" }, { job.delay, job.max_attempts, job.priority, job.tags })
        assert.same({ 100, 100, 200 }, { #job.task, #job.queue, #job.unique_key })
        local tags = tidemill.array {}
        for i = 1, 20 do tags[i] = ("g"):rep(98) .. ("%02d"):format(i) end
        local job_of_20 = enqueued("bounds", {}, { tags = tags, schedule_in = 0 })
        assert.equal("{" .. table.concat(tags, ",") .. "}", job_of_20.tags)
        enqueued("bounds", {}, { unique_key = "short", unique_for = 1e-9 })
    end)

    it("leaves to the declaration what is not given, and overrides it with what is", function()
        new_worker(db):publish [[ [{"name": "declared", "queue": "slow", "priority": 7, "max_attempts": 3,
            "tags": ["t"], "unique_for_ms": 3600000, "args": [{"name": "s", "type": "string", "optional": false}]}] ]]
        local job = enqueued("declared", { s = "" })
        assert.same({ "slow", "7", "3", "{t}" }, { job.queue, job.priority, job.max_attempts, job.tags })
        assert.same({ math.tointeger(job.id), true }, { client:enqueue("declared", { s = "" }) })
        job = enqueued("declared", { s = "x" }, { queue = "q", priority = 1, max_attempts = 25, tags = {} })
        assert.same({ "q", "1", "25", "{}" }, { job.queue, job.priority, job.max_attempts, job.tags })
        assert_refused("args.s: nothing is not allowed; give the string that the task declares",
            "enqueue", "declared", {})
    end)

    it("returns the id of the job that stands for a key, and true", function()
        local id = client:enqueue("unique", { n = 1 }, { unique_key = "k" })
        assert.same({ id, true }, { client:enqueue("unique", { n = 2 }, { unique_key = "k" }) })
        assert.same({ id, true }, { client:enqueue("unique", { n = 2 }, { unique_key = "k", unique_for = 3600 }) })
        local by_args = client:enqueue("unique", { a = 1, b = { 2 } }, { unique_for = 3600 })
        assert.same({ by_args, true }, { client:enqueue("unique", { b = { 2 }, a = 1 }, { unique_for = 3600 }) })
        enqueued("unique", { b = { 3 }, a = 1 }, { unique_for = 3600 })
        db:query("update tidemill.unique_job set enqueued_at = enqueued_at - interval '1 hour' where job = " .. by_args)
        assert.same({ by_args, true }, { client:enqueue("unique", { a = 1, b = { 2 } }, { unique_for = 3660.5 }) })
        enqueued("unique", { a = 1, b = { 2 } }, { unique_for = 3599.999 })
    end)
end)

describe("what is refused by client:enqueue", function()
    local IN = "give seconds as a number, 0 to 3155760000 (100 years)"
    local AT = "give Unix seconds, or a time such as 2030-01-31T08:00:00Z"
    local AT_NUMBER = AT .. ", in the years 1 to 9999"
    local FOR = "give seconds as a number, above 0, to 315576000 (10 years)"
    local ATTEMPTS, PRIORITY = "give a whole number from 1 to 1000", "give a whole number from 0 to 100"
    local TOO_MANY = {}
    for i = 1, 21 do TOO_MANY[i] = "g" end
    local FAR_TOO_MANY = {}
    for i = 1, 500 do FAR_TOO_MANY[i] = "g" end

    it("is a task that is none", function()
        assert_refused("task: nothing was given; give the name of a task", "enqueue")
        assert_refused("task: a number is not allowed; give the name of a task", "enqueue", 1)
        assert_refused("task: an empty name is not allowed; give 1 to 100 bytes", "enqueue", "")
        assert_refused("task: a name of 102 bytes is not allowed; give 1 to 100 bytes", "enqueue", ("ü"):rep(51))
        assert_refused("task: the name is not valid UTF-8 without NUL; give such text", "enqueue", "a\0b")
        assert_refused("task: the name is not valid UTF-8 without NUL; give such text", "enqueue", "\xff")
    end)

    -- By option, each value with what the message says after the option's name.
    local refusals = {
        schedule_in = {
            { "60", "a string is not allowed; " .. IN }, { -1, "-1 is not allowed; " .. IN },
            { -0.001, "-0.001 is not allowed; " .. IN }, { 0 / 0, "NaN is not allowed; " .. IN },
            { math.huge, "infinity is not allowed; " .. IN }, { 3155760001, "3155760001 is not allowed; " .. IN },
            { math.maxinteger, "9223372036854775807 is not allowed; " .. IN },
        },
        schedule_at = {
            { true, "a boolean is not allowed; " .. AT },
            { 0 / 0, "NaN is not allowed; " .. AT_NUMBER },
            { -math.huge, "-infinity is not allowed; " .. AT_NUMBER },
            { 1e300, "1e+300 is not allowed; " .. AT_NUMBER },
            { math.mininteger, "-9223372036854775808 is not allowed; " .. AT_NUMBER },
            { "soon", '"soon" is not a time; ' .. AT }, { "", '"" is not a time; ' .. AT },
            { "2099-02-30T00:00:00Z", '"2099-02-30T00:00:00Z" is not a time; ' .. AT },
            { "2099-02-28T00:00:00", '"2099-02-28T00:00:00" is not a time; ' .. AT },
            { "2099-02-28T24:00:00Z", '"2099-02-28T24:00:00Z" is not a time; ' .. AT },
            { "2099-02-28T00:00:00Z\0", '"2099-02-28T00:00:00Z\\x00" is not a time; ' .. AT },
            { "2999-01-01T00:00:00Z", "2999-01-01 00:00:00+00 is not allowed; give a time at most 100 years away" },
        },
        queue = {
            { 1, "a number is not allowed; give a string" },
            { "", "an empty name is not allowed; give 1 to 100 bytes" },
            { ("q"):rep(101), "a name of 101 bytes is not allowed; give 1 to 100 bytes" },
            { "\xc0\x80", "the name is not valid UTF-8 without NUL; give such text" },
            { "q\0", "the name is not valid UTF-8 without NUL; give such text" },
        },
        max_attempts = {
            { "5", "a string is not allowed; " .. ATTEMPTS }, { 0, "0 is not allowed; " .. ATTEMPTS },
            { 1001, "1001 is not allowed; " .. ATTEMPTS }, { 1.5, "1.5 is not allowed; " .. ATTEMPTS },
            { 0 / 0, "NaN is not allowed; " .. ATTEMPTS }, { 1 << 32 | 1, "4294967297 is not allowed; " .. ATTEMPTS },
        },
        unique_for = {
            { "60", "a string is not allowed; " .. FOR }, { 0, "0 is not allowed; " .. FOR },
            { -1, "-1 is not allowed; " .. FOR },
            { 0 / 0, "NaN is not allowed; " .. FOR }, { math.huge, "infinity is not allowed; " .. FOR },
            { 315576001, "315576001 is not allowed; " .. FOR },
        },
        unique_key = {
            { 1, "a number is not allowed; give a string" },
            { "", "an empty key is not allowed; give 1 to 200 bytes" },
            { ("k"):rep(201), "a key of 201 bytes is not allowed; give 1 to 200 bytes" },
            { "\xed\xa0\x80", "the key is not valid UTF-8 without NUL; give such text" },
        },
        priority = {
            { "1", "a string is not allowed; " .. PRIORITY }, { -1, "-1 is not allowed; " .. PRIORITY },
            { 101, "101 is not allowed; " .. PRIORITY }, { 1e300, "1e+300 is not allowed; " .. PRIORITY },
            { 1 << 32, "4294967296 is not allowed; " .. PRIORITY },
        },
        tags = {
            { "a", "a string is not allowed; give a list of strings" },
            { { 1 }, "a number is not allowed; give a string" },
            { { "a", "" }, "an empty tag is not allowed; give 1 to 100 bytes" },
            { { ("g"):rep(101) }, "a tag of 101 bytes is not allowed; give 1 to 100 bytes" },
            { { "a\0b" }, "the tag is not valid UTF-8 without NUL; give such text" },
            { TOO_MANY, "21 tags are not allowed; give at most 20" },
            { FAR_TOO_MANY, "500 tags are not allowed; give at most 20" },
            { { "a", b = "c" }, "a table with other keys than 1, 2, ... is not allowed; give a list of strings" },
            { { [2] = "a" }, "a table with other keys than 1, 2, ... is not allowed; give a list of strings" },
        },
    }
    for option, cases in pairs(refusals) do
        for i, case in ipairs(cases) do
            it(("is %s number %d"):format(option, i), function()
                assert_refused(option .. ": " .. case[2], "enqueue", "t", {}, { [option] = case[1] })
            end)
        end
    end

    it("is a delay together with a time", function()
        assert_refused("schedule_at: not allowed together with schedule_in; give one of the two",
            "enqueue", "t", {}, { schedule_in = 1, schedule_at = 4e9 })
    end)

    it("is an unknown option, with the nearest suggested, or all", function()
        local ALL = "there are schedule_in, schedule_at, queue, max_attempts, unique_for, unique_key, priority and tags"
        for given, answer in pairs {
            shedule_in = "did you mean schedule_in?", max_attempt = "did you mean max_attempts?",
            tag = "did you mean tags?", unique_fro = "did you mean unique_for?", timeout = ALL, ["queue\0"] = ALL,
        } do
            assert_refused(given:gsub("%z", "\\x00") .. ": there is no such option; " .. answer,
                "enqueue", "t", {}, { [given] = 1 })
        end
    end)

    it("is options that are no table of names", function()
        assert_refused("options: a number is not allowed; give a table", "enqueue", "t", {}, 60)
        assert_refused("options: a number as a key is not allowed; give names such as queue",
            "enqueue", "t", {}, { 60 })
        assert_refused("options: a boolean as a key is not allowed; give names such as queue",
            "enqueue", "t", {}, { [true] = 60 })
    end)
end)

-- nested returns a value in so many tables, one inside the other.
local function nested(levels, value)
    for _ = 1, levels do value = { v = value } end
    return value
end

describe("the arguments", function()
    -- What is given as args.v, what the database shows, and what comes back (by default the same).
    local values = {
        { 9007199254740993, "9007199254740993" }, { math.mininteger, "-9223372036854775808" },
        { math.maxinteger, "9223372036854775807" }, { 0, "0" }, { 0.1, "0.1" }, { 1.0, "1.0" }, { -2.5, "-2.5" },
        { -0.0, "0.0", 0.0 }, { 1e15, "1000000000000000.0" }, { 2.0 ^ 63, "9223372036854775808.0" },
        { 1e300, "1" .. ("0"):rep(300) }, { 1 / 3, "0.3333333333333333" }, { 123456.789e-300 }, { 5e-324 },
        { 0x1.fffffffffffffp1023 }, { "", '""' }, { "😀", '"😀"' }, { 'a "b" \\ \n\t\1\u{7f}\u{10ffff}' },
        { true, "true" }, { false, "false" }, { tidemill.null, "null" }, { cjson.null, "null" },
    }
    for i, case in ipairs(values) do
        it(("cross exactly, both ways: number %d"):format(i), function()
            local given, shown, expected = case[1], case[2], case[3]
            if expected == nil then expected = given end
            local job = enqueued("values", { v = given })
            if shown then assert.equal(('{"v": %s}'):format(shown), job.args) end
            local back = assert(client:transaction(function(tx)
                return tx:exec("select args from tidemill.jobs where id = $1", math.tointeger(job.id))
            end))[1].args.v
            assert.same({ math.type(expected), expected }, { math.type(back), back })
            assert.equal(("%a"):format(tonumber(expected) or 0), ("%a"):format(tonumber(back) or 0))
        end)
    end

    it("tell lists from objects", function()
        local args = {
            list = { 1, { 2 } }, object = { a = 1 }, empty = {}, none = tidemill.array {}, new = tidemill.array(),
            ["a key"] = { [""] = 1 },
        }
        local job = enqueued("tables", args)
        assert.equal('{"new": [], "list": [1, [2]], "none": [], "a key": {"": 1}, "empty": {}, "object": {"a": 1}}',
            job.args)
        local back = assert(client:transaction(function(tx)
            return tx:exec("select args from tidemill.jobs where id = $1", math.tointeger(job.id))
        end))[1].args
        local is_array = tidemill.is_array
        assert.is_true(is_array(back.none) and is_array(back.list) and is_array(back.list[2]))
        assert.is_false(is_array(back.empty) or is_array(back.object) or is_array(back))
        assert.equal(job.args, enqueued("tables again", back).args)
    end)

    it("have the same null as cjson", function()
        assert.equal(cjson.null, tidemill.null)
        assert.equal('{"a": [null, ""]}', enqueued("null", { a = cjson.decode '[null, ""]' }).args)
    end)

    it("may be nested to 100 levels", function()
        assert.equal(("{\"v\": "):rep(100) .. "1" .. ("}"):rep(100), enqueued("deep", nested(100, 1)).args)
        assert_refused("args: nested deeper than 100 levels, or contains itself",
            "enqueue", "deep", nested(101, 1))
        local circle = {}
        circle.circle = circle
        assert_refused("args: nested deeper than 100 levels, or contains itself", "enqueue", "deep", circle)
    end)

    it("may be 64 KiB, as the database counts, unless a setting says otherwise", function()
        enqueued("large", { v = ("a"):rep(65527) })
        assert_refused("args: an object of 65537 bytes is not allowed; give at most 65536 bytes",
            "enqueue", "large", { v = ("a"):rep(65528) })
        db:query "update tidemill.setting set value = 100000 where name = 'max_args_bytes'"
        finally(function() db:query "update tidemill.setting set value = 65536 where name = 'max_args_bytes'" end)
        enqueued("large", { v = ("a"):rep(65528) })
    end)

    it("are refused when they are no table with named fields", function()
        assert_refused("args: a string is not allowed; give a table with named fields", "enqueue", "t", "{}")
        assert_refused("args: a userdata is not allowed; give a table with named fields",
            "enqueue", "t", tidemill.null)
        assert_refused("args: a list is not allowed; give a table with named fields", "enqueue", "t", { 1 })
        assert_refused("args: a list is not allowed; give a table with named fields",
            "enqueue", "t", tidemill.array {})
    end)

    local KEY = "has a key that is neither a string nor a place in a list; JSON has no such form"
    local odd = { [true] = 1 } -- after some of the fields, whatever their order
    for i = 1, 20 do odd["field" .. i] = i end
    local refusals = {
        { { v = 0 / 0 }, "args.v: NaN has no JSON form" },
        { { v = { math.huge } }, "args.v[1]: an infinite number has no JSON form" },
        { { v = -math.huge }, "args.v: an infinite number has no JSON form" },
        { { 1, v = 1 }, "args: has both a list's items and named fields; JSON has no such form" },
        { { v = { 1, w = 1 } }, "args.v: has both a list's items and named fields; JSON has no such form" },
        { { v = { 1, nil, 3 } }, "args.v: is a list of 3 with nothing at 2; fill its holes with tidemill.null" },
        { { v = { [0] = 1 } }, "args.v: " .. KEY },
        { { v = { [true] = 1 } }, "args.v: " .. KEY },
        { { v = odd }, "args.v: " .. KEY },
        { { v = print }, "args.v: a function has no JSON form" },
        { { v = io.stdout }, "args.v: a userdata has no JSON form" },
        { { v = "\xff" }, "args.v: a string that is not valid UTF-8 has no JSON form" },
        { { v = "\xed\xa0\x80" }, "args.v: a string that is not valid UTF-8 has no JSON form" },
        { { v = "a\0b" }, "args.v: a string with a NUL byte cannot be stored" },
        { { ["\xff"] = 1 }, "args: a key that is not valid UTF-8 has no JSON form" },
        { { v = { ["a\0"] = 1 } }, "args.v: a key with a NUL byte cannot be stored" },
    }
    for i, case in ipairs(refusals) do
        it(("are refused: number %d"):format(i), function()
            assert_refused(case[2], "enqueue", "t", case[1])
            local many = case[2]:gsub("^args", "args[2]")
            assert_refused(many, "enqueue_many", "t", { {}, case[1] })
        end)
    end
end)

describe("client:enqueue_many", function()
    it("stores a job for each of the arguments, in their order, all with the same options", function()
        local list = {}
        for i = 1, 1000 do list[i] = { n = i } end
        local jobs = assert(client:enqueue_many("many", list, { queue = "m", priority = 5, tags = { "t" } }))
        assert.equal(1000, #jobs)
        local rows = db:query [[
            select id, args ->> 'n' as n, queue, priority, tags from tidemill.jobs where task = 'many' order by id]]
        for i, row in ipairs(rows) do
            assert.same({ id = math.tointeger(row.id), duplicate = false }, jobs[i])
            assert.same({ tostring(i), "m", "5", "{t}" }, { row.n, row.queue, row.priority, row.tags })
        end
    end)

    it("tells each duplicate", function()
        local id = client:enqueue("several", { n = 2 }, { unique_for = 3600 })
        local jobs = client:enqueue_many("several", { { n = 1 }, { n = 2 }, { n = 1 } }, { unique_for = 3600 })
        assert.same({ false, true, true }, { jobs[1].duplicate, jobs[2].duplicate, jobs[3].duplicate })
        assert.same({ id, jobs[1].id }, { jobs[2].id, jobs[3].id })
    end)

    it("stores nothing when one of them is refused, by the client or by the database", function()
        assert_refused("args[2]: a number is not allowed; give a table with named fields",
            "enqueue_many", "t", { {}, 1 })
        assert_refused("args[3]: a list is not allowed; give a table with named fields",
            "enqueue_many", "t", { {}, {}, { 1 } })
        assert_refused("args: an object of 65537 bytes is not allowed; give at most 65536 bytes",
            "enqueue_many", "t", { {}, { v = ("a"):rep(65528) } })
    end)

    it("refuses what is no list", function()
        local WANTED = "give a list of tables with named fields"
        assert_refused("args: nothing was given; " .. WANTED, "enqueue_many", "t")
        assert_refused("args: a string is not allowed; " .. WANTED, "enqueue_many", "t", "[]")
        local KEYS = "args: a table with other keys than 1, 2, ... is not allowed; " .. WANTED
        assert_refused(KEYS, "enqueue_many", "t", { n = 1 })
        assert_refused(KEYS, "enqueue_many", "t", { [2] = {} })
        assert_refused(KEYS, "enqueue_many", "t", { {}, n = 1 })
    end)

    it("checks task and options also when there is nothing to store", function()
        assert.same({}, client:enqueue_many("none", {}))
        assert_refused("priority: 101 is not allowed; give a whole number from 0 to 100",
            "enqueue_many", "none", {}, { priority = 101 })
        assert_refused("task: an empty name is not allowed; give 1 to 100 bytes", "enqueue_many", "", {})
        assert_refused("task: a number is not allowed; give the name of a task", "enqueue_many", 1, {})
        assert_refused("task: the name is not valid UTF-8 without NUL; give such text", "enqueue_many", "a\0b", {})
    end)
end)
