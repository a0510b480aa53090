/* params.c: Lua values to the text of a statement's parameters. See params.h. */
#include "params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* add_number appends a number as PostgreSQL reads it. */
static void add_number(lua_State *L, int idx, td_buf *b) {
    if (lua_isinteger(L, idx)) {
        td_buf_printf(b, LUA_INTEGER_FMT, lua_tointeger(L, idx));
        return;
    }
    double value = lua_tonumber(L, idx);
    if (isnan(value)) {
        td_buf_puts(b, "NaN");
    } else if (isinf(value)) {
        td_buf_puts(b, value > 0 ? "Infinity" : "-Infinity");
    } else if (value == 0 && signbit(value)) {
        td_buf_puts(b, "-0.0"); /* a double precision column keeps the sign */
    } else {
        td_buf_double(b, value);
    }
}

static int add_string(lua_State *L, int idx, const char **value, const char *path, tidemill_error *err) {
    size_t len;
    *value = lua_tolstring(L, idx, &len);
    if (td_utf8_valid(*value, len)) return 0;
    return td_error_field(err, "params", "%s: not valid UTF-8 without NUL; give bytea as '\\x' and hexadecimal digits",
                          path);
}

/* add takes parameter i from the stack index idx. */
static int add(lua_State *L, int idx, td_params *p, int i, tidemill_error *err) {
    char path[32], message[256];
    const char *problem = NULL;
    size_t start = p->text.len;
    snprintf(path, sizeof path, "parameter $%d", i + 1);
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
        return 0;
    case LUA_TSTRING:
        return add_string(L, idx, &p->values[i], path, err);
    case LUA_TBOOLEAN:
        td_buf_puts(&p->text, lua_toboolean(L, idx) ? "true" : "false");
        break;
    case LUA_TNUMBER:
        add_number(L, idx, &p->text);
        break;
    case LUA_TTABLE:
        problem = td_value_encode(L, idx, &p->text, path, message);
        break;
    default:
        if (lua_islightuserdata(L, idx) && !lua_touserdata(L, idx)) return 0; /* tidemill.null */
        return td_error_field(err, "params", "%s: a %s cannot be sent; give a string, number, boolean, table or nil",
                              path, lua_typename(L, lua_type(L, idx)));
    }
    if (p->text.failed) return td_error_memory(err);
    if (problem) return td_error_field(err, "params", "%s", problem);
    td_buf_add(&p->text, "", 1);
    p->offsets[i] = start + 1;
    return 0;
}

int td_params_take(lua_State *L, int first, int n, td_params *p, tidemill_error *err) {
    *p = (td_params){ 0 };
    if (n > UINT16_MAX) {
        return td_error_field(err, "params", "%d parameters are too many for PostgreSQL; give at most %d", n,
                              UINT16_MAX);
    }
    p->values = calloc((size_t)n + 1, sizeof *p->values);
    p->offsets = calloc((size_t)n + 1, sizeof *p->offsets);
    if (!p->values || !p->offsets) return td_error_memory(err);
    for (int i = 0; i < n; i++) {
        int rc = add(L, first + i, p, i, err);
        if (rc < 0) return rc;
    }
    if (p->text.failed) return td_error_memory(err);
    for (int i = 0; i < n; i++) {
        if (p->offsets[i]) p->values[i] = p->text.data + p->offsets[i] - 1;
    }
    return 0;
}

void td_params_free(td_params *p) {
    free(p->values);
    free(p->offsets);
    td_buf_free(&p->text);
}
