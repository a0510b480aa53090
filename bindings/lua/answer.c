/* answer.c: how an expected failure is returned: nil, message, code. */
#include "binding.h"

#include <stdio.h>

int td_answer_error(lua_State *L, const tidemill_error *err) {
    lua_pushnil(L);
    lua_pushstring(L, err->message);
    lua_pushstring(L, tidemill_error_name(err->code));
    return 3;
}

int td_answer_type(lua_State *L, int idx, const char *field, const char *wanted, tidemill_error *err) {
    int type = lua_type(L, idx);
    if (type == LUA_TNIL || type == LUA_TNONE) {
        return td_error_field(err, field, "%s: nothing was given; give %s", field, wanted);
    }
    return td_error_field(err, field, "%s: a %s is not allowed; give %s", field, lua_typename(L, type), wanted);
}
