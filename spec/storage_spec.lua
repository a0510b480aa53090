-- What the tables have to stand: late commits, old snapshots, locks, segments that are closed and emptied.

local database = require "spec.support.database"
local played = require "spec.support.played"

local db, worker

before_each(function()
    db = database.new()
    worker = played.new(db)
end)

after_each(function()
    db:drop()
end)

local ENQUEUE = "select id from tidemill.enqueue('stored')"

local function enqueue(count)
    db:query(("select count(*) from tidemill.enqueue_many('stored', array_fill(jsonb '{}', array[%d]))")
        :format(count or 1))
end

local function claimed()
    local job = worker:claim "stored"
    return job and job.id
end

-- claimed_all claims until nothing is left, and returns the ids, sorted.
local function claimed_all()
    local ids = {}
    for id in claimed do ids[#ids + 1] = tonumber(id) end
    table.sort(ids)
    return ids
end

-- claim_many claims up to so many under a lease, and finish_lease records that they completed.
local function claim_many(count, lease)
    return ("select count(*) from tidemill.claim(%s, %d, array['default'], array[%d], array['stored'])")
        :format(worker.id, lease, count)
end

local function finish_lease(lease)
    return ([[
        select count(*) from (select array_agg(h.id) as ids from tidemill.holding h where h.token = %d) h,
            lateral tidemill.finish(h.ids, array_fill(%d::bigint, array[cardinality(h.ids)]),
            array_fill('completed'::text, array[cardinality(h.ids)]), null, null, null, null)]]):format(lease, lease)
end

-- read returns how many pages a query reads.
local function read(sql)
    local plan = db:query("explain (analyze, buffers, format json) " .. sql)[1]["QUERY PLAN"]
    return tonumber(plan:match '"Shared Hit Blocks": (%d+)') + tonumber(plan:match '"Shared Read Blocks": (%d+)')
end

local function rotate(times)
    for _ = 1, times or 1 do db:query "select tidemill.rotate()" end
end

local function set(name, value)
    db:query(("update tidemill.setting set value = %d where name = '%s'"):format(value, name))
end

local function segments()
    return tonumber(db:value "select count(*) from tidemill.segment")
end

describe("a job that commits after claims have gone past it", function()
    it("is started by the next claim", function()
        local commit = db:open(ENQUEUE, "commit")
        enqueue(3)
        assert.same({ 2, 3, 4 }, claimed_all())
        commit()
        assert.same({ 1 }, claimed_all())
    end)

    it("is started in its turn, and once, when there are many", function()
        local first = db:open(ENQUEUE, "commit")
        local second = db:open(ENQUEUE, "commit")
        enqueue(2)
        db:query(claim_many(10, 1))
        second()
        first()
        assert.equal("1", claimed())
        assert.same({ 2 }, claimed_all())
        assert.equal("0", db:value "select count(*) from tidemill.jobs where state <> 'running'")
    end)

    it("is found also when somebody else is at work for long", function()
        local ended = db:open("create table spec_other (n int)", "rollback")
        local commit = db:open(ENQUEUE, "commit")
        enqueue(1)
        db:query(claim_many(10, 1))
        commit()
        repeat until claimed() -- a longer look back is taken once in a while
        ended()
        assert.equal("2", db:value "select count(*) from tidemill.jobs where state = 'running'")
    end)

    it("is never seen when it rolls back", function()
        local rollback = db:open(ENQUEUE, "rollback")
        enqueue(1)
        claimed_all()
        rollback()
        assert.same({}, claimed_all())
    end)

    it("may come from a transaction with an old snapshot", function()
        local commit = db:open("set transaction isolation level repeatable read; select count(*) from tidemill.jobs;"
            .. ENQUEUE, "commit")
        enqueue(2)
        claimed_all()
        commit()
        assert.same({ 1 }, claimed_all())
    end)

    it("may come from a transaction that enqueues at its end", function()
        local begun = db:open("select pg_current_xact_id()", ENQUEUE .. "; commit")
        enqueue(2)
        claimed_all()
        begun()
        assert.same({ 3 }, claimed_all())
    end)

    it("is found though the clock was set back", function()
        enqueue(1)
        claimed_all()
        db:query [[update tidemill.mark set due_at = due_at + interval '1 hour', seen_at = seen_at + interval '1 hour',
            final_at = seen_at + interval '1 hour', next_final_at = seen_at + interval '1 hour',
            rest_until = seen_at + interval '1 hour']]
        enqueue(2)
        assert.same({ 2, 3 }, claimed_all())
        enqueue(1)
        repeat until claimed() -- a longer look back is taken once in a while
        db:query "select id from tidemill.enqueue('stored', schedule_in => '10 minutes')"
        assert.same({}, claimed_all())
    end)
end)

describe("a job that is given back", function()
    it("is the first to start again", function()
        enqueue(3)
        assert.equal("1", claimed())
        db:query(("select tidemill.give_back(%s, null, 'returned')"):format(worker.id))
        assert.same({ "1", "2" }, { claimed(), claimed() })
    end)

    it("is not its former process's any more", function()
        enqueue(1)
        local job = worker:claim "stored"
        db:query(("select tidemill.give_back(%s, null, 'lost')"):format(worker.id))
        assert.equal("1", claimed())
        assert.equal(job.id, db:value(([[tidemill.finish(array[%s::bigint], array[%d::bigint], array['completed'],
            array[null::text], array[null::text], array[null::jsonb], array[null::float8])]])
            :format(job.id, job.lease)))
        assert.equal("running", db:value "select state from tidemill.jobs")
    end)
end)

describe("a job whose row is locked", function()
    it("is passed over, and started when its canceller rolls back", function()
        enqueue(3)
        local rollback = db:open("select tidemill.cancel(1)", "rollback")
        assert.same({ 2, 3 }, claimed_all())
        rollback()
        assert.same({ 1 }, claimed_all())
    end)

    it("is not started when its canceller commits", function()
        enqueue(2)
        local commit = db:open("select tidemill.cancel(1)", "commit")
        assert.same({ 2 }, claimed_all())
        commit()
        assert.same({}, claimed_all())
        assert.equal("cancelled", db:value "select state from tidemill.jobs where id = 1")
    end)

    it("is running when a claim that was under way took it", function()
        enqueue(1)
        local commit = db:open(claim_many(1, 77), "commit")
        local cancelled = db:start "select tidemill.cancel(1) as state"
        db:wait_for(db.SOMEBODY_WAITS)
        commit()
        assert.equal("running", cancelled()[1].state)
        db:query(finish_lease(77))
        assert.equal("completed", db:value "select state from tidemill.jobs")
    end)
end)

describe("a job's end", function()
    it("is recorded where its row was moved meanwhile", function()
        enqueue(3)
        db:query(claim_many(3, 5))
        db:query "delete from tidemill.job where id = 1"
        db:query "vacuum full tidemill.job_0"
        db:query(finish_lease(5))
        assert.equal("2", db:value "select count(*) from tidemill.jobs where state = 'completed'")
        assert.equal("2", db:value "select count(*) from tidemill.attempts where outcome = 'completed'")
    end)

    it("writes one row version in the same page, and no other row of the job", function()
        enqueue(100)
        db:query(claim_many(100, 5))
        db:query(finish_lease(5))
        db:wait_for "(select sum(n_tup_upd) from pg_stat_user_tables where relname like 'job_%') = 100"
        assert.equal("100", db:value "select sum(n_tup_hot_upd) from pg_stat_user_tables where relname like 'job_%'")
        assert.equal("0", db:value "select count(*) from tidemill.attempt")
    end)
end)

describe("a claim reads as few pages", function()
    local MANY = "select count(*) from tidemill.enqueue_many('stored', array_fill(jsonb '{}', array[200]))"

    -- pages_of_round claims and finishes 200 jobs, and returns what the claim read.
    local function pages_of_round(number)
        db:query(MANY)
        local pages = read(claim_many(200, number))
        db:query(finish_lease(number))
        return pages
    end

    -- rounds does that many times, each statement in its own transaction.
    local function rounds(from, to)
        local sql = {}
        for number = from, to do
            sql[#sql + 1] = table.concat({ MANY, claim_many(200, number), finish_lease(number),
                "delete from tidemill.lease where token = " .. number }, ";\n")
        end
        db:start(table.concat(sql, ";\n"))()
    end

    local HOLDS = { ["a snapshot"] = "select 1", ["a transaction's number"] = "select pg_current_xact_id()" }
    for kind, hold in pairs(HOLDS) do
        it("after many rounds as after one, while somebody holds " .. kind, function()
            local release = db:open("set transaction isolation level repeatable read; " .. hold, "rollback")
            rounds(1, 1)
            local first = pages_of_round(2)
            rounds(3, 60)
            local last = pages_of_round(61)
            release()
            assert.is_true(last < 2 * first, ("%d at first, %d at last"):format(first, last))
        end)
    end

    it("whatever the statistics say", function()
        -- A new connection reads much of the catalogue, about the same each time. A walk through the jobs would read
        -- 1,000 pages more.
        enqueue(100)
        db:query(claim_many(50, 97) .. ";\n" .. finish_lease(97))
        local claim_alone, finish_alone = read(claim_many(50, 98)), read(finish_lease(98))
        db:query "analyze"
        enqueue(20000)
        local sql = {}
        for lease = 1, 20 do sql[lease] = claim_many(1000, lease) .. ";\n" .. finish_lease(lease) end
        db:start(table.concat(sql, ";\n"))()
        enqueue(50)
        -- Without the look back over the last second, which reads what was just enqueued.
        db:query "delete from tidemill.lease; update tidemill.mark set rest_until = 'infinity'"
        local pages = read(claim_many(50, 99))
        assert.is_true(pages < claim_alone + 700, ("%d alone, %d among others"):format(claim_alone, pages))
        pages = read(finish_lease(99))
        assert.is_true(pages < finish_alone + 700, ("%d alone, %d among others"):format(finish_alone, pages))
        assert.equal("20150", db:value "select count(*) from tidemill.jobs where state = 'completed'")
    end)
end)

describe("a segment", function()
    local function end_all()
        db:query(claim_many(1000, 500))
        db:query(finish_lease(500))
        db:query "delete from tidemill.lease where token = 500"
    end

    before_each(function() set("segment_s", 0) end)

    it("is closed, and its jobs are found as before", function()
        enqueue(3)
        rotate(2)
        enqueue(2)
        assert.equal("2", db:value "select count(distinct segment) from tidemill.job")
        assert.same({ 1, 2, 3, 4, 5 }, claimed_all())
        assert.equal("running", db:value "select state from tidemill.jobs where id = 1")
    end)

    it("is emptied when its jobs are over and old; what waits is moved and not lost", function()
        enqueue(3)
        end_all()
        db:query "select id from tidemill.enqueue('stored', schedule_in => '1 hour')"
        enqueue(2)
        assert.equal("5", claimed())
        db:query(("select tidemill.give_back(%s, null, 'returned')"):format(worker.id))
        rotate(4)
        assert.equal("3", db:value "select count(*) from tidemill.jobs where state = 'completed'")
        set("keep_s", 0)
        db:query "update tidemill.segment set look_at = clock_timestamp() where look_at is not null"
        rotate(3)
        assert.equal("0", db:value "select count(*) from tidemill.jobs where state = 'completed'")
        assert.equal("0", db:value "pg_relation_size('tidemill.job_0')")
        assert.equal("scheduled", db:value "select state from tidemill.jobs where id = 4")
        assert.same({ 5, 6 }, claimed_all())
        assert.equal(4, segments())
    end)

    it("is not emptied while a job in it runs", function()
        enqueue(2)
        local job = worker:claim "stored"
        set("keep_s", 0)
        rotate(6)
        worker:finish(job, "completed")
        assert.equal("completed", db:value "select state from tidemill.jobs where id = 1")
        assert.same({ 2 }, claimed_all())
    end)

    it("is left alone by a rotation while somebody reads in it, and the ring grows", function()
        set("keep_s", 0)
        local release = db:open("set transaction isolation level repeatable read; select count(*) from tidemill.jobs",
            "rollback")
        for _ = 1, 6 do
            enqueue(1)
            end_all()
            rotate(3)
        end
        assert.is_true(segments() > 4)
        release()
        db:query "update tidemill.segment set look_at = clock_timestamp() where look_at is not null"
        rotate(8)
        assert.equal("0", db:value "select count(*) from tidemill.jobs where state = 'completed'")
    end)

    it("never makes an enqueue or a claim wait", function()
        enqueue(2)
        local commit = db:open("select tidemill.rotate()", "commit")
        enqueue(1)
        assert.same({ 1, 2, 3 }, claimed_all())
        commit()
    end)

    it("survives a rotation that is cut off", function()
        enqueue(2)
        end_all()
        for _ = 1, 4 do
            db:open("select tidemill.rotate()", "rollback")()
            enqueue(1)
            rotate()
        end
        set("keep_s", 0)
        db:open("select tidemill.rotate()", "rollback")()
        assert.equal("6", db:value "select count(*) from tidemill.jobs")
        assert.same({ 3, 4, 5, 6 }, claimed_all())
    end)

    it("takes a job that commits after it was closed", function()
        local commit = db:open(ENQUEUE, "commit")
        set("keep_s", 0)
        enqueue(1)
        end_all()
        rotate(4)
        commit()
        rotate(4)
        assert.same({ 1 }, claimed_all())
    end)
end)
