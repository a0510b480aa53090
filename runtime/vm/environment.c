/* environment.c: what handlers may not do to each other through the globals and the standard library's tables.

   Sealing moves what each of these tables holds into a hidden table, from which its metatable's __index reads it. What
   a job assigns lands in the table itself, which is empty otherwise, and is taken out before the next job: so a reset
   costs a look at each table, whatever they hold. A job sees its own changes; pairs goes over both. Since the hidden
   table is out of reach, nothing in it can be changed or removed; assigning nil to a standard function has no effect.

   What holds: nothing here reaches a table that a module made for itself; those are a worker's cache, and stay. */
#include "private.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

enum { TRACEBACK_MAX = 8 << 10 };

/* The tables, by their names in package.loaded. */
static const char *const sealed[] = { "_G", "string",    "table", "math",  "os",
                                      "io", "coroutine", "utf8",  "debug", "package" };

/* The registry's keys of the list of sealed tables, and of what package.loaded has of them. */
static const char tables_key;

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

void td_environment_open(lua_State *L) {
    static const char *const removed[] = { "debug",        "gethook",     "getregistry",  "setcstacklimit",
                                           "sethook",      "setlocal",    "setmetatable", "setupvalue",
                                           "setuservalue", "upvaluejoin", "getuservalue", "upvalueid",
                                           "getupvalue" };
    lua_getglobal(L, "collectgarbage");
    lua_pushcclosure(L, l_collectgarbage, 1);
    lua_setglobal(L, "collectgarbage");
    lua_getglobal(L, "debug");
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

/* l_next(hidden, key), upvalue the table itself: goes over the table, then over what of the hidden one it does not
 * have. */
static int l_next(lua_State *L) {
    lua_settop(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    bool own = lua_isnil(L, 2);
    if (!own) {
        lua_pushvalue(L, 2);
        own = lua_rawget(L, 3) != LUA_TNIL;
        lua_pop(L, 1);
    }
    if (own) {
        lua_pushvalue(L, 2);
        if (lua_next(L, 3)) return 2;
        lua_pushnil(L); /* the hidden ones from their first on */
    } else {
        lua_pushvalue(L, 2);
    }
    while (lua_next(L, 1)) {
        lua_pushvalue(L, -2);
        bool shown = lua_rawget(L, 3) != LUA_TNIL;
        lua_pop(L, 1);
        if (!shown) return 2;
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    return 1;
}

/* l_pairs(table), upvalue the hidden table, is the __pairs of a sealed one. */
static int l_pairs(lua_State *L) {
    lua_settop(L, 1);
    lua_pushcclosure(L, l_next, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
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
    lua_pushvalue(L, hidden);
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, hidden);
    lua_pushcclosure(L, l_pairs, 1);
    lua_setfield(L, -2, "__pairs");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, table);
    lua_settop(L, table);
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
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_createtable(L, TD_COUNT(sealed), 0);
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
    seal_strings(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &tables_key);
    lua_pop(L, 1);
}

/* ---- Resetting ---- */

/* empty takes every field out of the table on top of the stack. To set a field that is there to nil raises nothing. */
static void empty(lua_State *L) {
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_rawset(L, -4);
    }
}

/* restore_loaded puts a library's table, on top of the stack, back into package.loaded, where that has another one. The
   name was there, so nothing is allocated; where a job took it out, that may fail, which leaves it out. */
static int l_restore(lua_State *L) {
    lua_settable(L, 1);
    return 0;
}

static void restore_loaded(lua_State *L, int loaded, const char *name) {
    int table = lua_gettop(L);
    lua_pushstring(L, name);
    lua_rawget(L, loaded);
    if (lua_rawequal(L, -1, table)) return;
    lua_pushcfunction(L, l_restore);
    lua_pushvalue(L, loaded);
    lua_pushstring(L, name);
    lua_pushvalue(L, table);
    (void)lua_pcall(L, 3, 0, 0);
}

void td_environment_reset(lua_State *L) {
    int top = lua_gettop(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tables_key);
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    for (size_t i = 0; i < TD_COUNT(sealed); i++) {
        if (lua_rawgeti(L, top + 1, (lua_Integer)i + 1) == LUA_TTABLE) {
            empty(L);
            restore_loaded(L, top + 2, sealed[i]);
        }
        lua_settop(L, top + 2);
    }
    lua_settop(L, top);
}
