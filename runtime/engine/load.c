/* load.c: see load.h. Lua's loops end with their fiber; a file that blocks in foreign code keeps its thread, which is
   left to itself then. */
#include "load.h"

#include "../ctx/ctx.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define OBEY_MS      200  /* to end with the place where it is */
#define LAST_CALL_MS 1000 /* after the bound, before the thread is left */

struct td_loader {
    td_load *load;
    td_watch *watch;
    char *dir;
    td_fiber *fiber;
    uv_timer_t limit;
    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t changed;
    td_thread *thread; /* while there is one that hears */
    int64_t limit_ms;
    bool done;
    bool left; /* its thread was left, and has it for ever */
    int rc;
    tidemill_error error;
};

static void finish(td_loader *l, int rc, const tidemill_error *err) {
    pthread_mutex_lock(&l->mutex);
    l->done = true;
    l->rc = rc;
    if (rc < 0) l->error = *err;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

#define TOO_LONG "did not finish loading in time; a file is to define its handler, and to leave work to handle()"

static int too_long(const td_loader *l, tidemill_error *err) {
    const char *file = td_load_file(l->load);
    if (*file) return td_error_set(err, TIDEMILL_EHANDLER, "%s/%s: " TOO_LONG, l->dir, file);
    return td_error_set(err, TIDEMILL_EIO, "%s: the handlers in it could not be loaded in time", l->dir);
}

/* on_last_call ends a load that did not obey. */
static void on_last_call(uv_timer_t *timer) {
    td_loader *l = timer->data;
    tidemill_error err;
    td_fiber_drop(l->fiber);
    finish(l, too_long(l, &err), &err);
}

static void on_limit(uv_timer_t *timer) {
    td_loader *l = timer->data;
    td_load_stop(l->load, TOO_LONG);
    uv_timer_start(timer, on_last_call, OBEY_MS, 0);
}

static void run(void *arg) {
    td_loader *l = arg;
    tidemill_error err;
    int rc = td_load_run(l->load, &err);
    uv_timer_stop(&l->limit);
    finish(l, rc, &err);
}

static void begin(void *arg) {
    td_loader *l = arg;
    tidemill_error err;
    l->fiber = td_fiber_new(run, l, 0);
    if (!l->fiber) {
        finish(l, td_error_memory(&err), &err);
        return;
    }
    uv_timer_init(td_thread_loop(td_thread_self()), &l->limit);
    l->limit.data = l;
    uv_timer_start(&l->limit, on_limit, (uint64_t)l->limit_ms, 0);
    td_fiber_wake(l->fiber);
}

static void hurry(void *arg) {
    td_loader *l = arg;
    if (l->fiber && !l->done) uv_timer_start(&l->limit, on_limit, 0, 0);
}

void td_loader_hurry(td_loader *l) {
    pthread_mutex_lock(&l->mutex);
    l->limit_ms = 0;
    if (l->thread) (void)!td_thread_post(l->thread, hurry, l); /* without memory it takes its time */
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

/* last_call is when a thread that has not answered is left: so long after the bound. */
static struct timespec last_call(int64_t limit_ms) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += (time_t)((limit_ms + LAST_CALL_MS) / 1000) + 1;
    return at;
}

/* wait_for waits for the end. Returns false when the thread does not answer. */
static bool wait_for(td_loader *l) {
    pthread_mutex_lock(&l->mutex);
    int64_t limit_ms = l->limit_ms;
    struct timespec until = last_call(limit_ms);
    for (int rc = 0; !l->done && rc == 0;) {
        rc = pthread_cond_timedwait(&l->changed, &l->mutex, &until);
        if (l->limit_ms == limit_ms) continue;
        limit_ms = l->limit_ms; /* it is to hurry */
        until = last_call(limit_ms);
    }
    l->thread = NULL;
    l->left = !l->done;
    pthread_mutex_unlock(&l->mutex);
    return !l->left;
}

/* start starts the thread. */
static int start(td_loader *l, td_thread **thread, tidemill_error *err) {
    int rc = td_thread_start(thread, "td-load", err);
    if (rc < 0) return rc;
    pthread_mutex_lock(&l->mutex);
    if (td_watch_add(l->watch, *thread, TD_QUANTUM_MS, 0, NULL, NULL) < 0 || td_thread_post(*thread, begin, l) < 0)
        rc = td_error_memory(err);
    else
        l->thread = *thread;
    pthread_mutex_unlock(&l->mutex);
    if (rc == 0) return 0;
    td_watch_remove(l->watch, *thread);
    td_thread_stop(*thread);
    return rc;
}

int td_loader_run(td_loader *l, td_handlers **set, tidemill_error *err) {
    td_thread *thread = NULL;
    int rc = start(l, &thread, err);
    if (rc < 0) return rc;
    bool done = wait_for(l);
    td_watch_remove(l->watch, thread);
    if (!done) {
        rc = too_long(l, err);
        td_thread_abandon(thread);
        return rc;
    }
    td_thread_stop(thread);
    if (l->rc == 0)
        *set = td_load_take(l->load);
    else if (err)
        *err = l->error;
    return l->rc;
}

td_loader *td_loader_new(const char *dir, td_watch *watch, int64_t limit_ms) {
    td_loader *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    l->watch = watch;
    l->limit_ms = limit_ms;
    l->dir = td_strdup(dir);
    l->load = l->dir ? td_load_new(dir, td_ctx_modules, td_ctx_modules_count) : NULL;
    if (l->load) return l;
    td_loader_free(l);
    return NULL;
}

void td_loader_free(td_loader *l) {
    if (!l || l->left) return; /* what its thread has may be used at any time */
    td_load_free(l->load);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->mutex);
    free(l->dir);
    free(l);
}

int td_load_handlers(const char *dir, td_watch *watch, int64_t limit_ms, td_handlers **set, tidemill_error *err) {
    td_loader *l = td_loader_new(dir, watch, limit_ms);
    int rc = l ? td_loader_run(l, set, err) : td_error_memory(err);
    td_loader_free(l);
    return rc;
}
