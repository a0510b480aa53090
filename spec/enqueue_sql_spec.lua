-- tidemill.enqueue and enqueue_many as applications call them in SQL: options, checks, transactions. Unique keys are in
-- unique_sql_spec.lua.

local database = require "spec.support.database"
local new_worker = require("spec.support.played").new

local db, worker

setup(function()
    db = database.new()
    worker = new_worker(db)
end)

teardown(function() db:drop() end)

-- enqueued stores a job, of which the arguments of tidemill.enqueue are given as SQL, and returns its row in
-- tidemill.jobs.
local function enqueued(arguments)
    local answer = db:query("select * from tidemill.enqueue(" .. arguments .. ")")[1]
    assert.equal("f", answer.duplicate)
    return db:query("select * from tidemill.jobs where id = " .. answer.id)[1]
end

-- stored returns all that a call can have changed, as one text.
local function stored()
    return db:value [[
        (select count(*) || ' jobs ' from tidemill.jobs) || (select count(*) || ' keys ' from tidemill.unique_job)
            || (select count(*) || ' lanes' from tidemill.lane)]]
end

-- refused calls tidemill.enqueue, or another function, which has to fail and to leave nothing behind, also where the
-- caller catches the error.
local function refused(arguments, called)
    local call = ("tidemill.%s(%s)"):format(called or "enqueue", arguments)
    local before = stored()
    local refusal = db:refusal("select * from " .. call)
    assert.equal(before, stored())
    return refusal
end

-- assert_refused checks that a call fails in the way of Tidemill's own checks.
local function assert_refused(arguments, column, shown, allowed, called)
    local message = ("%s: %s is not allowed; give %s"):format(column, shown, allowed)
    assert.same({ sqlstate = "22023", column = column, message = message }, refused(arguments, called))
end

describe("tidemill.enqueue", function()
    it("returns the job's id, a bigint, and whether it was a duplicate, a boolean", function()
        local types = db:query [[
            select pg_typeof(id) as id, pg_typeof(duplicate) as duplicate from tidemill.enqueue('shape')]]
        assert.same({ { id = "bigint", duplicate = "boolean" } }, types)
    end)

    it("stores a job with the defaults when nothing but the task is given", function()
        local job = enqueued "'plain'"
        assert.same({
            task = "plain", queue = "default", state = "available", priority = "1", attempt = "0", max_attempts = "25",
            args = "{}", tags = "{}",
        }, {
            task = job.task, queue = job.queue, state = job.state, priority = job.priority, attempt = job.attempt,
            max_attempts = job.max_attempts, args = job.args, tags = job.tags, unique_key = job.unique_key,
        })
        assert.equal(job.enqueued_at, job.scheduled_at)
        assert.equal("true", db:value(("select enqueued_at between now() - interval '1 minute' and now() from " ..
            "tidemill.jobs where id = %s"):format(job.id)))
    end)

    it("takes every option by its name, in any order", function()
        local job = enqueued [[tags => array['a', 'b c'], priority => 0, max_attempts => 1000, queue => 'fast',
            unique_key => 'k1', unique_for => interval '1 hour', schedule_in => interval '90 minutes',
            args => '{"b": 1, "a": [null]}', task => 'named']]
        assert.same({ "named", "fast", "scheduled", "0", "1000", '{"a": [null], "b": 1}', '{a,"b c"}', "k1" }, {
            job.task, job.queue, job.state, job.priority, job.max_attempts, job.args, job.tags, job.unique_key,
        })
        assert.equal("01:30:00", db:value("select scheduled_at - enqueued_at from tidemill.jobs where id = " .. job.id))
    end)

    it("schedules at a time, and at once when that is past", function()
        local job = enqueued "'at', schedule_at => '2099-02-28 12:00:00.000001+00'"
        assert.equal("scheduled", job.state)
        assert.equal("2099-02-28 12:00:00.000001+00",
            db:value("select scheduled_at from tidemill.jobs where id = " .. job.id))
        job = enqueued "'at', schedule_at => '1999-01-01 00:00:00+00'"
        assert.equal("available", job.state)
        assert.equal(job.enqueued_at, job.scheduled_at)
        assert.equal("available", enqueued("'at', schedule_in => interval '0'").state)
    end)

    it("accepts every option at its bounds", function()
        local job = enqueued [[repeat('t', 100), '{}', schedule_in => interval '36525 days', queue => repeat('q', 100),
            max_attempts => 1, unique_for => interval '87660 hours', unique_key => repeat('k', 200), priority => 100,
            tags => array_fill(repeat('g', 100), array[20])]]
        assert.same({ "scheduled", "1", "100" }, { job.state, job.max_attempts, job.priority })
        assert.same({ "100", "100", "200", "20" }, {
            tostring(#job.task), tostring(#job.queue), tostring(#job.unique_key),
            db:value("select cardinality(tags) from tidemill.jobs where id = " .. job.id),
        })
        assert.equal("{}", enqueued("'bounds', tags => '{}'").tags)
        assert.equal("scheduled", enqueued("'bounds', schedule_at => now() + interval '36524 days'").state)
    end)

    it("keeps what an option was given as, whatever its task declares", function()
        worker:publish [[ [{"name": "declared", "queue": "slow", "priority": 7, "max_attempts": 3, "tags": ["t"]}] ]]
        local job = enqueued "'declared', queue => 'q', priority => 1, max_attempts => 25, tags => '{}'"
        assert.same({ "q", "1", "25", "{}" }, { job.queue, job.priority, job.max_attempts, job.tags })
        local claimed = worker:claim("declared", "q")
        assert.same({ job.id, "1", "25", "{}" }, { claimed.id, claimed.priority, claimed.max_attempts, claimed.tags })
    end)
end)

describe("an option that is not given", function()
    it("is resolved from the declaration that is in force when the job is claimed", function()
        worker:publish [[ [{"name": "late", "priority": 7, "max_attempts": 3, "tags": ["first"]}] ]]
        local job = enqueued "'late'"
        assert.same({ "7", "3", "{first}" }, { job.priority, job.max_attempts, job.tags })
        worker:publish [[ [{"name": "late", "priority": 9, "max_attempts": 4, "tags": ["second"]}] ]]
        local claimed = worker:claim "late"
        assert.same({ job.id, "9", "4", "{second}" },
            { claimed.id, claimed.priority, claimed.max_attempts, claimed.tags })
    end)

    it("is resolved from the defaults when the task declares nothing by then", function()
        worker:publish [[ [{"name": "bare", "priority": 7, "max_attempts": 3, "tags": ["first"]}] ]]
        local job = enqueued "'bare'"
        worker:publish [[ [{"name": "bare"}] ]]
        local claimed = worker:claim "bare"
        assert.same({ job.id, "1", "25", "{}" }, { claimed.id, claimed.priority, claimed.max_attempts, claimed.tags })
    end)

    it("is the declared queue and window of the time of the enqueue", function()
        worker:publish [[ [{"name": "early", "queue": "one", "unique_for_ms": 3600000}] ]]
        local job = enqueued "'early'"
        assert.equal("one", job.queue)
        worker:publish [[ [{"name": "early", "queue": "two"}] ]]
        assert.equal("one", db:value("select queue from tidemill.jobs where id = " .. job.id))
        assert.equal("two", enqueued("'early'").queue)
        worker:publish [[ [{"name": "early", "queue": "two", "unique_for_ms": 3600000}] ]]
        assert.same({ { id = job.id, duplicate = "t" } }, db:query "select * from tidemill.enqueue('early')")
    end)

    it("is what the newest declaration says, with a task that nobody has published accepted", function()
        local job = enqueued "'unpublished', '{\"any\": 1}'"
        assert.equal("available", job.state)
        assert.is_nil(worker:claim "another")
        worker:publish [[ [{"name": "unpublished", "max_attempts": 2}] ]]
        assert.same({ job.id, "2" }, { (function(c) return c.id, c.max_attempts end)(worker:claim "unpublished") })
    end)
end)

describe("what is refused by tidemill.enqueue", function()
    local HUNDRED = "1 to 100 bytes"
    local WHEN = "a time at most 100 years away"
    local refusals = {
        { "no task", "null", "task", "null", HUNDRED },
        { "an empty task", "''", "task", "an empty text", HUNDRED },
        { "an overlong task", "repeat('ü', 51)", "task", "a text of 102 bytes", HUNDRED },
        { "an empty queue", "'t', queue => ''", "queue", "an empty text", HUNDRED },
        { "an overlong queue", "'t', queue => repeat('q', 101)", "queue",
            "a text of 101 bytes", HUNDRED },
        { "an empty key", "'t', unique_key => ''", "unique_key",
            "an empty text", "1 to 200 bytes" },
        { "an overlong key", "'t', unique_key => repeat('k', 201)", "unique_key",
            "a text of 201 bytes", "1 to 200 bytes" },
        { "a negative delay", "'t', schedule_in => interval '-1 second'", "schedule_in",
            "-00:00:01", "an interval from 0 to 100 years" },
        { "a delay of more than 100 years", "'t', schedule_in => interval '36525 days 1 second'", "schedule_in",
            "36525 days 00:00:01", "an interval from 0 to 100 years" },
        { "a delay together with a time", "'t', schedule_in => '1 s', schedule_at => '2099-01-01 00:00:00+00'",
            "schedule_at", "2099-01-01 00:00:00+00", "either schedule_at or schedule_in, not both" },
        { "an infinite time", "'t', schedule_at => 'infinity'", "schedule_at",
            "infinity", WHEN },
        { "an infinite past", "'t', schedule_at => '-infinity'", "schedule_at",
            "-infinity", WHEN },
        { "a time more than 100 years away", "'t', schedule_at => '2999-01-01 00:00:00+00'", "schedule_at",
            "2999-01-01 00:00:00+00", WHEN },
        { "attempts below 1", "'t', max_attempts => 0", "max_attempts",
            "0", "a whole number from 1 to 1000" },
        { "attempts above 1000", "'t', max_attempts => 1001", "max_attempts",
            "1001", "a whole number from 1 to 1000" },
        { "a priority below 0", "'t', priority => -1", "priority",
            "-1", "a whole number from 0 to 100" },
        { "a priority above 100", "'t', priority => 101", "priority",
            "101", "a whole number from 0 to 100" },
        { "a window of nothing", "'t', unique_for => interval '0'", "unique_for",
            "00:00:00", "an interval above 0, to 10 years" },
        { "a window of more than 10 years", "'t', unique_for => interval '87660 hours 1 second'", "unique_for",
            "87660:00:01", "an interval above 0, to 10 years" },
        { "too many tags", "'t', tags => array_fill('g'::text, array[21])", "tags",
            "a list of 21", "at most 20 tags" },
        { "an empty tag", "'t', tags => array['a', '']", "tags", "an empty text", HUNDRED },
        { "an overlong tag", "'t', tags => array[repeat('g', 101)]", "tags",
            "a text of 101 bytes", HUNDRED },
        { "a tag that is null", "'t', tags => array['a', null]", "tags", "null", HUNDRED },
        { "tags of two dimensions", "'t', tags => array[['a'], ['b']]", "tags",
            "an array with the bounds [1:2][1:1]", "a list of texts" },
        { "tags that begin elsewhere", "'t', tags => '[0:1]={a,b}'", "tags",
            "an array with the bounds [0:1]", "a list of texts" },
    }
    for _, refusal in ipairs(refusals) do
        local what, arguments, column, shown, allowed = table.unpack(refusal)
        it("is " .. what, function() assert_refused(arguments, column, shown, allowed) end)
    end

    -- What PostgreSQL itself refuses: the condition's SQLSTATE.
    local by_postgres = {
        { "an unknown option", "'t', shedule_in => interval '1 s'", "42883" },
        { "a delay that is a number", "'t', schedule_in => 60", "42883" },
        { "a delay that is no interval", "'t', schedule_in => 'NaN'", "22007" },
        { "a time that is no time", "'t', schedule_at => '2099-02-30 00:00:00+00'", "22008" },
        { "a time that is a word", "'t', schedule_at => 'soon'", "22007" },
        { "a time that is a number", "'t', schedule_at => 'NaN'::float8", "42883" },
        { "a priority with a fraction", "'t', priority => 1.5", "42883" },
        { "attempts that are not a number", "'t', max_attempts => 'many'", "22P02" },
        { "tags that are a text", "'t', tags => 'a'", "22P02" },
        { "a queue that is a number", "'t', queue => 1", "42883" },
        { "a queue that is not UTF-8", "'t', queue => E'\\xff'", "22021" },
    }
    for _, refusal in ipairs(by_postgres) do
        local what, arguments, sqlstate = table.unpack(refusal)
        it("is " .. what .. ", by PostgreSQL", function() assert.equal(sqlstate, refused(arguments).sqlstate) end)
    end
end)

describe("the arguments", function()
    it("cross unchanged, in the form of jsonb", function()
        local values = {
            "9007199254740993", "-9223372036854775808", "9223372036854775807", "0.1", "1.0", '""', "[]", "{}", "null",
            "true", '"😀"', '"ü\\n"', '[1, [2, {"a": []}]]',
        }
        for _, value in ipairs(values) do
            assert.equal(('{"v": %s}'):format(value), enqueued(("'values', $${\"v\": %s}$$"):format(value)).args)
        end
        assert.equal('{"v": 1' .. ("0"):rep(300) .. "}", enqueued("'values', '{\"v\": 1e300}'").args)
        assert.equal('{"v": 2}', enqueued("'values', '{\"v\": 1, \"v\": 2}'").args)
    end)

    -- The largest double, and what still rounds to it.
    it("may have every number that a double can hold", function()
        for _, number in ipairs { "1.7976931348623157e308", "-1.797693134862315807e308", "5e-324", "1e-400" } do
            enqueued(("'numbers', '{\"v\": [%s]}'"):format(number))
        end
        enqueued(("'numbers', '{\"v\": \"%s\"}'"):format(("9"):rep(400)))
    end)

    it("may be nested to 100 levels, and have brackets as they like", function()
        enqueued(("'deep', '{\"v\": %s%s}'"):format(("["):rep(99), ("]"):rep(99)))
        enqueued(("'deep', '{\"v\": %s1%s}'"):format(('{"a":'):rep(99), ("}"):rep(99)))
        enqueued(("'deep', '{\"v\": [%s], \"w\": \"%s\"}'"):format(("[],"):rep(200) .. "[]", ("{["):rep(200)))
    end)

    local refusals = {
        { "null", "null", "null", "a JSON object" },
        { "a list", "'[]'", "a JSON array", "a JSON object" },
        { "a text", "'\"a\"'", "a JSON string", "a JSON object" },
        { "a JSON null", "'null'", "a JSON null", "a JSON object" },
        { "larger than 64 KiB", "jsonb_build_object('v', repeat('ü', 32764))",
            "an object of 65537 bytes", "at most 65536 bytes" },
        { "nested lists deeper than 100", ("'{\"v\": %s%s}'"):format(("["):rep(100), ("]"):rep(100)),
            "an object nested deeper than 100 levels", "at most 100 levels" },
        { "nested objects deeper than 100", ("'{\"v\": %s1%s}'"):format(('{"a":'):rep(100), ("}"):rep(100)),
            "an object nested deeper than 100 levels", "at most 100 levels" },
        { "a number beyond a double", "'{\"v\": [1e400]}'",
            "a number beyond the range of a double", "it as a string" },
        { "a negative number beyond a double", "'{\"v\": {\"w\": -1.797693134862315808e308}}'",
            "a number beyond the range of a double", "it as a string" },
    }
    for _, refusal in ipairs(refusals) do
        local what, value, shown, allowed = table.unpack(refusal)
        it("are not to be " .. what, function()
            assert_refused("'t', " .. value, "args", shown, allowed)
            assert_refused("'t', array['{}', " .. value .. "]::jsonb[]", "args", shown, allowed, "enqueue_many")
        end)
    end

    local by_postgres = {
        { "no JSON", "'{\"v\": }'", "22P02" },
        { "not UTF-8", "E'{\"v\": \"\\xff\"}'", "22021" },
        { "text with \\u0000", "'{\"v\": \"\\u0000\"}'", "22P05" },
        { "half of a surrogate pair", "'{\"v\": \"\\ud83d\"}'", "22P02" },
        { "the wrong half of one", "'{\"v\": \"\\ude00\"}'", "22P02" },
        { "a number beyond a numeric", "'{\"v\": 1e400000}'", "22003" },
        { "NaN", "'{\"v\": NaN}'", "22P02" },
        { "nested without an end", ("'{\"v\": ' || repeat('[', 100000) || repeat(']', 100000) || '}')::jsonb"),
            "54001" },
        { "json that is not jsonb", "'{}'::json", "42883" },
    }
    for _, refusal in ipairs(by_postgres) do
        local what, value, sqlstate = table.unpack(refusal)
        it("are not to be " .. what .. ", by PostgreSQL", function()
            if sqlstate == "54001" then value = "(" .. value end
            assert.equal(sqlstate, refused("'t', " .. value).sqlstate)
        end)
    end

    it("may be as large as the setting says", function()
        enqueued "'large', jsonb_build_object('v', repeat('a', 65527))"
        db:query "update tidemill.setting set value = 100 where name = 'max_args_bytes'"
        finally(function() db:query "update tidemill.setting set value = 65536 where name = 'max_args_bytes'" end)
        enqueued "'large', jsonb_build_object('v', repeat('a', 91))"
        assert_refused("'t', jsonb_build_object('v', repeat('a', 92))", "args",
            "an object of 101 bytes", "at most 100 bytes")
    end)
end)

describe("the arguments of a published task", function()
    setup(function()
        worker:publish [[ [{"name": "typed", "args": [
            {"name": "s", "type": "string", "optional": false}, {"name": "n", "type": "number", "optional": true},
            {"name": "i", "type": "integer", "optional": true}, {"name": "b", "type": "boolean", "optional": true},
            {"name": "o", "type": "object", "optional": true}, {"name": "a", "type": "array", "optional": true}]}] ]]
    end)

    it("are accepted as declared, with others beside them", function()
        enqueued [['typed', '{"s": "", "n": 0.5, "i": 9223372036854775807, "b": false, "o": {}, "a": [], "more": 1}']]
        enqueued [['typed', '{"s": "", "n": null, "i": null}']]
        enqueued [['typed', '{"s": "", "n": 5, "i": -9223372036854775808}']]
    end)

    local refusals = {
        { "one that is missing", '{}', "args.s", "nothing", "string" },
        { "one that is null", '{"s": null}', "args.s", "null", "string" },
        { "another type", '{"s": 1}', "args.s", "a JSON number", "string" },
        { "a text for a number", '{"s": "", "n": "1"}', "args.n",
            "a JSON string", "number" },
        { "a fraction for an integer", '{"s": "", "i": 1.5}', "args.i",
            "a JSON number", "integer" },
        { "a float without a fraction for an integer", '{"s": "", "i": 1.0}', "args.i",
            "a JSON number", "integer" },
        { "an integer beyond 64 bits", '{"s": "", "i": 9223372036854775808}', "args.i",
            "a JSON number", "integer" },
        { "a number for a boolean", '{"s": "", "b": 0}', "args.b",
            "a JSON number", "boolean" },
        { "a list for an object", '{"s": "", "o": []}', "args.o",
            "a JSON array", "object" },
        { "an object for a list", '{"s": "", "a": {}}', "args.a",
            "a JSON object", "array" },
    }
    for _, refusal in ipairs(refusals) do
        local what, args, column, shown, type = table.unpack(refusal)
        it("are refused with " .. what, function()
            local allowed = ("the %s that the task declares"):format(type)
            assert_refused(("'typed', '%s'"):format(args), column, shown, allowed)
            assert_refused(("'typed', array['{\"s\": \"\"}', '%s']::jsonb[]"):format(args), column, shown, allowed,
                "enqueue_many")
        end)
    end
end)

describe("the caller's transaction", function()
    it("makes the job with everything else in it, or not at all", function()
        db:query "create table orders (id bigint)"
        db:query [[
            begin; insert into orders select id from tidemill.enqueue('kept'); commit;
            begin; insert into orders select id from tidemill.enqueue('dropped', unique_key => 'd'); rollback;]]
        assert.equal("1",
            db:value "select count(*) from tidemill.jobs j join orders o on o.id = j.id where j.task = 'kept'")
        assert.equal("0", db:value "select count(*) from tidemill.jobs where task = 'dropped'")
        assert.equal("1", db:value "select count(*) from orders")
        assert.equal("dropped", enqueued("'dropped', unique_key => 'd'").task)
    end)

    it("goes on after a refusal that it caught", function()
        db:query [[
            do $$ begin
                perform tidemill.enqueue('before');
                begin perform tidemill.enqueue('caught', priority => 101);
                exception when invalid_parameter_value then null; end;
                perform tidemill.enqueue('after');
            end $$]]
        assert.equal("after,before", db:value [[
            select string_agg(task, ',' order by task) from tidemill.jobs where task in ('before', 'caught', 'after')]])
    end)

    it("shows a job to nobody before it commits", function()
        local ended = db:open("select id from tidemill.enqueue('unseen')", "commit")
        assert.equal("0", db:value "select count(*) from tidemill.jobs where task = 'unseen'")
        assert.is_nil(worker:claim "unseen")
        assert.equal(ended()[1].id, worker:claim("unseen").id)
    end)
end)

describe("a hostile search_path", function()
    it("changes nothing about an enqueue, a duplicate or a refusal", function()
        db:query [[
            create schema evil;
            create domain evil.text as pg_catalog.int4; create domain evil.jsonb as pg_catalog.int4;
            create table evil.task (name pg_catalog.text); create table evil.job (id bigint);
            create table evil.setting (name pg_catalog.text, value bigint);
            create function evil.bad(bigint, interval) returns interval language sql as 'select interval ''1 year''';
            create operator evil.* (function = evil.bad, leftarg = bigint, rightarg = interval);
            create function evil.clock_timestamp() returns timestamptz language sql as 'select timestamptz ''epoch''';
            create function evil.octet_length(pg_catalog.text) returns int language sql as 'select 0';
            create function evil.jsonb_typeof(pg_catalog.jsonb) returns pg_catalog.text language sql as
                'select ''object''';]]
        local hostile = "set search_path = evil, pg_catalog; "
        local rows = db:query(hostile .. [[
            select a.id = b.id as same, a.duplicate as first, b.duplicate as second
            from tidemill.enqueue('hostile', '{}', unique_key => 'k', unique_for => interval '1 hour') a,
                lateral (select * from tidemill.enqueue('hostile', '{}', unique_key => 'k') where a.id > 0) b]])
        assert.same({ { same = "t", first = "f", second = "t" } }, rows)
        assert.equal("true", db:value [[select enqueued_at > '2020-01-01' and scheduled_at = enqueued_at
            from tidemill.jobs where task = 'hostile']])
        assert.equal("task", db:refusal(hostile .. "select * from tidemill.enqueue(repeat('t', 101))").column)
        assert.equal("args", db:refusal(hostile .. "select * from tidemill.enqueue('t', '[]')").column)
    end)
end)

describe("tidemill.enqueue_many", function()
    it("stores a job for each of the arguments, in their order, all with the same options", function()
        local rows = db:query [[
            select * from tidemill.enqueue_many('many',
                array(select jsonb_build_object('n', n) from generate_series(1, 1000) n),
                queue => 'm', priority => 5, tags => array['t'], max_attempts => 2)]]
        assert.equal(1000, #rows)
        local stored_rows = db:query [[
            select id, args ->> 'n' as n, queue, priority, tags, max_attempts, enqueued_at from tidemill.jobs
            where task = 'many' order by id]]
        for i, row in ipairs(stored_rows) do
            assert.equal(rows[i].id, row.id)
            assert.equal("f", rows[i].duplicate)
            assert.same({ tostring(i), "m", "5", "{t}", "2", stored_rows[1].enqueued_at },
                { row.n, row.queue, row.priority, row.tags, row.max_attempts, row.enqueued_at })
        end
    end)

    it("stores nothing when one of them is refused", function()
        assert_refused("'all', array['{}', '{}', '[]']::jsonb[]", "args",
            "a JSON array", "a JSON object", "enqueue_many")
        assert_refused("'all', array['{}', null]::jsonb[]", "args",
            "null", "a JSON object", "enqueue_many")
    end)

    it("checks the options also when there is nothing to store", function()
        assert.same({}, db:query "select * from tidemill.enqueue_many('none', '{}')")
        assert_refused("'none', '{}', priority => 101", "priority",
            "101", "a whole number from 0 to 100", "enqueue_many")
        assert_refused("'none', null", "args", "null", "a JSON object for each job", "enqueue_many")
    end)
end)
