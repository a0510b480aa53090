-- How soon the next job runs what was saved, and what a reload costs the jobs meanwhile: 20 handlers, 1,000 workers.
-- `make bench-reload` prints the figures.

local database = require "spec.support.database"
local worker = require "spec.support.worker"

local HANDLERS, WORKERS, RELOADS = 20, 1000, 10
local DEBOUNCE_MS = 50 -- QUIET_MS in runtime/engine/changes.c

local db, folder

-- save writes the module that every handler requires, and returns when, as the file system has it, in seconds.
local function save(value)
    folder:within("lib"):file("deep.lua", ("return { value = %d }"):format(value))
    local pipe = assert(io.popen(("stat -c %%.9Y %s/lib/deep.lua"):format(folder.path)))
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
            return require("lib.deep").value]])
    end
end)

after_each(function()
    worker.stop_all()
    folder:remove()
    db:drop()
end)

-- keep_busy enqueues more jobs than are done, in the background, until public.stop is there.
local function keep_busy(seconds)
    return db:start(([[
        do $load$
        begin
            while to_regclass('public.stop') is null loop
                while (select count(*) from (select from tidemill.job limit 12000) j) < 10000 loop
                    for i in 1 .. %d loop
                        perform tidemill.enqueue_many('task' || i, array_fill('{"seconds": %g}'::jsonb, array[100]));
                    end loop;
                    commit;
                end loop;
                perform pg_sleep(0.05);
            end loop;
        end $load$]]):format(HANDLERS, seconds))
end

-- Of each reload: milliseconds from the save to the first end of a job on the new code, and how many jobs ended in the
-- second after the save and in the second before.
local FIGURES = [[
    with each as (
        select s.generation,
            (select extract(epoch from min(a.finished_at) - s.at) * 1000 from tidemill.attempt a
                where a.generation = s.generation) as ms,
            (select count(*) from tidemill.attempt a
                where a.finished_at between s.at and s.at + interval '1 s') as after,
            (select count(*) from tidemill.attempt a
                where a.finished_at between s.at - interval '1 s' and s.at) as before
        from public.saved s
    )
    select round(percentile_cont(0.5) within group (order by ms)) as ms, round(max(ms)) as worst_ms,
        round(percentile_cont(0.5) within group (order by before)) as rate,
        round(100 * percentile_cont(0.5) within group (order by after::float8 / before)) as percent,
        round(100 * min(after::float8 / before)) as worst_percent,
        (select count(*) from tidemill.attempt where outcome <> 'completed' or generation is null) as bad
    from each]]

local function measure(what, seconds)
    worker.start(db, folder, ("--queue default=%d"):format(WORKERS))
    local ended = keep_busy(seconds)
    db:wait_for "(select count(*) from tidemill.finished) > 10000"
    for generation = 2, RELOADS + 1 do
        db:query(("insert into public.saved values (%d, to_timestamp(%.9f))"):format(generation, save(generation)))
        db:query(db.until_true(("(select max(generation) from tidemill.process) = %d"):format(generation))
            .. "select pg_sleep(2)") -- for the seconds before and after
    end
    db:query "create table public.stop ()"
    ended()
    local row = db:query(FIGURES)[1]
    print(("# figures: %s: the first job on new code ends %d ms after the save (worst %d), %d of them the debounce; "
        .. "%d jobs/s before, %d%% of that in the second of a reload (worst %d%%)")
        :format(what, row.ms, row.worst_ms, DEBOUNCE_MS, row.rate, row.percent, row.worst_percent))
    assert.equal("0", row.bad)
end

describe(("%d handlers and %d workers"):format(HANDLERS, WORKERS), function()
    it("with jobs that do nothing", function() measure("jobs that do nothing", 0) end)
    it("with jobs that sleep, so that there are as many states", function() measure("jobs that sleep 0.5 s", 0.5) end)
end)
