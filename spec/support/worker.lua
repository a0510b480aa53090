-- Worker processes, `tidemill work`, on a folder of handlers that a spec makes, and their logs.
--
--     local worker = require "spec.support.worker"
--     local folder = worker.folder()
--     folder:task("greets", [[return "hello " .. args.name]], "max_attempts = 3")
--     local w = worker.start(db, folder, "--queue default=1")   -- returns when it has started
--     w:record { job = 7, outcome = "completed" }               -- waits for that record of its log
--     w:signal "TERM"
--     w:wait()                                                  -- its exit code
--     worker.stop_all()                                         -- at once, whatever they are doing

local cjson = require "cjson"

local worker = {}
worker.__index = worker

local program = os.getenv "TIDEMILL_BIN" or "build/bin/tidemill"

-- How long something may take that another process does, in seconds, before it counts as never.
local DEADLINE = 30

local running = {}

-- shell runs a command line that has to succeed.
local function shell(command, ...)
    assert(os.execute(command:format(...)))
end

-- ---- Folders of handlers ----

local folder = {}
folder.__index = folder

-- folder makes an empty folder.
function worker.folder()
    local path = os.tmpname()
    os.remove(path)
    shell("mkdir %s", path)
    return setmetatable({ path = path }, folder)
end

-- file writes a file with a text.
function folder:file(name, text)
    local file = assert(io.open(self.path .. "/" .. name, "w"))
    file:write(text)
    file:close()
end

-- task writes a handler with the body of its handle(ctx, args) and its declarations. The body begins in line 2.
function folder:task(name, body, declarations)
    self:file(name .. ".lua", ([[
local tidemill = require "tidemill" local function handle(ctx, args)
%s
end
return { handle = handle, name = function() return "%s" end, null = tidemill.null, %s }
]]):format(body, name, declarations or ""))
end

-- within returns a folder below it, which is made if need be.
function folder:within(name)
    shell("mkdir -p %s/%s", self.path, name)
    return setmetatable({ path = self.path .. "/" .. name }, folder)
end

-- delete removes a file.
function folder:delete(name)
    assert(os.remove(self.path .. "/" .. name))
end

function folder:remove()
    shell("rm -rf %s", self.path)
end

-- ---- Workers ----

-- The program ends when the shell does that waits for it, which ends when this process does.
local LAUNCH = [[exec setpriv --pdeathsig KILL bash -c '
    setpriv --pdeathsig KILL %s %s --database "%s" --handlers %s --log-format json %s </dev/null >%s 2>&1 &
    echo $!; wait $! 2>/dev/null; echo $?' 2>/dev/null]]

-- launch starts a worker and returns at once. command: "work", unless given.
function worker.launch(db, handlers, options, command)
    local log = os.tmpname()
    local pipe = assert(io.popen(LAUNCH:format(program, command or "work", db.url, handlers.path, options or "", log)))
    local self = setmetatable({ pipe = pipe, pid = assert(pipe:read "n"), path = log, records = {} }, worker)
    self.log = assert(io.open(log))
    running[self] = true
    return self
end

-- start starts one and returns when it works. What it logged is in w.started.
function worker.start(db, handlers, options)
    local self = worker.launch(db, handlers, options)
    self.started = self:record { message = "started" }
    return self
end

-- refused starts one that has to end by itself, and returns its exit code and what it said.
function worker.refused(db, handlers, options)
    local self = worker.launch(db, handlers, options)
    local code = self:wait()
    return code, self.log:read "a"
end

-- signal sends it a signal.
function worker:signal(name)
    shell("kill -s %s %d", name, self.pid)
end

-- is_alive says whether it still runs.
function worker:is_alive()
    return self.pipe ~= nil and os.execute(("kill -s 0 %d 2>/dev/null"):format(self.pid)) == true
end

-- wait waits for its end, and returns its exit code.
function worker:wait()
    if not os.execute(("timeout %d tail -s 0.02 --pid=%d -f /dev/null"):format(DEADLINE, self.pid)) then
        error(("the worker did not end within %d s; it said:\n%s"):format(DEADLINE, self:said()), 2)
    end
    local code = self.pipe:read "n"
    self.pipe:close()
    self.pipe = nil
    running[self] = nil
    return code
end

-- said returns the whole log.
function worker:said()
    local file = assert(io.open(self.path))
    local text = file:read "a"
    file:close()
    return text
end

-- read takes in what was logged since.
local function read(self)
    while true do
        local at = self.log:seek()
        local line = self.log:read "L"
        if not line or line:sub(-1) ~= "\n" then
            self.log:seek("set", at) -- it is still being written
            return
        end
        local ok, record = pcall(cjson.decode, line)
        self.records[#self.records + 1] = ok and record or { text = line }
    end
end

-- fits says whether a record has all of the fields.
local function fits(record, fields)
    for name, value in pairs(fields) do
        if record[name] ~= value then return false end
    end
    return true
end

-- find returns the records so far that have all of these fields.
function worker:find(fields)
    local found = {}
    read(self)
    for _, record in ipairs(self.records) do
        if fits(record, fields) then found[#found + 1] = record end
    end
    return found
end

-- record waits for a record that has all of these fields, and returns the first.
function worker:record(fields)
    local deadline = os.time() + DEADLINE
    repeat
        local alive = self:is_alive()
        local found = self:find(fields)[1]
        if found then return found end
        if alive then os.execute "sleep 0.01" end
    until not alive or os.time() > deadline
    error(("no record with %s; the worker said:\n%s"):format(cjson.encode(fields), self:said()), 2)
end

-- stop ends it at once and forgets its log.
function worker:stop()
    if self.pipe then
        os.execute(("kill -s KILL %d 2>/dev/null"):format(self.pid))
        self:wait()
    end
    self.log:close()
    os.remove(self.path)
end

-- stop_all ends all that still run.
function worker.stop_all()
    for one in pairs(running) do one:stop() end
end

return worker
