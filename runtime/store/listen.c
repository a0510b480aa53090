/* listen.c: LISTEN, and what comes of it. */
#include "listen.h"

#include "../loop/loop.h"
#include "conn.h"
#include "dial.h"
#include "sql.h"

#include <libpq-fe.h>

/* read_more parks until the server has sent something, and reads it. */
static int read_more(PGconn *conn, tidemill_error *err) {
    int rc = td_wait_fd(PQsocket(conn), UV_READABLE, UINT64_MAX, NULL, err);
    if (rc < 0) return rc;
    return PQconsumeInput(conn) ? 0 : td_conn_error(conn, NULL, err);
}

/* run_listen sends the statement and takes its result. */
static int run_listen(PGconn *conn, tidemill_error *err) {
    int rc = 0;
    PGresult *result;
    if (!PQsendQuery(conn, td_sql_text("statements/listen.sql"))) return td_conn_error(conn, NULL, err);
    for (;;) {
        while (rc == 0 && PQflush(conn) == 1) rc = td_wait_fd(PQsocket(conn), UV_WRITABLE, UINT64_MAX, NULL, err);
        while (rc == 0 && PQisBusy(conn)) rc = read_more(conn, err);
        if (rc < 0 || (result = PQgetResult(conn)) == NULL) return rc;
        if (PQresultStatus(result) != PGRES_COMMAND_OK) rc = td_conn_error(conn, result, err);
        PQclear(result);
    }
}

int td_listen_open(const char *url, PGconn **conn, tidemill_error *err) {
    PGconn *opened = NULL;
    int rc = td_dial(url, &opened, err);
    if (rc == 0) rc = run_listen(opened, err);
    if (rc == 0)
        *conn = opened;
    else
        td_dial_hangup(opened);
    return rc;
}

int td_listen_wait(PGconn *conn, void (*heard)(void *arg, const char *payload), void *arg, tidemill_error *err) {
    PGnotify *note = PQnotifies(conn);
    while (!note) {
        int rc = read_more(conn, err);
        if (rc < 0) return rc;
        note = PQnotifies(conn);
    }
    for (; note; note = PQnotifies(conn)) {
        heard(arg, note->extra);
        PQfreemem(note);
    }
    return 0;
}
