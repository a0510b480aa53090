/* query.c: a thread's pool of connections, and one statement's way through it.

   What holds always: `free` turns are nobody's, each other turn belongs to one query, and `idle` connections are at
   most as many as there are turns. A query gets its turn at once, or waits in the list `waiting` until one is handed to
   it; whoever ends a query hands its turn on. So turns are given in order, and a fiber that is dropped, waiting or not,
   loses none. */
#include "query.h"

#include "conn.h"
#include "dial.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTIONS_DEFAULT = 2 };

typedef struct pool {
    char *url;
    int free;
    td_list waiting; /* of queries */
    PGconn **idle;   /* a stack: the warmest is taken first */
    int idle_count;
} pool;

/* One statement, from its wait for a turn to its result. Owned by its fiber. */
typedef struct query {
    td_hold hold;
    td_list link; /* in waiting */
    td_fiber *fiber;
    pool *pool;
    bool turn;
    bool refused; /* by the server, which is ready for the next */
    bool clean;   /* conn may serve another query */
    PGconn *conn;
    PGresult *row, *result; /* row: while it is passed on */
} query;

static const char pool_key;

/* ---- The pool ---- */

static void pool_free(void *arg) {
    pool *p = arg;
    while (p->idle_count > 0) PQfinish(p->idle[--p->idle_count]);
    free(p->idle);
    free(p->url);
    free(p);
}

int td_query_setup(td_thread *thread, const char *url, int connections, tidemill_error *err) {
    int count = connections > 0 ? connections : CONNECTIONS_DEFAULT;
    if (td_thread_local(thread, &pool_key)) {
        return td_error_set(err, TIDEMILL_ESTATE, "this thread has its database connections already");
    }
    pool *p = calloc(1, sizeof *p);
    if (!p) return td_error_memory(err);
    p->url = td_strdup(url ? url : "");
    p->idle = calloc((size_t)count, sizeof(PGconn *));
    p->free = count;
    td_list_init(&p->waiting);
    if (p->url && p->idle && td_thread_set_local(thread, &pool_key, p, pool_free) == 0) return 0;
    pool_free(p);
    return td_error_memory(err);
}

/* take_turn parks until the query has a turn. */
static void take_turn(query *q) {
    pool *p = q->pool;
    if (p->free > 0) {
        p->free--;
        q->turn = true;
        return;
    }
    td_list_push(&p->waiting, &q->link);
    while (!q->turn) td_fiber_park();
}

/* pass_turn gives the query's turn to the one that waits longest. */
static void pass_turn(query *q) {
    td_list *first = td_list_shift(&q->pool->waiting);
    if (!first) {
        q->pool->free++;
        return;
    }
    query *next = td_container(first, query, link);
    next->turn = true;
    td_fiber_wake(next->fiber);
}

/* quiet says whether an idle connection is open, as far as can be told without asking the server. What a server sends
   to a session that is idle, and listens to nothing, is most likely its farewell; the end of the stream follows later.
 */
static bool quiet(PGconn *conn) {
    struct pollfd socket = { PQsocket(conn), POLLIN, 0 };
    return PQstatus(conn) == CONNECTION_OK && poll(&socket, 1, 0) == 0;
}

/* take_idle returns an open connection; NULL for none. */
static PGconn *take_idle(pool *p) {
    while (p->idle_count > 0) {
        PGconn *conn = p->idle[--p->idle_count];
        if (quiet(conn)) return conn;
        PQfinish(conn);
    }
    return NULL;
}

/* ---- A query's life ---- */

static void query_free(query *q) {
    td_list_remove(&q->link);
    PQclear(q->row);
    PQclear(q->result);
    if (q->conn && q->clean)
        q->pool->idle[q->pool->idle_count++] = q->conn;
    else
        td_dial_hangup(q->conn);
    if (q->turn) pass_turn(q);
    free(q);
}

static void release(td_hold *hold) {
    query_free(td_container(hold, query, hold));
}

/* fail fills err from a result that is an error, or (NULL) from a connection that broke. */
static int fail(query *q, const PGresult *result, tidemill_error *err) {
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
static int dispatch(query *q, const char *sql, int n, const char *const *params, bool by_row, tidemill_error *err) {
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
static int next_result(query *q, PGresult **result, tidemill_error *err) {
    while (PQisBusy(q->conn)) {
        int rc = td_wait_fd(PQsocket(q->conn), UV_READABLE, UINT64_MAX, NULL, err);
        if (rc < 0) return rc;
        if (!PQconsumeInput(q->conn)) return fail(q, NULL, err);
    }
    *result = PQgetResult(q->conn);
    return 0;
}

/* pass_on gives a row away. The query owns it meanwhile: the fiber may be dropped in there. */
static int pass_on(query *q, PGresult *result, td_query_row_fn *row, void *arg, tidemill_error *err) {
    q->row = result;
    int rc = row(arg, result);
    q->row = NULL;
    PQclear(result);
    return rc == 0 ? 0 : td_error_set(err, TIDEMILL_ECANCELLED, "the statement was cancelled");
}

/* take deals with one result: a row is passed on, the statement's end is kept. */
static int take(query *q, PGresult *result, td_query_row_fn *row, void *arg, tidemill_error *err) {
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
static int collect(query *q, td_query_row_fn *row, void *arg, tidemill_error *err) {
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
    static const char *const harmless[] = { "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "NOTIFY" };
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

/* settle decides whether the connection can be used again. */
static int settle(query *q, int rc, tidemill_error *err) {
    PGTransactionStatusType state = PQtransactionStatus(q->conn);
    bool open = state == PQTRANS_INTRANS || state == PQTRANS_INERROR;
    if (rc == 0 && open) {
        return td_error_set(
            err, TIDEMILL_ESTATE,
            "the statement left a transaction open, which was rolled back: each statement is a transaction "
            "of its own here; put what belongs together into one statement or function");
    }
    q->clean = state == PQTRANS_IDLE && PQstatus(q->conn) == CONNECTION_OK &&
               (q->refused || (rc == 0 && q->result && leaves_nothing(q->result)));
    return rc;
}

static int run(query *q, const char *sql, int n, const char *const *params, td_query_row_fn *row, void *arg,
               tidemill_error *err) {
    int rc = 0;
    take_turn(q);
    q->conn = take_idle(q->pool);
    if (!q->conn) rc = td_dial(q->pool->url, &q->conn, err);
    if (rc < 0) return rc;
    rc = dispatch(q, sql, n, params, row != NULL, err);
    if (rc == 0) rc = collect(q, row, arg, err);
    return settle(q, rc, err);
}

int td_query_run(const char *sql, int n, const char *const *params, td_query_row_fn *row, void *arg, PGresult **result,
                 tidemill_error *err) {
    pool *p = td_thread_local(td_thread_self(), &pool_key);
    if (!p) return td_error_set(err, TIDEMILL_ESTATE, "there is no database to ask on this thread");
    query *q = calloc(1, sizeof *q);
    if (!q) return td_error_memory(err);
    q->fiber = td_fiber_self();
    q->pool = p;
    td_hold_push(q->fiber, &q->hold, release);
    const char *before = td_fiber_doing("the database");
    int rc = run(q, sql, n, params, row, arg, err);
    td_fiber_doing(before);
    if (rc == 0) {
        *result = q->result;
        q->result = NULL;
    }
    td_hold_take(&q->hold);
    query_free(q);
    return rc;
}

int td_query_exec(const char *sql, int n, const char *const *params, PGresult **result, tidemill_error *err) {
    return td_query_run(sql, n, params, NULL, NULL, result, err);
}
