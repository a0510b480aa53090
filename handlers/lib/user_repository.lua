-- user_repository: the application's users, from a table with the columns id, email and name, in the database that
-- holds the jobs.
--
-- Setting, from the environment of the worker:
--   USERS_TABLE   schema.table, public.users unless set

local M = {}
M.__index = M

-- quoted turns schema.table into a quoted SQL name; it raises for what is no such name, when the worker starts.
local function quoted(name)
    local schema, tbl = name:match "^([%w_]+)%.([%w_]+)$"
    if not schema then
        error(("USERS_TABLE: %q is not allowed; give schema.table, in letters, digits and underscores"):format(name), 0)
    end
    return ('"%s"."%s"'):format(schema, tbl)
end

-- new returns a repository. pg is the module tidemill.pg, or a fake with its query; name is the table's.
function M.new(pg, name)
    return setmetatable({ pg = pg, find_sql = "select id, email, name from " .. quoted(name) .. " where id = $1" }, M)
end

-- from_env returns a repository over the table that the environment names.
function M.from_env()
    return M.new(require "tidemill.pg", os.getenv "USERS_TABLE" or "public.users")
end

-- find returns the user with this id; nil when there is none; nil and a message when the database refused.
function M:find(id)
    local rows, message = self.pg.query(self.find_sql, id)
    if not rows then return nil, "users: " .. message end
    return rows[1]
end

return M
