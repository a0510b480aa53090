/* tx.c: transactions. See tx.h. */
#include "tx.h"

#include "conn.h"

#include <libpq-fe.h>
#include <string.h>

static int command(PGconn *conn, const char *name, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = td_conn_run(conn, name, 0, NULL, &result, err);
    PQclear(result);
    return rc;
}

int td_tx_begin(PGconn *conn, tidemill_error *err) {
    return command(conn, "statements/tx_begin.sql", err);
}

bool td_tx_open(const PGconn *conn) {
    return PQtransactionStatus(conn) == PQTRANS_INTRANS;
}

bool td_tx_idle(const PGconn *conn) {
    return PQtransactionStatus(conn) == PQTRANS_IDLE;
}

int td_tx_commit(PGconn *conn, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = td_conn_run(conn, "statements/tx_commit.sql", 0, NULL, &result, err);
    if (rc == TIDEMILL_ECONNECT) {
        td_error_prefix(err, "whether the transaction was committed is unknown");
        if (err) err->code = TIDEMILL_EOUTCOME;
        rc = TIDEMILL_EOUTCOME;
    } else if (rc == 0 && strcmp(PQcmdStatus(result), "COMMIT") != 0) {
        rc = td_error_set(err, TIDEMILL_EDATABASE, "the database rolled the transaction back; nothing was done");
    }
    PQclear(result);
    return rc;
}

bool td_tx_rollback(PGconn *conn) {
    return command(conn, "statements/tx_rollback.sql", NULL) == 0 && td_tx_idle(conn);
}
