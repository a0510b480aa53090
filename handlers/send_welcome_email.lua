-- send_welcome_email: welcomes a new user with a mail in text and HTML.
--
-- What it depends on is passed to new(): the last lines of the file pass the real things, a test passes fakes.
--   users:find(id)     -> the user | nil when there is none | nil, message when the table cannot be read
--   mailer:send(mail)  -> true | nil, message
--
-- A job may start again after a crash, so a user may be welcomed twice. That is harmless, and nothing prevents it here.

local mailer = require "lib.mailer"
local template = require "lib.template"
local user_repository = require "lib.user_repository"
local welcome = require "lib.templates.welcome_email"

local function new(deps)
    local task = {
        new = new,
        args = { user_id = "string", email = "string", name = "string" },
        max_attempts = 10,
        timeout = 60, -- seconds
        tags = { "mail" },
    }

    function task.name()
        return "send_welcome_email"
    end

    function task.handle(ctx, args)
        local user, problem = deps.users:find(args.user_id)
        if problem then return nil, problem end
        if not user then
            ctx.log:warn("user not found: no mail is sent", { user_id = args.user_id })
            return -- completed: another attempt would not find them either
        end

        local values = { name = args.name, email = args.email }
        local sent, message = deps.mailer:send {
            to = args.email,
            subject = template.text(welcome.subject, values),
            text = template.text(welcome.text, values),
            html = template.html(welcome.html, values),
        }
        if not sent then return nil, message end -- tried again later
        ctx.log:info("welcome mail sent", { user_id = args.user_id })
    end

    return task
end

return new { users = user_repository.from_env(), mailer = mailer.from_env() }
