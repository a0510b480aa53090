-- A client of require "tidemill": connecting, transactions, and connections that are lost.

local database = require "spec.support.database"
local tidemill = require "tidemill"

local db, client

setup(function()
    db = database.new()
    db:query "create table orders (n bigint primary key, item text)"
end)

teardown(function() db:drop() end)

before_each(function()
    db:query "truncate orders; delete from tidemill.job; delete from tidemill.dead; delete from tidemill.unique_job"
    client = assert(tidemill.connect(db.url))
end)

after_each(function() client:close() end)

-- tasks returns the tasks of the jobs that are stored, in the order in which they were enqueued.
local function tasks()
    return db:value "select coalesce(string_agg(task, ' ' order by id), '') from tidemill.jobs"
end

local function orders()
    return db:value "select coalesce(string_agg(n::text, ' ' order by n), '') from orders"
end

describe("tidemill.connect", function()
    -- assert_fails checks that no client comes back, but a code and a message that matches.
    local function assert_fails(code, pattern, ...)
        local none, message, actual = ...
        assert.is_nil(none)
        assert.equal(code, actual, message)
        assert.matches(pattern, message)
    end

    it("tells a database that is unreachable", function()
        local UNREACHABLE = "^the database cannot be reached: .*"
        assert_fails("connect", UNREACHABLE .. "/nowhere", tidemill.connect "postgresql:///x?host=/nowhere")
        assert_fails("connect", UNREACHABLE .. "does not exist", tidemill.connect(db.url:gsub("spec_", "no_")))
    end)

    it("tells a database that is not migrated", function()
        local empty = database.empty()
        finally(function() empty:drop() end)
        assert_fails("schema", "^the database is not migrated; run tidemill migrate up$", tidemill.connect(empty.url))
    end)

    it("tells a database that a newer version migrated, also when it connects anew", function()
        db:query "insert into tidemill.migration values (99, 'future')"
        finally(function() db:query "delete from tidemill.migration where version = 99" end)
        local NEWER = "^the database was migrated by a newer version %(99, this is %d+%); install a newer tidemill$"
        assert_fails("schema", NEWER, tidemill.connect(db.url))
        db:kill_clients()
        assert_fails("schema", NEWER, client:enqueue "t")
        assert_fails("schema", NEWER, client:transaction(function() end))
    end)

    it("tells what is no URL", function()
        assert_fails("invalid", "^url: a number is not allowed; give a string", tidemill.connect(1))
        assert_fails("invalid", "^url: a NUL byte is not allowed", tidemill.connect "postgresql://\0")
        assert_fails("invalid", "^database: not a valid URL", tidemill.connect "nonsense")
    end)

    it("returns a client that is closed once, and of no use then", function()
        local other <close> = assert(tidemill.connect(db.url))
        other:close()
        other:close()
        assert.has_error(function() other:enqueue "t" end, "client:enqueue: the client is closed")
        assert.has_error(function() other:enqueue_many("t", {}) end, "client:enqueue_many: the client is closed")
        assert.has_error(function() other:transaction(print) end, "client:transaction: the client is closed")
    end)

    it("returns a client whose methods want it", function()
        assert.error_matches(function() client.enqueue "t" end, "bad argument #1 to 'enqueue'")
    end)
end)

describe("client:transaction", function()
    it("commits what its function did when that returns, and returns its results", function()
        local id, duplicate, item = client:transaction(function(tx)
            assert.equal(1, tx:exec("insert into orders values ($1, $2)", 1, "mill").count)
            local id, duplicate = tx:enqueue("ship", { order = 1 }, { queue = "q", schedule_in = 60 })
            assert.equal("", tasks())
            return id, duplicate, tx:exec("select item from orders")[1].item
        end)
        assert.same({ false, "mill" }, { duplicate, item })
        assert.same({ { task = "ship", queue = "q", state = "scheduled", args = '{"order": 1}' } },
            db:query("select task, queue, state, args from tidemill.jobs where id = " .. id))
        assert.equal("1", orders())
    end)

    it("returns true when its function returns nothing", function()
        assert.same({ true, n = 1 }, table.pack(client:transaction(function(tx) tx:enqueue "t" end)))
        assert.equal("t", tasks())
    end)

    it("enqueues many", function()
        local jobs = client:transaction(function(tx) return tx:enqueue_many("m", { { n = 1 }, { n = 2 } }) end)
        assert.equal(2, #jobs)
        assert.equal("m m", tasks())
    end)

    it("rolls back when its function raises, and the same error goes on", function()
        local thrown = { "any value" }
        local ok, caught = pcall(client.transaction, client, function(tx)
            tx:exec "insert into orders values (1)"
            tx:enqueue("dropped", {}, { unique_key = "k" })
            error(thrown)
        end)
        assert.same({ false, true }, { ok, rawequal(caught, thrown) })
        assert.same({ "", "" }, { tasks(), orders() })
        assert.same({ false, n = 1 }, table.pack(select(2, client:enqueue("kept", {}, { unique_key = "k" }))))
    end)

    it("rolls back when a call in it failed, whatever its function does then, and returns that failure", function()
        local REFUSED = { nil, "priority: 101 is not allowed; give a whole number from 0 to 100", "invalid", n = 3 }
        assert.same(REFUSED, table.pack(client:transaction(function(tx)
            tx:enqueue "before"
            assert.same(REFUSED, table.pack(tx:enqueue("refused", {}, { priority = 101 })))
            assert.same(REFUSED, table.pack(tx:enqueue "after"))
            assert.same(REFUSED, table.pack(tx:enqueue_many("after", { {} })))
            assert.same(REFUSED, table.pack(tx:exec "insert into orders values (1)"))
            return "done"
        end)))
        local none, message, code = client:transaction(function(tx)
            tx:enqueue "before"
            tx:exec "insert into orders values (1), (1)"
            return "done"
        end)
        assert.same({ nil, "database" }, { none, code })
        assert.matches("duplicate key", message)
        none, message, code = client:transaction(function(tx)
            tx:enqueue "before"
            return tx:enqueue_many("refused", { {}, 1 })
        end)
        assert.same({ nil, "invalid" }, { none, code })
        assert.equal("args[2]: a number is not allowed; give a table with named fields", message)
        assert.same({ "", "" }, { tasks(), orders() })
    end)

    it("tells the refusals of Tidemill's functions from the database's own, also of tables in its schema", function()
        local dead = client:enqueue("t", {}, { unique_key = "k" })
        db:query(("select tidemill.discard(%d)"):format(dead))
        local holder = client:enqueue("t", {}, { unique_key = "k" })
        for code, call in pairs {
            conflict = { "select tidemill.requeue($1)", dead }, state = { "select tidemill.requeue($1)", holder },
            not_found = { "select tidemill.requeue($1)", 0 },
            database = { "insert into tidemill.setting values ('max_args_bytes', $1)", 1 },
        } do
            local none, message, actual = client:transaction(function(tx) tx:exec(table.unpack(call)) end)
            assert.same({ nil, code }, { none, actual }, message)
        end
    end)

    it("returns the database's reason when the commit fails", function()
        db:query "create table late (n bigint unique deferrable initially deferred)"
        local none, message, code = client:transaction(function(tx)
            tx:exec "insert into late values (1), (1)"
            tx:enqueue "dropped"
        end)
        assert.same({ nil, "database" }, { none, code })
        assert.matches("duplicate key", message)
        assert.equal("", tasks())
    end)

    it("does not let a statement end it", function()
        for _, ending in ipairs { "commit", "rollback", "commit and chain", "end" } do
            local none, message, code = client:transaction(function(tx)
                tx:exec(ending)
                tx:enqueue "after"
            end)
            assert.same({ nil, "state" }, { none, code })
            assert.matches("ended by one of its own statements", message)
            assert.equal("", tasks())
        end
        assert.is_true(client:transaction(function(tx) tx:enqueue "next" end))
    end)

    it("raises when the client is used inside, or opens another", function()
        local OPEN = ": a transaction is open on this client; use its tx"
        client:transaction(function(tx)
            assert.has_error(function() client:enqueue "t" end, "client:enqueue" .. OPEN)
            assert.has_error(function() client:enqueue_many("t", { {} }) end, "client:enqueue_many" .. OPEN)
            assert.has_error(function() client:transaction(print) end, "client:transaction" .. OPEN)
            assert.has_error(function() client:close() end,
                "client:close: a transaction is open on this client; let it end first")
            tx:enqueue "inside"
        end)
        assert.equal("inside", tasks())
    end)

    it("leaves a tx that is of no use afterwards", function()
        local kept
        client:transaction(function(tx) kept = tx end)
        assert.has_error(function() kept:enqueue "t" end, "tx:enqueue: the transaction has ended")
        assert.has_error(function() kept:enqueue_many("t", { {} }) end, "tx:enqueue_many: the transaction has ended")
        assert.has_error(function() kept:exec "select 1" end, "tx:exec: the transaction has ended")
    end)

    it("may be left by a coroutine for a while, and is rolled back when that is closed", function()
        local function body(tx)
            tx:enqueue "yielded"
            coroutine.yield "half"
            return "whole"
        end
        local thread = coroutine.create(function() return client:transaction(body) end)
        assert.same({ true, "half" }, { coroutine.resume(thread) })
        assert.same({ true, "whole" }, { coroutine.resume(thread) })
        assert.equal("yielded", tasks())
        thread = coroutine.create(function() return client:transaction(body) end)
        coroutine.resume(thread)
        coroutine.close(thread)
        assert.equal("yielded", tasks())
        assert.truthy(client:enqueue "next")
    end)

    it("binds values, and returns rows by their columns' names", function()
        local rows = assert(client:transaction(function(tx)
            return tx:exec([[select $1::int8 as i, $2::float8 as f, $3::text as s, $4::boolean as b, $5::text as n,
                $6::jsonb as j, $7::text as z]], math.mininteger, 0.1, "it's", false, nil, { a = { 1 } }, tidemill.null)
        end))
        assert.same({ i = math.mininteger, f = 0.1, s = "it's", b = false, j = { a = tidemill.array { 1 } } }, rows[1])
        assert.same({ 1, 1 }, { #rows, rows.count })
    end)

    it("is as safe in a session whose search_path is hostile", function()
        db:query [[
            create schema evil;
            create domain evil.text as pg_catalog.int4; create domain evil.jsonb as pg_catalog.int4;
            create domain evil.timestamptz as pg_catalog.int4;
            create function evil.year(bigint, interval) returns interval language sql as 'select interval ''1 year''';
            create operator evil.* (function = evil.year, leftarg = bigint, rightarg = interval);
            create function evil.one(bigint, int) returns bigint language sql as 'select 1::bigint';
            create operator evil./ (function = evil.one, leftarg = bigint, rightarg = int);
            create operator evil.% (function = evil.one, leftarg = bigint, rightarg = int);]]
        local options = { unique_key = "k", unique_for = 60, tags = { "t" }, priority = 2, max_attempts = 3 }
        assert(client:transaction(function(tx)
            tx:exec "set local search_path = evil, pg_catalog"
            options.schedule_in = 3600
            tx:enqueue("delayed", { a = 1 }, options)
            options.schedule_in, options.schedule_at = nil, 4076668800.5
            tx:enqueue_many("timed", { { a = 1 } }, options)
            return true
        end))
        assert.same({
            { task = "delayed", delay = "01:00:00", args = '{"a": 1}', tags = "{t}", priority = "2",
                max_attempts = "3" },
            { task = "timed", at = "2099-03-08 16:00:00.5+00", args = '{"a": 1}', tags = "{t}", priority = "2",
                max_attempts = "3" },
        }, db:query [[
            select task, args, tags, priority, max_attempts, case task when 'timed' then scheduled_at end as at,
                case task when 'delayed' then scheduled_at - enqueued_at end as delay
            from tidemill.jobs order by id]])
    end)
end)

describe("a lost connection", function()
    it("is made anew by the next call", function()
        client:enqueue "first"
        db:kill_clients()
        assert.truthy(client:enqueue "second")
        db:kill_clients()
        assert.truthy(client:enqueue_many("third", { {} }))
        db:kill_clients()
        assert.is_true(client:transaction(function(tx) tx:enqueue "fourth" end))
        assert.equal("first second third fourth", tasks())
    end)

    it("leaves the outcome unknown when it was lost during an enqueue", function()
        local holder = db:open("select 1 from tidemill.enqueue('held', unique_key => 'k')", "rollback")
        local killer = db:kill_waiting()
        local none, message, code = client:enqueue("held", {}, { unique_key = "k" })
        assert.same({ nil, "outcome" }, { none, code })
        assert.matches("^whether the job was stored is unknown; look for it, or enqueue it again if that does no " ..
            "harm: the connection to the database was lost", message)
        killer()
        killer = db:kill_waiting()
        none, message, code = client:enqueue_many("held", { {} }, { unique_key = "k" })
        assert.matches("^whether the job was stored is unknown", message)
        assert.same({ nil, "outcome" }, { none, code })
        killer()
        holder()
        assert.same({ false }, { select(2, client:enqueue("held", {}, { unique_key = "k" })) })
        assert.equal("held", tasks())
    end)

    it("ends a transaction with nothing done when it was lost before the commit", function()
        local none, message, code = client:transaction(function(tx)
            tx:enqueue "dropped"
            db:kill_clients()
            local nothing, _, reason = tx:enqueue "dropped"
            assert.same({ nil, "connect" }, { nothing, reason })
        end)
        assert.same({ nil, "connect" }, { none, code })
        assert.matches("^the connection to the database was lost", message)
        assert.equal("", tasks())
        assert.truthy(client:enqueue "next")
    end)

    it("leaves the outcome unknown when it was lost during the commit", function()
        local none, message, code = client:transaction(function(tx)
            tx:enqueue "dropped"
            db:kill_clients()
        end)
        assert.same({ nil, "outcome" }, { none, code })
        assert.matches("^whether the transaction was committed is unknown", message)
        assert.truthy(client:enqueue "next")
        assert.equal("next", tasks())
    end)

    it("is an error as long as the database stays away", function()
        local gone = database.new()
        local other <close> = assert(tidemill.connect(gone.url))
        gone:drop()
        for _ = 1, 2 do
            local none, message, code = other:enqueue "t"
            assert.same({ nil, "connect" }, { none, code })
            assert.matches("^the database cannot be reached", message)
        end
    end)
end)
