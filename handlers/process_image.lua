-- process_image: makes a picture of exactly width x height pixels from a stored one, and stores it under a key of its
-- own. The job's result is { key = ..., width = ..., height = ... }.
--
-- What it depends on is passed to new(): the last lines of the file pass the real things, a test passes fakes.
--   storage:path(key)           -> path | nil, message
--   storage:write(key, writer)  -> true | nil, message; writer(path) makes the file that is to be stored
--   image:resize(source, target, format, width, height)  -> true | nil, message
--
-- Running twice does no harm: the same arguments make the same picture under the same key.

local image = require "lib.image"
local storage = require "lib.storage"

local LARGEST = 10000 -- pixels, either way

-- invalid says what is wrong with the arguments, which no further attempt would mend; nil when nothing is.
local function invalid(args)
    for _, field in ipairs { "width", "height" } do
        local pixels = args[field]
        if pixels < 1 or pixels > LARGEST then
            return ("%s: %d is not allowed; give a whole number from 1 to %d"):format(field, pixels, LARGEST)
        end
    end
    for _, field in ipairs { "file_key", "user_id" } do
        local allowed, problem = storage.check(args[field])
        if not allowed then return field .. ": " .. problem end
    end
    if args.user_id:find "/" then
        return ("user_id: %q is not allowed; it is one part of a key, without a /"):format(args.user_id)
    end
    if not image.format(args.file_key) then
        return ("file_key: %q is not allowed; its name must end in one of %s"):format(args.file_key, image.extensions)
    end
end

local function new(deps)
    local task = {
        new = new,
        args = { file_key = "string", user_id = "string", width = "integer", height = "integer" },
        queue = "images", -- of its own, so that many pictures do not hold up the mail
        max_attempts = 5,
        timeout = 120, -- seconds
        tags = { "images" },
    }

    function task.name()
        return "process_image"
    end

    function task.handle(ctx, args)
        local problem = invalid(args)
        if problem then return ctx:discard(problem) end

        local source, message = deps.storage:path(args.file_key)
        if not source then return nil, message end
        local key = ("users/%s/%dx%d/%s"):format(args.user_id, args.width, args.height, args.file_key)
        local stored, reason = deps.storage:write(key, function(path)
            return deps.image:resize(source, path, image.format(args.file_key), args.width, args.height)
        end)
        if not stored then return nil, reason end
        ctx.log:info("picture resized", { key = key, user_id = args.user_id })
        return { key = key, width = args.width, height = args.height }
    end

    return task
end

return new { storage = storage.from_env(), image = image.from_env() }
