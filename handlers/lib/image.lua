-- image: pictures, by ImageMagick's convert in a child process.

local M = {}
M.__index = M

local TIMEOUT = 60 -- seconds for one picture

-- What is accepted, by the end of a file's name. convert is told the format and does not guess it from the contents,
-- since some of the formats that it knows are programs.
local FORMATS = { jpg = "jpeg", jpeg = "jpeg", png = "png", webp = "webp" }
M.extensions = ".jpg, .jpeg, .png, .webp"

-- new returns an image processor. process is the module tidemill.process, or a fake with its run.
function M.new(process)
    return setmetatable({ process = process }, M)
end

-- from_env returns the image processor that workers use. It has no settings.
function M.from_env()
    return M.new(require "tidemill.process")
end

-- format returns the format that a file's name stands for, or nil when it is not one of those accepted.
function M.format(name)
    local extension = name:match "%.(%w+)$"
    return extension and FORMATS[extension:lower()]
end

-- resize writes to the path target a picture of exactly width x height pixels: the one at source, scaled to cover that
-- area and cut off evenly where it is larger. format is of both. Returns true, or nil, message, code.
function M:resize(source, target, format, width, height)
    local size = ("%dx%d"):format(width, height)
    local done, message, code = self.process.run({
        "convert",
        "-limit", "memory", "256MiB", "-limit", "map", "512MiB", "-limit", "disk", "2GiB", "-limit", "thread", "1",
        format .. ":" .. source .. "[0]",
        "-auto-orient", "-resize", size .. "^", "-gravity", "center", "-extent", size, "-strip",
        format .. ":" .. target,
    }, { timeout = TIMEOUT })
    if not done then return nil, message, code end
    if done.status ~= 0 then
        local reason = done.stderr:match "[^\n]+" or ("it was ended by signal %s"):format(done.signal)
        return nil, "convert: " .. reason, "io"
    end
    return true
end

return M
