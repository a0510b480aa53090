/* pg.c: tidemill.pg: query(sql, ...) runs one statement on the runtime's database and returns its rows.

   Rows become Lua values as they arrive, so a result counts against the job's memory and not against the process's. */
#include "libs.h"

#include "failure.h"

#include "../store/query.h"
#include "../vm/vm.h"

#include <lauxlib.h>
#include <libpq-fe.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define QUERY "tidemill.pg.query"

/* The types that are not given as strings (pg_type.oid; these never change). */
enum { BOOL = 16, INT8 = 20, INT2 = 21, INT4 = 23, JSON = 114, FLOAT4 = 700, FLOAT8 = 701, JSONB = 3802 };

/* One call, owned by its fiber. The text of parameters that are no strings in Lua is in `text`. */
typedef struct call {
    td_hold hold;
    lua_State *L;
    int rows;   /* stack index of the table of rows */
    int raised; /* Lua's status when a row could not be made: the error is on top of the stack */
    lua_Integer count;
    const char **params;
    size_t *offsets; /* into text, plus 1; 0: params has the string itself */
    td_buf text;
    PGresult *result;
    td_failure failure;
} call;

static void call_free(call *c) {
    PQclear(c->result);
    td_buf_free(&c->text);
    free(c->offsets);
    free(c->params);
    free(c);
}

static void release(td_hold *hold) {
    call_free(td_container(hold, call, hold));
}

/* ---- Parameters ---- */

/* add_number appends a number as PostgreSQL reads it. */
static void add_number(lua_State *L, int idx, td_buf *b) {
    if (lua_isinteger(L, idx)) {
        td_buf_printf(b, LUA_INTEGER_FMT, lua_tointeger(L, idx));
        return;
    }
    double value = lua_tonumber(L, idx);
    if (isnan(value))
        td_buf_puts(b, "NaN");
    else if (isinf(value))
        td_buf_puts(b, value > 0 ? "Infinity" : "-Infinity");
    else if (value == 0 && signbit(value))
        td_buf_puts(b, "-0.0"); /* a double precision column keeps the sign */
    else
        td_buf_double(b, value);
}

/* add_param takes parameter i from the stack index idx. It raises nothing. */
static int add_param(lua_State *L, call *c, int i, int idx) {
    char path[32], message[256];
    const char *problem = NULL;
    size_t len, start = c->text.len;
    snprintf(path, sizeof path, "parameter $%d", i + 1);
    switch (lua_type(L, idx)) {
    case LUA_TSTRING:
        c->params[i] = lua_tolstring(L, idx, &len);
        if (strlen(c->params[i]) == len) return 0;
        return td_failure_set(&c->failure, "22021", "%s: a NUL byte has no place in PostgreSQL's text", path);
    case LUA_TNIL:
        return 0;
    case LUA_TLIGHTUSERDATA:
        if (!lua_touserdata(L, idx)) return 0; /* tidemill.null */
        return td_failure_set(&c->failure, "invalid", "%s: a userdata cannot be sent", path);
    case LUA_TBOOLEAN:
        td_buf_puts(&c->text, lua_toboolean(L, idx) ? "true" : "false");
        break;
    case LUA_TNUMBER:
        add_number(L, idx, &c->text);
        break;
    case LUA_TTABLE:
        problem = td_value_encode(L, idx, &c->text, path, message);
        break;
    default:
        return td_failure_set(&c->failure, "invalid", "%s: a %s cannot be sent", path, luaL_typename(L, idx));
    }
    if (problem) return td_failure_set(&c->failure, "invalid", "%s", problem);
    td_buf_add(&c->text, "", 1);
    if (c->text.failed) return td_failure_memory(&c->failure);
    c->offsets[i] = start + 1;
    return 0;
}

/* take_params takes the n parameters from the stack index first on. */
static int take_params(lua_State *L, call *c, int first, int n) {
    c->params = calloc((size_t)n + 1, sizeof *c->params);
    c->offsets = calloc((size_t)n + 1, sizeof *c->offsets);
    if (!c->params || !c->offsets) return td_failure_memory(&c->failure);
    for (int i = 0; i < n; i++) {
        int rc = add_param(L, c, i, first + i);
        if (rc < 0) return rc;
    }
    for (int i = 0; i < n; i++) {
        if (c->offsets[i]) c->params[i] = c->text.data + c->offsets[i] - 1;
    }
    return 0;
}

/* ---- Rows ---- */

/* push_float pushes a float8's text as the double that it stands for, whatever the locale's decimal point is. */
static void push_float(lua_State *L, const char *text) {
    if (strcmp(text, "NaN") == 0)
        lua_pushnumber(L, (lua_Number)NAN);
    else if (strcmp(text, "Infinity") == 0)
        lua_pushnumber(L, (lua_Number)INFINITY);
    else if (strcmp(text, "-Infinity") == 0)
        lua_pushnumber(L, -(lua_Number)INFINITY);
    else if (strcmp(text, "-0") == 0)
        lua_pushnumber(L, -0.0);
    else {
        if (!lua_stringtonumber(L, text)) luaL_error(L, QUERY ": %s is not a number", text);
        lua_pushnumber(L, lua_tonumber(L, -1)); /* "1" was read as an integer */
        lua_remove(L, -2);
    }
}

/* push_field pushes one value, not null, by the type of its column [-0, +1]. */
static void push_field(lua_State *L, const PGresult *row, int column) {
    const char *text = PQgetvalue(row, 0, column);
    size_t len = (size_t)PQgetlength(row, 0, column);
    switch (PQftype(row, column)) {
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

/* push_row(call, row, rows) appends a row to rows. Of two columns with one name the last is kept. */
static int push_row(lua_State *L) {
    call *c = lua_touserdata(L, 1);
    const PGresult *row = lua_touserdata(L, 2);
    int columns = PQnfields(row);
    lua_createtable(L, 0, columns);
    for (int i = 0; i < columns; i++) {
        if (PQgetisnull(row, 0, i)) continue;
        lua_pushstring(L, PQfname(row, i));
        push_field(L, row, i);
        lua_rawset(L, -3);
    }
    lua_rawseti(L, 3, ++c->count);
    return 0;
}

/* on_row is called by the statement for each row. What is raised here is raised again when the statement was given up.
 */
static int on_row(void *arg, const PGresult *row) {
    call *c = arg;
    lua_State *L = c->L;
    lua_pushcfunction(L, push_row);
    lua_pushlightuserdata(L, c);
    lua_pushlightuserdata(L, (void *)row);
    lua_pushvalue(L, c->rows);
    c->raised = lua_pcall(L, 3, 0, 0);
    return c->raised != LUA_OK;
}

/* ---- The module ---- */

/* count_of returns how many rows a statement returned or changed. */
static lua_Integer count_of(const call *c) {
    const char *text = PQcmdTuples(c->result);
    return text[0] ? (lua_Integer)strtoll(text, NULL, 10) : c->count;
}

/* run runs the statement; its rows are then in the table. */
static int run(call *c, const char *sql, int n) {
    tidemill_error err;
    int rc = take_params(c->L, c, 2, n);
    if (rc < 0) return rc;
    rc = td_query_run(sql, n, c->params, on_row, c, &c->result, &err);
    if (rc < 0) return td_failure_error(&c->failure, &err);
    c->count = count_of(c);
    return 0;
}

/* query(sql, ...): rows, with the number of rows returned or changed in rows.count; or nil, message, code.
   The further arguments are $1, $2, ..., whose types the server infers: strings, numbers, booleans, nil or
   tidemill.null, and tables as JSON. A row is a table by column name, without the fields that are null: integers,
   floats, booleans and decoded JSON, all other types as PostgreSQL writes them. The code is the SQLSTATE, or, where
   there is none: connect, outcome (the connection was lost meanwhile), state (a transaction was left open), invalid,
   memory, io. */
static int l_query(lua_State *L) {
    size_t len;
    td_failure_outside(L, QUERY);
    const char *sql = luaL_checklstring(L, 1, &len);
    if (strlen(sql) != len) return luaL_error(L, QUERY ": a NUL byte is not allowed in a statement");
    int n = lua_gettop(L) - 1;
    luaL_checkstack(L, 16, QUERY);
    lua_newtable(L);

    td_failure failure;
    call *c = calloc(1, sizeof *c);
    if (!c) {
        td_failure_memory(&failure);
        return td_failure_push(L, &failure);
    }
    c->L = L;
    c->rows = lua_gettop(L);
    td_hold_push(td_fiber_self(), &c->hold, release);
    int rc = run(c, sql, n);
    int raised = c->raised;
    lua_Integer count = c->count;
    failure = c->failure;
    td_hold_take(&c->hold);
    call_free(c);

    if (raised != LUA_OK) return lua_error(L);
    if (rc < 0) return td_failure_push(L, &failure);
    lua_pushinteger(L, count);
    lua_setfield(L, -2, "count");
    return 1;
}

int td_pg_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "query", l_query }, { NULL, NULL } };
    luaL_newlib(L, functions);
    return 1;
}
