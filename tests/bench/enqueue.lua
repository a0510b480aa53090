-- Enqueues one by one for some whole seconds through the Lua binding, and prints how many:
--     lua5.4 enqueue.lua URL SECONDS
local tidemill = require "tidemill"

local url, seconds = arg[1], tonumber(arg[2])
local client = assert(tidemill.connect(url))

-- enqueue_until enqueues as long as the clock shows a second before that one. Returns how many.
local function enqueue_until(second)
    local stored = 0
    while os.time() < second do
        assert(client:enqueue("noop", { user_id = stored }))
        stored = stored + 1
    end
    return stored
end

enqueue_until(os.time() + 1) -- the clock has whole seconds: to the start of one
print(enqueue_until(os.time() + seconds))
