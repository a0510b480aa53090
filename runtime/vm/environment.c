/* environment.c: what handlers may not do to each other through the globals and the standard library's tables.

   Sealing moves what each of these tables holds into a hidden table, from which its metatable's __index reads it. What
   a job assigns lands in the table itself, which is empty otherwise, and is taken out before the next job: so a reset
   costs a look at each table, whatever they hold. A job sees its own changes; pairs goes over both. Since the hidden
   table is out of reach, nothing in it can be changed or removed; assigning nil to a standard function has no effect.
   Nor has assigning to package.loaded, which handlers see through a table of its own, where a name was loaded before
   the first job, or is the runtime's. The default files of io, the seed of random numbers and package.searchers are put
   back.

   What holds: nothing here reaches a table that a module made for itself; those are a worker's cache, and stay. */
#include "private.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

enum { TRACEBACK_MAX = 8 << 10 };

/* The tables, by their names in package.loaded. */
static const char *const sealed[] = { "_G", "string",    "table", "math",  "os",
                                      "io", "coroutine", "utf8",  "debug", "package" };

enum { SEALED_COUNT = TD_COUNT(sealed) + 1 /* and package.preload */ };

/* What in the registry is put back: the default files of io. */
static const char *const defaults[] = { "_IO_input", "_IO_output" };

/* The registry's keys: of the list of sealed tables, of the values of defaults, of package.searchers and a copy of it,
   and of math.randomseed. */
static const char tables_key, defaults_key, searchers_key, copy_key, seed_key;

/* ---- Functions that would reach past it ---- */

static int l_collectgarbage(lua_State *L) {
    static const char *const allowed[] = { "collect", "count", "step", "isrunning", NULL };
    const char *option = luaL_optstring(L, 1, "collect");
    for (int i = 0; allowed[i]; i++) {
        if (strcmp(option, allowed[i]) != 0) continue;
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
        return lua_gettop(L);
    }
    lua_pushinteger(L, 0); /* how the collector works is the runtime's affair */
    return 1;
}

/* l_setmetatable is setmetatable, which notes that a table got a finalizer. Upvalue: the state. */
static int l_setmetatable(lua_State *L) {
    int type = lua_type(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "cannot change a protected metatable");
    lua_settop(L, 2);
    if (type == LUA_TTABLE) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL) ((td_state *)lua_touserdata(L, lua_upvalueindex(1)))->finalizes = true;
        lua_pop(L, 1);
    }
    lua_setmetatable(L, 1);
    return 1;
}

/* l_randomseed is math.randomseed, which notes that the seed was chosen. Upvalues: the original, the state. */
static int l_randomseed(lua_State *L) {
    ((td_state *)lua_touserdata(L, lua_upvalueindex(2)))->seeded = true;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* l_getlocal is debug.getlocal, but for what C functions have on their stacks. Upvalue: the original. */
static int l_getlocal(lua_State *L) {
    lua_Debug ar;
    int level = lua_isthread(L, 1) ? 2 : 1;
    lua_State *of = level == 2 ? lua_tothread(L, 1) : L;
    if (lua_isnumber(L, level) && lua_getstack(of, (int)lua_tointeger(L, level), &ar) && lua_getinfo(of, "S", &ar) &&
        *ar.what == 'C')
        return 0;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* l_getmetatable is debug.getmetatable, which respects __metatable here. */
static int l_getmetatable(lua_State *L) {
    luaL_checkany(L, 1);
    if (!lua_getmetatable(L, 1)) {
        lua_pushnil(L);
        return 1;
    }
    luaL_getmetafield(L, 1, "__metatable");
    return 1;
}

/* l_traceback is debug.traceback, over td_trace_add: Lua's own finds the names of functions in the sealed tables only
   by what they hold themselves. */
static int l_traceback(lua_State *L) {
    lua_State *of = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;
    int message = of == L && !lua_isthread(L, 1) ? 1 : 2;
    char text[TRACEBACK_MAX];
    if (!lua_isnoneornil(L, message) && !lua_isstring(L, message)) {
        lua_pushvalue(L, message);
        return 1;
    }
    lua_Integer level = luaL_optinteger(L, message + 1, of == L ? 1 : 0);
    td_buf b = { 0 };
    td_nopreempt_enter();
    td_trace_add(of, level < 0 || level > INT32_MAX ? 0 : (int)level, &b);
    snprintf(text, sizeof text, "%s", b.data ? b.data : "");
    td_buf_free(&b);
    td_nopreempt_leave();
    if (lua_isnoneornil(L, message)) {
        lua_pushstring(L, text);
        return 1;
    }
    lua_pushvalue(L, message);
    lua_pushfstring(L, "\n%s", text);
    lua_concat(L, 2);
    return 1;
}

/* wrap_function replaces a function of the table on top of the stack by one that has it as its upvalue, and the state
   [-0, +0]. */
static void wrap_function(lua_State *L, const char *name, lua_CFunction fn, td_state *state) {
    lua_getfield(L, -1, name);
    lua_pushlightuserdata(L, state);
    lua_pushcclosure(L, fn, 2);
    lua_setfield(L, -2, name);
}

void td_environment_open(lua_State *L, td_state *state) {
    static const char *const removed[] = { "debug",        "gethook",     "getregistry",  "setcstacklimit",
                                           "sethook",      "setlocal",    "setmetatable", "setupvalue",
                                           "setuservalue", "upvaluejoin", "getuservalue", "upvalueid",
                                           "getupvalue" };
    lua_pushglobaltable(L);
    wrap_function(L, "collectgarbage", l_collectgarbage, state);
    lua_pushlightuserdata(L, state);
    lua_pushcclosure(L, l_setmetatable, 1);
    lua_setfield(L, -2, "setmetatable");
    lua_getfield(L, -1, "math");
    lua_getfield(L, -1, "randomseed");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &seed_key);
    wrap_function(L, "randomseed", l_randomseed, state);
    lua_pop(L, 2);
    lua_getglobal(L, "debug");
    wrap_function(L, "getlocal", l_getlocal, state);
    for (size_t i = 0; i < TD_COUNT(removed); i++) {
        lua_pushnil(L);
        lua_setfield(L, -2, removed[i]);
    }
    lua_pushcfunction(L, l_getmetatable);
    lua_setfield(L, -2, "getmetatable");
    lua_pushcfunction(L, l_traceback);
    lua_setfield(L, -2, "traceback");
    lua_pop(L, 1);
}

/* ---- Sealing ---- */

/* has says whether the table at idx has the key on top of the stack. */
static bool has(lua_State *L, int idx) {
    lua_pushvalue(L, -1);
    bool found = lua_rawget(L, idx) != LUA_TNIL;
    lua_pop(L, 1);
    return found;
}

enum { KEY = 2, OWN = 3, HIDDEN = 4 }; /* where l_next has what it works with */

/* next_hidden pushes the next pair of the hidden table after the key on top of the stack, with the value that the job
   gave it, if it did [-1, +2]; or nothing [-1, +0], and returns false. */
static bool next_hidden(lua_State *L) {
    if (!lua_next(L, HIDDEN)) return false;
    lua_pushvalue(L, -2);
    if (lua_rawget(L, OWN) == LUA_TNIL)
        lua_pop(L, 1);
    else
        lua_remove(L, -2);
    return true;
}

/* l_next(anything, key), upvalues a table and its hidden one: goes over the hidden one, then over what else is in the
   table. So to assign to what was there does not disturb who goes over it. */
static int l_next(lua_State *L) {
    lua_settop(L, KEY);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_pushvalue(L, KEY);
    if (lua_isnil(L, KEY) || has(L, HIDDEN)) {
        if (next_hidden(L)) return 2;
        lua_pushnil(L);
    }
    while (lua_next(L, OWN)) {
        lua_pushvalue(L, -2);
        bool shown = has(L, HIDDEN);
        lua_pop(L, 1);
        if (!shown) return 2;
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    return 1;
}

/* l_pairs(table), upvalue the hidden table, is the __pairs of a sealed one. What it returns must not give that away. */
static int l_pairs(lua_State *L) {
    lua_settop(L, 1);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, l_next, 2);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* move_fields moves every field of the table at `from` into the one at `to`. */
static void move_fields(lua_State *L, int from, int to) {
    lua_pushnil(L);
    while (lua_next(L, from)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, to); /* the key stays, for lua_next */
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_rawset(L, from);
    }
}

/* hide puts the table at `hidden` behind the one at `table`, with the metatable on top of the stack [-1, +0]. */
static void hide(lua_State *L, int table, int hidden) {
    lua_pushvalue(L, hidden);
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, hidden);
    lua_pushcclosure(L, l_pairs, 1);
    lua_setfield(L, -2, "__pairs");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, table);
}

/* seal seals the table on top of the stack [-0, +0]. A metatable that a module gave it goes on behind it. */
static void seal(lua_State *L) {
    int table = lua_gettop(L);
    lua_newtable(L);
    int hidden = table + 1;
    move_fields(L, table, hidden);
    lua_createtable(L, 0, 4);
    if (lua_getmetatable(L, table)) {
        lua_getfield(L, -1, "__newindex");
        lua_setfield(L, -3, "__newindex");
        lua_setmetatable(L, hidden);
    }
    hide(L, table, hidden);
    lua_settop(L, table);
}

/* l_loaded(table, name, module) is the __newindex of package.loaded: what was loaded before the first job stays, and
   what the runtime has. Upvalues: the real table, and their names. */
static int l_loaded(lua_State *L) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 0;
    lua_settop(L, 3);
    lua_rawset(L, lua_upvalueindex(1));
    return 0;
}

/* add_names sets the keys of the table at idx in the one on top of the stack [-0, +0]. */
static void add_names(lua_State *L, int idx) {
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_pushboolean(L, 1);
        lua_rawset(L, -4);
    }
}

/* seal_loaded gives the table `package`, on top of the stack, a `loaded` that hides the one at `loaded` [-0, +0]. */
static void seal_loaded(lua_State *L, int loaded) {
    lua_newtable(L);
    int shown = lua_gettop(L);
    lua_createtable(L, 0, 4);
    lua_pushvalue(L, loaded);
    lua_newtable(L);
    add_names(L, loaded);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_insert(L, -2);
    add_names(L, lua_gettop(L) - 1);
    lua_remove(L, -2);
    lua_pushcclosure(L, l_loaded, 2);
    lua_setfield(L, -2, "__newindex");
    hide(L, shown, loaded);
    lua_setfield(L, -2, "loaded");
}

/* keep_searchers notes the table package.searchers, and a copy of it. package is on top of the stack [-0, +0]. */
static void keep_searchers(lua_State *L) {
    lua_getfield(L, -1, "searchers");
    lua_newtable(L);
    for (lua_Integer i = 1; lua_rawgeti(L, -2, i) != LUA_TNIL; i++) lua_rawseti(L, -2, i);
    lua_pop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &copy_key);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &searchers_key);
}

/* keep_defaults notes what is put back in the registry. */
static void keep_defaults(lua_State *L) {
    lua_createtable(L, TD_COUNT(defaults), 0);
    for (size_t i = 0; i < TD_COUNT(defaults); i++) {
        lua_getfield(L, LUA_REGISTRYINDEX, defaults[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, &defaults_key);
}

/* seal_strings closes the way to what every string's methods come from. */
static void seal_strings(lua_State *L) {
    lua_pushliteral(L, "");
    if (lua_getmetatable(L, -1)) {
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void td_environment_seal(lua_State *L) {
    luaL_checkstack(L, 12, NULL);
    keep_defaults(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, LUA_LOADLIBNAME) == LUA_TTABLE) {
        keep_searchers(L);
        seal_loaded(L, lua_gettop(L) - 1);
    }
    lua_pop(L, 1);
    lua_createtable(L, SEALED_COUNT, 0);
    for (size_t i = 0; i < TD_COUNT(sealed); i++) {
        if (lua_getfield(L, -2, sealed[i]) == LUA_TTABLE) {
            seal(L);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        } else {
            lua_pop(L, 1);
            lua_pushboolean(L, 0);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
    }
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    seal(L);
    lua_rawseti(L, -2, SEALED_COUNT);
    seal_strings(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &tables_key);
    lua_pop(L, 1);
}

/* ---- Resetting ---- */

/* empty takes every field out of the table at idx. To set a field that is there to nil raises nothing. */
static void empty(lua_State *L, int idx) {
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_rawset(L, idx);
    }
}

/* restore_searchers puts back what package.searchers held. To set a field that is there raises nothing; one that was
   taken out may find no memory, so this is called protected. */
static int restore_searchers(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &searchers_key);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &copy_key);
    empty(L, 1);
    for (lua_Integer i = 1; lua_rawgeti(L, 2, i) != LUA_TNIL; i++) lua_rawseti(L, 1, i);
    return 0;
}

/* searchers_changed says whether package.searchers has other elements than at first. */
static bool searchers_changed(lua_State *L) {
    int top = lua_gettop(L);
    bool same = lua_rawgetp(L, LUA_REGISTRYINDEX, &searchers_key) != LUA_TTABLE;
    if (!same) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &copy_key);
        same = lua_rawlen(L, top + 1) == lua_rawlen(L, top + 2);
        for (lua_Integer i = 1; same && lua_rawgeti(L, top + 2, i) != LUA_TNIL; i++) {
            lua_rawgeti(L, top + 1, i);
            same = lua_rawequal(L, -1, -2);
            lua_settop(L, top + 2);
        }
    }
    lua_settop(L, top);
    return !same;
}

static void restore_defaults(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &defaults_key);
    for (size_t i = 0; i < TD_COUNT(defaults); i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        lua_setfield(L, LUA_REGISTRYINDEX, defaults[i]);
    }
    lua_pop(L, 1);
}

/* restore_seed begins new random numbers, which no job can know. */
static void restore_seed(lua_State *L) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &seed_key) != LUA_TFUNCTION || lua_pcall(L, 0, 0, 0) != LUA_OK) lua_pop(L, 1);
}

void td_environment_reset(lua_State *L, td_state *state) {
    int top = lua_gettop(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tables_key);
    for (int i = 1; i <= SEALED_COUNT; i++) {
        if (lua_rawgeti(L, top + 1, i) == LUA_TTABLE) empty(L, lua_gettop(L));
        lua_settop(L, top + 1);
    }
    restore_defaults(L);
    if (state->seeded) restore_seed(L);
    state->seeded = false;
    lua_settop(L, top);
    if (!searchers_changed(L)) return;
    lua_pushcfunction(L, restore_searchers);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) lua_settop(L, top);
}
