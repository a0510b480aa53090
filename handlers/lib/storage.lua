-- storage: files by key, in a folder.
--
-- A key is parts separated by "/", each of letters, digits and . _ -, beginning with a letter, a digit or _. So no key
-- leads out of the folder, is taken for an option by a program, or names a file that is still being written: those are
-- in .tmp, and take their place by one rename.
--
-- Setting, from the environment of the worker:
--   STORAGE_ROOT   the folder

local M = {}
M.__index = M

-- new returns a storage. process is the module tidemill.process, or a fake with its run; root is the folder.
function M.new(process, root)
    return setmetatable({ process = process, root = root }, M)
end

-- from_env returns a storage in the folder that the environment names.
function M.from_env()
    return M.new(require "tidemill.process", os.getenv "STORAGE_ROOT")
end

-- check returns true for a key as described above, else nil and what is wrong.
function M.check(key)
    for part in (key .. "/"):gmatch "([^/]*)/" do
        if not part:find "^[%w_][%w._-]*$" then
            local message = "%q is not allowed as a key; give parts of letters, digits and . _ -, separated by /"
            return nil, message:format(key)
        end
    end
    return true
end

-- path returns where the file of a key is, or will be; or nil and a message.
function M:path(key)
    if not self.root then return nil, "STORAGE_ROOT is not set; start the worker with the storage's folder in it" end
    local allowed, problem = M.check(key)
    if not allowed then return nil, problem end
    return self.root .. "/" .. key
end

-- get returns the bytes stored under a key, or nil and a message.
function M:get(key)
    local path, problem = self:path(key)
    if not path then return nil, problem end
    local file, message = io.open(path, "rb")
    if not file then return nil, ("%s cannot be read:%s"):format(key, message:match "[^:]*$") end
    local bytes, read_message = file:read "a"
    file:close()
    return bytes, read_message
end

-- temporary returns the path of a new file in .tmp, which no other attempt uses.
local function temporary(root)
    local random <close> = assert(io.open("/dev/urandom", "rb"))
    local name = random:read(12):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
    return root .. "/.tmp/" .. name
end

-- make_folders makes the given folders and those above them. Returns true, or nil and a message.
local function make_folders(process, ...)
    local done, message = process.run { "mkdir", "-p", "--", ... }
    if not done then return nil, message end
    if done.status ~= 0 then return nil, done.stderr end
    return true
end

-- write stores what writer makes: writer(path) creates the file and returns true, or nil and a message. Readers see the
-- old file until the new one is whole. Returns true, or nil and a message, and then nothing has changed.
function M:write(key, writer)
    local path, problem = self:path(key)
    if not path then return nil, problem end
    local ready, folder_problem = make_folders(self.process, self.root .. "/.tmp", path:match "^(.*)/")
    if not ready then return nil, folder_problem end

    local partial = temporary(self.root)
    local written, message = writer(partial)
    if written then written, message = os.rename(partial, path) end
    if not written then
        os.remove(partial)
        return nil, message
    end
    return true
end

-- put stores bytes under a key. Returns true, or nil and a message.
function M:put(key, bytes)
    return self:write(key, function(path)
        local file, message = io.open(path, "wb")
        if not file then return nil, message end
        local written, write_message = file:write(bytes)
        local closed, close_message = file:close()
        if not (written and closed) then return nil, write_message or close_message end
        return true
    end)
end

return M
