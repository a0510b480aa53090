/* client.h: a client's connection, for bindings, which run statements of their own on it. */
#ifndef TD_CLIENT_H
#define TD_CLIENT_H

#include "../base/base.h"

struct pg_conn;

/* td_client_connection returns the client's connection in *conn, made anew when it was lost while nothing was going on.
   It stays the client's. Errors: CONNECT, SCHEMA, DATABASE, MEMORY. */
int td_client_connection(tidemill_client *client, struct pg_conn **conn, tidemill_error *err) TD_MUST_CHECK;

/* td_client_hang_up closes the connection, which rolls back what is open on it; the next call makes a new one. */
void td_client_hang_up(tidemill_client *client);

#endif
