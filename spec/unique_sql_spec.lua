-- Unique jobs, as tidemill.enqueue, enqueue_many and requeue have them in SQL.

local database = require "spec.support.database"
local new_worker = require("spec.support.played").new

local db, worker

setup(function()
    db = database.new()
    worker = new_worker(db)
end)

teardown(function() db:drop() end)

-- call is tidemill.enqueue with its arguments as SQL.
local function call(arguments)
    return "select * from tidemill.enqueue(" .. arguments .. ")"
end

-- accepted enqueues what has to be new, and returns its id.
local function accepted(arguments)
    local row = db:query(call(arguments))[1]
    assert.equal("f", row.duplicate, arguments)
    return row.id
end

-- assert_duplicate enqueues what has to be a duplicate of a job, and to change nothing.
local function assert_duplicate(id, arguments)
    local everything = ([[select j::text || (select count(*) from tidemill.jobs) || u::text
        from tidemill.jobs j left join tidemill.unique_job u on u.job = j.id where j.id = %s]]):format(id)
    local before = db:value(everything)
    assert.same({ id = id, duplicate = "t" }, db:query(call(arguments))[1])
    assert.equal(before, db:value(everything))
end

-- an_hour_later makes as if a job had been enqueued an hour ago.
local function an_hour_later(id)
    db:query(("update tidemill.unique_job set enqueued_at = enqueued_at - interval '1 hour' where job = %s"):format(id))
end

describe("a unique key", function()
    it("is the task with unique_key, whatever the arguments and options", function()
        local id = accepted "'key', '{\"a\": 1}', unique_key => 'k'"
        assert_duplicate(id,
            "'key', '{\"a\": 2}', unique_key => 'k', priority => 50, queue => 'other', tags => array['t']")
        accepted "'key', '{\"a\": 1}', unique_key => 'K'"
        accepted "'other key', '{\"a\": 1}', unique_key => 'k'"
        accepted "'key', '{\"a\": 1}'"
    end)

    it("tells task and key apart wherever the one ends", function()
        accepted "'x', unique_key => 'akey:b'"
        accepted "'xkey:a', unique_key => 'b'"
    end)

    it("is the task with the arguments, in one form, when only a window is given", function()
        local id = accepted "'args', '{\"a\": 1, \"b\": [2, {\"c\": null}]}', unique_for => '1 day'"
        assert_duplicate(id, "'args', '{ \"b\":[2,{\"c\":null}],\"a\":1 }', unique_for => '1 day'")
        accepted "'args', '{\"a\": 1, \"b\": [2, {\"c\": 0}]}', unique_for => '1 day'"
        accepted "'args', '{\"a\": 1.0, \"b\": [2, {\"c\": null}]}', unique_for => '1 day'"
        accepted "'other args', '{\"a\": 1, \"b\": [2, {\"c\": null}]}', unique_for => '1 day'"
        accepted "'args', unique_key => '{\"a\": 1, \"b\": [2, {\"c\": null}]}'"
    end)

    it("is none when neither key nor window is given", function()
        accepted "'none', '{\"a\": 1}'"
        accepted "'none', '{\"a\": 1}'"
    end)

    it("is there with the window that the task declares", function()
        worker:publish '[{"name": "declared", "unique_for_ms": 7200000}]'
        local id = accepted "'declared', '{\"a\": 1}'"
        assert_duplicate(id, "'declared', '{\"a\": 1}'")
        accepted "'declared', '{\"a\": 2}'"
        an_hour_later(id)
        assert_duplicate(id, "'declared', '{\"a\": 1}'")
        accepted "'declared', '{\"a\": 1}', unique_for => '30 min'"
    end)
end)

describe("a key without a window", function()
    it("holds while its job waits, runs, or waits for a retry", function()
        local id = accepted "'held', unique_key => 'k', schedule_in => '1 day'"
        assert_duplicate(id, "'held', unique_key => 'k'")
        db:query("select tidemill.retry(" .. id .. ")")
        assert_duplicate(id, "'held', unique_key => 'k'")
        local job = worker:claim "held"
        assert.equal(id, job.id)
        assert_duplicate(id, "'held', unique_key => 'k'")
        worker:finish(job, "failed")
        assert.equal("1", db:value("select count(*) from tidemill.jobs where attempt = 1 and state in ('scheduled', "
            .. "'available') and id = " .. id))
        assert_duplicate(id, "'held', unique_key => 'k'")
    end)

    for outcome, state in pairs { completed = "completed", cancelled = "cancelled", discarded = "dead" } do
        it("is free once its job is " .. state, function()
            local id = accepted(("'%s', unique_key => 'k'"):format(outcome))
            assert.equal(id, worker:work(outcome, outcome))
            assert.equal(state, db:value("select state from tidemill.jobs where id = " .. id))
            local second = accepted(("'%s', unique_key => 'k'"):format(outcome))
            assert_duplicate(second, ("'%s', unique_key => 'k'"):format(outcome))
        end)
    end

    it("is free once its job was cancelled or discarded before its first start", function()
        for _, verb in ipairs { "cancel", "discard" } do
            db:query(("select tidemill.%s(%s)"):format(verb, accepted "'stopped', unique_key => 'k'"))
        end
        accepted "'stopped', unique_key => 'k'"
    end)
end)

describe("a window", function()
    for _, outcome in ipairs { "completed", "cancelled", "discarded" } do
        it("goes on when its job was " .. outcome, function()
            local task = "window " .. outcome
            local id = accepted(("'%s', unique_key => 'k', unique_for => '1 min'"):format(task))
            assert.equal(id, worker:work(task, outcome))
            assert_duplicate(id, ("'%s', unique_key => 'k', unique_for => '1 min'"):format(task))
        end)
    end

    it("is the new call's, from the enqueue of the job that stands, whatever that was enqueued with", function()
        local id = accepted "'mixed', unique_key => 'k'"
        an_hour_later(id)
        assert_duplicate(id, "'mixed', unique_key => 'k', unique_for => '61 min'")
        assert_duplicate(id, "'mixed', unique_key => 'k'")
        local second = accepted "'mixed', unique_key => 'k', unique_for => '59 min'"
        assert_duplicate(second, "'mixed', unique_key => 'k', unique_for => '59 min'")
        assert_duplicate(second, "'mixed', unique_key => 'k'")
    end)

    it("is not begun anew by a duplicate", function()
        local id = accepted "'still', unique_key => 'k'"
        an_hour_later(id)
        assert_duplicate(id, "'still', unique_key => 'k', unique_for => '2 hours'")
        accepted "'still', unique_key => 'k', unique_for => '30 min'"
    end)

    it("goes by the clock also within one transaction", function()
        local rows = db:query([[
            begin;
            create temp table answer as select 1 as n, * from tidemill.enqueue('clock', unique_key => 'k');
            insert into answer select 2, * from tidemill.enqueue('clock', unique_key => 'k', unique_for => '1 day');]]
            .. db.until_true [[clock_timestamp() > interval '100 ms' +
                (select j.enqueued_at from answer a join tidemill.jobs j using (id) where a.n = 1)]] .. [[
            insert into answer select 3, * from tidemill.enqueue('clock', unique_key => 'k', unique_for => '99 ms');
            select a.duplicate, a.id = (select id from answer where n = 1) as same, j.enqueued_at > now() as later
                from answer a join tidemill.jobs j using (id) order by n;
            commit;]])
        assert.same({
            { duplicate = "f", same = "t", later = "t" }, { duplicate = "t", same = "t", later = "t" },
            { duplicate = "f", same = "f", later = "t" },
        }, rows)
    end)
end)

describe("the second of two concurrent calls", function()
    -- race opens a transaction that enqueues, starts the same call in a second one, sees it wait, ends the first, and
    -- returns both calls' rows; the second's may be an error.
    local function race(task, ending, second)
        local first = db:open(call(("'%s', unique_key => 'k'"):format(task)), ending)
        local waiting = db:start(second or call(("'%s', unique_key => 'k', unique_for => '1 day'"):format(task)))
        db:wait_for(db.SOMEBODY_WAITS)
        local row = first()[1]
        local ok, rows = pcall(waiting)
        return row, ok and rows[1] or rows
    end

    it("waits, and is a duplicate when the first commits", function()
        local first, second = race("race", "commit")
        assert.same({ id = first.id, duplicate = "t" }, second)
        assert.equal("1", db:value "select count(*) from tidemill.jobs where task = 'race'")
    end)

    it("waits, and is accepted when the first rolls back", function()
        local first, second = race("undone", "rollback")
        assert.equal("f", second.duplicate)
        assert.not_equal(first.id, second.id)
        assert.equal(second.id, db:value "select string_agg(id::text, ',') from tidemill.jobs where task = 'undone'")
    end)

    it("waits also for a transaction that takes a key over", function()
        accepted "'taken over', unique_key => 'k'"
        worker:work("taken over", "completed")
        local first, second = race("taken over", "commit")
        assert.same({ id = first.id, duplicate = "t" }, second)
    end)

    -- In its snapshot there is no job of the first's, so it can neither point to one nor store one.
    local function repeatable_read(task)
        return "begin isolation level repeatable read; do $$ begin perform from tidemill.jobs; end $$; "
            .. call(("'%s', unique_key => 'k'"):format(task)) .. "; commit;"
    end

    it("fails to serialize under repeatable read when the first commits", function()
        local first, second = race("snapshot", "commit", repeatable_read "snapshot")
        assert.matches("could not serialize access", second)
        assert.equal(first.id, db:value "select string_agg(id::text, ',') from tidemill.jobs where task = 'snapshot'")
        assert.same({ id = first.id, duplicate = "t" }, db:query(repeatable_read "snapshot")[1])
    end)

    it("is accepted under repeatable read when the first rolls back", function()
        local _, second = race("snapshot undone", "rollback", repeatable_read "snapshot undone")
        assert.equal("f", second.duplicate)
    end)

    it("does not wait for another key", function()
        local first = db:open(call "'apart', unique_key => 'k'", "rollback")
        db:query("set lock_timeout = '10 s'; " .. call "'apart', unique_key => 'l'")
        first()
    end)
end)

describe("a key in the caller's own transaction", function()
    it("holds at once, and is free again after a rollback to a savepoint", function()
        local rows = db:query [[
            begin;
            create temp table answer (n int, id bigint, duplicate boolean);
            savepoint s; insert into answer select 0, * from tidemill.enqueue('own', unique_key => 'k'); rollback to s;
            insert into answer select 1, * from tidemill.enqueue('own', unique_key => 'k');
            insert into answer select 2, * from tidemill.enqueue('own', unique_key => 'k');
            select n, duplicate, id = min(id) over () as same from answer order by n;
            commit;]]
        assert.same({ { n = "1", duplicate = "f", same = "t" }, { n = "2", duplicate = "t", same = "t" } }, rows)
    end)
end)

describe("tidemill.enqueue_many with keys", function()
    it("answers in the order of the arguments, with duplicates of others and of each other", function()
        local stood = accepted "'several', '{\"n\": 2}', unique_for => '1 day'"
        local rows = db:query [[
            select m.id, m.duplicate, j.args ->> 'n' as n from tidemill.enqueue_many('several',
                array['{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 1}', '{"n": 4}', '{"n": 3}']::jsonb[],
                unique_for => '1 day') with ordinality as m(id, duplicate, place)
            left join tidemill.jobs j on false order by m.place]]
        local duplicates, ids = {}, {}
        for i, row in ipairs(rows) do
            duplicates[i], ids[i] = row.duplicate, row.id
        end
        assert.same({ "f", "t", "f", "t", "f", "t" }, duplicates)
        assert.same({ stood, ids[1], ids[3] }, { ids[2], ids[4], ids[6] })
        assert.equal("1,3,4", db:value(("select string_agg(args ->> 'n', ',' order by id) from tidemill.jobs " ..
            "where id in (%s, %s, %s)"):format(ids[1], ids[3], ids[5])))
        assert.is_true(tonumber(ids[1]) < tonumber(ids[3]) and tonumber(ids[3]) < tonumber(ids[5]))
    end)

    it("does not wait in a circle with another call", function()
        local first = db:open(call "'circle', '{\"n\": 1}', unique_for => '1 day'", "rollback")
        local many = [[select count(*) filter (where duplicate) as duplicates
            from tidemill.enqueue_many('circle', %s, unique_for => '1 day')]]
        local waiting = "(select count(*) from pg_locks where not granted and locktype = 'transactionid') = "
        local one = db:start(many:format "array['{\"n\": 1}', '{\"n\": 2}']::jsonb[]")
        db:wait_for(waiting .. 1)
        local other = db:start(many:format "array['{\"n\": 2}', '{\"n\": 1}']::jsonb[]")
        db:wait_for(waiting .. 2)
        first()
        assert.equal(2, tonumber(one()[1].duplicates) + tonumber(other()[1].duplicates))
    end)
end)

describe("requeueing a dead job", function()
    -- dead returns the id of a job that died.
    local function dead(arguments, task)
        local id = accepted(arguments)
        assert.equal(id, worker:work(task, "discarded"))
        return id
    end

    it("takes its key again", function()
        local id = dead("'back', unique_key => 'k'", "back")
        db:query("select tidemill.requeue(" .. id .. ")")
        assert_duplicate(id, "'back', unique_key => 'k'")
        assert.equal(id, worker:work("back", "completed"))
        accepted "'back', unique_key => 'k'"
    end)

    it("takes its key again from a job that is over, with the window of its own enqueue", function()
        local id = dead("'older', unique_key => 'k'", "older")
        db:query(("update tidemill.dead set enqueued_at = enqueued_at - interval '1 hour' where id = %s"):format(id))
        accepted "'older', unique_key => 'k'"
        worker:work("older", "completed")
        db:query("select tidemill.requeue(" .. id .. ")")
        assert_duplicate(id, "'older', unique_key => 'k', unique_for => '61 min'")
        accepted "'older', unique_key => 'k', unique_for => '59 min'"
    end)

    for _, verb in ipairs { "requeue", "retry" } do
        it("fails by " .. verb .. ", naming the job that holds its key", function()
            local id = dead(("'%s', unique_key => 'k'"):format(verb), verb)
            local holder = accepted(("'%s', unique_key => 'k'"):format(verb))
            assert.same({
                sqlstate = "23505", column = "unique_key",
                message = ("job %s cannot be requeued: job %s holds its unique key"):format(id, holder),
            }, db:refusal(("select tidemill.%s(%s)"):format(verb, id)))
            assert.equal("dead", db:value("select state from tidemill.jobs where id = " .. id))
        end)
    end

    it("waits for an open transaction with its key", function()
        local id = dead("'queued up', unique_key => 'k'", "queued up")
        local first = db:open(call "'queued up', unique_key => 'k'", "commit")
        local waiting = db:start("select tidemill.requeue(" .. id .. ")")
        db:wait_for(db.SOMEBODY_WAITS)
        local holder = first()[1].id
        assert.has_error(waiting)
        assert.equal(holder, db:value [[
            select string_agg(id::text, ',') from tidemill.jobs where task = 'queued up' and state <> 'dead']])
    end)
end)
