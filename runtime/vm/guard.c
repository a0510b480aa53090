/* guard.c: protected calls that let an ending attempt through.

   ctx:snooze, ctx:cancel and ctx:discard unwind the handler with an error (td_state_end). The functions here are Lua's
   own pcall, xpcall, coroutine.resume, wrap and close, with one difference: when an end was asked for since they
   were entered, they pass the error on instead of returning it. Entered during the unwinding, in a <close> variable,
   they catch as usual. Each has the state as its last upvalue. */
#include "private.h"

#include <lauxlib.h>

static td_state *upvalue_state(lua_State *L, int n) {
    return lua_touserdata(L, lua_upvalueindex(n));
}

/* ---- pcall, xpcall ---- */

/* finish_pcall returns what pcall does once the call ended, at once or after a yield. */
static int finish_pcall(lua_State *L, int status, lua_KContext entered) {
    if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L);
    if (td_state_ending(upvalue_state(L, 1), entered)) return lua_error(L);
    lua_pushboolean(L, 0);
    lua_pushvalue(L, -2);
    return 2;
}

static int l_pcall(lua_State *L) {
    intptr_t entered = upvalue_state(L, 1)->ends;
    luaL_checkany(L, 1);
    lua_pushboolean(L, 1); /* the first result if all goes well */
    lua_insert(L, 1);
    int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, entered, finish_pcall);
    return finish_pcall(L, status, entered);
}

/* finish_xpcall leaves out the two values below the results: the function and the message handler. */
static int finish_xpcall(lua_State *L, int status, lua_KContext entered) {
    int results = finish_pcall(L, status, entered);
    return status == LUA_OK || status == LUA_YIELD ? results - 2 : results;
}

static int l_xpcall(lua_State *L) {
    intptr_t entered = upvalue_state(L, 1)->ends;
    int n = lua_gettop(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2); /* function, handler, true, function, arguments */
    int status = lua_pcallk(L, n - 2, LUA_MULTRET, 2, entered, finish_xpcall);
    return finish_xpcall(L, status, entered);
}

/* ---- Coroutines ---- */

/* close_coroutine ends a coroutine, running its <close> variables; an error object is left on its stack. */
static int close_coroutine(td_state *state, lua_State *co, lua_State *from) {
    lua_State *before = state->running;
    state->running = co;
#if LUA_VERSION_RELEASE_NUM >= 50406
    int status = lua_closethread(co, from);
#else
    (void)from;
    int status = lua_resetthread(co);
#endif
    state->running = before;
    return status;
}

/* resume runs co with the n values on top of L. Returns the number of values that it left on L, or -1 with an error
   object there. Does not return when an end was asked for. */
static int resume(lua_State *L, lua_State *co, int n, td_state *state) {
    intptr_t entered = state->ends;
    int results;
    if (!lua_checkstack(co, n)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, n);
    lua_State *before = state->running;
    state->running = co;
    td_interrupt_again(state);
    int status = lua_resume(co, L, n, &results);
    state->running = before;
    td_interrupt_again(state);
    if (status == LUA_OK || status == LUA_YIELD) {
        if (!lua_checkstack(L, results + 1)) {
            lua_pop(co, results);
            lua_pushliteral(L, "too many results to resume");
            return -1;
        }
        lua_xmove(co, L, results);
        return results;
    }
    if (td_state_ending(state, entered)) {
        close_coroutine(state, co, L);
        lua_xmove(co, L, 1);
        return lua_error(L);
    }
    lua_xmove(co, L, 1);
    return -1;
}

static lua_State *check_coroutine(lua_State *L) {
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "thread");
    return co;
}

static int l_resume(lua_State *L) {
    lua_State *co = check_coroutine(L);
    int results = resume(L, co, lua_gettop(L) - 1, upvalue_state(L, 1));
    lua_pushboolean(L, results >= 0);
    if (results < 0) results = 1;
    lua_insert(L, -(results + 1));
    return results + 1;
}

/* l_wrapped is the function that coroutine.wrap returns; its upvalues are the coroutine and the state. */
static int l_wrapped(lua_State *L) {
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    td_state *state = upvalue_state(L, 2);
    int results = resume(L, co, lua_gettop(L), state);
    if (results >= 0) return results;
    intptr_t entered = state->ends;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) { /* it failed, rather than could not be resumed */
        status = close_coroutine(state, co, L);
        lua_xmove(co, L, 1);
        if (td_state_ending(state, entered)) return lua_error(L);
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int l_wrap(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushlightuserdata(L, upvalue_state(L, 1));
    lua_pushcclosure(L, l_wrapped, 2);
    return 1;
}

/* closable says whether a coroutine is suspended or dead; else what it is. */
static bool closable(lua_State *L, lua_State *co, const char **what) {
    lua_Debug ar;
    *what = L == co ? "running" : "normal";
    if (L == co) return false;
    int status = lua_status(co);
    if (status == LUA_OK) return !lua_getstack(co, 0, &ar);
    return true;
}

static int l_close(lua_State *L) {
    lua_State *co = check_coroutine(L);
    td_state *state = upvalue_state(L, 1);
    intptr_t entered = state->ends;
    const char *what;
    if (!closable(L, co, &what)) return luaL_error(L, "cannot close a %s coroutine", what);
    int status = close_coroutine(state, co, L);
    if (status == LUA_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushboolean(L, 0);
    lua_xmove(co, L, 1);
    if (td_state_ending(state, entered)) return lua_error(L);
    return 2;
}

void td_guard_open(lua_State *L, td_state *state) {
    static const luaL_Reg globals[] = { { "pcall", l_pcall }, { "xpcall", l_xpcall }, { NULL, NULL } };
    static const luaL_Reg coroutine[] = {
        { "resume", l_resume }, { "wrap", l_wrap }, { "close", l_close }, { NULL, NULL }
    };
    lua_pushglobaltable(L);
    lua_pushlightuserdata(L, state);
    luaL_setfuncs(L, globals, 1);
    lua_getfield(L, -1, "coroutine");
    lua_pushlightuserdata(L, state);
    luaL_setfuncs(L, coroutine, 1);
    lua_pop(L, 2);
}
