/* failure.c: nil, message, code. */
#include "failure.h"

#include "../loop/loop.h"

#include <lauxlib.h>
#include <stdio.h>

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

void td_failure_outside(lua_State *L, const char *function) {
    if (!td_fiber_self()) luaL_error(L, "%s: can only be called while a job runs", function);
}
