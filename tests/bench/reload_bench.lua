-- How soon the next job runs what was saved, and what a reload costs the jobs meanwhile: 20 handlers, 1,000 workers.
-- `make bench-reload` prints the figures.

local database = require "spec.support.database"
local worker = require "spec.support.worker"

local HANDLERS, WORKERS, RELOADS = 20, 1000, 10
local DEBOUNCE_MS = 50 -- QUIET_MS in runtime/engine/changes.c

local db, folder

-- save writes the module that every handler requires, and returns when, as the file system has it, in seconds. (By a
-- rename: the machine is busy, and what is half written for long would be a generation of its own.)
local function save(value)
    local lib = folder:within "lib"
    lib:file(".deep.lua", ("return { value = %d }"):format(value))
    local pipe = assert(io.popen(("cd %s && mv .deep.lua deep.lua && stat -c %%.9Y deep.lua"):format(lib.path)))
    local saved = pipe:read "n"
    pipe:close()
    return saved
end

before_each(function()
    db, folder = database.new(), worker.folder()
    db:query "create table public.saved (generation int, at timestamptz)"
    save(1)
    for i = 1, HANDLERS do
        folder:task("task" .. i, [[
            if args.seconds > 0 then ctx:sleep(args.seconds) end
            return { require("lib.deep").value, ctx.deadline - 60 }]]) -- 60: the timeout
    end
end)

-- The worker of this bench logs no line when it has started.
function worker.start(...)
    local started = worker.launch(...)
    db:wait_for "exists (select from tidemill.process)"
    return started
end

after_each(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- enqueue stores jobs of all tasks.
local function enqueue(count, seconds)
    db:query(([[select tidemill.enqueue_many('task' || i, array_fill('{"seconds": %g}'::jsonb, array[%d]))
        from generate_series(1, %d) i]]):format(seconds, count // HANDLERS, HANDLERS))
end

-- Of each reload: milliseconds from the save to the start of the first job on the new code, and how many jobs ended in
-- the second after the save and in the second before.
local FIGURES = [[
    with ran as materialized (
        select j.result, a.finished_at, a.outcome, a.generation
        from tidemill.attempts a join tidemill.jobs j on j.id = a.job_id where a.finished_at is not null
    ), each as (
        select s.generation,
            (select (min((f.result ->> 1)::float8) - extract(epoch from s.at)) * 1000 from ran f
                where f.result ->> 0 = s.generation::text) as ms,
            (select count(*) from ran a
                where a.finished_at between s.at and s.at + interval '1 s') as after,
            (select count(*) from ran a
                where a.finished_at between s.at - interval '1 s' and s.at) as before
        from public.saved s
    )
    select round(percentile_cont(0.5) within group (order by ms)) as ms, round(max(ms)) as worst_ms,
        round(percentile_cont(0.5) within group (order by before)) as rate,
        round(100 * percentile_cont(0.5) within group (order by after::float8 / before)) as percent,
        round(100 * min(after::float8 / before)) as worst_percent,
        (select count(*) from ran where outcome <> 'completed' or generation is null) as bad
    from each]]

local function measure(what, seconds, count)
    enqueue(count, seconds)
    db:query "vacuum analyze"
    worker.start(db, folder, ("--log-level warn --queue default=%d"):format(WORKERS))
    db:wait_for "(select count(*) from (select from tidemill.job where state = 'c' limit 5000) f) = 5000"
    for generation = 2, RELOADS + 1 do
        db:query(("insert into public.saved values (%d, to_timestamp(%.9f))"):format(generation, save(generation)))
        db:query(db.until_true(("(select max(generation) from tidemill.process) = %d"):format(generation))
            .. "select pg_sleep(2)") -- for the seconds before and after
    end
    -- Else there were too few for the figures.
    assert.not_equal("0", db:value "select count(*) from tidemill.job where state = 'w'")
    local row = db:query(FIGURES)[1]
    print(("# figures: %s: the first job on new code starts %d ms after the save (worst %d), %d of them "
        .. "the debounce; %d jobs/s before, %d%% of that in the second of a reload (worst %d%%)")
        :format(what, row.ms, row.worst_ms, DEBOUNCE_MS, row.rate, row.percent, row.worst_percent))
    assert.equal("0", row.bad)
end

describe(("%d handlers and %d workers"):format(HANDLERS, WORKERS), function()
    it("with jobs that do nothing", function() measure("jobs that do nothing", 0, 600000) end)
    it("with jobs that sleep, so that there are as many states", function()
        measure("jobs that sleep 0.5 s", 0.5, 80000)
    end)
end)
