/* binding.h: the parts of require "tidemill" in a plain lua5.4.

   tidemill.c     the module: connect, and the client's methods
   transaction.c  client:transaction and the methods of tx
   jobs.c         enqueue and enqueue_many, which client and tx share; what they are given is read by
                  runtime/ctx/request.c, as for ctx:enqueue
   rows.c         one statement with its parameters and rows
   answer.c       nil, message, code

   What holds everywhere: a call of Lua's API that may raise is made only while no memory or PGresult is held, except in
   a userdata. So each operation has three steps: read from the Lua stack (raises nothing), ask the database, push. */
#ifndef TD_BINDING_H
#define TD_BINDING_H

#include "../../runtime/lib/client.h"
#include "../../runtime/store/enqueue.h"

#include <lauxlib.h>

struct pg_conn;
struct td_transaction;

#define TD_LUA_CLIENT      "tidemill.client"
#define TD_LUA_TRANSACTION "tidemill.transaction"

/* The userdata of a client. */
typedef struct td_lua_client {
    tidemill_client *client;            /* NULL: closed */
    struct td_transaction *transaction; /* the one that is open on it, whose userdata refers to this one */
} td_lua_client;

/* td_lua_client_check returns the client at stack index 1, on which a statement may be run now. Raises for anything
   else: a value that is no client, a closed one, one with a transaction open. */
td_lua_client *td_lua_client_check(lua_State *L, const char *method);

/* ---- answer.c ---- */

/* td_answer_error pushes nil, the message and the code's name. Returns 3. */
int td_answer_error(lua_State *L, const tidemill_error *err);

/* ---- jobs.c ---- */

/* What gives a client's or transaction's connection, once there is something to be sent. */
typedef int td_jobs_connection_fn(void *owner, struct pg_conn **conn, tidemill_error *err);

/* td_jobs_one does enqueue(self, task, args, options), td_jobs_many enqueue_many(self, task, list, options), which are
   at the stack indices 1 to 4. They return the number of values pushed, or a code; nothing is pushed then that matters.
 */
int td_jobs_one(lua_State *L, td_jobs_connection_fn *connection, void *owner, tidemill_error *err) TD_MUST_CHECK;
int td_jobs_many(lua_State *L, td_jobs_connection_fn *connection, void *owner, tidemill_error *err) TD_MUST_CHECK;

/* ---- rows.c ---- */

/* td_rows_query runs a statement with the n values from the stack index first on as parameters, and pushes its rows
 *[+1]. ends is whether it was one that ends a transaction. Returns 0 or a code. */
int td_rows_query(lua_State *L, struct pg_conn *conn, const char *sql, int first, int n, bool *ends,
                  tidemill_error *err) TD_MUST_CHECK;

/* td_rows_open makes the metatable that rows.c needs [-0, +0]. */
void td_rows_open(lua_State *L);

/* ---- transaction.c ---- */

/* client:transaction(fn) */
int td_transaction_run(lua_State *L);

/* td_transaction_abandon ends a client's open transaction from outside: its connection is about to be closed. */
void td_transaction_abandon(struct td_transaction *transaction);

/* td_transaction_open makes the metatable of tx [-0, +0]. */
void td_transaction_open(lua_State *L);

#endif
