-- template: text with {{names}} in it.

local M = {}

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

-- escape returns text as it is written in HTML, inside an element or a quoted attribute.
function M.escape(text)
    return (text:gsub("[&<>\"']", ENTITIES))
end

-- fill puts transform(value) in the place of each {{name}}. A name without a value raises: a mail with a hole in it is
-- not to be sent.
local function fill(template, values, transform)
    return (template:gsub("{{([%w_]+)}}", function(name)
        local value = values[name]
        if value == nil then error(("template: there is no value for {{%s}}"):format(name), 0) end
        return transform(tostring(value))
    end))
end

local function unchanged(value)
    return value
end

-- text fills in a template of plain text: the values go in as they are.
function M.text(template, values)
    return fill(template, values, unchanged)
end

-- html fills in a template of HTML: the values are escaped.
function M.html(template, values)
    return fill(template, values, M.escape)
end

return M
