-- A handler that is broken, in any way, keeps `tidemill work` from starting: exit code 1, with file, line and reason.

local database = require "spec.support.database"
local worker = require "spec.support.worker"

local db, folder

setup(function() db = database.new() end)
teardown(function() db:drop() end)

before_each(function()
    folder = worker.folder()
    folder:task("fine", "")
end)

after_each(function()
    worker.stop_all()
    folder:remove()
end)

-- refused starts a worker, which has to refuse, and returns what it said, without the folder's name.
local function refused()
    local code, said = worker.refused(db, folder)
    assert.equal(1, code, said)
    assert.equal("0", db:value "(select count(*) from tidemill.process) + (select count(*) from tidemill.task)")
    local message, count = said:gsub("^tidemill: " .. folder.path:gsub("%p", "%%%0") .. "/", "")
    assert.equal(1, count, said)
    return (message:gsub(folder.path:gsub("%p", "%%%0") .. "/", ""))
end

local MODULE = [[return {
    name = function() return "broken" end,
    handle = function() end,
    %s
}
]]

describe("a file that does not load", function()
    for name, case in pairs {
        ["a syntax error"] = { "return {\n    name = function() return 1 end,\n    handle = 42 +\n}\n",
            "^broken.lua:4: unexpected symbol near '}'" },
        ["an unfinished block"] = { "local function f()\n\nreturn f\n", "^broken.lua:%d: 'end' expected" },
        ["an error at load"] = { "local config = nil\n\nlocal port = config.port\nreturn {}\n",
            "^broken.lua:3: attempt to index a nil value %(local 'config'%)" },
        ["an error at load that is no text"] = { "error({ code = 1 })\n", "^broken.lua:1: .error object is a table" },
        ["a module that is not there"] = { "\nlocal gone = require 'lib.gone'\nreturn {}\n",
            "^broken.lua:2: module 'lib.gone' not found" },
        ["no value"] = { "local x = 1\n", "^broken.lua: does not return a table" },
        ["a function"] = { "return function() end\n", "^broken.lua: does not return a table" },
        ["bytecode"] = { string.dump(load "return {}"), "^broken.lua: is precompiled Lua" },
    } do
        it("is refused: " .. name, function()
            folder:file("broken.lua", case[1])
            assert.matches(case[2], refused())
        end)
    end

    it("is refused with the place in the module that it requires", function()
        os.execute("mkdir " .. folder.path .. "/lib")
        folder:file("lib/part.lua", "local part = {}\n\n\nerror 'no configuration'\nreturn part\n")
        folder:file("broken.lua", "local part = require 'lib.part'\nreturn part\n")
        assert.matches("lib/part.lua:4: no configuration", refused())
        folder:file("lib/part.lua", "local part = {}\nreturn part part\n")
        assert.matches("^lib/part.lua:2: ", refused())
    end)
end)

describe("a module that breaks the contract", function()
    for name, case in pairs {
        ["no name"] = { "return { handle = function() end }", "name: nil is not allowed" },
        ["a name that is no function"] = { "return { name = 'broken', handle = print }", 'name: "broken" is not' },
        ["a name() that returns nothing"] = { "return { name = function() end, handle = print }",
            "name%(%): nil is not allowed" },
        ["a name() that returns an empty text"] = { "return { name = function() return '' end, handle = print }",
            'name%(%): "" is not allowed' },
        ["a name() that returns 101 bytes"] = {
            "return { name = function() return ('x'):rep(101) end, handle = print }",
            "name%(%): .* is not allowed; return a name of 1 to 100 bytes" },
        ["no handle"] = { "return { name = function() return 'broken' end }", "handle: nil is not allowed" },
        ["a handle that is no function"] = { "return { name = function() return 'broken' end, handle = {} }",
            "handle: a table is not allowed" },
    } do
        it("is refused: " .. name, function()
            folder:file("broken.lua", case[1])
            assert.matches("^broken.lua: " .. case[2], refused())
        end)
    end

    it("is refused with the line of a name() that raises", function()
        folder:file("broken.lua", "return {\n    name = function()\n    error 'who am I' end,\n    handle = print }")
        assert.matches("^broken.lua:3: who am I", refused())
    end)

    it("is refused when two files have one name", function()
        folder:file("second.lua", "return { name = function() return 'fine' end, handle = print }")
        assert.matches('^second.lua: name%(%): "fine" is also the name of the task in fine.lua', refused())
    end)
end)

describe("a declaration", function()
    local WHOLE = "declare a whole number from %d to %d"
    for _, case in ipairs {
        { "queue", "7", "queue: 7 is not allowed; declare a name of 1 to 100 bytes" },
        { "queue", "''", 'queue: "" is not allowed' },
        { "queue", "('q'):rep(101)", "queue: .* is not allowed" },
        { "queue", "{}", "queue: a table is not allowed" },
        { "priority", "'high'", 'priority: "high" is not allowed; ' .. WHOLE:format(0, 100) },
        { "priority", "-1", "priority: %-1 is not allowed; " .. WHOLE:format(0, 100) },
        { "priority", "101", "priority: 101 is not allowed; " .. WHOLE:format(0, 100) },
        { "priority", "1.5", "priority: 1.5 is not allowed" },
        { "max_attempts", "'3'", 'max_attempts: "3" is not allowed; ' .. WHOLE:format(1, 1000) },
        { "max_attempts", "0", "max_attempts: 0 is not allowed; " .. WHOLE:format(1, 1000) },
        { "max_attempts", "1001", "max_attempts: 1001 is not allowed" },
        { "timeout", "'1m'", 'timeout: "1m" is not allowed; declare a number of seconds' },
        { "timeout", "0", "timeout: 0 is not allowed" },
        { "timeout", "0/0", "timeout: .*nan.* is not allowed" },
        { "timeout", "604801", "timeout: 604801 is not allowed" },
        { "backoff", "60", "backoff: 60 is not allowed; declare a function" },
        { "tags", "'mail'", 'tags: "mail" is not allowed; declare a list' },
        { "tags", "{ 'a', 7 }", "tags: 7 is not allowed" },
        { "tags", "{ '' }", 'tags: "" is not allowed' },
        { "tags", "{ mail = true }", "tags: a table with keys other than" },
        { "tags", "{" .. ("'t',"):rep(21) .. "}", "tags: 21 of them are not allowed" },
        { "unique_for", "'1h'", 'unique_for: "1h" is not allowed' },
        { "unique_for", "0", "unique_for: 0 is not allowed" },
        { "unique_for", "315576001", "unique_for: 315576001 is not allowed" },
        { "args", "'user_id'", 'args: "user_id" is not allowed; declare a table' },
        { "args", "{ 'user_id' }", "args: 1 is not allowed; declare fields by name" },
        { "args", "{ user_id = 'text' }", 'args.user_id: "text" is not allowed; declare one of string, number' },
        { "args", "{ user_id = '?' }", 'args.user_id: "%?" is not allowed' },
        { "args", "{ user_id = 7 }", "args.user_id: 7 is not allowed" },
        { "secret", "'password'", 'secret: "password" is not allowed; declare a list' },
        { "secret", "{ 7 }", "secret: 7 is not allowed" },
        { "secret", "{ 'pasword' }, args = { password = 'string' }", 'secret: "pasword" is not allowed; name an arg' },
        { "max_attemps", "3", "max_attemps: is nothing that a handler declares; did you mean max_attempts%?" },
    } do
        it(("is refused: %s = %s"):format(case[1], case[2]:sub(1, 40)), function()
            folder:file("broken.lua", MODULE:format(case[1] .. " = " .. case[2]))
            assert.matches("^broken.lua: " .. case[3], refused())
        end)
    end

    it("is accepted at the ends of its range", function()
        for i, declared in ipairs {
            "priority = 0, max_attempts = 1, timeout = 0.001, unique_for = 0.001, tags = {}, args = {}, secret = {}",
            "priority = 100, max_attempts = 1000, timeout = 604800, unique_for = 315576000, queue = ('q'):rep(100)",
            "args = { a = 'string', b = 'number?', c = 'integer', d = 'boolean?', e = 'object', f = 'array?' }",
        } do
            folder:task("edge" .. i, "", declared)
        end
        local other = database.new()
        local w = worker.start(other, folder)
        assert.equal(4, w.started.tasks)
        w:stop()
        other:drop()
    end)
end)
