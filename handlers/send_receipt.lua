-- send_receipt: mails the receipt of an order, which the shop writes to the storage as receipts/<order_id>.txt.
--
-- A receipt that is not there yet is a failure like any other: the job is tried again, soon, and after its last attempt
-- it waits in the dead-letter queue until somebody has seen to the cause and requeues it.
--
--   storage:get(key)   -> bytes | nil, message
--   mailer:send(mail)  -> true | nil, message

local mailer = require "lib.mailer"
local storage = require "lib.storage"

local function new(deps)
    local task = {
        new = new,
        args = { order_id = "string", email = "string" },
        max_attempts = 3,
        timeout = 60, -- seconds
        tags = { "mail" },
    }

    function task.name()
        return "send_receipt"
    end

    -- backoff returns the seconds to wait after failure number `attempt`: the shop writes a receipt within moments.
    function task.backoff(attempt)
        return attempt
    end

    function task.handle(ctx, args)
        local receipt, problem = deps.storage:get("receipts/" .. args.order_id .. ".txt")
        if not receipt then return nil, problem end

        local subject = "Your receipt for order " .. args.order_id
        local sent, message = deps.mailer:send { to = args.email, subject = subject, text = receipt }
        if not sent then return nil, message end
        ctx.log:info("receipt sent", { order_id = args.order_id })
    end

    return task
end

return new { storage = storage.from_env(), mailer = mailer.from_env() }
