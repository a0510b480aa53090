/* pg.c: tidemill.pg: query(sql, ...) runs one statement on the runtime's database and returns its rows.

   Rows become Lua values as they arrive, so a result counts against the job's memory and not against the process's. */
#include "libs.h"

#include "failure.h"

#include "../store/query.h"
#include "../store/reply.h"
#include "../vm/column.h"
#include "../vm/params.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define QUERY "tidemill.pg.query"

/* One call, owned by its fiber. */
typedef struct call {
    td_hold hold;
    lua_State *L;
    int rows;   /* stack index of the table of rows */
    int raised; /* Lua's status when a row could not be made: the error is on top of the stack */
    lua_Integer count;
    td_params params;
    struct pg_result *result;
    td_failure failure;
} call;

static void call_free(call *c) {
    td_reply_free(c->result);
    td_params_free(&c->params);
    free(c);
}

static void release(td_hold *hold) {
    call_free(td_container(hold, call, hold));
}

/* ---- Rows ---- */

/* push_row(call, row, rows) appends a row to rows. Of two columns with one name the last is kept. */
static int push_row(lua_State *L) {
    call *c = lua_touserdata(L, 1);
    const struct pg_result *row = lua_touserdata(L, 2);
    int columns = td_reply_columns(row);
    lua_createtable(L, 0, columns);
    for (int i = 0; i < columns; i++) {
        size_t len;
        const char *text = td_reply_text(row, 0, i, &len);
        if (!text) continue;
        lua_pushstring(L, td_reply_name(row, i));
        td_column_push(L, td_reply_type(row, i), text, len);
        lua_rawset(L, -3);
    }
    lua_rawseti(L, 3, ++c->count);
    return 0;
}

/* on_row is called by the statement for each row. What is raised here is raised again when the statement was given up.
 */
static int on_row(void *arg, const struct pg_result *row) {
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

/* run runs the statement; its rows are then in the table. */
static int run(call *c, const char *sql, int n) {
    tidemill_error err;
    int rc = td_params_take(c->L, 2, n, &c->params, &err);
    if (rc == 0) rc = td_query_run(sql, n, c->params.values, on_row, c, &c->result, &err);
    if (rc < 0) return td_failure_error(&c->failure, &err);
    c->count = td_reply_count(c->result, c->count);
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
