/* query.h: statements run from fibers, without holding their thread, on connections that are made when they are first
   needed; fibers that want one while all are taken wait in the order in which they came.

   A statement by itself has a connection to itself and is a transaction of its own. A connection goes back to the
   others only after statements that leave nothing behind in its session; after `set`, a temporary table and so on it is
   closed. What a function called by a select does to its session (set_config, an advisory lock that is no
   transaction's) is not seen, and lasts. */
#ifndef TD_QUERY_H
#define TD_QUERY_H

#include "connections.h"

struct pg_result;

/* What td_query_run calls for each row, with a result of that one row, which is freed afterwards. Other than 0 ends
   the statement: the server is told to cancel it. */
typedef int td_query_row_fn(void *arg, const struct pg_result *row);

/* td_query_run runs one statement, with n parameters as text ($1 and so on; NULL is null), whose types the server
   infers, and parks the fiber until it has ended. Rows go to `row` as they arrive; *result is the caller's (PQclear),
   has none, and tells the command (PQcmdTuples). sql and params must stay where they are meanwhile. Errors: INVALID,
   CONNECT (nothing was done), DATABASE, OUTCOME (the connection was lost while it ran), CANCELLED (by `row`), STATE (a
   transaction was left open, and is rolled back; or this thread has no database), MEMORY, IO. */
int td_query_run(const char *sql, int n, const char *const *params, td_query_row_fn *row, void *arg,
                 struct pg_result **result, tidemill_error *err) TD_MUST_CHECK;

/* td_query_exec is td_query_run with all rows in *result. */
int td_query_exec(const char *sql, int n, const char *const *params, struct pg_result **result,
                  tidemill_error *err) TD_MUST_CHECK;

/* ---- Transactions: one connection for all of their statements. The fiber owns it: when that is dropped, the
   connection is closed, and the server rolls back. ---- */

typedef struct td_session td_session;

/* td_query_begin waits for a connection and runs sql ("begin ..."). *session is ended by td_query_end. Errors: CONNECT,
   DATABASE, STATE (this thread has no database), MEMORY, IO. */
int td_query_begin(const char *sql, td_session **session, tidemill_error *err) TD_MUST_CHECK;

/* td_query_run_in is td_query_run in a transaction. After an error but one of the database's the transaction is over:
   all later statements give the same error. Errors besides: CONNECT (the connection was lost, so all was rolled back),
   STATE (the statement ended the transaction). */
int td_query_run_in(td_session *session, const char *sql, int n, const char *const *params, td_query_row_fn *row,
                    void *arg, struct pg_result **result, tidemill_error *err) TD_MUST_CHECK;

/* td_query_end commits (keep), or rolls back, and frees the session. A transaction in which a statement failed is
   rolled back in any case. Errors of a commit: that statement's error, DATABASE, OUTCOME (the connection was lost
   meanwhile: it may have been committed), IO, MEMORY. A rollback has none. */
int td_query_end(td_session *session, bool keep, tidemill_error *err);

#endif
