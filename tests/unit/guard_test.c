/* guard_test.c: the replaced functions behave as Lua's own: each script gives the same text in a plain Lua. */
#include "vm_fixture.h"

#include <lualib.h>

/* What every script begins with: show(...) renders values so that differences can be seen. */
/* A function that is called by C has no name in a worker: the tables that Lua would look it up in are sealed. */
static const char prelude[] = "local function show(...) local t = table.pack(...) for i = 1, t.n do t[i] = "
                              "tostring(t[i]):gsub('0x%x+', 'ADDR'):gsub('in main chunk.*', 'in main chunk')"
                              ":gsub(\"(argument #%d to )'.-'\", '%1it') end "
                              "return t.n .. ':' .. table.concat(t, ',') end local out = {} local function put(...) "
                              "out[#out + 1] = show(...) end\n";

static const char *const scripts[] = {
    /* pcall */
    "put(pcall(function(...) return ... end, 1, nil, 3, nil))",
    "put(pcall(error))",
    "put(pcall(error, nil))",
    "put(pcall(error, 'message', 0))",
    "put(pcall(error, { 1 }))",
    "put(pcall(function() error('placed') end))",
    "put(pcall(function() error('placed', 2) end))",
    "put(pcall(function() pcall() end))",
    "put(pcall(pcall, error, 'x'))",
    "put(pcall(1))",
    "put(pcall(nil, 1))",
    "put(pcall(function() string.rep() end))",
    "put(select('#', pcall(table.unpack, {}, 1, 200)))",
    "put(pcall(table.unpack, {}, 1, 1e7))",
    "local function deep(n) if n == 0 then error('bottom', 0) end return pcall(deep, n - 1) end put(deep(50))",
    "local function deep(n) if n == 0 then return 'bottom' end return select(2, pcall(deep, n - 1)) end put(deep(50))",
    "local function loop() return pcall(loop) end put(loop())",
    "put(pcall(setmetatable({}, { __call = function(_, ...) return ... end }), 'called'))",
    "put(pcall(coroutine.yield, 1))",
    /* xpcall */
    "put(xpcall(function(...) return ... end, print, 1, nil, 3))",
    "put(xpcall(error, function(e) return e .. '!' end, 'x', 0))",
    "put(xpcall(error, function(e) return 1, 2, 3 end, 'x'))",
    "put(xpcall(function() local x = nil; x() end, function(m) return (debug.traceback(m):gsub('%w+ .xpcall.', "
    "'xpcall')) end))",
    "put(xpcall(function() local x = nil; x() end, function(e) return debug.traceback(e, 2) end))",
    "put(xpcall(error, function(e) error(e) end, 'x'))",
    "put(pcall(function() xpcall() end))",
    "put(pcall(xpcall, print))",
    "put(pcall(xpcall, print, 5))",
    "put(xpcall(nil, function(e) return e end))",
    "put(xpcall(xpcall, print, error, function() return 'inner' end))",
    /* yields across protected calls */
    "local co = coroutine.create(function(...) put(pcall(function(...) put(coroutine.yield(...)) return 'r' end, ...)) "
    "return 'end' end)"
    "put(coroutine.resume(co, 1, 2)) put(coroutine.resume(co, 3, 4)) put(coroutine.resume(co)) "
    "put(coroutine.status(co))",
    "local co = coroutine.create(function() put(pcall(function() coroutine.yield('y') error('late', 0) end)) return "
    "'end' end)"
    "put(coroutine.resume(co)) put(coroutine.resume(co)) put(coroutine.resume(co))",
    "local co = coroutine.create(function() put(xpcall(function() coroutine.yield('y') error('late', 0) end, "
    "function(e) return e .. '!' end)) end)"
    "put(coroutine.resume(co)) put(coroutine.resume(co))",
    "local co = coroutine.create(function() put(xpcall(function(...) put(...) return coroutine.yield('y') end, print, "
    "'a', 'b')) end)"
    "put(coroutine.resume(co)) put(coroutine.resume(co, 'back', 2))",
    "local co = coroutine.wrap(function() for i = 1, 3 do pcall(function() pcall(coroutine.yield, i) error('x') end) "
    "end return 'done' end)"
    "put(co()) put(co()) put(co()) put(co())",
    /* coroutines */
    "put(coroutine.resume(coroutine.create(function(...) return ... end), 1, nil))",
    "put(coroutine.resume(coroutine.create(function() error({}) end)))",
    "put(coroutine.resume(coroutine.create(function() error('x') end)))",
    "put(coroutine.resume(coroutine.create(function() error() end)))",
    "put(pcall(function() coroutine.resume() end)) put(pcall(coroutine.resume, 1))",
    "local co = coroutine.create(print) coroutine.resume(co) put(coroutine.resume(co)) put(coroutine.resume(co, 1, 2, "
    "3))",
    "local co co = coroutine.create(function() put(coroutine.resume(co)) end) put(coroutine.resume(co))",
    "local a, b a = coroutine.create(function() coroutine.resume(b) end) b = coroutine.create(function() "
    "put(coroutine.resume(a)) end) coroutine.resume(a)",
    "put(coroutine.resume(coroutine.running()))",
    "local co = coroutine.create(function() put(coroutine.isyieldable(), coroutine.status(coroutine.running())) end) "
    "coroutine.resume(co)",
    "put(coroutine.resume(coroutine.create(function() return table.unpack({}, 1, 300) end)))",
    "local co = coroutine.create(function(...) return select('#', ...) end) put(coroutine.resume(co, table.unpack({}, "
    "1, 300)))",
    "local function nest(n) return coroutine.resume(coroutine.create(function() if n > 0 then return nest(n - 1) end "
    "return 'deep' end)) end put(nest(20))",
    "local function nest(n) return coroutine.wrap(function() return nest(n + 1) end)() end put((select(2, pcall(nest, "
    "1)):gsub('x.lua:%d+: ', '')))",
    "local f = coroutine.wrap(function(...) put(...) put(coroutine.yield(1, nil)) return 'last' end) put(f('a', nil)) "
    "put(f('b')) put(pcall(f))",
    "local f = coroutine.wrap(function() error('x') end) put(pcall(f)) put(pcall(f))",
    "local f = coroutine.wrap(function() error('x', 0) end) put(pcall(function() f() end))",
    "local f = coroutine.wrap(function() error({ 1 }) end) put(pcall(f))",
    "local f f = coroutine.wrap(function() return f() end) put(pcall(f))",
    "put(pcall(function() coroutine.wrap() end)) put(pcall(coroutine.wrap, 1)) put(type(coroutine.wrap(print)))",
    "for a, b in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i, i * i) end end) do put(a, b) end",
    /* closing */
    "local function c(n, f) return setmetatable({}, { __close = function(_, e) put(n, e) if f then f() end end }) end "
    "local co = coroutine.create(function() local x <close> = c('x') coroutine.yield(1) end) coroutine.resume(co)"
    "put(coroutine.close(co)) put(coroutine.status(co)) put(coroutine.close(co))",
    "local function c(n, f) return setmetatable({}, { __close = function(_, e) put(n, e) if f then f() end end }) end "
    "local co = coroutine.create(function() local x <close> = c('x') local y <close> = c('y', function() error('in "
    "close', 0) end) coroutine.yield(1) end)"
    "coroutine.resume(co) put(coroutine.close(co)) put(coroutine.status(co))",
    "local function c(n, f) return setmetatable({}, { __close = function(_, e) put(n, e) if f then f() end end }) end "
    "local co = coroutine.create(function() local x <close> = c('x') error('e', 0) end) put(coroutine.resume(co)) "
    "put(coroutine.close(co))",
    "local function c(n, f) return setmetatable({}, { __close = function(_, e) put(n, e) if f then f() end end }) end "
    "local f = coroutine.wrap(function() local x <close> = c('x', function() error('second', 0) end) error('first', 0) "
    "end) put(pcall(f))",
    "local function c(n, f) return setmetatable({}, { __close = function(_, e) put(n, e) if f then f() end end }) end "
    "put(pcall(function() local x <close> = c('x', function() error('second', 0) end) local y <close> = c('y') "
    "error('first', 0) end))",
    "put(pcall(function() coroutine.close() end)) put(pcall(coroutine.close, coroutine.running()))",
    "local co co = coroutine.create(function() coroutine.wrap(function() put(pcall(coroutine.close, co)) end)() end) "
    "coroutine.resume(co)",
    "put(coroutine.close(coroutine.create(print)))",
    /* load, dofile, require */
    "put(load('return 1, ...')(2))",
    "put(load('syntax error', '=chunk'))",
    "put(load('return x', 'c', 't', { x = 'env' })())",
    "put(load('return x', 'c', nil, { x = 'env' })())",
    "put(pcall(load('return x', 'c', 't', nil)))",
    "local parts = { 'return ', '4', '2' } put(load(function() return table.remove(parts, 1) end)())",
    "put(load(function() return true end))",
    "put(load(function() error('reader', 0) end))",
    "put(load(function() return {} end))",
    "put((load('return 1', 'c', 'b')))",
    "put(loadfile('/nonexistent/file.lua'))",
    "put(pcall(dofile, '/nonexistent/file.lua'))",
    "put((select('#', pcall(require, 'no.such.module'))))",
    "package.loaded.mine = 'mine' put(require('mine'))",
    "package.preload.lazy = function(...) put(...) return 'loaded' end put(require('lazy')) put(require('lazy'))",
    "package.path = 5 put((pcall(require, 'zz')))",
};

/* A plain state's text for a script, malloc'd. */
static char *plain(const char *script) {
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushboolean(L, 0);
    lua_setglobal(L, "print"); /* ours is another function */
    if (luaL_loadbufferx(L, script, strlen(script), "@x.lua", "t") != LUA_OK || lua_pcall(L, 0, 1, 0) != LUA_OK) {
        fail_msg("%s\n%s", lua_tostring(L, -1), script);
    }
    char *text = td_strdup(lua_tostring(L, -1));
    lua_close(L);
    return text;
}

static void replaced_functions_behave_as_the_originals(void **state) {
    vm *t = *state;
    vm_file(t, "x.lua",
            "return { name = function() return 'x' end, handle = function(_, args) return load(args.script, "
            "'@x.lua')() end }");
    t->memory_limit = 64 << 20;
    for (size_t i = 0; i < TD_COUNT(scripts); i++) {
        td_buf script = { 0 }, args = { 0 }, expected = { 0 };
        td_buf_printf(&script, "%sprint = print or tostring %s return table.concat(out, '\\n')", prelude, scripts[i]);
        char *text = plain(script.data);
        td_buf_json(&expected, text, strlen(text));
        td_buf_puts(&args, "{\"script\":");
        td_buf_json(&args, script.data, script.len);
        td_buf_puts(&args, "}");
        vm_start(t);
        td_result *r = vm_call(t, args.data, 1);
        if (!r->result) fail_msg("%s\n%s", scripts[i], r->error);
        if (strcmp(r->result, expected.data) != 0)
            fail_msg("%s\nours:  %s\nplain: %s", scripts[i], r->result, expected.data);
        free(text);
        td_buf_free(&script);
        td_buf_free(&args);
        td_buf_free(&expected);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, vm_setup, vm_teardown)

int main(void) {
    const struct CMUnitTest tests[] = { TEST(replaced_functions_behave_as_the_originals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
