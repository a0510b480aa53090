-- embed.lua: writes the C source that embeds the files of sql/ in the library (see sql.h).
--
--     lua5.4 embed.lua sql/functions/enqueue.sql sql/migrations/... > sql.c
--
-- A file is named by its path below the first folder ("functions/enqueue.sql"). They are sorted by that, bytewise, as
-- td_sql_text expects.

-- escaped returns one byte as it is written in a C string literal. Octal, since a hexadecimal escape would go on
-- into the digits that follow it; a question mark could begin a trigraph.
local function escaped(c)
    return ("\\%03o"):format(c:byte())
end

-- literal returns a text as string literals, a line each.
local function literal(text)
    local lines = {}
    for line, newline in text:gmatch "([^\n]*)(\n?)" do
        if line ~= "" or newline ~= "" then
            local shown = line:gsub('[%c"\\?\128-\255]', escaped)
            lines[#lines + 1] = ('     "%s%s"'):format(shown, newline ~= "" and "\\n" or "")
        end
    end
    if #lines == 0 then lines[1] = '     ""' end
    return table.concat(lines, "\n")
end

-- read returns a file's text. A NUL would cut it short without anybody noticing.
local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "a"
    file:close()
    if text:find("\0", 1, true) then error(path .. ": it contains a NUL byte", 0) end
    return text
end

local files = {}
for i, path in ipairs(arg) do
    local name = assert(path:match "^[^/]+/(.+)$", "give paths like sql/functions/enqueue.sql")
    files[i] = { name = name, text = read(path) }
end
table.sort(files, function(a, b) return a.name < b.name end)

print "/* Made by runtime/store/embed.lua from the files of sql/: change those. */"
print '#include "../../runtime/store/sql.h"\n'
print "const td_sql_file td_sql_files[] = {"
for _, file in ipairs(files) do
    print(('    {"%s",\n%s},'):format(file.name, literal(file.text)))
end
-- An array of C has one element at least; this one is past the count.
print "    {NULL, NULL}};"
print(("const size_t td_sql_files_count = %d;"):format(#files))
