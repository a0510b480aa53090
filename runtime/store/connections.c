/* connections.c: turns are counted under a mutex; a turn that is given to another thread's fiber rings that thread.

   What holds always: `free` turns are nobody's, and then nobody waits; each other turn is one fiber's; and `idle`
   connections are at most as many as turns are free. */
#include "connections.h"

#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct td_connections {
    atomic_uint refs;
    char *url;
    pthread_mutex_t mutex;
    int free;
    td_list waiting; /* of turns */
    PGconn **idle;   /* a stack: the warmest is taken first */
    int idle_count;
};

struct td_seat {
    td_connections *connections;
    td_thread *thread;
    uv_async_t bell;
    td_list given; /* turns that other threads gave, under the mutex */
};

static const char seat_key;

/* ---- Life ---- */

td_connections *td_connections_new(const char *url, int max) {
    td_connections *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->mutex, NULL);
    c->free = max;
    c->url = td_strdup(url ? url : "");
    c->idle = calloc((size_t)max, sizeof(PGconn *));
    td_list_init(&c->waiting);
    if (c->url && c->idle) return c;
    td_connections_unref(c);
    return NULL;
}

td_connections *td_connections_ref(td_connections *c) {
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void td_connections_unref(td_connections *c) {
    if (!c || atomic_fetch_sub(&c->refs, 1) > 1) return;
    while (c->idle_count > 0) PQfinish(c->idle[--c->idle_count]);
    pthread_mutex_destroy(&c->mutex);
    free(c->idle);
    free(c->url);
    free(c);
}

/* ---- Seats ---- */

static void bell_closed(uv_handle_t *bell) {
    free(td_container(bell, td_seat, bell));
}

/* seat_free: the thread's fibers are gone, and with them all turns that could be given to it. */
static void seat_free(void *arg) {
    td_seat *seat = arg;
    td_connections_unref(seat->connections);
    uv_close((uv_handle_t *)&seat->bell, bell_closed);
}

/* on_bell wakes those that were given a turn. */
static void on_bell(uv_async_t *bell) {
    td_seat *seat = td_container(bell, td_seat, bell);
    for (;;) {
        pthread_mutex_lock(&seat->connections->mutex);
        td_list *first = td_list_shift(&seat->given);
        pthread_mutex_unlock(&seat->connections->mutex);
        if (!first) return;
        td_fiber_wake(td_container(first, td_turn, link)->fiber);
    }
}

int td_connections_join(td_thread *thread, td_connections *connections, tidemill_error *err) {
    if (td_thread_local(thread, &seat_key)) {
        return td_error_set(err, TIDEMILL_ESTATE, "this thread has its database connections already");
    }
    td_seat *seat = calloc(1, sizeof *seat);
    if (!seat) return td_error_memory(err);
    seat->connections = td_connections_ref(connections);
    seat->thread = thread;
    td_list_init(&seat->given);
    int rc = uv_async_init(td_thread_loop(thread), &seat->bell, on_bell);
    if (rc < 0) {
        td_connections_unref(connections);
        free(seat);
        return td_error_set(err, TIDEMILL_EIO, "the database connections cannot be shared: %s", uv_strerror(rc));
    }
    if (td_thread_set_local(thread, &seat_key, seat, seat_free) == 0) return 0;
    seat_free(seat);
    return td_error_memory(err);
}

td_seat *td_connections_seat(void) {
    td_thread *thread = td_thread_self();
    return thread ? td_thread_local(thread, &seat_key) : NULL;
}

const char *td_connections_url(const td_seat *seat) {
    return seat->connections->url;
}

/* ---- Connections ---- */

/* quiet says whether an idle connection is open, as far as can be told without asking the server. What a server sends
   to a session that is idle, and listens to nothing, is most likely its farewell; the end of the stream follows later.
 */
static bool quiet(PGconn *conn) {
    struct pollfd socket = { PQsocket(conn), POLLIN, 0 };
    return PQstatus(conn) == CONNECTION_OK && poll(&socket, 1, 0) == 0;
}

PGconn *td_connections_take(td_seat *seat) {
    td_connections *c = seat->connections;
    for (;;) {
        pthread_mutex_lock(&c->mutex);
        PGconn *conn = c->idle_count > 0 ? c->idle[--c->idle_count] : NULL;
        pthread_mutex_unlock(&c->mutex);
        if (!conn || quiet(conn)) return conn;
        PQfinish(conn);
    }
}

/* ---- Turns ---- */

void td_turn_take(td_turn *turn, td_seat *seat) {
    td_connections *c = seat->connections;
    turn->seat = seat;
    turn->fiber = td_fiber_self();
    pthread_mutex_lock(&c->mutex);
    if (c->free > 0) {
        c->free--;
        turn->state = TD_TURN_GIVEN;
    } else {
        td_list_push(&c->waiting, &turn->link);
        turn->state = TD_TURN_WAITS;
    }
    while (turn->state != TD_TURN_GIVEN) {
        pthread_mutex_unlock(&c->mutex);
        td_fiber_park();
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
}

/* pass_on gives a turn to the one that waits longest. Returns its fiber if that is this thread's, to be woken. */
static td_fiber *pass_on(td_connections *c, const td_seat *from) {
    td_list *first = td_list_shift(&c->waiting);
    if (!first) {
        c->free++;
        return NULL;
    }
    td_turn *next = td_container(first, td_turn, link);
    next->state = TD_TURN_GIVEN;
    if (next->seat == from) return next->fiber;
    td_list_push(&next->seat->given, &next->link);
    uv_async_send(&next->seat->bell);
    return NULL;
}

void td_turn_end(td_turn *turn, PGconn *conn) {
    if (!turn->seat) return;
    td_connections *c = turn->seat->connections;
    pthread_mutex_lock(&c->mutex);
    td_list_remove(&turn->link); /* from waiting, or from those to be woken */
    if (conn) c->idle[c->idle_count++] = conn;
    td_fiber *next = turn->state == TD_TURN_GIVEN ? pass_on(c, turn->seat) : NULL;
    turn->state = TD_TURN_NONE;
    pthread_mutex_unlock(&c->mutex);
    if (next) td_fiber_wake(next);
}
