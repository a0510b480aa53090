/* query.h: statements run from fibers, without holding their thread. Each thread has a few connections, made when they
   are first needed; fibers that want one while all are taken wait in the order in which they came.

   A statement has a connection to itself and is a transaction of its own. A connection goes back to the others only
   after a statement that leaves nothing behind in its session; after `begin`, `set`, a temporary table and so on it is
   closed. What a function called by a select does to its session (set_config, an advisory lock that is no
   transaction's) is not seen, and lasts. */
#ifndef TD_QUERY_H
#define TD_QUERY_H

#include "../loop/loop.h"

struct pg_result;

/* td_query_setup gives a thread its connections to the database at url (as tidemill_connect's): at most so many, 2 if
   0. Nothing is connected yet. On that thread, once. Errors: MEMORY, STATE (it was done before). */
int td_query_setup(td_thread *thread, const char *url, int connections, tidemill_error *err) TD_MUST_CHECK;

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

#endif
