/* dial.c: libpq's connecting, step by step.

   Each step (PQconnectStart, then PQconnectPoll as often as the socket is ready) runs in libuv's thread pool: in
   between, libpq resolves host names, reads files (service, password, certificates) and computes for TLS and SCRAM, all
   of which would hold the thread. A fiber that is dropped in the middle of a step leaves its attempt to the step's end.
 */
#include "dial.h"

#include "conn.h"

#include "../loop/loop.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TIMEOUT_S = 10 };

/* One attempt to connect: the fiber's, or, when that was dropped during a step, that step's. */
typedef struct attempt {
    td_hold hold;
    uv_work_t work;
    td_fiber *fiber; /* NULL: dropped */
    bool busy;       /* a step runs */
    char *url;
    PGconn *conn;
    PostgresPollingStatusType status;
} attempt;

static void attempt_free(attempt *a) {
    PQfinish(a->conn);
    free(a->url);
    free(a);
}

static void release(td_hold *hold) {
    attempt *a = td_container(hold, attempt, hold);
    a->fiber = NULL;
    if (!a->busy) attempt_free(a);
}

/* connect_start begins to connect. Settings before dbname are defaults, those after it hold whatever the url says. */
static void connect_start(attempt *a) {
    static const char *const names[] = { "tcp_user_timeout", "fallback_application_name", "dbname", "client_encoding",
                                         NULL };
    const char *const values[] = { "10000", "tidemill", a->url, "UTF8", NULL };
    a->conn = PQconnectStartParams(names, values, 1);
    a->status = PGRES_POLLING_WRITING;
}

/* take_step runs in the thread pool. */
static void take_step(uv_work_t *work) {
    attempt *a = td_container(work, attempt, work);
    if (a->conn)
        a->status = PQconnectPoll(a->conn);
    else
        connect_start(a);
}

static void step_taken(uv_work_t *work, int status) {
    attempt *a = td_container(work, attempt, work);
    (void)status;
    a->busy = false;
    if (a->fiber)
        td_fiber_wake(a->fiber);
    else
        attempt_free(a);
}

/* step parks until a step was taken. */
static int step(attempt *a, tidemill_error *err) {
    int rc = uv_queue_work(td_thread_loop(td_thread_self()), &a->work, take_step, step_taken);
    if (rc < 0) return td_error_set(err, TIDEMILL_EIO, "the thread pool refused work: %s", uv_strerror(rc));
    a->busy = true;
    while (a->busy) td_fiber_park();
    if (!a->conn) return td_error_memory(err);
    return 0;
}

/* fail explains why a connection could not be made, in libpq's words, in one line. */
static int fail(const PGconn *conn, tidemill_error *err) {
    td_buf b = { 0 };
    const char *text = PQerrorMessage(conn);
    td_text_clean(&b, text, strlen(text), 900);
    for (size_t i = 0; i < b.len; i++) b.data[i] = b.data[i] == '\n' ? ' ' : b.data[i];
    while (b.len > 0 && b.data[b.len - 1] == ' ') b.data[--b.len] = '\0';
    int rc = td_error_set(err, TIDEMILL_ECONNECT, "the database cannot be reached: %s", b.data ? b.data : "");
    td_buf_free(&b);
    return rc;
}

/* timeout_of returns the seconds that a connection may take to be made. */
static unsigned timeout_of(PGconn *conn) {
    unsigned seconds = TIMEOUT_S;
    PQconninfoOption *options = PQconninfo(conn);
    for (PQconninfoOption *o = options; o && o->keyword; o++) {
        if (strcmp(o->keyword, "connect_timeout") != 0 || !o->val) continue;
        long given = strtol(o->val, NULL, 10);
        if (given > 0 && given < 1000000) seconds = (unsigned)given;
    }
    PQconninfoFree(options);
    return seconds;
}

/* run_steps takes steps until the connection is made. */
static int run_steps(attempt *a, tidemill_error *err) {
    uint64_t begun = td_now_ns();
    int rc = step(a, err);
    if (rc < 0) return rc;
    unsigned timeout_s = timeout_of(a->conn);
    while (PQstatus(a->conn) != CONNECTION_BAD && a->status != PGRES_POLLING_FAILED) {
        if (a->status == PGRES_POLLING_OK) return 0;
        int events = a->status == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE;
        rc = td_wait_fd(PQsocket(a->conn), events, begun + timeout_s * UINT64_C(1000000000), NULL, err);
        if (rc == TIDEMILL_ETIMEOUT) {
            return td_error_set(err, TIDEMILL_ECONNECT, "the database cannot be reached: no answer within %u s",
                                timeout_s);
        }
        if (rc == 0) rc = step(a, err);
        if (rc < 0) return rc;
    }
    return fail(a->conn, err);
}

static void drop_notice(void *arg, const PGresult *result) {
    (void)arg;
    (void)result;
}

int td_dial(const char *url, PGconn **conn, tidemill_error *err) {
    int rc = td_conn_check_url(url, err);
    if (rc < 0) return rc;
    attempt *a = calloc(1, sizeof *a);
    if (!a) return td_error_memory(err);
    a->fiber = td_fiber_self();
    a->url = td_strdup(url ? url : "");
    if (!a->url) {
        free(a);
        return td_error_memory(err);
    }
    td_hold_push(a->fiber, &a->hold, release);
    rc = run_steps(a, err);
    if (rc == 0) {
        *conn = a->conn;
        a->conn = NULL;
        PQsetnonblocking(*conn, 1);
        PQsetNoticeReceiver(*conn, drop_notice, NULL);
    }
    td_hold_take(&a->hold);
    attempt_free(a);
    return rc;
}

/* ---- Hanging up ---- */

typedef struct hangup {
    uv_work_t work;
    PGcancel *cancel;
} hangup;

/* send_cancel runs in the thread pool. A request that comes before the server has begun the statement, which is on its way
   still, does nothing, and the server would notice only at the statement's end that nobody is there any more: so it is
   sent again. To a server process that is gone by then it means nothing. */
static void send_cancel(uv_work_t *work) {
    static const long naps_ms[] = { 0, 100, 900 };
    char text[256];
    for (size_t i = 0; i < TD_COUNT(naps_ms); i++) {
        nanosleep(&(struct timespec){ .tv_nsec = naps_ms[i] * 1000000 }, NULL);
        if (!PQcancel(td_container(work, hangup, work)->cancel, text, sizeof text)) return;
    }
}

static void cancel_sent(uv_work_t *work, int status) {
    hangup *h = td_container(work, hangup, work);
    (void)status;
    PQfreeCancel(h->cancel);
    free(h);
}

void td_dial_hangup(PGconn *conn) {
    if (!conn) return;
    bool running = PQstatus(conn) == CONNECTION_OK && PQtransactionStatus(conn) == PQTRANS_ACTIVE;
    hangup *h = running ? calloc(1, sizeof *h) : NULL;
    if (h) h->cancel = PQgetCancel(conn);
    PQfinish(conn);
    if (!h) return;
    if (!h->cancel || uv_queue_work(td_thread_loop(td_thread_self()), &h->work, send_cancel, cancel_sent) < 0) {
        PQfreeCancel(h->cancel);
        free(h);
    }
}
