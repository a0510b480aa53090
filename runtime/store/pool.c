/* pool.c: turns are counted under the pool's mutex; a turn that is given to another thread's fiber rings that thread.

   What holds always: `free` turns are nobody's, and then nobody waits; each other turn is one fiber's; and `idle`
   connections are at most as many as turns are free. */
#include "pool.h"

#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTIONS_DEFAULT = 4 };

typedef struct pool {
    struct pool *next; /* in shared */
    char *url;
    int seats; /* under shared_mutex */
    pthread_mutex_t mutex;
    int free;
    td_list waiting; /* of turns */
    PGconn **idle;   /* a stack: the warmest is taken first */
    int idle_count;
} pool;

struct td_seat {
    pool *pool;
    td_thread *thread;
    uv_async_t bell;
    td_list given; /* turns that other threads gave, under the pool's mutex */
};

/* The pools that threads share, by url. */
static pthread_mutex_t shared_mutex = PTHREAD_MUTEX_INITIALIZER;
static pool *shared;

static const char seat_key;

/* ---- Pools ---- */

static void pool_free(pool *p) {
    while (p->idle_count > 0) PQfinish(p->idle[--p->idle_count]);
    pthread_mutex_destroy(&p->mutex);
    free(p->idle);
    free(p->url);
    free(p);
}

static pool *pool_new(const char *url, int connections) {
    pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    pthread_mutex_init(&p->mutex, NULL);
    p->seats = 1;
    p->free = connections;
    p->url = td_strdup(url);
    p->idle = calloc((size_t)connections, sizeof(PGconn *));
    td_list_init(&p->waiting);
    if (p->url && p->idle) return p;
    pool_free(p);
    return NULL;
}

/* pool_share returns the pool of all threads for this url. */
static pool *pool_share(const char *url) {
    pthread_mutex_lock(&shared_mutex);
    pool *p = shared;
    while (p && strcmp(p->url, url) != 0) p = p->next;
    if (p) {
        p->seats++;
    } else {
        p = pool_new(url, CONNECTIONS_DEFAULT);
        if (p) {
            p->next = shared;
            shared = p;
        }
    }
    pthread_mutex_unlock(&shared_mutex);
    return p;
}

/* pool_leave gives up a seat at a pool. */
static void pool_leave(pool *p) {
    pthread_mutex_lock(&shared_mutex);
    bool last = --p->seats == 0;
    for (pool **at = &shared; last && *at; at = &(*at)->next) {
        if (*at == p) {
            *at = p->next;
            break;
        }
    }
    pthread_mutex_unlock(&shared_mutex);
    if (last) pool_free(p);
}

/* ---- Seats ---- */

static void bell_closed(uv_handle_t *bell) {
    free(td_container(bell, td_seat, bell));
}

/* seat_free: the thread's fibers are gone, and with them all turns that could be given to it. */
static void seat_free(void *arg) {
    td_seat *seat = arg;
    pool_leave(seat->pool);
    uv_close((uv_handle_t *)&seat->bell, bell_closed);
}

/* on_bell wakes those that were given a turn. */
static void on_bell(uv_async_t *bell) {
    td_seat *seat = td_container(bell, td_seat, bell);
    for (;;) {
        pthread_mutex_lock(&seat->pool->mutex);
        td_list *first = td_list_shift(&seat->given);
        pthread_mutex_unlock(&seat->pool->mutex);
        if (!first) return;
        td_fiber_wake(td_container(first, td_turn, link)->fiber);
    }
}

int td_pool_join(td_thread *thread, const char *url, int connections, tidemill_error *err) {
    if (td_thread_local(thread, &seat_key)) {
        return td_error_set(err, TIDEMILL_ESTATE, "this thread has its database connections already");
    }
    td_seat *seat = calloc(1, sizeof *seat);
    pool *p = connections > 0 ? pool_new(url, connections) : pool_share(url);
    if (!seat || !p) {
        free(seat);
        if (p) pool_leave(p);
        return td_error_memory(err);
    }
    seat->pool = p;
    seat->thread = thread;
    td_list_init(&seat->given);
    int rc = uv_async_init(td_thread_loop(thread), &seat->bell, on_bell);
    if (rc < 0) {
        pool_leave(p);
        free(seat);
        return td_error_set(err, TIDEMILL_EIO, "the database connections cannot be shared: %s", uv_strerror(rc));
    }
    if (td_thread_set_local(thread, &seat_key, seat, seat_free) == 0) return 0;
    seat_free(seat);
    return td_error_memory(err);
}

td_seat *td_pool_seat(void) {
    td_thread *thread = td_thread_self();
    return thread ? td_thread_local(thread, &seat_key) : NULL;
}

const char *td_pool_url(const td_seat *seat) {
    return seat->pool->url;
}

/* ---- Connections ---- */

/* quiet says whether an idle connection is open, as far as can be told without asking the server. What a server sends
   to a session that is idle, and listens to nothing, is most likely its farewell; the end of the stream follows later.
 */
static bool quiet(PGconn *conn) {
    struct pollfd socket = { PQsocket(conn), POLLIN, 0 };
    return PQstatus(conn) == CONNECTION_OK && poll(&socket, 1, 0) == 0;
}

PGconn *td_pool_take(td_seat *seat) {
    pool *p = seat->pool;
    for (;;) {
        pthread_mutex_lock(&p->mutex);
        PGconn *conn = p->idle_count > 0 ? p->idle[--p->idle_count] : NULL;
        pthread_mutex_unlock(&p->mutex);
        if (!conn || quiet(conn)) return conn;
        PQfinish(conn);
    }
}

/* ---- Turns ---- */

void td_turn_take(td_turn *turn, td_seat *seat) {
    pool *p = seat->pool;
    turn->seat = seat;
    turn->fiber = td_fiber_self();
    pthread_mutex_lock(&p->mutex);
    if (p->free > 0) {
        p->free--;
        turn->state = TD_TURN_GIVEN;
    } else {
        td_list_push(&p->waiting, &turn->link);
        turn->state = TD_TURN_WAITS;
    }
    while (turn->state != TD_TURN_GIVEN) {
        pthread_mutex_unlock(&p->mutex);
        td_fiber_park();
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
}

/* pass_on gives a turn to the one that waits longest. Returns its fiber if that is this thread's, to be woken. */
static td_fiber *pass_on(pool *p, const td_seat *from) {
    td_list *first = td_list_shift(&p->waiting);
    if (!first) {
        p->free++;
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
    pool *p = turn->seat->pool;
    pthread_mutex_lock(&p->mutex);
    td_list_remove(&turn->link); /* from waiting, or from those to be woken */
    if (conn) p->idle[p->idle_count++] = conn;
    td_fiber *next = turn->state == TD_TURN_GIVEN ? pass_on(p, turn->seat) : NULL;
    turn->state = TD_TURN_NONE;
    pthread_mutex_unlock(&p->mutex);
    if (next) td_fiber_wake(next);
}
