/* rows.c: one statement with bound parameters, and its rows as tables. */
#include "binding.h"

#include "../../runtime/store/conn.h"
#include "../../runtime/store/reply.h"
#include "../../runtime/vm/column.h"
#include "../../runtime/vm/params.h"

#define RESULT "tidemill.result"

/* A result is held by a userdata, since pushing its rows may raise. */
static struct pg_result **push_box(lua_State *L) {
    struct pg_result **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, RESULT);
    return box;
}

/* l_result_gc(box) */
static int l_result_gc(lua_State *L) {
    struct pg_result **box = luaL_checkudata(L, 1, RESULT);
    td_reply_free(*box);
    *box = NULL;
    return 0;
}

/* push_row pushes a table of one row's values by their columns' names; what is null is absent. Of two columns with one
   name the last is kept [-0, +1]. */
static void push_row(lua_State *L, const struct pg_result *result, int row) {
    int columns = td_reply_columns(result);
    lua_createtable(L, 0, columns);
    for (int i = 0; i < columns; i++) {
        lua_pushstring(L, td_reply_name(result, i));
        size_t len;
        const char *text = td_reply_text(result, row, i, &len);
        if (text)
            td_column_push(L, td_reply_type(result, i), text, len);
        else
            lua_pushnil(L);
        lua_rawset(L, -3);
    }
}

/* push_rows pushes the list of all rows, with count: how many were returned or changed [-0, +1]. */
static void push_rows(lua_State *L, struct pg_result *result) {
    int rows = td_reply_rows(result);
    lua_createtable(L, rows, 1);
    for (int i = 0; i < rows; i++) {
        push_row(L, result, i);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, td_reply_count(result, rows));
    lua_setfield(L, -2, "count");
}

int td_rows_query(lua_State *L, struct pg_conn *conn, const char *sql, int first, int n, bool *ends,
                  tidemill_error *err) {
    td_params params;
    luaL_checkstack(L, 16, "too many parameters");
    struct pg_result **box = push_box(L);
    int rc = td_params_take(L, first, n, &params, err);
    if (rc == 0) rc = td_conn_query(conn, sql, n, params.values, box, err);
    td_params_free(&params);
    if (rc < 0) return rc;
    *ends = td_reply_ends(*box);
    push_rows(L, *box);
    td_reply_free(*box);
    *box = NULL;
    return 0;
}

void td_rows_open(lua_State *L) {
    luaL_newmetatable(L, RESULT);
    lua_pushcfunction(L, l_result_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}
