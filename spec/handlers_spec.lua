-- The shipped handlers, each made with fakes of what it depends on; and what they depend on, on real files and with the
-- real ImageMagick. Runs in a plain lua5.4: no worker, no database.

local handlers = "handlers/"

-- quoted returns an argument as a shell takes it literally.
local function quoted(argument)
    return "'" .. argument:gsub("'", "'\\''") .. "'"
end

-- output runs a shell command and returns what it printed, without the newline at its end, and its exit status.
local function output(command)
    local pipe = assert(io.popen(command))
    local text = pipe:read "a"
    local _, _, status = pipe:close()
    return (text:gsub("\n$", "")), status
end

-- blocking_process is tidemill.process for a program without an event loop.
local blocking_process = {}
function blocking_process.run(arguments)
    local words = {}
    for i, argument in ipairs(arguments) do words[i] = quoted(argument) end
    local text, status = output(table.concat(words, " ") .. " 2>&1")
    return { status = status, stdout = text, stderr = text }
end

-- recorder returns a function that keeps the arguments of its calls in the list `calls` and returns what `answer` does.
local function recorder(answer)
    local calls = {}
    return function(...)
        calls[#calls + 1] = { n = select("#", ...), ... }
        return answer(...)
    end, calls
end

-- fake_ctx returns a ctx that keeps the log, and whose discard, like the real one, does not return.
local function fake_ctx()
    local ctx = { logged = {}, log = {} }
    for _, level in ipairs { "debug", "info", "warn", "error" } do
        ctx.log[level] = function(_, message, fields)
            ctx.logged[#ctx.logged + 1] = { level = level, message = message, fields = fields }
        end
    end
    function ctx:discard(reason)
        self.discarded = reason
        error { discarded = reason }
    end
    return ctx
end

-- discarded runs a handler that is to discard its job, and returns the reason.
local function discarded(task, args)
    local ctx = fake_ctx()
    local ok = pcall(task.handle, ctx, args)
    assert.is_false(ok, "the handler returned")
    return ctx.discarded
end

-- unexpected stands for what is real and must not be reached from here.
local function unexpected() error "the real thing was called" end

local path_before

setup(function()
    path_before = package.path
    package.path = handlers .. "?.lua;" .. package.path
    package.preload["tidemill.mail"] = function() return { send = unexpected } end
    package.preload["tidemill.pg"] = function() return { query = unexpected } end
    package.preload["tidemill.process"] = function() return blocking_process end
end)

teardown(function()
    package.path = path_before
    for _, name in ipairs { "tidemill.mail", "tidemill.pg", "tidemill.process" } do package.preload[name] = nil end
end)

-- made returns the handler of a file, made anew with the given dependencies.
local function made(name, deps)
    return dofile(handlers .. name .. ".lua").new(deps)
end

describe("each handler file", function()
    for _, name in ipairs { "send_welcome_email", "process_image", "send_receipt" } do
        it(name .. ".lua returns a task of its own name", function()
            local task = dofile(handlers .. name .. ".lua")
            assert.equal(name, task.name())
            assert.is_function(task.handle)
            assert.is_table(task.args)
        end)
    end
end)

describe("send_welcome_email", function()
    local args = { user_id = "42", email = "zoe@example.com", name = "<b>Zoë & co</b>" }

    -- run works one job. It returns what the handler returned, the mails it sent, its ctx, and the ids it looked up.
    local function run(find, send, given)
        local finder, lookups = recorder(find)
        local sender, mails = recorder(send)
        local task = made("send_welcome_email", { users = { find = finder }, mailer = { send = sender } })
        local ctx = fake_ctx()
        return table.pack(task.handle(ctx, given or args)), mails, ctx, lookups
    end
    local function found() return { id = "42", email = "zoe@example.com", name = "Zoë" } end
    local function sent() return true end

    it("sends one mail, to the address in the arguments, and completes", function()
        local returned, mails, ctx, lookups = run(found, sent)
        assert.equal(0, returned.n)
        assert.equal(1, #mails)
        assert.equal("zoe@example.com", mails[1][2].to)
        assert.equal("42", lookups[1][2])
        assert.same({ level = "info", message = "welcome mail sent", fields = { user_id = "42" } }, ctx.logged[1])
    end)

    it("greets by name, as it is in the subject and the text, and escaped in the HTML", function()
        local _, mails = run(found, sent)
        local mail = mails[1][2]
        assert.equal("Welcome, <b>Zoë & co</b>", mail.subject)
        assert.truthy(mail.text:find("Hello <b>Zoë & co</b>,", 1, true))
        assert.truthy(mail.text:find("Sign in with zoe@example.com whenever", 1, true))
        assert.truthy(mail.html:find("<p>Hello &lt;b&gt;Zoë &amp; co&lt;/b&gt;,</p>", 1, true))
        assert.falsy(mail.html:find("<b>Zoë", 1, true))
    end)

    it("leaves a name alone that looks like a part of a template or of a pattern", function()
        local _, mails = run(found, sent, { user_id = "42", email = "z@example.com", name = "{{email}} %1" })
        assert.equal("Welcome, {{email}} %1", mails[1][2].subject)
    end)

    it("warns and completes when there is no such user", function()
        local returned, mails, ctx = run(function() return nil end, sent)
        assert.is_nil(returned[1])
        assert.is_nil(returned[2])
        assert.equal(0, #mails)
        assert.equal(1, #ctx.logged)
        assert.equal("warn", ctx.logged[1].level)
        assert.same({ user_id = "42" }, ctx.logged[1].fields)
    end)

    it("fails, with the reason, when the users cannot be read", function()
        local returned, mails = run(function() return nil, "users: no connection" end, sent)
        assert.is_nil(returned[1])
        assert.equal("users: no connection", returned[2])
        assert.equal(0, #mails)
    end)

    it("fails, with the mailer's reason, when the mail cannot be sent", function()
        local returned, _, ctx = run(found, function() return nil, "connection refused", "io" end)
        assert.is_nil(returned[1])
        assert.equal("connection refused", returned[2])
        assert.same({}, ctx.logged)
    end)
end)

describe("process_image", function()
    local function args_with(changes)
        local args = { file_key = "uploads/cat.png", user_id = "42", width = 320, height = 240 }
        for field, value in pairs(changes or {}) do args[field] = value end
        return args
    end

    -- fakes returns dependencies that accept everything, with the calls of resize and the keys written.
    local function fakes(resized)
        local resize, calls = recorder(function() return table.unpack(resized or { true }) end)
        local keys = {}
        local store = {}
        function store.path(_, key) return "/store/" .. key end
        function store.write(_, key, writer)
            local ok, message = writer "/store/.tmp/new"
            if ok then keys[#keys + 1] = key end
            return ok, message
        end
        return { storage = store, image = { resize = resize } }, calls, keys
    end

    it("resizes the stored picture to the size asked for, and returns where it is", function()
        local deps, calls, keys = fakes()
        local result = made("process_image", deps).handle(fake_ctx(), args_with())
        assert.equal(1, #calls)
        local call = { table.unpack(calls[1], 2) }
        assert.same({ "/store/uploads/cat.png", "/store/.tmp/new", "png", 320, 240 }, call)
        assert.same({ "users/42/320x240/uploads/cat.png" }, keys)
        assert.same({ key = "users/42/320x240/uploads/cat.png", width = 320, height = 240 }, result)
    end)

    it("fails, with the reason, when the picture cannot be resized", function()
        local deps = fakes { nil, "convert: unable to open image" }
        local result, message = made("process_image", deps).handle(fake_ctx(), args_with())
        assert.is_nil(result)
        assert.equal("convert: unable to open image", message)
    end)

    it("fails, and does not discard, while the worker has no storage", function()
        local deps, calls = fakes()
        function deps.storage.path() return nil, "STORAGE_ROOT is not set" end
        local result, message = made("process_image", deps).handle(fake_ctx(), args_with())
        assert.is_nil(result)
        assert.equal("STORAGE_ROOT is not set", message)
        assert.equal(0, #calls)
    end)

    local refused = {
        { "a key that leads out of the storage", { file_key = "../secret.png" }, "file_key" },
        { "a key that leads out of it further on", { file_key = "uploads/../../secret.png" }, "file_key" },
        { "an absolute key", { file_key = "/etc/secret.png" }, "file_key" },
        { "a key that looks like an option", { file_key = "-write.png" }, "file_key" },
        { "a part of a key that looks like an option", { file_key = "uploads/-write.png" }, "file_key" },
        { "a key that names a format of convert's", { file_key = "msl:cat.png" }, "file_key" },
        { "a key with a NUL in it", { file_key = "cat\0.png" }, "file_key" },
        { "an empty key", { file_key = "" }, "file_key" },
        { "a format that is not accepted", { file_key = "uploads/cat.svg" }, "file_key" },
        { "a name without a format", { file_key = "uploads/cat" }, "file_key" },
        { "a user id that leads elsewhere", { user_id = ".." }, "user_id" },
        { "a user id of several parts", { user_id = "42/7" }, "user_id" },
        { "a width of 0", { width = 0 }, "width" },
        { "a width of 10001", { width = 10001 }, "width" },
        { "a height of 0", { height = 0 }, "height" },
        { "a height of 10001", { height = 10001 }, "height" },
    }
    for _, case in ipairs(refused) do
        it("discards " .. case[1] .. ", naming the argument, before anything is run", function()
            local deps, calls, keys = fakes()
            local reason = discarded(made("process_image", deps), args_with(case[2]))
            assert.equal(case[3], reason:match "^([%w_]+): ")
            assert.equal(0, #calls + #keys)
        end)
    end

    it("accepts 1 and 10000 pixels", function()
        local deps, calls = fakes()
        local task = made("process_image", deps)
        assert.is_table(task.handle(fake_ctx(), args_with { width = 1, height = 10000 }))
        assert.equal(1, #calls)
    end)
end)

describe("send_receipt", function()
    it("mails the stored receipt", function()
        local get, keys = recorder(function() return "1 kettle 19.00\n" end)
        local send, mails = recorder(function() return true end)
        local task = made("send_receipt", { storage = { get = get }, mailer = { send = send } })
        assert.is_nil((task.handle(fake_ctx(), { order_id = "17", email = "ada@example.com" })))
        assert.equal("receipts/17.txt", keys[1][2])
        assert.same(
            { to = "ada@example.com", subject = "Your receipt for order 17", text = "1 kettle 19.00\n" },
            mails[1][2]
        )
    end)

    it("fails while the receipt is missing, and waits longer after each failure", function()
        local send, mails = recorder(function() return true end)
        local task = made("send_receipt", {
            storage = { get = function() return nil, "receipts/17.txt cannot be read" end },
            mailer = { send = send },
        })
        local result, message = task.handle(fake_ctx(), { order_id = "17", email = "ada@example.com" })
        assert.is_nil(result)
        assert.equal("receipts/17.txt cannot be read", message)
        assert.equal(0, #mails)
        assert.is_true(task.backoff(2) > task.backoff(1))
    end)
end)

describe("lib.mailer", function()
    local function mailer_with(settings)
        local send, calls = recorder(function() return nil, "refused", "io" end)
        return require("lib.mailer").new({ send = send }, settings), calls
    end

    it("sends through its server from its address, and hands on what comes back", function()
        local mailer, calls = mailer_with {
            url = "smtp://mx:2525", from = "shop@example.com", username = "u", password = "p",
        }
        local returned = table.pack(mailer:send { to = "a@example.com", subject = "s", text = "t", html = "h" })
        assert.same({ nil, "refused", "io", n = 3 }, returned)
        local mail = calls[1][1]
        assert.is_number(mail.timeout)
        mail.timeout = nil
        assert.same({
            url = "smtp://mx:2525", from = "shop@example.com", username = "u", password = "p",
            to = "a@example.com", subject = "s", text = "t", html = "h",
        }, mail)
    end)

    it("names the setting that is missing, and sends nothing", function()
        local mailer, calls = mailer_with { from = "shop@example.com" }
        assert.truthy(select(2, mailer:send {}):find "^SMTP_URL is not set")
        local other, other_calls = mailer_with { url = "smtp://mx" }
        assert.truthy(select(2, other:send {}):find "^MAIL_FROM is not set")
        assert.equal(0, #calls + #other_calls)
    end)
end)

describe("lib.user_repository", function()
    local function users_with(answer, name)
        local query, calls = recorder(answer)
        return require("lib.user_repository").new({ query = query }, name or "app.users"), calls
    end

    it("reads the user by id from its table, with the id bound", function()
        local row = { id = "42", email = "zoe@example.com", name = "Zoë" }
        local users, calls = users_with(function() return { row, count = 1 } end)
        assert.equal(row, users:find "42")
        assert.equal([[select id, email, name from "app"."users" where id = $1]], calls[1][1])
        assert.equal("42", calls[1][2])
    end)

    it("tells no user and no answer apart", function()
        local none = users_with(function() return { count = 0 } end)
        assert.same({ n = 1 }, table.pack(none:find "42"))
        local broken = users_with(function() return nil, "relation does not exist", "42P01" end)
        assert.same({ nil, "users: relation does not exist", n = 2 }, table.pack(broken:find "42"))
    end)

    it("refuses a name of a table that is none", function()
        for _, name in ipairs { "users", 'app."users"', "app.users; drop table jobs", "" } do
            local ok, message = pcall(users_with, nil, name)
            assert.is_false(ok)
            assert.truthy(message:find "^USERS_TABLE: ")
        end
    end)
end)

describe("lib.template", function()
    it("escapes everything that has a meaning in HTML", function()
        local template = require "lib.template"
        assert.equal("&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;", template.escape [[<a b="c" d='e'>&amp;]])
    end)

    it("refuses to leave a hole, and names it", function()
        local ok, message = pcall(require("lib.template").text, "Dear {{title}} {{name}}", { title = "Dr" })
        assert.is_false(ok)
        assert.equal("template: there is no value for {{name}}", message)
    end)
end)

describe("on real files,", function()
    local root, store

    before_each(function()
        root = output "mktemp -d"
        store = require("lib.storage").new(blocking_process, root)
    end)
    after_each(function() os.execute("rm -rf -- " .. quoted(root)) end)

    -- files returns what lies in the storage's folder, whole or partial, below any depth.
    local function files() return output("cd " .. quoted(root) .. " && find . -type f | sort") end

    it("storage gives back the bytes that were put, and replaces them", function()
        assert.is_true(store:put("a/b/c.bin", "one\0\r\n\xff"))
        assert.equal("one\0\r\n\xff", store:get "a/b/c.bin")
        assert.is_true(store:put("a/b/c.bin", "two"))
        assert.equal("two", store:get "a/b/c.bin")
        assert.equal("./a/b/c.bin", files())
        assert.equal(root .. "/a/b/c.bin", store:path "a/b/c.bin")
    end)

    it("storage says which key is missing", function()
        local bytes, message = store:get "receipts/17.txt"
        assert.is_nil(bytes)
        assert.equal("receipts/17.txt cannot be read: No such file or directory", message)
    end)

    it("storage refuses keys that lead out of its folder, in each of its functions", function()
        for _, key in ipairs { "../x", "a/../../x", "/x", "-x", ".tmp/x", "a//b", "a/", "" } do
            assert.is_nil((store:path(key)))
            assert.is_nil((store:get(key)))
            assert.is_nil((store:put(key, "x")))
        end
        assert.equal("", files())
    end)

    it("storage keeps the old file, and nothing else, when a writer fails", function()
        assert.is_true(store:put("a.txt", "old"))
        local ok, message = store:write("a.txt", function(path)
            local file <close> = assert(io.open(path, "wb"))
            file:write "half"
            return nil, "the disk is full"
        end)
        assert.is_nil(ok)
        assert.equal("the disk is full", message)
        assert.equal("old", store:get "a.txt")
        assert.equal("./a.txt", files())
    end)

    it("storage shows readers the old file until the new one is whole", function()
        assert.is_true(store:put("a.txt", "old"))
        assert.is_true(store:write("a.txt", function(path)
            local file = assert(io.open(path, "wb"))
            file:write "new"
            file:close()
            assert.equal("old", store:get "a.txt")
            return true
        end))
        assert.equal("new", store:get "a.txt")
    end)

    -- picture stores a picture of 640x480 pixels: from left to right a quarter each of green, red, blue and green.
    local function picture(key, format)
        assert.is_true(store:write(key, function(path)
            local drawn = blocking_process.run {
                "convert", "-size", "160x480", "xc:lime", "xc:red", "xc:blue", "xc:lime", "+append",
                format .. ":" .. path,
            }
            return drawn.status == 0 or nil, drawn.stderr
        end))
    end

    local function process(args)
        local image = require("lib.image").new(blocking_process)
        return made("process_image", { storage = store, image = image }).handle(fake_ctx(), args)
    end

    it("process_image makes the middle of a picture exactly that size, not distorted, in the same format", function()
        for key, format in pairs { ["in/a.png"] = "PNG", ["in/b.jpg"] = "JPEG" } do
            picture(key, format)
            local result = process { file_key = key, user_id = "42", width = 50, height = 75 }
            local path = quoted(store:path(result.key))
            assert.equal(format .. " 50 75", output("identify -format '%m %w %h' " .. path))
            local colour = " -crop 20x60+%d+5 -resize 1x1 -format '%%[fx:round(r)] %%[fx:round(b)]' info:"
            assert.equal("1 0", output("convert " .. path .. colour:format(2)))
            assert.equal("0 1", output("convert " .. path .. colour:format(28)))
        end
    end)

    it("process_image fails with convert's reason when the picture is missing or is none", function()
        local result, message = process { file_key = "in/none.png", user_id = "42", width = 10, height = 10 }
        assert.is_nil(result)
        assert.truthy(message:find "^convert: .*none%.png")
        assert.is_true(store:put("in/text.png", "not a picture"))
        result, message = process { file_key = "in/text.png", user_id = "42", width = 10, height = 10 }
        assert.is_nil(result)
        assert.truthy(message:find "^convert: ")
        assert.equal("./in/text.png", files())
    end)

    it("process_image goes by the name and not by the contents, so that no other format is read", function()
        picture("in/really_a_jpeg.png", "JPEG")
        local result, message = process { file_key = "in/really_a_jpeg.png", user_id = "42", width = 10, height = 10 }
        assert.is_nil(result)
        assert.truthy(message:find "^convert: ")
    end)
end)
