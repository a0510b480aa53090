/* conn.h: connections that block, for clients, migrations and programs; and what libpq's errors mean. */
#ifndef TD_CONN_H
#define TD_CONN_H

#include "../base/base.h"

struct pg_conn;
struct pg_result;

/* td_conn_check_url says whether url is one that libpq understands: NULL, "", a URL or a connection string. The message
   never quotes what may be a password. Errors: INVALID (field "database"), MEMORY. */
int td_conn_check_url(const char *url, tidemill_error *err) TD_MUST_CHECK;

/* td_conn_open connects, and checks that the schema is the one this library needs. Blocks: never on a loop thread. For
   at most 10 s, unless the url or PGCONNECT_TIMEOUT says otherwise. Text is UTF-8, notices are dropped.
   *conn is the caller's (td_conn_close). Errors: INVALID (url), CONNECT, SCHEMA, DATABASE, MEMORY. */
int td_conn_open(const char *url, struct pg_conn **conn, tidemill_error *err) TD_MUST_CHECK;

/* td_conn_open_any is td_conn_open without the check of the schema, for migrations. */
int td_conn_open_any(const char *url, struct pg_conn **conn, tidemill_error *err) TD_MUST_CHECK;

/* td_conn_close closes a connection. NULL is allowed. */
void td_conn_close(struct pg_conn *conn);

/* td_conn_check_caller refuses somebody else's connection on which no job can be enqueued now: it is closed, busy, has
   no transaction open, or another encoding than UTF-8. Errors: CONNECT, STATE. */
int td_conn_check_caller(struct pg_conn *conn, tidemill_error *err) TD_MUST_CHECK;

/* td_conn_check_schema asks for the schema's version. Errors: SCHEMA, with what to do; as td_conn_error. */
int td_conn_check_schema(struct pg_conn *conn, tidemill_error *err) TD_MUST_CHECK;

/* td_conn_check_version compares a schema's version with the one this library needs; 0 is a database without a schema.
   Errors: SCHEMA. */
int td_conn_check_version(int version, tidemill_error *err) TD_MUST_CHECK;

/* td_conn_alive says whether an idle connection is open still, as far as can be told without asking the server. What a
   server sends to an idle session is most likely its farewell, so that counts as the end, too. Never blocks. */
bool td_conn_alive(struct pg_conn *conn);

/* td_conn_run runs one statement and waits for its end: the text of sql/<name>, with n text parameters (NULL is null)
   whose types the statement casts. *result is the caller's (PQclear). Errors as td_conn_error. */
int td_conn_run(struct pg_conn *conn, const char *name, int n, const char *const *params, struct pg_result **result,
                tidemill_error *err) TD_MUST_CHECK;

/* td_conn_query is td_conn_run with the statement's text itself. */
int td_conn_query(struct pg_conn *conn, const char *sql, int n, const char *const *params, struct pg_result **result,
                  tidemill_error *err) TD_MUST_CHECK;

/* td_conn_error fills *err from a statement that failed: result is its result, NULL if there is none. The message is
   one line; err->sqlstate and, where PostgreSQL names a column, err->field are set. Returns the code: INVALID for bad
   values (SQLSTATE 22023, 22P02, 22P05, 22021), NOT_FOUND, STATE and CONFLICT for what Tidemill's own functions raise,
   SCHEMA where schema tidemill or something in it is missing, CONNECT where the connection is gone (whether the
   statement took effect is then for the caller to know), MEMORY, and DATABASE for the rest. */
int td_conn_error(const struct pg_conn *conn, const struct pg_result *result, tidemill_error *err);

#endif
