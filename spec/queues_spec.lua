-- Which jobs a worker process starts, in which order, and when: what tasks declare, priorities, queues, unknown tasks.

local database = require "spec.support.database"
local jobs = require "spec.support.jobs"
local worker = require "spec.support.worker"

local db, folder

before_each(function()
    db, folder = database.new(), worker.folder()
end)

after_each(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- completed is the condition that as many jobs have completed.
local function completed(count)
    return ("(select count(*) from tidemill.jobs where state = 'completed') = %d"):format(count)
end

-- order returns the tags of the completed jobs in the order of their starts, as one text.
local function order()
    return db:value [[select string_agg(tags[1], ' ' order by attempted_at) from tidemill.jobs
        where state = 'completed']]
end

-- numbers returns the numbers that a query returns, sorted.
local function numbers(sql)
    local list = {}
    for i, row in ipairs(db:query(sql)) do list[i] = tonumber(row.n) end
    table.sort(list)
    return list
end

describe("what a task declares", function()
    local DECLARED = [[queue = "mail", priority = 7, max_attempts = 4, tags = { "a", "b" }, unique_for = 3600]]

    -- options returns what a job's options have become, as one text.
    local function options(job)
        return table.concat({ job.queue, job.priority, job.max_attempts, job.tags }, " ")
    end

    it("applies to an enqueue through SQL", function()
        folder:task("declares", "return { ctx.queue, ctx.priority, ctx.max_attempts, ctx.tags }", DECLARED)
        worker.start(db, folder)
        local job = jobs.run(db, "'declares'")
        assert.equal("mail 7 4 {a,b}", options(job))
        assert.equal('["mail", 7, 4, ["a", "b"]]', job.result)
        local again = db:query("select * from tidemill.enqueue('declares')")[1]
        assert.same({ id = job.id, duplicate = "t" }, again)
    end)

    it("gives way to what an enqueue says", function()
        folder:task("declares", "return { ctx.queue, ctx.priority, ctx.max_attempts, ctx.tags }", DECLARED)
        worker.start(db, folder)
        local job = jobs.run(db, "'declares', queue => 'default', priority => 2, max_attempts => 9, tags => '{}'")
        assert.equal("default 2 9 {}", options(job))
        assert.equal('["default", 2, 9, []]', job.result)
        local row = db:query("select * from tidemill.enqueue('declares', unique_for => '1 microsecond')")[1]
        assert.equal("f", row.duplicate)
    end)

    it("applies, but for its queue and unique_for, to a job that was enqueued before it was published", function()
        local id = jobs.enqueue(db, "'declares'")
        assert.equal("default 1 25 {}", options(jobs.get(db, id)))
        folder:task("declares", "return { ctx.queue, ctx.priority, ctx.max_attempts, ctx.tags }", DECLARED)
        worker.start(db, folder)
        local job = jobs.rested(db, id)
        assert.equal("default 7 4 {a,b}", options(job))
        assert.equal('["default", 7, 4, ["a", "b"]]', job.result)
        assert.equal("f", db:query("select duplicate from tidemill.enqueue('declares')")[1].duplicate)
    end)

    it("is what the newest process declares, which warns of it", function()
        folder:task("declares", "return ctx.max_attempts", "max_attempts = 3")
        folder:task("agreed", "", "max_attempts = 3")
        local first = worker.start(db, folder)
        local newer = worker.folder()
        newer:task("declares", "return ctx.max_attempts", "max_attempts = 8")
        newer:task("agreed", "", "max_attempts = 3")
        local second = worker.start(db, newer)
        newer:remove()
        local warning = second:record { level = "warn", task = "declares" }
        assert.matches("declares this task differently", warning.message)
        assert.same({}, second:find { task = "agreed" })
        assert.same({}, first:find { level = "warn" })
        assert.equal("8", jobs.run(db, "'declares'").max_attempts)
    end)
end)

describe("a queue", function()
    it("starts the lower priority first, then what was due first, then the lower id", function()
        folder:task("task", "")
        folder:task("twin", "")
        folder:task("urgent", "", "priority = 0")
        folder:task("lazy", "", "priority = 50")
        db:query [[
            select tidemill.enqueue('twin', tags => '{fourth}', schedule_in => '1.5 s');
            select tidemill.enqueue('task', tags => '{third}', schedule_in => '1 s');
            select tidemill.enqueue('twin', tags => '{second}', schedule_in => '0.5 s');
            select tidemill.enqueue_many('task', array_fill('{}'::jsonb, '{3}'), tags => '{first}');
            select tidemill.enqueue('lazy', tags => '{declared50}');
            select tidemill.enqueue('task', tags => '{given100}', priority => 100);
            select tidemill.enqueue('task', tags => '{given49}', priority => 49);
            select tidemill.enqueue('lazy', tags => '{given51}', priority => 51);
            select tidemill.enqueue('urgent', tags => '{declared0}');
            select tidemill.enqueue('lazy', tags => '{given0}', priority => 0);
            select tidemill.enqueue('urgent', tags => '{given1}', priority => 1, schedule_in => '1.6 s');
        ]]
        db:wait_for "not exists (select from tidemill.jobs where state <> 'available')"
        worker.start(db, folder, "--queue default=1")
        db:wait_for(completed(13))
        assert.equal("declared0 given0 first first first second third fourth given1 given49 declared50 given51 "
            .. "given100", order())
        local first = db:value [[select array_agg(id order by attempted_at) = array_agg(id order by id)
            from tidemill.jobs where tags = '{first}']]
        assert.equal("true", first)
    end)

    it("starts what is due at the same time by id, whatever the tasks", function()
        folder:task("one", "")
        folder:task("two", "")
        db:query [[select tidemill.enqueue(task, schedule_at => at, tags => array[n::text])
            from (select clock_timestamp() + interval '0.2 s' as at offset 0) t,
                unnest('{two,one,one,two,one,two,two,one}'::text[]) with ordinality u(task, n) order by n]]
        db:wait_for "not exists (select from tidemill.jobs where state <> 'available')"
        worker.start(db, folder, "--queue default=1")
        db:wait_for(completed(8))
        assert.equal("1 2 3 4 5 6 7 8", order())
    end)

    it("starts a job that becomes due before those of a higher number that wait longer", function()
        folder:task("task", "ctx:sleep(0.05)")
        db:query [[
            select tidemill.enqueue('task', tags => '{late}', priority => 9) from generate_series(1, 30);
            select tidemill.enqueue('task', tags => '{soon}', priority => 3, schedule_in => '0.5 s');
        ]]
        worker.start(db, folder, "--queue default=1")
        db:wait_for(completed(31))
        local before = select(2, order():match("^(.*)soon"):gsub("late", ""))
        assert.is_true(before < 25, before .. " were started before it")
    end)

    it("starts the jobs of a batch in that order too", function()
        folder:task("tells", "ctx.log:info('begun', { tag = ctx.tags[1] })")
        db:query [[select tidemill.enqueue('tells', tags => array[p::text], priority => p)
            from generate_series(1, 20) n, lateral (select n * 7 % 20 + 1 as p) t]]
        local w = worker.start(db, folder, "--queue default=20 --threads 1")
        db:wait_for(completed(20))
        -- One may be interrupted before it tells that it has begun, so some can be out of order; of 190 pairs.
        local told, inverted = w:find { message = "begun" }, 0
        for i = 1, 20 do
            for j = i + 1, 20 do
                if tonumber(told[i].tag) > tonumber(told[j].tag) then inverted = inverted + 1 end
            end
        end
        assert.is_true(inverted < 40, inverted .. " pairs are out of order")
    end)

    it("starts a job beside those that run", function()
        folder:task("waits", "ctx:sleep(600)")
        worker.start(db, folder, "--queue default=4")
        for running = 1, 4 do
            jobs.enqueue(db, "'waits'")
            db:wait_for("(select count(*) from tidemill.jobs where state = 'running') = " .. running)
        end
    end)

    it("has workers of its own", function()
        folder:task("waits", "ctx:sleep(600)")
        folder:task("passes", "")
        worker.start(db, folder, "--queue full=2 --queue other=1 --threads 1")
        db:query "select tidemill.enqueue('waits', queue => 'full') from generate_series(1, 4)"
        db:query "select tidemill.enqueue('passes', queue => 'full')"
        for _ = 1, 3 do assert.equal("completed", jobs.run(db, "'passes', queue => 'other'").state) end
        local full = db:query("select available, running from tidemill.queues where queue = 'full'")[1]
        assert.same({ available = "3", running = "2" }, full)
    end)

    it("is served when a handler declares it, or else waits", function()
        folder:task("passes", "", "queue = 'declared'")
        local w = worker.start(db, folder)
        assert.equal("default=100 declared=10", w.started.queues)
        local unserved = jobs.enqueue(db, "'passes', queue => 'unserved'")
        for _, queue in ipairs { "default", "declared" } do
            assert.equal("completed", jobs.run(db, ("'passes', queue => '%s'"):format(queue)).state)
        end
        assert.equal("available", jobs.get(db, unserved).state)
    end)

    it("is not served by a process that was given others", function()
        folder:task("passes", "", "queue = 'declared'")
        local w = worker.start(db, folder, "--queue given=3")
        assert.equal("given=3", w.started.queues)
        local waiting = { jobs.enqueue(db, "'passes'"), jobs.enqueue(db, "'passes', queue => 'default'") }
        assert.equal("completed", jobs.run(db, "'passes', queue => 'given'").state)
        for _, id in ipairs(waiting) do assert.equal("available", jobs.get(db, id).state) end
    end)
end)

describe("a task that nobody knows", function()
    it("waits visibly, burns no attempt, and runs when a worker knows it", function()
        folder:task("known", "")
        local id = jobs.enqueue(db, "'novel'")
        worker.start(db, folder)
        assert.equal("completed", jobs.run(db, "'known'").state)
        local job = jobs.get(db, id)
        assert.same({ "available", "0", {} }, { job.state, job.attempt, job.attempts })
        assert.equal("1", db:value "select available from tidemill.queues where queue = 'default'")
        folder:task("novel", "return ctx.attempt")
        worker.start(db, folder)
        job = jobs.rested(db, id)
        assert.same({ "completed", "1", 1 }, { job.state, job.result, #job.attempts })
    end)

    it("is one whose file was deleted; the others run", function()
        folder:task("kept", "")
        folder:task("deleted", "")
        local w = worker.start(db, folder)
        assert.equal("completed", jobs.run(db, "'deleted'").state)
        w:signal "TERM"
        assert.equal(0, w:wait())
        folder:delete "deleted.lua"
        worker.start(db, folder)
        local id = jobs.enqueue(db, "'deleted'")
        for _ = 1, 3 do assert.equal("completed", jobs.run(db, "'kept'").state) end
        local job = jobs.get(db, id)
        assert.same({ "available", "0", {} }, { job.state, job.attempt, job.attempts })
    end)
end)

-- The poll comes every second: if it were what finds a job, one would start half a second late on average.
describe("without the poll", function()
    -- prompt checks that all but one of some delays, in seconds, are far below it.
    local function prompt(late, count)
        assert.equal(count, #late)
        assert.is_true(late[1] >= 0, "one started before it was due")
        assert.is_true(late[count - 1] < 0.3, "late by " .. table.concat(late, " "))
    end

    before_each(function()
        folder:task("passes", "")
        folder:task("retries", "if ctx.attempt < 9 then error 'again' end", "backoff = function() return 0.15 end")
        folder:task("snoozes", "if ctx.run < 9 then ctx:snooze(0.15) end")
        worker.start(db, folder)
        assert.equal("completed", jobs.run(db, "'passes'").state)
    end)

    it("a job starts on an idle system", function()
        for _ = 1, 9 do jobs.run(db, "'passes', tags => '{timed}'") end
        prompt(numbers [[select extract(epoch from attempted_at - enqueued_at) as n from tidemill.jobs
            where tags = '{timed}']], 9)
    end)

    it("a job starts when it is due", function()
        db:query [[select tidemill.enqueue('passes', schedule_in => 0.3 * n * '1 s'::interval, tags => '{timed}')
            from generate_series(1, 9) n]]
        db:wait_for(completed(10))
        prompt(numbers [[select extract(epoch from attempted_at - scheduled_at) as n from tidemill.jobs
            where tags = '{timed}']], 9)
    end)

    it("a process that waits asks the database a few times a second at most", function()
        local count = "select xact_commit from pg_stat_database where datname = current_database()"
        local first = tonumber(db:value(count))
        db:query "select pg_sleep(4)" -- the time over which it is counted
        local last = tonumber(db:value(count))
        assert.is_true(last - first < 40, (last - first) .. " transactions in 4 s")
    end)

    for _, task in ipairs { "retries", "snoozes" } do
        it("a job starts again when it " .. task, function()
            local id = jobs.enqueue(db, ("'%s'"):format(task))
            db:wait_for(completed(2))
            prompt(numbers(([[select extract(epoch from b.started_at - a.finished_at) - 0.15 as n
                from tidemill.attempts a join tidemill.attempts b on b.job_id = a.job_id and b.run = a.run + 1
                where a.job_id = %s]]):format(id)), 8)
        end)
    end
end)
