/* reload.c: new handler code without a restart.

   A load happens aside, on threads of its own (load.h), one at a time: what is asked for meanwhile is done after it.
   What was loaded is put into effect by the heart: the database first, which resolves what tasks declare when a job is
   claimed; then the pool, whose threads have every job that starts from then on run on the new set. So what fails, at
   any point, leaves the former set in effect. */
#include "load.h"
#include "private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_NS UINT64_C(2000000000) /* how long a thread that is in foreign code is waited for */

static void beat_now(td_keeper *k) {
    k->beat = true;
    td_fiber_wake(k->heart);
}

/* tell_waiters tells who waits what came of it. */
static void tell_waiters(td_keeper *k, int rc, const tidemill_error *err) {
    td_reload *r = &k->reload;
    size_t count = r->waiters_count;
    r->waiters_count = 0;
    for (size_t i = 0; i < count; i++) r->waiters[i].done(r->waiters[i].arg, rc, err);
}

/* ---- Loading ---- */

static void load(uv_work_t *work) {
    td_keeper *k = work->data;
    td_reload *r = &k->reload;
    r->rc = td_load_handlers(k->config.dir, k->config.watch, TD_LOAD_MAX_MS, &r->next, &r->error);
}

static void log_failed(td_keeper *k, const char *reason) {
    const tidemill_field fields[] = { { "reason", reason, false }, { "code", td_handlers_hash(k->handlers), false } };
    td_log_write(k->config.log, TIDEMILL_ERROR, "reload failed, and the former code goes on", fields, TD_COUNT(fields));
}

static void on_loaded(uv_work_t *work, int status) {
    td_keeper *k = work->data;
    td_reload *r = &k->reload;
    (void)status;
    r->loading = false;
    r->asked = r->answering;
    r->answer = true;
    r->loaded = r->rc == 0;
    if (r->rc < 0) {
        bool news = strcmp(r->degraded, r->error.message) != 0;
        snprintf(r->degraded, sizeof r->degraded, "%s", r->error.message);
        if (news || r->asked) log_failed(k, r->degraded);
        tell_waiters(k, r->rc, &r->error);
    }
    beat_now(k);
}

void td_reload_ask(td_keeper *k, int64_t asked) {
    td_reload *r = &k->reload;
    if (asked) r->answering = asked;
    if (r->loading || r->loaded) {
        r->again = true;
        return;
    }
    r->loading = true;
    r->again = false;
    r->began_ns = td_now_ns();
    r->work.data = k;
    if (uv_queue_work(td_thread_loop(k->thread), &r->work, load, on_loaded) < 0) r->loading = false;
}

/* ---- Putting into effect ---- */

/* remember puts a set at the front of the history. */
static void remember(td_reload *r, td_handlers *set) {
    td_handlers_unref(r->history[TD_HISTORY_MAX - 1]);
    memmove(&r->history[1], &r->history[0], (TD_HISTORY_MAX - 1) * sizeof(td_handlers *));
    r->history[0] = td_handlers_ref(set);
}

static void log_reloaded(td_keeper *k) {
    char generation[16], ms[24], tasks[24];
    snprintf(generation, sizeof generation, "%d", k->generation);
    snprintf(ms, sizeof ms, "%.1f", (double)(td_now_ns() - k->reload.began_ns) / 1e6);
    snprintf(tasks, sizeof tasks, "%zu", td_handlers_count(k->handlers));
    const tidemill_field fields[] = { { "generation", generation, true },
                                      { "code", td_handlers_hash(k->handlers), false },
                                      { "tasks", tasks, true },
                                      { "duration_ms", ms, true } };
    td_log_write(k->config.log, TIDEMILL_INFO, "reloaded", fields, TD_COUNT(fields));
}

/* settle waits until the new code is in effect on every thread. */
static void settle(td_keeper *k) {
    uint64_t end_ns = td_now_ns() + SETTLE_NS;
    while (!td_pool_reloaded(*k->config.pool) && td_now_ns() < end_ns) (void)td_wait_until(td_now_ns() + 200000, NULL);
}

/* switch_to puts a set, which it takes over, into effect. */
static int switch_to(td_keeper *k, td_handlers *set, tidemill_error *err) {
    td_handlers *former = k->handlers;
    int rc = td_queues_declare(k->config.queues, set, err);
    k->handlers = set;
    if (rc == 0 && !td_keeper_describe(k)) rc = td_error_memory(err);
    if (rc == 0) rc = td_work_publish(k->process, k->tasks_json.data, td_keeper_differs, k, err);
    if (rc < 0) {
        k->handlers = former;
        (void)td_keeper_describe(k); /* it needs no more memory than before */
        return rc;
    }
    k->generation++;
    remember(&k->reload, set);
    td_pool_reload(*k->config.pool, set, k->generation);
    td_handlers_unref(former);
    settle(k);
    log_reloaded(k);
    td_exchange_ask(k, NULL);
    return 0;
}

/* rerun has the last job that failed run again, on the new code. */
static void rerun(td_keeper *k) {
    tidemill_error err;
    if (!k->config.rerun || !k->failed_job) return;
    if (td_work_retry(k->failed_job, &err) == 0)
        td_logf(k->config.log, TIDEMILL_INFO, "job %lld, which failed, runs again on the new code",
                (long long)k->failed_job);
    k->failed_job = 0;
}

/* take_effect deals with what was loaded. What fails for want of the database is tried again. */
static int take_effect(td_keeper *k, tidemill_error *err) {
    td_reload *r = &k->reload;
    bool same = strcmp(td_handlers_hash(r->next), td_handlers_hash(k->handlers)) == 0;
    if (same) {
        td_handlers_unref(r->next);
    } else {
        int rc = switch_to(k, r->next, err);
        if (rc < 0) return rc;
        rerun(k);
    }
    r->next = NULL;
    r->loaded = false;
    r->degraded[0] = '\0';
    tell_waiters(k, 0, NULL);
    return 0;
}

int td_reload_beat(td_keeper *k, tidemill_error *err) {
    td_reload *r = &k->reload;
    int rc = r->loaded ? take_effect(k, err) : 0;
    if (rc == 0 && r->answer) {
        rc = td_work_reloaded(k->process, k->generation, td_handlers_hash(k->handlers), r->degraded, r->asked,
                              k->queues_json.data, err);
        if (rc == 0) r->answer = false;
    }
    if (rc == 0 && r->again && !r->loading) td_reload_ask(k, 0);
    return rc;
}

/* ---- Going back ---- */

void td_reload_to(td_keeper *k, const char *code, int64_t asked) {
    td_reload *r = &k->reload;
    size_t i = 0, len = strlen(code);
    if (r->loading || r->loaded) return; /* the next heartbeat asks again */
    while (i < TD_HISTORY_MAX && r->history[i] && strncmp(td_handlers_hash(r->history[i]), code, len) != 0) i++;
    r->asked = r->answering = asked;
    r->answer = true;
    if (i == TD_HISTORY_MAX || !r->history[i]) {
        snprintf(r->degraded, sizeof r->degraded,
                 "code %s is not among the last %d that this process ran; give one of those", code, TD_HISTORY_MAX);
        log_failed(k, r->degraded);
    } else {
        r->began_ns = td_now_ns();
        r->next = td_handlers_ref(r->history[i]);
        r->loaded = true;
    }
    beat_now(k);
}

/* ---- From other threads ---- */

typedef struct asking {
    td_keeper *keeper;
    td_reloaded_fn *done;
    void *arg;
} asking;

static void ask_on_thread(void *arg) {
    asking *a = arg;
    td_reload *r = &a->keeper->reload;
    tidemill_error err;
    if (a->done && r->waiters_count == TD_WAITERS_MAX) {
        a->done(a->arg, td_error_set(&err, TIDEMILL_ESTATE, "too many callers wait for a reload already"), &err);
    } else if (a->done) {
        r->waiters[r->waiters_count].done = a->done;
        r->waiters[r->waiters_count++].arg = a->arg;
    }
    td_reload_ask(a->keeper, 0);
    free(a);
}

int td_keeper_reload(td_keeper *k, td_reloaded_fn *done, void *arg) {
    asking *a = malloc(sizeof *a);
    if (!a) return TIDEMILL_EMEMORY;
    *a = (asking){ k, done, arg };
    int rc = td_thread_post(k->thread, ask_on_thread, a);
    if (rc < 0) free(a);
    return rc;
}

void td_reload_free(td_keeper *k) {
    td_reload *r = &k->reload;
    tidemill_error err;
    if (r->waiters_count)
        tell_waiters(k, td_error_set(&err, TIDEMILL_ESTATE, "the runtime was stopped meanwhile"), &err);
    td_handlers_unref(r->next);
    for (size_t i = 0; i < TD_HISTORY_MAX; i++) td_handlers_unref(r->history[i]);
}
