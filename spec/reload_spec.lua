-- Hot reload, as handler authors and operators see it, with real worker processes.

local cjson = require "cjson"
local database = require "spec.support.database"
local jobs = require "spec.support.jobs"
local worker = require "spec.support.worker"

local FAILED = "reload failed, and the former code goes on"

local db, folder, scratch

-- sh runs a command line that has to succeed, in the handlers' folder.
local function sh(command, ...)
    assert(os.execute(("cd %s && "):format(folder.path) .. command:format(...)))
end

-- deep writes the module that is required two levels down.
local function deep(value)
    folder:within("lib"):file("deep.lua", ("return { value = %q }"):format(value))
end

-- answers writes the handler: it answers with what it and each module that it needs hold.
local function answers(value, declarations)
    folder:task("answers", ([[
        return { own = %q, deep = require("lib.middle").deep.value, text = require("lib.templates.text").text }]])
        :format(value), declarations)
end

before_each(function()
    db, folder, scratch = database.new(), worker.folder(), worker.folder()
    folder:within("lib"):file("middle.lua", [[return { deep = require "lib.deep" }]])
    folder:within("lib/templates"):file("text.lua", [[return { text = "old" }]])
    deep "old"
    answers "old"
end)

after_each(function()
    worker.stop_all()
    folder:remove()
    scratch:remove()
    db:drop()
end)

-- answer returns the result of a job, and its attempt.
local function answer()
    local job = jobs.run(db, "'answers'")
    assert.equal("completed", job.state)
    return cjson.decode(job.result), job.attempts[1]
end

-- reloaded waits until a worker runs a generation, and returns what it logged of that.
local function reloaded(w, generation)
    return w:record { message = "reloaded", generation = generation }
end

-- process returns what a process says about itself.
local function process(name)
    return db:query(("select generation, code, degraded, refused from tidemill.process where stopped_at is null %s")
        :format(name and ("and name = '%s'"):format(name) or ""))[1]
end

-- is_there says whether a file exists in the scratch folder; wait_for_file waits for it.
local function is_there(name)
    local file = io.open(scratch.path .. "/" .. name)
    return file and file:close()
end

local function wait_for_file(name)
    local deadline = os.time() + 30
    repeat
        if is_there(name) then return end
        os.execute "sleep 0.01"
    until os.time() > deadline
    error("no file " .. name)
end

describe("a change of the files", function()
    local NEW = [[return { value = "new" }]]

    local ways = {
        ["of a handler, written in place"] = { "own", function() answers "new" end },
        ["of a module two levels down"] = { "deep", function() deep "new" end },
        ["of a template"] = { "text", function()
            folder:file("lib/templates/text.lua", [[return { text = "new" }]])
        end },
        ["by an atomic rename"] = { "deep", function()
            folder:file("lib/deep.lua.tmp", NEW)
            sh "mv lib/deep.lua.tmp lib/deep.lua"
        end },
        ["by an editor that keeps a backup"] = { "deep", function()
            sh "touch lib/4913 && rm lib/4913 && touch lib/.deep.lua.swp && mv lib/deep.lua lib/deep.lua~"
            folder:file("lib/deep.lua", NEW)
            sh "rm lib/deep.lua~ lib/.deep.lua.swp"
        end },
        ["by rsync"] = { "deep", function()
            folder:file("lib/.deep.lua.Xq31aB", NEW)
            sh "touch -d '2001-01-01' lib/.deep.lua.Xq31aB && mv lib/.deep.lua.Xq31aB lib/deep.lua"
        end },
        ["by another folder in the place of one"] = { "deep", function()
            sh "cp -r lib .lib"
            folder:file(".lib/deep.lua", NEW)
            sh "mv lib .gone && mv .lib lib && rm -r .gone"
        end },
    }
    for way, case in pairs(ways) do
        it(way .. " is run by the next job", function()
            local w = worker.start(db, folder)
            assert.same({ own = "old", deep = "old", text = "old" }, (answer()))
            case[2]()
            reloaded(w, 2)
            local expected = { own = "old", deep = "old", text = "old" }
            expected[case[1]] = "new"
            local got, attempt = answer()
            assert.same(expected, got)
            assert.equal(2, attempt.generation)
            assert.equal(w:find { message = "reloaded" }[1].code, attempt.code)
        end)
    end

    it("that is half written waits for the other half", function()
        local w = worker.start(db, folder)
        local file = assert(io.open(folder.path .. "/lib/deep.lua", "w"))
        file:write "return {"
        file:flush()
        os.execute "sleep 0.2" -- as a busy editor: longer than the debounce
        file:write [[ value = "new" }]]
        file:close()
        reloaded(w, 2)
        assert.equal("new", answer().deep)
        assert.same({}, w:find { message = FAILED })
    end)

    it("says which files differ, and how long it took", function()
        local w = worker.start(db, folder)
        sh "rm lib/templates/text.lua && mkdir .next"
        folder:file(".next/extra.lua", "return {}")
        folder:file(".next/answers.lua", [[return { name = function() return "answers" end, handle = function() end }]])
        sh "mv .next/extra.lua lib/ && mv .next/answers.lua ."
        w:record { message = "reloaded", changed = "answers.lua, lib/extra.lua (new), lib/templates/text.lua (gone)" }
        assert.is_true(w:find { message = "reloaded" }[1].duration_ms > 0)
    end)

    -- releases makes two, and a link `current` to the first. below: where the handlers are in one.
    local function releases(below)
        local base = worker.folder()
        for _, release in ipairs { "one", "two" } do
            base:within(release .. below)
            assert(os.execute(("cp -r %s/. %s/%s%s"):format(folder.path, base.path, release, below)))
        end
        base:file("two" .. below .. "/lib/deep.lua", NEW)
        assert(os.execute(("ln -s one %s/current"):format(base.path)))
        return base
    end

    for below, what in pairs { [""] = "the folder", ["/handlers"] = "a folder on the way" } do
        it("by a link that is switched to another release, and back: " .. what, function()
            local base = releases(below)
            finally(function() base:remove() end)
            local w = worker.start(db, { path = base.path .. "/current" .. below .. "/" })
            assert.equal("old", answer().deep)
            for i, release in ipairs { "two", "one", "two", "one" } do
                assert(os.execute(("cd %s && ln -s %s next && mv -T next current"):format(base.path, release)))
                local record = reloaded(w, i + 1)
                assert.equal(release == "two" and "new" or "old", answer().deep)
                assert.equal(i % 2 == 0, record.code == w.started.code) -- back is the same code
            end
        end)
    end

    it("of a folder that vanishes is not taken; when it comes back it is", function()
        local w = worker.start(db, folder)
        assert(os.execute(("mv %s %s.away"):format(folder.path, folder.path)))
        local record = w:record { message = FAILED }
        assert.matches("there is no such directory", record.reason)
        assert.equal("old", answer().deep)
        assert.matches("there is no such directory", process().degraded)
        assert(os.execute(("mv %s.away %s"):format(folder.path, folder.path)))
        db:wait_for "(select degraded is null from tidemill.process)"
        deep "new"
        reloaded(w, 2)
        assert.equal("new", answer().deep)
    end)

    it("that comes while files are loaded is loaded too, at once", function()
        local w = worker.start(db, folder, "--load-max 600")
        folder:file("waits.lua", ([[io.open("%s/began", "w"):close() while true do end]]):format(scratch.path))
        wait_for_file "began"
        sh "rm waits.lua"
        deep "new"
        reloaded(w, 2)
        assert.equal("new", answer().deep)
        assert.same({}, w:find { message = FAILED })
    end)

    it("is not taken with --no-reload, but by SIGHUP", function()
        local still = worker.start(db, folder, "--no-reload --name still --queue still")
        local other = worker.start(db, folder, "--name other --queue other")
        deep "new"
        reloaded(other, 2)
        deep "newer"
        reloaded(other, 3)
        assert.same({}, still:find { message = "reloaded" })
        still:signal "HUP"
        reloaded(still, 2)
        assert.same({ "2", process("other").code }, { process("still").generation, process("still").code })
    end)

    it("takes no part in SIGHUP: that says so when there is none", function()
        local w = worker.start(db, folder)
        w:signal "HUP"
        w:record { message = "nothing to reload: the handlers are what runs already" }
        assert.equal("1", process().generation)
    end)
end)

describe("a broken edit", function()
    local bytecode = string.dump(load "return {}")

    -- What is written to broken.lua, and how the reason goes on after the file's name.
    local broken = {
        ["a syntax error"] = { "local x = 1\nlocal y = = 2", "broken.lua:2: unexpected symbol near '='" },
        ["no handle"] = { [[return { name = function() return "broken" end }]], "broken.lua: handle: " },
        ["an error at load"] = { "\n\nerror 'no luck'", "broken.lua:3: no luck" },
        ["an error in a module"] = { "require 'lib.broken'", "lib/broken.lua:2: no luck",
            function() folder:file("lib/broken.lua", "\nerror 'no luck'") end },
        ["an endless loop at load"] = { "\nwhile true do end", "broken.lua:2: did not finish loading in time" },
        ["an endless loop that catches errors"] = { "while true do pcall(function() while true do end end) end",
            "broken.lua:1: did not finish loading in time" },
        ["a string.find without end"] = { "string.find(('a'):rep(200), ('a-'):rep(100) .. 'b')",
            "broken.lua.* did not finish loading in time" },
        ["10 GB of tables at load"] = { "local t = {} for i = 1, 10 << 20 do t[i] = ('x'):rep(1024) .. i end",
            "broken.lua: ran out of memory" },
        ["a string of 10 GB at load"] = { "local s = ('x'):rep(10 << 30)", "broken.lua:1: resulting string too large" },
        ["precompiled code"] = { bytecode, "broken.lua: is precompiled Lua" },
        ["a name that is taken"] = { [[return { name = function() return "answers" end, handle = print }]],
            [[broken.lua: name%(%): "answers" is also the name]] },
        ["a require of nothing"] = { "\nrequire 'lib.nothing'", "broken.lua:2: module 'lib.nothing' not found" },
        ["a selftest that raises"] = { [[return { name = function() return "broken" end, handle = print,
            selftest = function() error "2 is not 3" end }]], "broken.lua:2: 2 is not 3" },
        ["a selftest that returns false"] = { [[return { name = function() return "broken" end, handle = print,
            selftest = function() return nil, "2 is not 3" end }]], "broken.lua: selftest failed: 2 is not 3" },
        ["a file that works only once"] = { ([[
            local n = io.open("%s/count", "a") n:write "x" n:close()
            n = io.open("%s/count") local count = #n:read "a" n:close()
            if count %% 2 == 0 then error "a second time" end
            return { name = function() return "broken" end, handle = print }]]), "broken.lua:3: a second time" },
        ["a file that needs another to be loaded before"] = { [[
            Answer = 42
            return { name = function() return "zzz" end, handle = print }]], "zero.lua:1: ",
            function()
                folder:file("zero.lua", [[local x = Answer + 1
                    return { name = function() return "aaa" end, handle = print }]])
            end },
        ["not a table"] = { "return 42", "broken.lua: does not return a table" },
        ["a wrong declaration"] = { [[return { name = function() return "broken" end, handle = print, timeout = -1 }]],
            "broken.lua: timeout: %-1 is not allowed" },
    }
    for what, case in pairs(broken) do
        it("with " .. what .. " never takes effect, is named, and heals alone", function()
            local w = worker.start(db, folder, "--load-max 1")
            local code = case[1]:gsub("%%s/", scratch.path .. "/"):gsub("%%%%", "%%")
            deep "new" -- a good edit along with it is not taken either
            if case[3] then case[3]() end
            folder:file("broken.lua", what == "precompiled code" and bytecode or code)
            local record = w:record { message = FAILED }
            assert.equal(folder.path, record.reason:sub(1, #folder.path))
            assert.matches(case[2], record.reason)
            assert.equal(w.started.code, record.code)
            db:wait_for "(select degraded is not null from tidemill.process)"
            assert.equal(record.reason, process().degraded)
            assert.equal("old", answer().deep)
            local checked, ok = db:tidemill("check " .. folder.path)
            assert.is_false(ok)
            assert.matches(case[2], checked)
            sh "rm -f broken.lua zero.lua lib/broken.lua"
            reloaded(w, 2)
            assert.equal("new", answer().deep)
            db:wait_for "(select degraded is null from tidemill.process)"
        end)
    end

    it("that is taken back heals to the code that runs", function()
        local w = worker.start(db, folder)
        folder:file("broken.lua", "error 'no luck'")
        w:record { message = FAILED }
        sh "rm broken.lua"
        w:record { message = "the handlers are mended: they are what runs already" }
        db:wait_for "(select degraded is null and generation = 1 from tidemill.process)"
    end)

    it("does not keep a process from stopping while it is loaded", function()
        local w = worker.start(db, folder, "--load-max 600")
        folder:file("broken.lua", ([[io.open("%s/began", "w"):close() while true do end]]):format(scratch.path))
        wait_for_file "began"
        w:signal "HUP"
        w:signal "TERM"
        assert.equal(0, w:wait())
    end)
end)

describe("a running job", function()
    -- waiting enqueues a job that waits for `go`, and returns its id when it runs.
    local function waiting(task)
        local id = jobs.enqueue(db, ("'%s'"):format(task))
        db:wait_for(("(select state = 'running' from tidemill.jobs where id = %s)"):format(id))
        db:wait_for(("exists (select from public.began where job = %s)"):format(id))
        return id
    end

    -- write writes a handler that waits, with a value in each place that code can hold one.
    local function write(value)
        folder:within("lib"):file("late.lua", ("return { value = %d }"):format(value))
        deep(tostring(value))
        folder:file("waits.lua", ([[
            local pg = require "tidemill.pg"
            local deep = require "lib.deep"
            local own = %d
            local function later() return own end
            return {
                name = function() return "waits" end,
                timeout = 600,
                handle = function(ctx)
                    assert(pg.query("insert into public.began values ($1)", ctx.id))
                    while not pg.query("select from public.go")[1] do ctx:sleep(0.02) end
                    return { own, later(), deep.value, require("lib.late").value, %d }
                end,
            }]]):format(value, value))
    end

    it("that sleeps across three reloads ends with the constants and modules that it began with", function()
        db:query "create table public.go (); create table public.began (job bigint)"
        write(1)
        local w = worker.start(db, folder)
        local ids = { waiting "waits" }
        for generation = 2, 4 do
            write(generation)
            reloaded(w, generation)
            ids[generation] = waiting "waits"
        end
        db:query "insert into public.go default values"
        for generation = 1, 4 do
            local job = jobs.rested(db, ids[generation])
            assert.same({ generation, generation, tostring(generation), generation, generation },
                cjson.decode(job.result))
            assert.equal(generation, job.attempts[1].generation)
        end
    end)

    it("of a blocking task holds up no reload, and the next on its thread runs the new code", function()
        local function write_blocking(value)
            folder:task("blocks", ([[
                io.open("%s/began", "w"):close()
                local file
                repeat file = io.open "%s/go" until file
                file:close()
                return %d]]):format(scratch.path, scratch.path, value), "blocking = true, timeout = 600")
        end
        write_blocking(1)
        local w = worker.start(db, folder, "--blocking-threads 1")
        local first, second = jobs.enqueue(db, "'blocks'"), jobs.enqueue(db, "'blocks'")
        wait_for_file "began"
        write_blocking(2)
        local record = reloaded(w, 2)
        assert.is_true(record.duration_ms < 1900, "it took " .. record.duration_ms .. " ms")
        scratch:file("go", "")
        assert.equal("1", jobs.rested(db, first).result)
        assert.equal("2", jobs.rested(db, second).result)
    end)
end)

describe("what a new generation declares", function()
    it("is in force with its code: a task added, removed, renamed in place", function()
        local w = worker.start(db, folder)
        local added = jobs.enqueue(db, "'added'")
        folder:task("added", "return 'added'")
        reloaded(w, 2)
        assert.equal('"added"', jobs.rested(db, added).result)
        sh "rm added.lua"
        reloaded(w, 3)
        local waits = jobs.enqueue(db, "'added'")
        assert.equal("old", answer().own) -- which was enqueued later
        assert.same({ "available", "0" }, { jobs.get(db, waits).state, jobs.get(db, waits).attempt })
        folder:file("answers.lua", [[
            return { name = function() return "added" end, handle = function() return "renamed" end }]])
        reloaded(w, 4)
        assert.equal('"renamed"', jobs.rested(db, waits).result)
        local without = jobs.enqueue(db, "'answers'")
        assert.equal("completed", jobs.run(db, "'added'").state)
        assert.equal("available", jobs.get(db, without).state)
    end)

    it("is in force with its code: queue, timeout, attempts", function()
        local w = worker.start(db, folder)
        answer()
        answers("new", [[queue = "fast", max_attempts = 7, timeout = 0.2]])
        reloaded(w, 2)
        -- An enqueue wakes the process on the new queue too.
        db:wait_for "exists (select from tidemill.sleeper where queue = 'fast')"
        local job = jobs.run(db, "'answers'")
        assert.same({ "fast", "7" }, { job.queue, job.max_attempts })
        assert.matches("fast", (db:tidemill "queues"))
        folder:task("answers", "ctx:sleep(600)", [[timeout = 0.2, backoff = function() return 600 end]])
        reloaded(w, 3)
        assert.equal("timeout", jobs.run(db, "'answers'").attempts[1].outcome)
    end)
end)

describe("a generation", function()
    it("shares no value with the one before, and shares them within", function()
        local function write(comment)
            folder:task("counts", ([[
                -- %s
                local lib = require "lib.deep"
                lib.count = (lib.count or 0) + 1
                string.leak = (string.leak or 0) + 1
                return { lib.count, string.leak }]]):format(comment))
        end
        local function count() return jobs.run(db, "'counts'").result end
        write "one"
        local w = worker.start(db, folder, "--queue default=1")
        assert.same({ "[1, 1]", "[2, 1]" }, { count(), count() })
        write "two"
        reloaded(w, 2)
        assert.same({ "[1, 1]", "[2, 1]" }, { count(), count() })
    end)

    it("ends with its last job: unload() and finalizers run", function()
        local function write(value)
            folder:file("leaves.lua", ([[
                local ran
                local function say(what)
                    if not ran then return end -- it was only tried
                    local file = io.open("%s/" .. what .. "-%d", "w")
                    file:close()
                end
                local guard = setmetatable({}, { __gc = function() say "gc" end })
                return {
                    name = function() return "leaves" end,
                    handle = function() ran = guard ~= nil end,
                    unload = function() say "unload" error "is of no concern" end,
                }]]):format(scratch.path, value))
        end
        write(1)
        local w = worker.start(db, folder)
        jobs.run(db, "'leaves'")
        assert.is_nil(is_there "unload-1")
        write(2)
        reloaded(w, 2)
        wait_for_file "unload-1"
        wait_for_file "gc-1"
        jobs.run(db, "'leaves'")
        w:signal "TERM"
        assert.equal(0, w:wait())
        assert.is_true(is_there "unload-2" and is_there "gc-2")
    end)

    it("is shown with each attempt, in the log, by jobs show and in the view", function()
        local w = worker.start(db, folder)
        local _, attempt = answer()
        assert.matches("^%x+$", attempt.code)
        assert.same({ 1, w.started.code }, { attempt.generation, attempt.code })
        local record = w:record { job = attempt.job_id, outcome = "completed" }
        assert.same({ 1, attempt.code }, { record.generation, record.code })
        deep "new"
        reloaded(w, 2)
        local _, later = answer()
        assert.not_equal(attempt.code, later.code)
        local shown = db:tidemill(("jobs show %d"):format(later.job_id))
        assert.matches(("on code %s %%(generation 2%%)"):format(later.code), shown)
        shown = cjson.decode((db:tidemill(("jobs show %d --json"):format(later.job_id))))
        assert.same({ 2, later.code }, { shown.attempts[1].generation, shown.attempts[1].code })
    end)
end)

describe("tidemill reload", function()
    it("reaches every process, and says which code each runs", function()
        local one = worker.start(db, folder, "--no-reload --name one")
        worker.start(db, folder, "--no-reload --name two")
        deep "new"
        local output, ok = db:tidemill "reload --json"
        assert.is_true(ok, output)
        local rows = cjson.decode(output)
        local code = reloaded(one, 2).code
        assert.equal(2, #rows)
        for i, name in ipairs { "one", "two" } do
            assert.same({ name, 2, code, "done" }, { rows[i].process, rows[i].generation, rows[i].code, rows[i].state })
        end
        assert.equal("new", answer().deep)
        output, ok = db:tidemill "reload"
        assert.is_true(ok)
        assert.matches("one%s+2%s+" .. code .. "%s+done", output)
    end)

    it("fails when one of two processes cannot, and says why", function()
        local other = worker.folder()
        finally(function() other:remove() end)
        assert(os.execute(("cp -r %s/. %s"):format(folder.path, other.path)))
        local one = worker.start(db, folder, "--no-reload --name one")
        worker.start(db, other, "--no-reload --name two")
        deep "new"
        other:file("broken.lua", "\nerror 'no luck'")
        local output, ok = db:tidemill "reload"
        assert.is_false(ok)
        assert.matches("one%s+2%s+" .. reloaded(one, 2).code .. "%s+done", output)
        assert.matches("two%s+1%s+" .. one.started.code .. "%s+%S*broken.lua:2: no luck", output)
        assert.matches("1 of 2 processes do not run what was asked for", output)
    end)

    it("is answered by a load that begins after it", function()
        local w = worker.start(db, folder, "--load-max 60 --no-reload")
        -- A load that goes on until it may end, and a module that it has read before it was changed.
        folder:file("slow.lua", ([[
            io.open("%s/began", "w"):close()
            local file
            repeat file = io.open "%s/go" until file
            file:close()
            return { name = function() return "slow" end, handle = print }]]):format(scratch.path, scratch.path))
        w:signal "HUP"
        wait_for_file "began"
        deep "new"
        local ended = assert(io.popen(("%s reload --json --database '%s'"):format(
            os.getenv "TIDEMILL_BIN" or "build/bin/tidemill", db.url)))
        db:wait_for "exists (select from tidemill.reload_request)"
        scratch:file("go", "")
        local row = cjson.decode(ended:read "a")[1]
        assert.is_true(ended:close())
        assert.equal("done", row.state)
        local got, attempt = answer()
        assert.equal("new", got.deep)
        assert.equal(row.code, attempt.code)
    end)

    it("goes back to former code, which stays until the next change", function()
        local w = worker.start(db, folder)
        local first = w.started.code
        deep "new"
        local second = reloaded(w, 2).code
        local output, ok = db:tidemill("reload --to " .. first:sub(1, 6))
        assert.is_true(ok, output)
        assert.same({ "old", 3, first }, { answer().deep, reloaded(w, 3).generation, process().code })
        output, ok = db:tidemill("reload --to " .. second)
        assert.is_true(ok, output)
        assert.equal("new", answer().deep)
        assert.is_true(select(2, db:tidemill("reload --to " .. first)))
        deep "newer"
        reloaded(w, 6)
        assert.equal("newer", answer().deep)
    end)

    it("goes back from broken code too", function()
        local w = worker.start(db, folder)
        deep "new"
        reloaded(w, 2)
        folder:file("broken.lua", "error 'no luck'")
        w:record { message = FAILED }
        local output, ok = db:tidemill("reload --to " .. w.started.code)
        assert.is_true(ok, output)
        assert.equal("old", answer().deep)
    end)

    it("keeps the last five, each once", function()
        local w = worker.start(db, folder)
        local codes = { w.started.code }
        for generation = 2, 6 do
            deep(tostring(generation))
            codes[generation] = reloaded(w, generation).code
        end
        for generation, code in ipairs { codes[2], codes[6], codes[2], codes[5], codes[3] } do
            local output, ok = db:tidemill("reload --to " .. code)
            assert.is_true(ok, generation .. output)
        end
        assert.equal("3", answer().deep)
        assert.is_false(select(2, db:tidemill("reload --to " .. codes[1])))
    end)

    it("refuses code that a process does not know, which is not to be degraded", function()
        local w = worker.start(db, folder)
        local output, ok = db:tidemill "reload --to 0123456789ab"
        assert.is_false(ok)
        assert.matches("code 0123456789ab is not among the last 5 that this process ran", output)
        assert.matches("1 of 1 processes do not run what was asked for", output)
        assert.same({ generation = "1", code = w.started.code,
            refused = "code 0123456789ab is not among the last 5 that this process ran; give one of those" }, process())
        output, ok = db:tidemill "reload"
        assert.is_true(ok, output)
        assert.is_nil(process().refused)
    end)

    it("refuses what is no hash", function()
        for _, text in ipairs { "''", "xyz", "abc", "0123456789abcdef" } do
            local output, ok = db:tidemill("reload --to " .. text)
            assert.is_false(ok)
            assert.matches("is not the hash of code", output)
        end
    end)

    it("does not wait for ever for a process that does not answer", function()
        local w = worker.start(db, folder)
        w:signal "STOP"
        local output, ok = db:tidemill "reload --wait 1"
        w:signal "CONT"
        assert.is_false(ok)
        assert.matches("has not answered yet", output)
    end)

    it("says so when nobody works", function()
        local output, ok = db:tidemill "reload"
        assert.is_true(ok)
        assert.matches("no process runs", output)
    end)
end)

describe("selftest()", function()
    it("runs once before code takes effect, with the modules that the handler has", function()
        local w = worker.start(db, folder)
        folder:file("tested.lua", ([[
            local deep = require "lib.deep"
            return {
                name = function() return "tested" end,
                handle = function() return "well" end,
                selftest = function()
                    assert(deep.value == "old", "deep is not old")
                    local file = io.open("%s/tested", "a")
                    file:write "x"
                    file:close()
                end,
            }]]):format(scratch.path))
        reloaded(w, 2)
        assert.equal('"well"', jobs.run(db, "'tested'").result)
        local file = assert(io.open(scratch.path .. "/tested"))
        assert.equal("x", file:read "a")
        file:close()
        deep "new"
        assert.matches("tested.lua:6: deep is not old", w:record { message = FAILED }.reason)
        assert.equal("old", answer().deep)
    end)
end)

describe("tidemill dev --rerun", function()
    it("runs the job that failed last again when the code is mended, and says what was reloaded", function()
        folder:task("fails", "error 'no luck'", "max_attempts = 1")
        local w = worker.launch(db, folder, "--rerun", "dev")
        w:record { message = "started" }
        local id = jobs.enqueue(db, "'fails'")
        assert.equal("dead", jobs.rested(db, id).state)
        folder:task("fails", "return 'mended'")
        assert.equal("fails.lua", reloaded(w, 2).changed)
        w:record { message = "the job that failed last runs again, on the new code", job = tonumber(id) }
        db:wait_for(("(select state = 'completed' from tidemill.jobs where id = %s)"):format(id))
        local job = jobs.get(db, id)
        assert.equal('"mended"', job.result)
        assert.same({ 1, 2 }, { job.attempts[1].generation, job.attempts[2].generation })
    end)

    it("runs none again without the flag", function()
        folder:task("fails", "error 'no luck'", "max_attempts = 1")
        local w = worker.launch(db, folder, "", "dev")
        w:record { message = "started" }
        local id = jobs.enqueue(db, "'fails'")
        assert.equal("dead", jobs.rested(db, id).state)
        folder:task("fails", "return 'mended'")
        reloaded(w, 2)
        assert.equal("completed", jobs.run(db, "'answers'").state)
        assert.equal("dead", jobs.get(db, id).state)
    end)
end)
