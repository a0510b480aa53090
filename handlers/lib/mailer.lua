-- mailer: mail by way of one SMTP server, from one address.
--
-- Settings, from the environment of the worker:
--   SMTP_URL       smtp://host:port, or smtps://host:port
--   MAIL_FROM      the sender: hello@example.com, or "Example <hello@example.com>"
--   SMTP_USERNAME, SMTP_PASSWORD   when the server wants them

local M = {}
M.__index = M

local TIMEOUT = 30 -- seconds for one mail

-- new returns a mailer. mail is the module tidemill.mail, or a fake with its send; settings has url, from, username and
-- password.
function M.new(mail, settings)
    return setmetatable({ mail = mail, settings = settings }, M)
end

-- from_env returns a mailer with the settings of the environment.
function M.from_env()
    return M.new(require "tidemill.mail", {
        url = os.getenv "SMTP_URL",
        from = os.getenv "MAIL_FROM",
        username = os.getenv "SMTP_USERNAME",
        password = os.getenv "SMTP_PASSWORD",
    })
end

-- send sends a message with to, subject, text and html (either body may be missing).
-- Returns true, or nil, message, code. Other jobs of the worker go on meanwhile.
function M:send(message)
    local settings = self.settings
    if not settings.url then return nil, "SMTP_URL is not set; start the worker with it, as in smtp://localhost:25" end
    if not settings.from then return nil, "MAIL_FROM is not set; start the worker with the sender's address in it" end
    return self.mail.send {
        url = settings.url,
        username = settings.username,
        password = settings.password,
        from = settings.from,
        to = message.to,
        subject = message.subject,
        text = message.text,
        html = message.html,
        timeout = TIMEOUT,
    }
end

return M
