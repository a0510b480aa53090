/* tx.h: a transaction on a connection that blocks. */
#ifndef TD_TX_H
#define TD_TX_H

#include "../base/base.h"

struct pg_conn;

/* td_tx_begin opens a transaction. Errors as td_conn_error. */
int td_tx_begin(struct pg_conn *conn, tidemill_error *err) TD_MUST_CHECK;

/* td_tx_open says whether a transaction is open in which nothing has failed. */
bool td_tx_open(const struct pg_conn *conn);

/* td_tx_commit ends it with effect. Errors: OUTCOME (the connection was lost meanwhile), DATABASE (it was rolled back:
   nothing was done), and as td_conn_error. */
int td_tx_commit(struct pg_conn *conn, tidemill_error *err) TD_MUST_CHECK;

/* td_tx_rollback ends it without effect. False: the server did not take that, and the connection is to be closed. */
bool td_tx_rollback(struct pg_conn *conn) TD_MUST_CHECK;

/* td_tx_idle says whether no transaction is open on a connection that can be used. */
bool td_tx_idle(const struct pg_conn *conn);

#endif
