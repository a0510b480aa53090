-- noop: does nothing, so that what is measured is everything but the work.
local noop = {}

function noop.name()
    return "noop"
end

function noop.handle() end

return noop
