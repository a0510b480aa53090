-- Reloads under load: many with real edits, and broken edits of each kind among the jobs. `make reload-soak` is the
-- long form: TIDEMILL_RELOADS edits, and a tenth as many broken ones of each kind.

local database = require "spec.support.database"
local worker = require "spec.support.worker"

local RELOADS = tonumber(os.getenv "TIDEMILL_RELOADS") or 30
local BROKEN = RELOADS // 10
local RATE = 1000 -- jobs a second
local LONG = RELOADS >= 1000
local SETTLED = 10 -- reloads, after which memory is to stay as it is

local db, folder, w, ended
local good = 1 -- the constant that is in effect

-- deep writes the constant, in a module that is required two levels down.
local function deep(value)
    folder:within("lib"):file("deep.lua", ("return { value = %d }"):format(value))
end

-- start_load enqueues jobs at a constant rate until public.stop is there: some of them sleep across reloads.
local function start_load()
    ended = db:start(([[
        do $load$
        declare
            began constant timestamptz := clock_timestamp();
            wanted bigint;
            stored bigint := 0;
        begin
            while to_regclass('public.stop') is null loop
                wanted := extract(epoch from clock_timestamp() - began) * %d;
                perform tidemill.enqueue_many('answers', array_fill('{}'::jsonb, array[(wanted - stored)::int]));
                if stored / 100 < wanted / 100 then perform tidemill.enqueue('spans'); end if;
                stored := wanted;
                commit;
                perform pg_sleep(0.02);
            end loop;
        end $load$]]):format(RATE))
end

-- stop_load ends that, and waits until all jobs are done.
local function stop_load()
    db:query "create table public.stop ()"
    ended()
    db:wait_for("not exists (select from tidemill.job where state = 'w')", 120)
    db:query "drop table public.stop"
end

-- resident returns the process's resident memory in KiB.
local function resident()
    local file = assert(io.open(("/proc/%d/status"):format(w.pid)))
    local text = file:read "a"
    file:close()
    return tonumber(text:match "VmRSS:%s+(%d+)")
end

-- lowest returns the lowest of a part of a list. (Memory comes and goes with the jobs that run at the same time; what
-- is never given back is in the lowest too.)
local function lowest(list, from, to)
    return math.min(table.unpack(list, from, to))
end

-- one returns the only row of a query, as numbers.
local function one(sql)
    local row = db:query(sql)[1]
    for name, value in pairs(row) do row[name] = tonumber(value) end
    return row
end

setup(function()
    db, folder = database.new(), worker.folder()
    db:query "create table public.done (generation int, at timestamptz)"
    folder:within("lib"):file("middle.lua", [[return { deep = require "lib.deep" }]])
    deep(good)
    folder:task("answers", [[return require("lib.middle").deep.value]])
    folder:task("spans", [[
        local before = require("lib.middle").deep.value
        ctx:sleep(1)
        return { before, require("lib.middle").deep.value }]])
    w = worker.start(db, folder, "--log-level warn --load-max 2")
end)

teardown(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- The worker of this spec logs no line when it has started.
worker.start = function(...)
    local started = worker.launch(...)
    db:wait_for "exists (select from tidemill.process)"
    return started
end

describe("under a constant load", function()
    it(RELOADS .. " reloads lose and fail no job, mix no generations, and leave memory where it was", function()
        local memory = {}
        start_load()
        local began = db:value "clock_timestamp()"
        for generation = 2, RELOADS + 1 do
            deep(generation)
            good = generation
            if generation % 10 == 0 then -- at the same time as the change is seen
                local output, ok = db:tidemill "reload"
                assert.is_true(ok, output)
            end
            db:query(db.until_true(("(select generation >= %d from tidemill.process)"):format(generation))
                .. ("insert into public.done values (%d, clock_timestamp())"):format(generation))
            memory[generation - 1] = resident()
        end
        local took = one(("select extract(epoch from clock_timestamp() - '%s') as s"):format(began)).s
        stop_load()
        local all = one [[
            select count(*) as attempts, count(distinct a.job_id) as jobs, count(distinct a.generation) as generations,
                count(*) filter (where a.outcome <> 'completed') as bad,
                count(*) filter (where a.outcome = 'completed' and f.result is distinct from case f.task
                    when 'answers' then to_jsonb(a.generation)
                    else jsonb_build_array(a.generation, a.generation) end) as wrong,
                count(*) filter (where exists (select from public.done d
                    where d.generation = a.generation + 1 and a.started_at > d.at)) as late
            from tidemill.attempts a left join tidemill.jobs f on f.id = a.job_id]]
        local ran = one(([[select count(*) as jobs from tidemill.attempts
            where started_at between '%s'::timestamptz and '%s'::timestamptz + interval '%f s']])
            :format(began, began, took))
        local early, late = lowest(memory, SETTLED, SETTLED + 9), lowest(memory, RELOADS - 9, RELOADS)
        local curve = {}
        for i = 1, #memory, math.max(1, #memory // 20) do curve[#curve + 1] = i .. ":" .. memory[i] end
        print("# memory in KiB, by reload: " .. table.concat(curve, " "))
        print(("# figures: %d reloads in %.0f s under %.0f jobs/s: %d jobs, %d failed or lost, %d mixed, "
            .. "%d on old code; memory from the 10th on %d KiB, in the end %d KiB")
            :format(RELOADS, took, ran.jobs / took, all.jobs, all.bad, all.wrong, all.late, early, late))
        assert.same({ bad = 0, wrong = 0, late = 0, twice = 0 },
            { bad = all.bad, wrong = all.wrong, late = all.late, twice = all.attempts - all.jobs })
        assert.equal(RELOADS + 1, one("select generation as g from tidemill.process").g)
        assert.equal(all.jobs, one("select count(*) as n from tidemill.jobs where state = 'completed'").n)
        assert.is_true(all.generations > RELOADS // 2)
        assert.is_true(late <= early * 1.1, ("%d KiB became %d KiB"):format(early, late))
        if LONG then assert.is_true(ran.jobs / took >= RATE * 0.98) end
    end)

    local kinds = {
        ["a syntax error"] = { "local y = = 2", "broken.lua:1: unexpected symbol" },
        ["no handle"] = { [[return { name = function() return "broken" end }]], "broken.lua: handle: " },
        ["an error at load"] = { "\nerror 'no luck'", "broken.lua:2: no luck" },
        ["an endless loop at load"] = { "while true do end", "broken.lua:1: did not finish loading" },
        ["10 GB at load"] = { "local t = {} for i = 1, 10 << 20 do t[i] = ('x'):rep(1024) .. i end",
            "broken.lua: ran out of memory" },
        ["precompiled code"] = { string.dump(load "return {}"), "broken.lua: is precompiled Lua" },
        ["a name that is taken"] = { [[return { name = function() return "spans" end, handle = print }]],
            "spans.lua: name%(%)" },
        ["a require of nothing"] = { "\nrequire 'lib.nothing'", "broken.lua:2: module 'lib.nothing' not found" },
    }
    for kind, case in pairs(kinds) do
        it(("%d times %s never takes effect"):format(BROKEN, kind), function()
            local first = one("select coalesce(max(id), 0) as id from tidemill.jobs").id
            local runs = one("select generation as g from tidemill.process").g
            start_load()
            for _ = 1, BROKEN do
                folder:file("broken.lua", case[1])
                deep(-1)
                db:wait_for "(select degraded is not null from tidemill.process)"
                assert.matches(case[2], db:value "select degraded from tidemill.process")
                deep(good)
                folder:delete "broken.lua"
                db:wait_for "(select degraded is null from tidemill.process)"
            end
            stop_load()
            local all = one(([[
                select count(*) as attempts,
                    count(*) filter (where a.outcome <> 'completed' or a.generation <> %d) as bad
                from tidemill.attempts a where a.job_id > %d]]):format(runs, first))
            print(("# figures: %s, %d times: %d jobs, %d failed or on other code")
                :format(kind, BROKEN, all.attempts, all.bad))
            assert.is_true(all.attempts > 0)
            assert.equal(0, all.bad)
            assert.equal(runs, one("select generation as g from tidemill.process").g)
        end)
    end
end)
