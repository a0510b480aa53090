/* column.c: the text of a column's value to a Lua value. See column.h. */
#include "column.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The types that are not given as strings (pg_type.oid; these never change). */
enum { BOOL = 16, INT8 = 20, INT2 = 21, INT4 = 23, JSON = 114, FLOAT4 = 700, FLOAT8 = 701, JSONB = 3802 };

/* push_float pushes a float8's text as the double that it stands for, whatever the locale's decimal point is. */
static void push_float(lua_State *L, const char *text) {
    if (strcmp(text, "NaN") == 0) {
        lua_pushnumber(L, (lua_Number)NAN);
    } else if (strcmp(text, "Infinity") == 0) {
        lua_pushnumber(L, (lua_Number)INFINITY);
    } else if (strcmp(text, "-Infinity") == 0) {
        lua_pushnumber(L, -(lua_Number)INFINITY);
    } else if (strcmp(text, "-0") == 0) {
        lua_pushnumber(L, -0.0);
    } else {
        if (!lua_stringtonumber(L, text)) luaL_error(L, "%s is not a number", text);
        lua_pushnumber(L, lua_tonumber(L, -1)); /* "1" was read as an integer */
        lua_remove(L, -2);
    }
}

void td_column_push(lua_State *L, unsigned type, const char *text, size_t len) {
    switch (type) {
    case INT2:
    case INT4:
    case INT8:
        lua_pushinteger(L, (lua_Integer)strtoll(text, NULL, 10));
        break;
    case FLOAT4:
    case FLOAT8:
        push_float(L, text);
        break;
    case BOOL:
        lua_pushboolean(L, text[0] == 't');
        break;
    case JSON:
    case JSONB:
        td_value_push(L, text, len);
        break;
    default:
        lua_pushlstring(L, text, len);
        break;
    }
}
