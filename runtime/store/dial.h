/* dial.h: connecting to PostgreSQL from a fiber, without holding its thread. */
#ifndef TD_DIAL_H
#define TD_DIAL_H

#include "../base/base.h"

struct pg_conn;

/* td_dial connects to the database at url (as tidemill_connect's) and parks the fiber meanwhile: for 10 s at most,
   unless the url says connect_timeout. *conn is the caller's, not blocking (PQsetnonblocking), its text is UTF-8, and
   what the server notices is dropped. Errors: INVALID (url), CONNECT, MEMORY. */
int td_dial(const char *url, struct pg_conn **conn, tidemill_error *err) TD_MUST_CHECK;

/* td_dial_hangup closes a connection on which a statement may be running, and has the server cancel that. It does not
   block: the request is sent by libuv's thread pool. On a loop thread. NULL is allowed. */
void td_dial_hangup(struct pg_conn *conn);

#endif
