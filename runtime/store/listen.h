/* listen.h: the connection on which a process hears notifications. From a fiber. */
#ifndef TD_LISTEN_H
#define TD_LISTEN_H

#include "../base/base.h"

struct pg_conn;

/* td_listen_open connects and listens on Tidemill's channel. *conn is the caller's (td_dial_hangup). Errors: as
   td_dial, DATABASE. */
int td_listen_open(const char *url, struct pg_conn **conn, tidemill_error *err) TD_MUST_CHECK;

/* td_listen_wait parks until notifications arrive, and calls heard for each with its payload. Errors: CONNECT (the
   connection is gone), IO. */
int td_listen_wait(struct pg_conn *conn, void (*heard)(void *arg, const char *payload), void *arg,
                   tidemill_error *err) TD_MUST_CHECK;

#endif
