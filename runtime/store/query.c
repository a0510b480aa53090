/* query.c: one session on a connection of the pool: a statement by itself, or a transaction of some. */
#include "query.h"

#include "conn.h"
#include "connections.h"
#include "dial.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Owned by its fiber. */
struct td_session {
    td_hold hold;
    td_turn turn;
    PGconn *conn;
    PGresult *row, *result; /* row: while it is passed on */
    bool refused;           /* the last statement was, by the server, which is ready for the next */
    bool clean;             /* conn may serve another session */
    bool marked;            /* a statement may have left something behind in the session */
    bool over;              /* of a transaction: the connection or the transaction is gone */
    tidemill_error failed;  /* of a transaction: why it cannot be committed */
};

/* ---- A session's life ---- */

static void session_free(td_session *q) {
    PQclear(q->row);
    PQclear(q->result);
    if (!q->clean) {
        td_dial_hangup(q->conn);
        q->conn = NULL;
    }
    td_turn_end(&q->turn, q->conn);
    free(q);
}

static void release(td_hold *hold) {
    session_free(td_container(hold, td_session, hold));
}

/* session_new returns one that waits for nothing yet. */
static td_session *session_new(tidemill_error *err) {
    td_session *q = NULL;
    if (!td_connections_seat()) {
        td_error_set(err, TIDEMILL_ESTATE, "there is no database to ask on this thread");
    } else if (!(q = calloc(1, sizeof *q))) {
        td_error_memory(err);
    } else {
        td_hold_push(td_fiber_self(), &q->hold, release);
    }
    return q;
}

/* session_end takes the session back from its fiber. */
static void session_end(td_session *q) {
    td_hold_take(&q->hold);
    session_free(q);
}

/* connect takes a turn, if there is none yet, and a connection. *fresh is whether it was made now. */
static int connect_session(td_session *q, bool *fresh, tidemill_error *err) {
    td_seat *seat = td_connections_seat();
    if (q->turn.state == TD_TURN_NONE) td_turn_take(&q->turn, seat);
    q->conn = td_connections_take(seat);
    *fresh = !q->conn;
    return q->conn ? 0 : td_dial(td_connections_url(seat), &q->conn, err);
}

/* ---- A statement ---- */

/* fail fills err from a result that is an error, or (NULL) from a connection that broke. */
static int fail(td_session *q, const PGresult *result, tidemill_error *err) {
    int rc = td_conn_error(q->conn, result, err);
    if (rc == TIDEMILL_ECONNECT) {
        char text[sizeof err->message];
        snprintf(text, sizeof text, "%s", err->message);
        return td_error_set(err, TIDEMILL_EOUTCOME, "whether the statement took effect is unknown: %.900s", text);
    }
    q->refused = true;
    return rc;
}

/* dispatch hands the statement to the socket. */
static int dispatch(td_session *q, const char *sql, int n, const char *const *params, bool by_row,
                    tidemill_error *err) {
    if (!PQsendQueryParams(q->conn, sql, n, NULL, params, NULL, NULL, 0)) {
        return fail(q, NULL, err);
    }
    if (by_row) PQsetSingleRowMode(q->conn);
    for (;;) {
        int ready, left = PQflush(q->conn);
        if (left == 0) return 0;
        if (left < 0) return fail(q, NULL, err);
        int rc = td_wait_fd(PQsocket(q->conn), UV_READABLE | UV_WRITABLE, UINT64_MAX, &ready, err);
        if (rc < 0) return rc;
        if ((ready & UV_READABLE) && !PQconsumeInput(q->conn)) return fail(q, NULL, err);
    }
}

/* next_result parks until there is a result; *result is NULL after the last. */
static int next_result(td_session *q, PGresult **result, tidemill_error *err) {
    while (PQisBusy(q->conn)) {
        int rc = td_wait_fd(PQsocket(q->conn), UV_READABLE, UINT64_MAX, NULL, err);
        if (rc < 0) return rc;
        if (!PQconsumeInput(q->conn)) return fail(q, NULL, err);
    }
    *result = PQgetResult(q->conn);
    return 0;
}

/* pass_on gives a row away. The query owns it meanwhile: the fiber may be dropped in there. */
static int pass_on(td_session *q, PGresult *result, td_query_row_fn *row, void *arg, tidemill_error *err) {
    q->row = result;
    int rc = row(arg, result);
    q->row = NULL;
    PQclear(result);
    return rc == 0 ? 0 : td_error_set(err, TIDEMILL_ECANCELLED, "the statement was cancelled");
}

/* take deals with one result: a row is passed on, the statement's end is kept. */
static int take(td_session *q, PGresult *result, td_query_row_fn *row, void *arg, tidemill_error *err) {
    int rc;
    switch (PQresultStatus(result)) {
    case PGRES_SINGLE_TUPLE:
        return pass_on(q, result, row, arg, err);
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
    case PGRES_EMPTY_QUERY:
        PQclear(q->result);
        q->result = result;
        return 0;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        rc = td_error_set(err, TIDEMILL_EINVALID, "copy to or from the client is not possible here");
        break;
    default:
        rc = fail(q, result, err);
        break;
    }
    PQclear(result);
    return rc;
}

/* collect takes results until the last. After a refusal the connection is still read to the statement's end, so that it
   can be used again. */
static int collect(td_session *q, td_query_row_fn *row, void *arg, tidemill_error *err) {
    int refused = 0;
    for (;;) {
        PGresult *result = NULL;
        int rc = next_result(q, &result, err);
        if (rc < 0) return rc;
        if (!result) return refused;
        rc = take(q, result, row, arg, err);
        if (rc < 0 && !q->refused) return rc;
        if (rc < 0) refused = rc;
    }
}

/* leaves_nothing says whether a statement that succeeded can have left nothing behind in its session. */
static bool leaves_nothing(const PGresult *result) {
    static const char *const harmless[] = { "SELECT", "INSERT",    "UPDATE",  "DELETE",  "MERGE",
                                            "NOTIFY", "SAVEPOINT", "RELEASE", "ROLLBACK" };
    const char *tag = PQcmdStatus((PGresult *)result);
    size_t len = strcspn(tag, " ");
    for (size_t i = 0; i < TD_COUNT(harmless); i++) {
        /* "SELECT" is also the tag of "select ... into temp", which returns no columns. */
        if (strlen(harmless[i]) == len && strncmp(tag, harmless[i], len) == 0) {
            return i != 0 || PQresultStatus(result) == PGRES_TUPLES_OK;
        }
    }
    return false;
}

/* statement runs one statement; its last result is in q->result. */
static int statement(td_session *q, const char *sql, int n, const char *const *params, td_query_row_fn *row, void *arg,
                     tidemill_error *err) {
    q->refused = false;
    PQclear(q->result);
    q->result = NULL;
    int rc = dispatch(q, sql, n, params, row != NULL, err);
    if (rc == 0) rc = collect(q, row, arg, err);
    if (rc == 0 && q->result && !leaves_nothing(q->result)) q->marked = true;
    return rc;
}

/* usable says whether the connection can serve another session now. */
static bool usable(const td_session *q) {
    return PQtransactionStatus(q->conn) == PQTRANS_IDLE && PQstatus(q->conn) == CONNECTION_OK && !q->marked;
}

/* ---- Statements by themselves ---- */

/* settle decides whether the connection can be used again. */
static int settle(td_session *q, int rc, tidemill_error *err) {
    PGTransactionStatusType state = PQtransactionStatus(q->conn);
    if (rc == 0 && (state == PQTRANS_INTRANS || state == PQTRANS_INERROR)) {
        return td_error_set(
            err, TIDEMILL_ESTATE,
            "the statement left a transaction open, which was rolled back: each statement is a transaction "
            "of its own here; put what belongs together into a transaction's function");
    }
    q->clean = usable(q) && (q->refused || (rc == 0 && q->result));
    return rc;
}

int td_query_run(const char *sql, int n, const char *const *params, td_query_row_fn *row, void *arg, PGresult **result,
                 tidemill_error *err) {
    td_session *q = session_new(err);
    bool fresh;
    if (!q) return td_connections_seat() ? TIDEMILL_EMEMORY : TIDEMILL_ESTATE;
    const char *before = td_fiber_doing("the database");
    int rc = connect_session(q, &fresh, err);
    if (rc == 0) rc = settle(q, statement(q, sql, n, params, row, arg, err), err);
    td_fiber_doing(before);
    if (rc == 0) {
        *result = q->result;
        q->result = NULL;
    }
    session_end(q);
    return rc;
}

int td_query_exec(const char *sql, int n, const char *const *params, PGresult **result, tidemill_error *err) {
    return td_query_run(sql, n, params, NULL, NULL, result, err);
}

/* ---- Transactions ---- */

/* spoil notes why the transaction cannot go on. */
static int spoil(td_session *q, const tidemill_error *err) {
    q->over = true;
    q->failed = *err;
    return err->code;
}

/* lose is spoil for a connection that broke: then the server has rolled the transaction back. */
static int lose(td_session *q, tidemill_error *err) {
    char text[sizeof err->message];
    snprintf(text, sizeof text, "%s", PQerrorMessage(q->conn));
    text[strcspn(text, "\n")] = '\0';
    td_error_set(err, TIDEMILL_ECONNECT, "the connection was lost, and the transaction was rolled back: %.900s", text);
    return spoil(q, err);
}

/* begin opens the transaction. An idle connection may turn out to be closed: nothing was done then, and another is
 * tried.
 */
static int begin(td_session *q, const char *sql, tidemill_error *err) {
    for (;;) {
        bool fresh;
        int rc = connect_session(q, &fresh, err);
        if (rc < 0) return rc;
        rc = statement(q, sql, 0, NULL, NULL, NULL, err);
        q->marked = false;
        if (rc != TIDEMILL_EOUTCOME) return rc;
        if (fresh) return lose(q, err);
        PQfinish(q->conn);
        q->conn = NULL;
    }
}

int td_query_begin(const char *sql, td_session **session, tidemill_error *err) {
    tidemill_error own;
    if (!err) err = &own;
    td_session *q = session_new(err);
    if (!q) return err->code;
    int rc = begin(q, sql, err);
    if (rc == 0) {
        *session = q;
        return 0;
    }
    q->clean = q->refused && usable(q);
    session_end(q);
    return rc;
}

int td_query_run_in(td_session *q, const char *sql, int n, const char *const *params, td_query_row_fn *row, void *arg,
                    PGresult **result, tidemill_error *err) {
    tidemill_error own;
    if (!err) err = &own;
    if (q->over) {
        *err = q->failed;
        return err->code;
    }
    int rc = statement(q, sql, n, params, row, arg, err);
    if (rc == TIDEMILL_EOUTCOME) return lose(q, err);
    if (rc < 0 && !q->refused) return spoil(q, err);
    PGTransactionStatusType state = PQtransactionStatus(q->conn);
    if (state == PQTRANS_IDLE) {
        td_error_set(err, TIDEMILL_ESTATE, "the statement ended the transaction, which ends with its function only");
        return spoil(q, err);
    }
    if (state == PQTRANS_INTRANS) q->failed.code = 0; /* also after a rollback to a savepoint */
    if (rc < 0 && q->failed.code == 0) q->failed = *err;
    if (rc < 0) return rc;
    *result = q->result;
    q->result = NULL;
    return 0;
}

/* commit ends the transaction well, or says why that was not possible. */
static int commit(td_session *q, tidemill_error *err) {
    if (!q->over && q->failed.code == 0) {
        int rc = statement(q, "commit", 0, NULL, NULL, NULL, err);
        if (rc == TIDEMILL_EOUTCOME) td_error_prefix(err, "commit");
        return rc;
    }
    *err = q->failed;
    td_error_prefix(err, "the transaction was rolled back, since a statement in it failed");
    return q->failed.code;
}

int td_query_end(td_session *q, bool keep, tidemill_error *err) {
    tidemill_error own;
    if (!err) err = &own;
    bool marked = q->marked;
    int rc = keep ? commit(q, err) : 0;
    if (!q->over && PQtransactionStatus(q->conn) != PQTRANS_IDLE && PQstatus(q->conn) == CONNECTION_OK) {
        (void)!statement(q, "rollback", 0, NULL, NULL, NULL, &own);
    }
    q->marked = marked;
    q->clean = !q->over && usable(q);
    session_end(q);
    return rc;
}
