/* pg.c: tidemill.pg: query(sql, ...) runs one statement on the runtime's database and returns its rows; transaction(fn)
   runs some that take effect together.

   Rows become Lua values as they arrive, so a result counts against the job's memory and not against the process's. */
#include "libs.h"

#include "failure.h"

#include "../store/query.h"
#include "../store/reply.h"
#include "../vm/column.h"
#include "../vm/params.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUERY       "tidemill.pg.query"
#define TRANSACTION "tidemill.pg.transaction"
#define METATABLE   "tidemill.pg.transaction"

/* A transaction as Lua has it: session is NULL before and after. The state's latest one is in the registry. */
typedef struct transaction {
    td_session *session;
} transaction;

static const char transaction_key;

/* One call, owned by its fiber. */
typedef struct call {
    td_hold hold;
    lua_State *L;
    td_session *session; /* NULL: a statement by itself */
    int rows;            /* stack index of the table of rows */
    int raised;          /* Lua's status when a row could not be made: the error is on top of the stack */
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

/* ---- Statements ---- */

/* run runs the statement, whose parameters are the n values from index first on; its rows are then in the table. */
static int run(call *c, const char *sql, int first, int n) {
    tidemill_error err;
    int rc = td_params_take(c->L, first, n, &c->params, &err);
    if (rc == 0 && c->session)
        rc = td_query_run_in(c->session, sql, n, c->params.values, on_row, c, &c->result, &err);
    else if (rc == 0)
        rc = td_query_run(sql, n, c->params.values, on_row, c, &c->result, &err);
    if (rc < 0) return td_failure_error(&c->failure, &err);
    c->count = td_reply_count(c->result, c->count);
    return 0;
}

/* query runs the statement at index first, whose parameters follow it. Returns what the functions of this name do. */
static int query(lua_State *L, td_session *session, int first) {
    size_t len;
    const char *sql = luaL_checklstring(L, first, &len);
    if (strlen(sql) != len) return luaL_error(L, QUERY ": a NUL byte is not allowed in a statement");
    int n = lua_gettop(L) - first;
    luaL_checkstack(L, 16, QUERY);
    lua_newtable(L);

    td_failure failure;
    call *c = calloc(1, sizeof *c);
    if (!c) {
        td_failure_memory(&failure);
        return td_failure_push(L, &failure);
    }
    c->L = L;
    c->session = session;
    c->rows = lua_gettop(L);
    td_hold_push(td_fiber_self(), &c->hold, release);
    int rc = run(c, sql, first + 1, n);
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

td_session *td_pg_session(lua_State *L) {
    luaL_checkstack(L, 1, TRANSACTION);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &transaction_key);
    const transaction *tx = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return tx ? tx->session : NULL;
}

/* query(sql, ...): rows, with the number of rows returned or changed in rows.count; or nil, message, code.
   The further arguments are $1, $2, ..., whose types the server infers: strings, numbers, booleans, nil or
   tidemill.null, and tables as JSON. A row is a table by column name, without the fields that are null: integers,
   floats, booleans and decoded JSON, all other types as PostgreSQL writes them. The code is the SQLSTATE, or, where
   there is none: connect, outcome (the connection was lost meanwhile), state (a transaction was left open), invalid,
   memory, io. Raises in a transaction's function: that would wait for a connection while it keeps one. */
static int l_query(lua_State *L) {
    td_failure_outside(L, QUERY);
    if (td_pg_session(L)) return luaL_error(L, QUERY ": a transaction is open; use tx:query, or end it first");
    return query(L, NULL, 1);
}

/* ---- Transactions ---- */

/* tx:query(sql, ...): as query, in the transaction. After an error of the database's the transaction can only be rolled
   back, to a savepoint or as a whole; after any other (connect, state: the statement ended it) it is over. */
static int tx_query(lua_State *L) {
    const transaction *tx = luaL_checkudata(L, 1, METATABLE);
    if (!tx->session) return luaL_error(L, "tx:query: this transaction has ended");
    return query(L, tx->session, 2);
}

/* tx_close rolls back when the function is left by an error. */
static int tx_close(lua_State *L) {
    transaction *tx = luaL_checkudata(L, 1, METATABLE);
    td_session *session = tx->session;
    tx->session = NULL;
    if (session) (void)td_query_end(session, false, NULL);
    return 0;
}

/* push_transaction pushes one that is not open, and makes it the state's latest [-0, +1]. */
static transaction *push_transaction(lua_State *L) {
    static const luaL_Reg methods[] = { { "query", tx_query }, { NULL, NULL } };
    transaction *tx = lua_newuserdatauv(L, sizeof *tx, 0);
    tx->session = NULL;
    if (luaL_newmetatable(L, METATABLE)) {
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, tx_close);
        lua_setfield(L, -2, "__close");
        lua_pushliteral(L, "transaction");
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &transaction_key);
    return tx;
}

/* begin_sql makes the statement that begins, from the options at index 2. */
static void begin_sql(lua_State *L, char sql[96]) {
    static const char *const levels[] = { "read committed", "repeatable read", "serializable", NULL };
    const char *level = NULL;
    bool read_only = false;
    if (!lua_isnil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_istable(L, 2) && lua_next(L, 2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        if (strcmp(name, "isolation") == 0) {
            const char *given = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
            for (int i = 0; levels[i]; i++) level = strcmp(levels[i], given) == 0 ? levels[i] : level;
            if (!level)
                luaL_error(L,
                           TRANSACTION
                           ": isolation: %s is not allowed; give read committed, repeatable read or serializable",
                           given);
        } else if (strcmp(name, "read_only") == 0 && lua_isboolean(L, -1)) {
            read_only = lua_toboolean(L, -1);
        } else {
            luaL_error(L, TRANSACTION ": %s: there is no such option; give isolation, or read_only = true", name);
        }
        lua_pop(L, 1);
    }
    lua_settop(L, 2);
    snprintf(sql, 96, "begin%s%s%s", level ? " isolation level " : "", level ? level : "",
             read_only ? " read only" : "");
}

/* failed says whether a function that returned the n values from index first on says that it failed. */
static bool failed(lua_State *L, int first, int n) {
    if (n == 0 || lua_toboolean(L, first)) return false;
    return (n == 1 && lua_isboolean(L, first)) || (n > 1 && !lua_isnil(L, first + 1));
}

/* transaction(fn, {isolation, read_only}): calls fn(tx) in a transaction on one connection. When fn returns, that is
   committed, and transaction returns the same values, or true if there is none, or only nil. It is rolled back when fn
   raises (which goes on), returns false alone, or nil or false with a second value (which are returned), and when the
   job is stopped. nil, message, code when it could not begin or commit: as of query; if a statement failed and fn
   returned as if nothing had happened, that statement's code; outcome: it may have been committed. isolation is "read
   committed", "repeatable read" or "serializable". fn may wait for other things, but no other transaction, and no
   coroutine.yield out of fn, is possible meanwhile. */
static int l_transaction(lua_State *L) {
    enum { TX = 3 };
    char sql[96];
    tidemill_error err;
    td_failure failure;
    td_failure_outside(L, TRANSACTION);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 2);
    if (td_pg_session(L)) return luaL_error(L, TRANSACTION ": a transaction is open; end it first");
    begin_sql(L, sql);
    transaction *tx = push_transaction(L);
    lua_toclose(L, TX);
    if (td_query_begin(sql, &tx->session, &err) < 0) {
        td_failure_error(&failure, &err);
        return td_failure_push(L, &failure);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, TX);
    lua_call(L, 1, LUA_MULTRET);
    int n = lua_gettop(L) - TX;
    if (failed(L, TX + 1, n)) return n; /* __close rolls back */
    td_session *session = tx->session;
    tx->session = NULL;
    if (td_query_end(session, true, &err) < 0) {
        td_failure_error(&failure, &err);
        luaL_checkstack(L, 4, TRANSACTION);
        return td_failure_push(L, &failure);
    }
    if (n > 0 && lua_toboolean(L, TX + 1)) return n;
    lua_pushboolean(L, true);
    return 1;
}

int td_pg_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "query", l_query }, { "transaction", l_transaction }, { NULL, NULL } };
    luaL_newlib(L, functions);
    return 1;
}
