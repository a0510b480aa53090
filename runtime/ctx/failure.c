/* failure.c: nil, message, code. */
#include "failure.h"

#include "../loop/loop.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

int td_failure_set(td_failure *failure, const char *code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(failure->message, sizeof failure->message, format, args);
    va_end(args);
    snprintf(failure->code, sizeof failure->code, "%s", code);
    return -1;
}

int td_failure_memory(td_failure *failure) {
    return td_failure_set(failure, tidemill_error_name(TIDEMILL_EMEMORY), "there was not enough memory");
}

int td_failure_error(td_failure *failure, const tidemill_error *err) {
    const char *code = err->sqlstate[0] ? err->sqlstate : tidemill_error_name(err->code);
    return td_failure_set(failure, code, "%s", err->message);
}

int td_failure_push(lua_State *L, const td_failure *failure) {
    lua_pushnil(L);
    lua_pushstring(L, failure->message);
    lua_pushstring(L, failure->code);
    return 3;
}

const char *td_failure_unknown(lua_State *L, int idx, const char *const *names) {
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        const char *key = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
        int i = 0;
        while (names[i] && strcmp(names[i], key) != 0) i++;
        if (names[i]) continue;
        lua_pop(L, 1);
        return key;
    }
    return NULL;
}

void td_failure_outside(lua_State *L, const char *function) {
    if (!td_fiber_self()) luaL_error(L, "%s: can only be called while a job runs", function);
}
