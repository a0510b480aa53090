/* answer.c: how an expected failure is returned: nil, message, code. */
#include "binding.h"

int td_answer_error(lua_State *L, const tidemill_error *err) {
    lua_pushnil(L);
    lua_pushstring(L, err->message);
    lua_pushstring(L, tidemill_error_name(err->code));
    return 3;
}
