/* tidemill.c: require "tidemill": a client for programs in a plain lua5.4.

     local tidemill = require "tidemill"
     local client = assert(tidemill.connect "postgresql://localhost/shop")
     local id, duplicate = client:enqueue("send_welcome_email", { user_id = "42" }, { schedule_in = 60 })

   An expected failure is returned: nil, a message of one line, and a code: "invalid" (the message begins with the
   argument or option), "connect" (nothing was done), "outcome" (the connection was lost, and whether it was done is
   unknown), "schema" (the database is not migrated, or by a newer version), "database", "memory" and what else
   TIDEMILL_ERRORS in tidemill.h lists. A misuse of the API itself raises: a call without self, on a closed client, on a
   client whose transaction is open, on a tx that has ended.

   The module also has null (null in JSON), array(t) (marks t, by default a new table, as a list, so that an empty one
   is [] and not {}), is_array(value) and _VERSION. */
#include "binding.h"

#include "../../runtime/ctx/request.h"
#include "../../runtime/vm/vm.h"

#include <string.h>

/* ---- Clients ---- */

td_lua_client *td_lua_client_check(lua_State *L, const char *method) {
    td_lua_client *c = luaL_checkudata(L, 1, TD_LUA_CLIENT);
    if (!c->client) luaL_error(L, "client:%s: the client is closed", method);
    if (c->transaction) luaL_error(L, "client:%s: a transaction is open on this client; use its tx", method);
    return c;
}

static int connection(void *owner, struct pg_conn **conn, tidemill_error *err) {
    return td_client_connection(((td_lua_client *)owner)->client, conn, err);
}

/* client:enqueue(task, args, options) stores one job and commits it. args is a table with named fields (nil: none) of
   strings, numbers, booleans, tidemill.null and such tables and lists; options is a table, see runtime/ctx/options.c.
   Returns the job's id and false; or the id of the job that stands, and true, for a duplicate; or nil, message, code.
 */
static int l_enqueue(lua_State *L) {
    td_lua_client *c = td_lua_client_check(L, "enqueue");
    tidemill_error err;
    int n = td_jobs_one(L, connection, c, &err);
    return n < 0 ? td_answer_error(L, &err) : n;
}

/* client:enqueue_many(task, list, options) stores a job for each args in the list, with the same options, all or none.
   Returns a list of { id =, duplicate = } in the same order; or nil, message, code. */
static int l_enqueue_many(lua_State *L) {
    td_lua_client *c = td_lua_client_check(L, "enqueue_many");
    tidemill_error err;
    int n = td_jobs_many(L, connection, c, &err);
    return n < 0 ? td_answer_error(L, &err) : n;
}

/* dispose closes the connection; a transaction that is open on it is rolled back by that. */
static void dispose(td_lua_client *c) {
    td_transaction_abandon(c->transaction);
    tidemill_close(c->client);
    c->client = NULL;
}

/* client:close() closes the connection. A second time, nothing happens. */
static int l_close(lua_State *L) {
    td_lua_client *c = luaL_checkudata(L, 1, TD_LUA_CLIENT);
    if (c->transaction) return luaL_error(L, "client:close: a transaction is open on this client; let it end first");
    dispose(c);
    return 0;
}

/* __gc and __close of a client. */
static int l_dispose(lua_State *L) {
    dispose(luaL_checkudata(L, 1, TD_LUA_CLIENT));
    return 0;
}

/* ---- The module ---- */

/* tidemill.connect(url) connects to a migrated database. url is a libpq URL or connection string; nil means libpq's own
   environment variables, PGHOST and so on. Waits for at most 10 s, unless the url says connect_timeout.
   Returns a client, to be used from one coroutine at a time, which connects anew after its connection was lost; or nil,
   message, code: "invalid", "connect", "schema", "memory". */
static int l_connect(lua_State *L) {
    tidemill_error err;
    size_t len = 0;
    if (!lua_isnoneornil(L, 1) && lua_type(L, 1) != LUA_TSTRING) {
        td_request_type(L, 1, "url", "a string such as postgresql://user@host/name", &err);
        return td_answer_error(L, &err);
    }
    const char *url = lua_isnoneornil(L, 1) ? NULL : lua_tolstring(L, 1, &len);
    if (url && strlen(url) != len) {
        td_error_field(&err, "url", "url: a NUL byte is not allowed; give one such as postgresql://user@host/name");
        return td_answer_error(L, &err);
    }
    td_lua_client *c = lua_newuserdatauv(L, sizeof *c, 0);
    *c = (td_lua_client){ 0 };
    luaL_setmetatable(L, TD_LUA_CLIENT);
    return tidemill_connect(url, &c->client, &err) < 0 ? td_answer_error(L, &err) : 1;
}

/* open_client makes the metatable of clients [-0, +0]. */
static void open_client(lua_State *L) {
    static const luaL_Reg methods[] = { { "enqueue", l_enqueue },
                                        { "enqueue_many", l_enqueue_many },
                                        { "transaction", td_transaction_run },
                                        { "close", l_close },
                                        { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", l_dispose }, { "__close", l_dispose }, { NULL, NULL } };
    luaL_newmetatable(L, TD_LUA_CLIENT);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

/* luaopen_tidemill is called by require "tidemill". */
__attribute__((visibility("default"))) int luaopen_tidemill(lua_State *L);
int luaopen_tidemill(lua_State *L) {
    luaL_checkversion(L);
    open_client(L);
    td_transaction_open(L);
    td_rows_open(L);
    td_value_open(L);
    lua_pushcfunction(L, l_connect);
    lua_setfield(L, -2, "connect");
    lua_pushliteral(L, "tidemill " TIDEMILL_VERSION);
    lua_setfield(L, -2, "_VERSION");
    return 1;
}
