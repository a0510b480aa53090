/* misdeeds.h: ways to misbehave, as bodies of function(ctx, args), and how each has to end. For the engine's test and
   its benchmark. */
#ifndef MISDEEDS_H
#define MISDEEDS_H

#include "../../runtime/vm/vm.h"

typedef struct misdeed {
    const char *name, *code;
    td_outcome outcome;
    const char *error; /* part of the error, NULL: none */
    const char *trace; /* part of the traceback, NULL: whatever */
} misdeed;

#define LOOP           "while true do end"
#define LOOPS(field)   "setmetatable({}, {" field " = function() " LOOP " end})"
#define TIMEOUT(trace) TD_TIMEOUT, "the job ran into its timeout of", trace
#define MEMORY         TD_MEMORY, "the job needed more memory than its limit of", NULL

static const misdeed misdeeds[] = {
    /* Loops, where a hook sees them. */
    { "a loop", LOOP, TIMEOUT("code:1: in") },
    { "a loop that calls", "local function f() end while true do f() end", TIMEOUT("code:1:") },
    { "a tail call for ever", "local function f() return f() end f()", TIMEOUT("code:1:") },
    { "a loop in pcall in a loop", "while true do pcall(function() " LOOP " end) end", TIMEOUT("code:1:") },
    { "pcall of errors for ever", "while true do pcall(error, 'x') end", TIMEOUT("code:1:") },
    { "xpcall's handler", "xpcall(error, function() " LOOP " end)", TIMEOUT("code:1:") },
    { "xpcall in a loop", "while true do xpcall(function() " LOOP " end, debug.traceback) end", TIMEOUT("code:1:") },
    { "a comparator", "table.sort({3, 1, 2}, function() " LOOP " end)", TIMEOUT("in function 'sort'") },
    { "gsub's callback", "('x'):gsub('x', function() " LOOP " end)", TIMEOUT("'gsub'") },
    { "__index", "return (" LOOPS("__index") ").x", TIMEOUT("in metamethod 'index'") },
    { "__newindex", "(" LOOPS("__newindex") ").x = 1", TIMEOUT("in metamethod") },
    { "__call", "(" LOOPS("__call") ")()", TIMEOUT("code:1:") },
    { "__len", "return #" LOOPS("__len"), TIMEOUT("in metamethod") },
    { "__eq", "local m = {__eq = function() " LOOP " end} return setmetatable({}, m) == setmetatable({}, m)",
      TIMEOUT("in metamethod") },
    { "__concat", "return " LOOPS("__concat") " .. 'x'", TIMEOUT("in metamethod") },
    { "__tostring", "return tostring(" LOOPS("__tostring") ")", TIMEOUT("in function 'tostring'") },
    { "__pairs", "for _ in pairs(" LOOPS("__pairs") ") do end", TIMEOUT("code:1:") },
    { "an iterator without end", "for _ in function() return 1 end do end", TIMEOUT("code:1:") },
    { "__close", "local x <close> = " LOOPS("__close"), TIMEOUT("code:1:") },
    { "a coroutine", "coroutine.wrap(function() " LOOP " end)()", TIMEOUT("code:1:") },
    { "coroutines in coroutines",
      "local function f() while true do coroutine.wrap(function() for i = 1, 1000 do end end)() end end "
      "coroutine.wrap(f)()",
      TIMEOUT("code:1:") },
    { "coroutines that fail", "while true do coroutine.resume(coroutine.create(error)) end", TIMEOUT("code:1:") },
    { "a generator",
      "local g = coroutine.wrap(function() while true do coroutine.yield(1) end end) while true do g() end",
      TIMEOUT("code:1:") },
    { "load's reader", "load(function() " LOOP " end)", TIMEOUT("in function 'load'") },
    { "a module", "package.preload.x = function() " LOOP " end require 'x'", TIMEOUT("in function 'require'") },
    { "sleeping for long", "ctx:sleep(1000)", TIMEOUT("in function 'sleep'") },
    { "sleeping in pcall in a loop", "while true do pcall(ctx.sleep, ctx, 1000) end", TIMEOUT("code:1:") },
    { "giving way for ever", "while true do ctx:sleep(0) end", TIMEOUT("code:1:") },
    { "logging for ever", "while true do ctx.log:info('x') end", TIMEOUT("code:1:") },
    { "concatenations", "while true do local s = ('x'):rep(1 << 20) s = s .. s s:upper() end", TIMEOUT("code:1:") },
    { "a swallowed memory error", "while true do pcall(string.rep, 'x', 1 << 30) end", TIMEOUT("code:1:") },

    /* Where no hook comes. */
    { "a finalizer", "do local x = " LOOPS("__gc") " end collectgarbage()", TIMEOUT("in function 'collectgarbage'") },
    { "a finalizer that makes another",
      "local function f() setmetatable({}, {__gc = f}) end f() while true do collectgarbage() end",
      TIMEOUT("code:1:") },
    { "a loop in <close> after the timeout", "local x <close> = " LOOPS("__close") " " LOOP, TIMEOUT("code:1:") },
    { "a pattern", "(('a'):rep(40)):find(('a?'):rep(40) .. ('a'):rep(40))", TIMEOUT("code:1:") },
    { "a quadratic pattern", "(('a'):rep(4000000)):gsub('.-b', '')", TIMEOUT("code:1:") },
    { "frontiers", "while true do ('THE (quick) fox'):rep(2000):find('%f[%a]%a+%f[%A].-%b<>') end",
      TIMEOUT("code:1:") },
    { "a sort",
      "local t = {} for i = 1, 1000000 do t[i] = i * 7919 % 1000003 end while true do table.sort(t) "
      "table.sort(t, function(a, b) return a > b end) end",
      TIMEOUT("code:1:") },
    { "a sort with an invalid order",
      "while true do local t = {} for i = 1, 1000 do t[i] = i % 7 end "
      "pcall(table.sort, t, function() return true end) end",
      TIMEOUT("code:1:") },
    { "table.move", "table.move({}, 1, 1000000000000000, 2)", TIMEOUT("code:1:") },
    { "rep of nothing", "('').rep('', 1000000000000000)", TIMEOUT("code:1:") },
    { "insert into a long nothing", "table.insert(setmetatable({}, {__len = function() return 1 << 60 end}), 1, 1)",
      TIMEOUT("code:1:") },
    { "formats", "while true do string.format('%99.99f', 1e308) end", TIMEOUT("code:1:") },
    { "a search for nothing", "local s = ('x'):rep(10 << 20) while true do s:find('y', 1, true) end",
      TIMEOUT("code:1:") },
    { "doubling", "local a = ('a'):rep(1 << 20) while true do a:gsub('.', '%0%0') end", TIMEOUT("code:1:") },

    /* Memory. */
    { "a growing string", "local s = 'x' while true do s = s .. s end", MEMORY },
    { "a growing table", "local t = {} for i = 1, math.huge do t[i] = {i} end", MEMORY },
    { "a large string", "return ('x'):rep(1 << 30)", MEMORY },
    { "a chunk without end",
      "local s = \"return '\" assert(load(function() local now = s s = ('x'):rep(1 << 20) return now end))", MEMORY },
    { "a large pack", "return table.pack(('x'):rep(1 << 20):byte(1, -1))", TD_FAILED, "string slice too long", NULL },
    { "unpack", "return table.unpack({}, 1, 10000000)", TD_FAILED, "too many results to unpack", "unpack" },
    { "coroutines that stay", "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end", MEMORY },

    /* Depth. */
    { "recursion with little memory", "local function f() return 1 + f() end return f()", MEMORY },
    { "recursion through C", "local function f() return (('x'):gsub('x', f)) end return f()", TD_FAILED,
      "C stack overflow", "code:1:" },
    { "recursion in __tostring",
      "local m = {} m.__tostring = function(x) return tostring(x) .. '' end "
      "return tostring(setmetatable({}, m))",
      TD_FAILED, "C stack overflow", "code:1:" },
    { "recursion in coroutines", "local function f() return coroutine.wrap(f)() end return f()", TD_FAILED,
      "C stack overflow", "code:1:" },
    { "an error in the error's handler", "local function h() error('x') end xpcall(error, h)", TD_COMPLETED, NULL,
      NULL },
    { "nested text", "assert(load('return ' .. ('('):rep(300) .. '1' .. (')'):rep(300)))", TD_FAILED, "overflow",
      "code:1:" },

    /* Errors of all kinds. */
    { "nil as an error", "error()", TD_FAILED, "nil", NULL },
    { "a table as an error", "error({})", TD_FAILED, "(error object is a table value)", "code:1:" },
    { "a function as an error", "error(print)", TD_FAILED, "(error object is a function value)", "code:1:" },
    { "an error whose __tostring raises", "error(setmetatable({}, {__tostring = function() error('x') end}))",
      TD_FAILED, "(error object is a table value)", "code:1:" },
    { "an error whose __tostring loops", "error(" LOOPS("__tostring") ")", TIMEOUT("code:1:") },
    { "an error whose __tostring returns none", "error(setmetatable({}, {__tostring = function() return {} end}))",
      TD_FAILED, "(error object is a table value)", "code:1:" },
    { "an error of 10 MB", "error(('x'):rep(10 << 20), 0)", TD_FAILED, "bytes cut)", "code:1:" },
    { "an error that is no UTF-8", "error('a\\xff\\xfeb', 0)", TD_FAILED,
      "a\xef\xbf\xbd\xef\xbf\xbd"
      "b",
      "code:1:" },
    { "an error with terminal escapes", "error('a\\27[31mb\\0c', 0)", TD_FAILED, "a\\x1B[31mb\\x00c", "code:1:" },
    { "an error for the other side", "error(setmetatable({}, {__name = 'x', __gc = error, __close = error}))",
      TD_FAILED, "(error object is a table value)", "code:1:" },

    /* What is not for handlers. */
    { "os.exit", "os.exit(3, true)", TD_FAILED, "os.exit is not allowed", "code:1:" },
    { "os.exit in pcall", "pcall(os.exit, 3, true)", TD_COMPLETED, NULL, NULL },
    { "debug.sethook", "debug.sethook(function() end, 'c')", TD_FAILED, "sethook", "code:1:" },
    { "debug.setmetatable", "debug.setmetatable('', nil)", TD_FAILED, "setmetatable", "code:1:" },
    { "the strings' metatable", "getmetatable('').__index = nil", TD_FAILED, "attempt to index a boolean value",
      "code:1:" },
    { "a metatable for _G", "setmetatable(_G, {__index = function() " LOOP " end})", TD_FAILED,
      "cannot change a protected metatable", "code:1:" },
    { "bytecode", "assert(load(string.dump(function() end)))", TD_FAILED, "attempt to load a binary chunk", "code:1:" },
    { "a file of bytecode",
      "local name = os.tmpname() local f = io.open(name, 'wb') f:write(string.dump(function() end)) f:close() "
      "local chunk, why = loadfile(name) os.remove(name) assert(chunk, why)",
      TD_FAILED, "attempt to load a binary chunk", "code:1:" },
    { "stopping the collector",
      "collectgarbage('stop') collectgarbage('setpause', 1000) for i = 1, 300000 do local x = {i, i, i} end",
      TD_COMPLETED, NULL, NULL },
    { "globals taken away", "local g, set = _G, rawset for k in pairs(g) do set(g, k, false) end", TD_COMPLETED, NULL,
      NULL },
    { "libraries taken over",
      "local libraries = {string, table, math, os, io, coroutine, utf8, debug, package} for i = 1, #libraries do local "
      "l "
      "= libraries[i] for k in pairs(l) do rawset(l, k, error) end l.mine = 1 end",
      TD_COMPLETED, NULL, NULL },
    { "what is behind the libraries",
      "for _, l in ipairs{_G, string, math} do local _, hidden = pairs(l) hidden.type, hidden.upper, hidden.floor = "
      "nil "
      "hidden.mine = 1 end",
      TD_COMPLETED, NULL, NULL },
    { "modules taken over",
      "for k in pairs(package.loaded) do package.loaded[k] = 1 end for i = 1, 9 do package.searchers[i] = error end "
      "package.preload.x = error package.preload['tidemill.http'] = error package.path, package.cpath = '', ''",
      TD_COMPLETED, NULL, NULL },
    { "shared metatables",
      "for _, x in ipairs{ctx, ctx.log, require('tidemill').array{}} do assert(type(getmetatable(x)) ~= 'table') end "
      "local m = getmetatable(io.stdout) if m then m.__index.write, m.__index.read, m.__index.close = error, error end",
      TD_COMPLETED, NULL, NULL },
    { "io's default files", "local name = os.tmpname() io.output(name) io.input(name) os.remove(name) io.write('x')",
      TD_COMPLETED, NULL, NULL },
    { "what is on C's stack",
      "string.gsub('x', 'x', function() for i = 1, 20 do assert(not debug.getlocal(2, i)) end end)", TD_COMPLETED, NULL,
      NULL },
    { "a finalizer left behind", "local x = " LOOPS("__gc") " x = nil", TD_COMPLETED, NULL, NULL },
    { "a chosen seed", "math.randomseed(42)", TD_COMPLETED, NULL, NULL },
};

enum { MISDEEDS = sizeof misdeeds / sizeof misdeeds[0] };

/* What a job finds when those before it on the same worker have changed nothing for it; raises what it misses. */
#define LOOK_AROUND                                                                                                    \
    "for _, t in ipairs{_G, string, table, math, os, io, coroutine, utf8, debug, package} do assert(next(t) == nil) "  \
    "end assert(mine == nil and string.mine == nil and math.mine == nil) assert(('x'):upper() == 'X') "                \
    "assert(string.format('%d', 7) == '7' and type(1) == 'number' and math.floor(1.5) == 1) "                          \
    "assert(collectgarbage('isrunning') and package.loaded.string == string and package.loaded._G == _G) "             \
    "assert(#package.searchers == 5 and package.searchers[1] ~= error and not package.preload.x) "                     \
    "assert(require('tidemill.http').get and #package.path > 0 and not pcall(require, 'x')) "                          \
    "assert(io.output() == io.stdout and io.input() == io.stdin and pcall(io.stdout.write, io.stdout, '')) "           \
    "assert(pcall(error) == false) "                                                                                   \
    "local seen = {} for k in pairs(string) do seen[k] = true end assert(seen.format and seen.rep) "                   \
    "local a = math.random(1 << 40) math.randomseed(42) assert(a ~= math.random(1 << 40)) "                            \
    "assert(getmetatable('') == false and type(ctx.log.info) == 'function' and print and os.time() > 0) return 'as "   \
    "new'"

#endif
