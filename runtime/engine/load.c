/* load.c: see load.h. Lua's loops end with their fiber; a file that blocks in foreign code keeps its thread, which is
   left to itself then. */
#include "load.h"

#include "../ctx/ctx.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define OBEY_MS      200  /* to end with the place where it is */
#define LAST_CALL_MS 1000 /* after the bound, before the thread is left */

typedef struct loader {
    td_thread *thread;
    td_fiber *fiber;
    td_load *load;
    const char *dir;
    int64_t limit_ms;
    uv_timer_t limit;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done; /* under the mutex, as all below */
    int rc;
    tidemill_error error;
} loader;

static void finish(loader *l, int rc, const tidemill_error *err) {
    pthread_mutex_lock(&l->mutex);
    l->done = true;
    l->rc = rc;
    if (rc < 0) l->error = *err;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

#define TOO_LONG "did not finish loading in time; a file is to define its handler, and to leave work to handle()"

static int too_long(const loader *l, tidemill_error *err) {
    return td_error_set(err, TIDEMILL_EHANDLER, "%s/%s: " TOO_LONG, l->dir, td_load_file(l->load));
}

/* on_last_call ends a load that did not obey. */
static void on_last_call(uv_timer_t *timer) {
    loader *l = timer->data;
    tidemill_error err;
    td_fiber_drop(l->fiber);
    finish(l, too_long(l, &err), &err);
}

static void on_limit(uv_timer_t *timer) {
    loader *l = timer->data;
    td_load_stop(l->load, TOO_LONG);
    uv_timer_start(timer, on_last_call, OBEY_MS, 0);
}

static void run(void *arg) {
    loader *l = arg;
    tidemill_error err;
    int rc = td_load_run(l->load, &err);
    uv_timer_stop(&l->limit);
    finish(l, rc, &err);
}

static void begin(void *arg) {
    loader *l = arg;
    tidemill_error err;
    uv_timer_init(td_thread_loop(l->thread), &l->limit);
    l->limit.data = l;
    l->fiber = td_fiber_new(run, l, 0);
    if (!l->fiber) {
        finish(l, td_error_memory(&err), &err);
        return;
    }
    uv_timer_start(&l->limit, on_limit, (uint64_t)l->limit_ms, 0);
    td_fiber_wake(l->fiber);
}

/* wait_for waits for the end. Returns false when the thread does not answer. */
static bool wait_for(loader *l) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)((l->limit_ms + LAST_CALL_MS) / 1000) + 1;
    pthread_mutex_lock(&l->mutex);
    int rc = 0;
    while (!l->done && rc == 0) rc = pthread_cond_timedwait(&l->changed, &l->mutex, &until);
    bool done = l->done;
    pthread_mutex_unlock(&l->mutex);
    return done;
}

static void loader_free(loader *l) {
    td_load_free(l->load);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

/* load runs a loader, and frees it unless its thread has to be left. */
static int load(loader *l, td_watch *watch, td_handlers **set, tidemill_error *err) {
    int rc = td_thread_start(&l->thread, "td-load", err);
    if (rc < 0) {
        loader_free(l);
        return rc;
    }
    if (td_watch_add(watch, l->thread, TD_QUANTUM_MS, 0, NULL, NULL) < 0 || td_thread_post(l->thread, begin, l) < 0) {
        td_watch_remove(watch, l->thread);
        td_thread_stop(l->thread);
        loader_free(l);
        return td_error_memory(err);
    }
    bool done = wait_for(l);
    td_watch_remove(watch, l->thread);
    if (!done) {
        td_thread_abandon(l->thread);
        return too_long(l, err);
    }
    td_thread_stop(l->thread);
    rc = l->rc;
    if (rc == 0)
        *set = td_load_take(l->load);
    else if (err)
        *err = l->error;
    loader_free(l);
    return rc;
}

int td_load_handlers(const char *dir, td_watch *watch, int64_t limit_ms, td_handlers **set, tidemill_error *err) {
    loader *l = calloc(1, sizeof *l);
    if (!l) return td_error_memory(err);
    l->dir = dir;
    l->limit_ms = limit_ms;
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    l->load = td_load_new(dir, td_ctx_modules, td_ctx_modules_count);
    if (l->load) return load(l, watch, set, err);
    loader_free(l);
    return td_error_memory(err);
}
