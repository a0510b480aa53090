-- enqueue_demo: the demo's enqueue from Lua: a welcome mail.
--
--     lua5.4 enqueue_demo.lua USER_ID EMAIL NAME [OPTION=VALUE]...
--
-- The database is DATABASE_URL's. Prints the job's id and whether it was a duplicate ("7 false").

local tidemill = require "tidemill"

local user_id, email, name = arg[1], arg[2], arg[3]
local options = {}
for i = 4, #arg do
    local option, value = arg[i]:match "^([%w_]+)=(.*)$"
    options[option] = tonumber(value) or value
end

local client = assert(tidemill.connect(os.getenv "DATABASE_URL"))
local id, duplicate = client:enqueue("send_welcome_email", { user_id = user_id, email = email, name = name }, options)
if not id then error(duplicate, 0) end -- in the place of the second value there is the message
client:close()
print(id .. " " .. tostring(duplicate))
