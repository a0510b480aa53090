/* rows.c: one statement with bound parameters, and its rows as tables. */
#include "binding.h"

#include "../../runtime/store/conn.h"
#include "../../runtime/vm/column.h"
#include "../../runtime/vm/params.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#define RESULT "tidemill.result"

/* A result is held by a userdata, since pushing its rows may raise. */
static PGresult **push_box(lua_State *L) {
    PGresult **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, RESULT);
    return box;
}

/* l_result_gc(box) */
static int l_result_gc(lua_State *L) {
    PGresult **box = luaL_checkudata(L, 1, RESULT);
    PQclear(*box);
    *box = NULL;
    return 0;
}

/* push_row pushes a table of one row's values by their columns' names; what is null is absent. Of two columns with one
   name the last is kept [-0, +1]. */
static void push_row(lua_State *L, const PGresult *result, int row) {
    int columns = PQnfields(result);
    lua_createtable(L, 0, columns);
    for (int i = 0; i < columns; i++) {
        lua_pushstring(L, PQfname(result, i));
        if (PQgetisnull(result, row, i)) {
            lua_pushnil(L);
        } else {
            td_column_push(L, PQftype(result, i), PQgetvalue(result, row, i), (size_t)PQgetlength(result, row, i));
        }
        lua_rawset(L, -3);
    }
}

/* push_rows pushes the list of all rows, with count: how many were returned or changed [-0, +1]. */
static void push_rows(lua_State *L, PGresult *result) {
    int rows = PQntuples(result);
    const char *count = PQcmdTuples(result);
    lua_createtable(L, rows, 1);
    for (int i = 0; i < rows; i++) {
        push_row(L, result, i);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, count[0] ? (lua_Integer)strtoll(count, NULL, 10) : rows);
    lua_setfield(L, -2, "count");
}

int td_rows_query(lua_State *L, PGconn *conn, const char *sql, int first, int n, bool *ends, tidemill_error *err) {
    td_params params;
    luaL_checkstack(L, 16, "too many parameters");
    PGresult **box = push_box(L);
    int rc = td_params_take(L, first, n, &params, err);
    if (rc == 0) rc = td_conn_query(conn, sql, n, params.values, box, err);
    td_params_free(&params);
    if (rc < 0) return rc;
    const char *tag = PQcmdStatus(*box);
    *ends = strcmp(tag, "COMMIT") == 0 || strcmp(tag, "ROLLBACK") == 0;
    push_rows(L, *box);
    PQclear(*box);
    *box = NULL;
    return 0;
}

void td_rows_open(lua_State *L) {
    luaL_newmetatable(L, RESULT);
    lua_pushcfunction(L, l_result_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}
