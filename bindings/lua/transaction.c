/* transaction.c: client:transaction(fn), and tx, which fn is given.

   A transaction is open from its begin until one of: fn returned (commit, or rollback where a statement had failed), fn
   raised, its coroutine was closed or collected, the client was closed. Whichever comes first, `client` becomes NULL,
   and tx is of no use any more. tx is a to-be-closed value of client:transaction's own call, so that an error passes
   through unchanged, with its traceback, and the rollback is done on its way.

   A failure of tx:exec or tx:enqueue is kept: everything later answers the same, and in the end it is what
   client:transaction returns. So a transaction in which something failed is never taken for a committed one, whether or
   not anybody looked at what the calls returned. */
#include "binding.h"

#include "../../runtime/store/tx.h"

#include <string.h>

typedef struct td_transaction {
    td_lua_client *client; /* NULL: ended */
    struct pg_conn *conn;  /* the client's; valid while client is not NULL */
    bool failed;
    tidemill_error error; /* the first failure, if failed */
} td_transaction;

/* ---- Beginning and ending ---- */

/* begin opens a transaction. A connection that turns out to be lost is made anew once: nothing was done on it. */
static int begin(td_lua_client *client, struct pg_conn **conn, tidemill_error *err) {
    int rc = 0;
    for (int tries = 0; tries < 2; tries++) {
        rc = td_client_connection(client->client, conn, err);
        if (rc < 0) return rc;
        rc = td_tx_begin(*conn, err);
        if (rc != TIDEMILL_ECONNECT) break;
        td_client_hang_up(client->client);
    }
    return rc;
}

/* detach ends tx's part in it. */
static void detach(td_transaction *tx) {
    tx->client->transaction = NULL;
    tx->client = NULL;
}

/* roll_back ends a transaction without effect; where the server does not take that, by closing the connection. */
static void roll_back(td_transaction *tx) {
    if (!tx->client) return;
    if (!td_tx_rollback(tx->conn)) td_client_hang_up(tx->client->client);
    detach(tx);
}

/* commit ends a transaction in which nothing failed. */
static int commit(td_transaction *tx, tidemill_error *err) {
    int rc = td_tx_commit(tx->conn, err);
    if (!td_tx_idle(tx->conn)) td_client_hang_up(tx->client->client);
    detach(tx);
    return rc;
}

void td_transaction_abandon(td_transaction *tx) {
    if (tx && tx->client) detach(tx);
}

/* ---- tx ---- */

/* check returns the tx at index 1. Raises when it is none, or has ended. */
static td_transaction *check(lua_State *L, const char *method) {
    td_transaction *tx = luaL_checkudata(L, 1, TD_LUA_TRANSACTION);
    if (!tx->client) luaL_error(L, "tx:%s: the transaction has ended", method);
    return tx;
}

/* fail keeps a failure, after which nothing is done any more, and answers with it. */
static int fail(lua_State *L, td_transaction *tx, const tidemill_error *err) {
    tx->error = *err;
    tx->failed = true;
    return td_answer_error(L, &tx->error);
}

static int connection(void *owner, struct pg_conn **conn, tidemill_error *err) {
    (void)err;
    *conn = ((td_transaction *)owner)->conn;
    return 0;
}

/* tx:exec(sql, ...) runs one statement, with $1, $2, ... bound to the values that follow: strings, numbers, booleans,
   nil (null), tables (JSON). Returns its rows, a list of tables by column name (null is absent), with their number, or
   that of the rows changed, in rows.count; or nil, message, code. Values are integers, floats, booleans, decoded JSON,
   and strings for every other type. The transaction itself is not to be ended by a statement. */
static int l_exec(lua_State *L) {
    size_t len;
    td_transaction *tx = check(L, "exec");
    const char *sql = luaL_checklstring(L, 2, &len);
    luaL_argcheck(L, strlen(sql) == len, 2, "a statement without NUL expected");
    tidemill_error err;
    bool ends = false;
    if (tx->failed) return td_answer_error(L, &tx->error);
    int rc = td_rows_query(L, tx->conn, sql, 3, lua_gettop(L) - 2, &ends, &err);
    if (rc < 0) return fail(L, tx, &err);
    if (!ends && td_tx_open(tx->conn)) return 1;
    td_error_set(&err, TIDEMILL_ESTATE,
                 "the transaction was ended by one of its own statements; it ends when its function does");
    return fail(L, tx, &err);
}

/* tx:enqueue(task, args, options) is client:enqueue, in the transaction: the job exists when that is committed. */
static int l_enqueue(lua_State *L) {
    td_transaction *tx = check(L, "enqueue");
    tidemill_error err;
    if (tx->failed) return td_answer_error(L, &tx->error);
    int n = td_jobs_one(L, connection, tx, &err);
    return n < 0 ? fail(L, tx, &err) : n;
}

/* tx:enqueue_many(task, list, options) is client:enqueue_many, in the transaction. */
static int l_enqueue_many(lua_State *L) {
    td_transaction *tx = check(L, "enqueue_many");
    tidemill_error err;
    if (tx->failed) return td_answer_error(L, &tx->error);
    int n = td_jobs_many(L, connection, tx, &err);
    return n < 0 ? fail(L, tx, &err) : n;
}

/* __close and __gc of tx: an end other than by fn's return. */
static int l_close(lua_State *L) {
    roll_back(luaL_checkudata(L, 1, TD_LUA_TRANSACTION));
    return 0;
}

/* ---- client:transaction ---- */

enum { CLIENT = 1, FN, TX }; /* stack indices */

/* finish runs when fn has returned, possibly after yields; its results are above TX. */
static int finish(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    td_transaction *tx = lua_touserdata(L, TX);
    tidemill_error err;
    int results = lua_gettop(L) - TX, rc;
    if (!tx->client) {
        rc = td_error_set(&err, TIDEMILL_ESTATE,
                          "the transaction was closed before its function returned; nothing was done");
    } else if (tx->failed) {
        err = tx->error;
        rc = err.code;
        roll_back(tx);
    } else {
        rc = commit(tx, &err);
    }
    luaL_checkstack(L, 3, NULL);
    if (rc < 0) return td_answer_error(L, &err);
    if (results > 0) return results;
    lua_pushboolean(L, true);
    return 1;
}

/* client:transaction(fn) calls fn(tx) in a transaction. When fn returns, it is committed, and fn's results are
   returned, or true when it has none. When fn raises, it is rolled back, and the same error goes on. When a call of tx
   failed, it is rolled back, and nil, message, code of that call are returned; code "outcome" says that the connection
   was lost during the commit, so that nobody knows. fn may yield. One at a time: until it has ended, other calls of the
   client raise. */
int td_transaction_run(lua_State *L) {
    td_lua_client *client = td_lua_client_check(L, "transaction");
    luaL_checkany(L, FN);
    lua_settop(L, FN);
    tidemill_error err;
    td_transaction *tx = lua_newuserdatauv(L, sizeof *tx, 1);
    tx->client = NULL;
    tx->failed = false;
    luaL_setmetatable(L, TD_LUA_TRANSACTION);
    lua_pushvalue(L, CLIENT);
    lua_setiuservalue(L, TX, 1); /* the client lives as long as tx does */
    lua_toclose(L, TX);
    if (begin(client, &tx->conn, &err) < 0) return td_answer_error(L, &err);
    tx->client = client;
    client->transaction = tx;
    lua_pushvalue(L, FN);
    lua_pushvalue(L, TX);
    lua_callk(L, 1, LUA_MULTRET, 0, finish);
    return finish(L, LUA_OK, 0);
}

void td_transaction_open(lua_State *L) {
    static const luaL_Reg methods[] = {
        { "exec", l_exec }, { "enqueue", l_enqueue }, { "enqueue_many", l_enqueue_many }, { NULL, NULL }
    };
    static const luaL_Reg meta[] = { { "__gc", l_close }, { "__close", l_close }, { NULL, NULL } };
    luaL_newmetatable(L, TD_LUA_TRANSACTION);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
