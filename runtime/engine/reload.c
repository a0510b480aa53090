/* reload.c: new handler code without a restart.

   A load happens aside, on threads of its own (load.h), one at a time: what is asked for meanwhile is done after it.
   What was loaded is put into effect by the heart: the database first, which resolves what tasks declare when a job is
   claimed; then the pool, whose threads have every job that starts from then on run on the new set. So what fails, at
   any point, leaves the former set in effect. */
#include "private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_NS UINT64_C(2000000000) /* how long a thread that is in foreign code is waited for */

#define HURRY_NS                                                                                                       \
    UINT64_C(1000000000) /* a load that has gone on for so long is cut short when the files change again               \
                          */

static void beat_now(td_keeper *k) {
    k->beat = true;
    td_fiber_wake(k->heart);
}

/* tell_waiters tells those who wait for this turn what came of it. */
static void tell_waiters(td_keeper *k, int rc, const tidemill_error *err) {
    td_reload *r = &k->reload;
    size_t kept = 0;
    for (size_t i = 0; i < r->waiters_count; i++) {
        if (r->waiters[i].turn <= r->turn)
            r->waiters[i].done(r->waiters[i].arg, rc, err);
        else
            r->waiters[kept++] = r->waiters[i];
    }
    r->waiters_count = kept;
}

/* is_busy says whether a turn is under way. */
static bool is_busy(const td_reload *r) {
    return r->loader || r->loaded;
}

static void next_turn(td_keeper *k);

/* ---- Loading ---- */

static void load(uv_work_t *work) {
    td_reload *r = &((td_keeper *)work->data)->reload;
    r->rc = td_loader_run(r->loader, &r->next, &r->error);
}

static void log_failed(td_keeper *k, const char *reason) {
    const tidemill_field fields[] = { { "reason", reason, false }, { "code", td_handlers_hash(k->handlers), false } };
    td_log_write(k->config.log, TIDEMILL_ERROR, "reload failed, and the former code goes on", fields, TD_COUNT(fields));
}

/* failed deals with a turn that came to nothing for what is in the files. */
static void failed(td_keeper *k) {
    td_reload *r = &k->reload;
    bool news = strcmp(r->degraded, r->error.message) != 0;
    snprintf(r->degraded, sizeof r->degraded, "%s", r->error.message);
    r->refused[0] = '\0';
    if (news || r->loud) log_failed(k, r->degraded);
    r->answer = true;
    tell_waiters(k, r->rc, &r->error);
}

static void on_loaded(uv_work_t *work, int status) {
    td_keeper *k = work->data;
    td_reload *r = &k->reload;
    (void)status;
    td_loader_free(r->loader);
    r->loader = NULL;
    if (k->stopping) return; /* the heart may be gone */
    if (r->rc == 0)
        r->loaded = true;
    else if (!r->hurried)
        failed(k);
    else
        r->asked |= r->loud; /* the next one answers for both */
    beat_now(k);
}

static void begin_load(td_keeper *k) {
    td_reload *r = &k->reload;
    r->loader = td_loader_new(k->config.dir, k->config.watch, k->config.load_max_ms);
    r->work.data = k;
    if (r->loader && uv_queue_work(td_thread_loop(k->thread), &r->work, load, on_loaded) == 0) return;
    td_loader_free(r->loader);
    r->loader = NULL;
    r->rc = td_error_memory(&r->error);
    failed(k);
    beat_now(k);
}

void td_reload_changed(td_keeper *k) {
    k->reload.to[0] = '\0';
    k->reload.wanted = true;
    next_turn(k);
}

void td_reload_ask(td_keeper *k, int64_t request) {
    if (request) k->reload.request = request;
    k->reload.asked = true;
    td_reload_changed(k);
}

/* ---- Going back ---- */

void td_reload_to(td_keeper *k, const char *code, int64_t request) {
    td_reload *r = &k->reload;
    r->request = request;
    snprintf(r->to, sizeof r->to, "%s", code);
    r->wanted = r->asked = true;
    next_turn(k);
}

/* refuse deals with a turn for code that is not there. What runs is as well as it was. */
static void refuse(td_keeper *k) {
    td_reload *r = &k->reload;
    td_error_set(&r->error, TIDEMILL_ENOT_FOUND,
                 "code %s is not among the last %d that this process ran; give one of those", r->to, TD_HISTORY_MAX);
    snprintf(r->refused, sizeof r->refused, "%s", r->error.message);
    log_failed(k, r->refused);
    r->answer = true;
    tell_waiters(k, r->error.code, &r->error);
}

static void go_back(td_keeper *k) {
    td_reload *r = &k->reload;
    size_t i = 0, len = strlen(r->to);
    while (i < TD_HISTORY_MAX && r->history[i] && strncmp(td_handlers_hash(r->history[i]), r->to, len) != 0) i++;
    if (i == TD_HISTORY_MAX || !r->history[i]) {
        refuse(k);
    } else {
        r->next = td_handlers_ref(r->history[i]);
        r->loaded = true;
    }
    beat_now(k);
}

/* hurry cuts a load short that has gone on for long, since another is to follow. */
static void hurry(td_reload *r) {
    if (!r->loader || r->hurried || td_now_ns() - r->began_ns < HURRY_NS) return;
    r->hurried = true;
    td_loader_hurry(r->loader);
}

/* next_turn begins with what was asked for, unless a turn is under way. */
static void next_turn(td_keeper *k) {
    td_reload *r = &k->reload;
    if (!r->wanted || k->stopping) return;
    hurry(r);
    if (is_busy(r)) return;
    r->loud = r->asked;
    r->wanted = r->hurried = r->asked = false;
    r->turn++;
    r->answers = r->request;
    r->began_ns = td_now_ns();
    if (r->to[0])
        go_back(k);
    else
        begin_load(k);
}

void td_reload_stop(td_keeper *k) {
    if (k->reload.loader) td_loader_hurry(k->reload.loader);
}

/* ---- Putting into effect ---- */

/* remember puts a set at the front of the history, which has each code once. */
static void remember(td_reload *r, td_handlers *set) {
    size_t at = 0;
    while (at < TD_HISTORY_MAX - 1 && r->history[at] &&
           strcmp(td_handlers_hash(r->history[at]), td_handlers_hash(set)) != 0)
        at++;
    td_handlers *gone = r->history[at];
    memmove(&r->history[1], &r->history[0], at * sizeof(td_handlers *));
    r->history[0] = td_handlers_ref(set);
    td_handlers_unref(gone);
}

static void log_reloaded(td_keeper *k, td_handlers *former) {
    char generation[16], ms[24], tasks[24];
    td_buf changes = { 0 };
    td_handlers_changes(former, k->handlers, &changes);
    snprintf(generation, sizeof generation, "%d", k->generation);
    snprintf(ms, sizeof ms, "%.1f", (double)(td_now_ns() - k->reload.began_ns) / 1e6);
    snprintf(tasks, sizeof tasks, "%zu", td_handlers_count(k->handlers));
    const tidemill_field fields[] = { { "generation", generation, true },
                                      { "code", td_handlers_hash(k->handlers), false },
                                      { "changed", changes.data ? changes.data : "", false },
                                      { "tasks", tasks, true },
                                      { "duration_ms", ms, true } };
    td_log_write(k->config.log, TIDEMILL_INFO, "reloaded", fields, TD_COUNT(fields));
    td_buf_free(&changes);
}

/* settle waits until the new code is in effect on every thread. */
static void settle(td_keeper *k) {
    uint64_t end_ns = td_now_ns() + SETTLE_NS;
    while (!td_pool_reloaded(*k->config.pool) && td_now_ns() < end_ns) (void)td_wait_until(td_now_ns() + 200000, NULL);
}

/* switch_to puts a set, which it takes over, into effect. */
static int switch_to(td_keeper *k, td_handlers *set, tidemill_error *err) {
    td_handlers *former = k->handlers;
    size_t queues = k->config.queues->count;
    int rc = td_queues_declare(k->config.queues, set, err);
    k->handlers = set;
    if (rc == 0 && !td_keeper_describe(k)) rc = td_error_memory(err);
    if (rc == 0) rc = td_work_publish(k->process, k->tasks_json.data, td_keeper_differs, k, err);
    if (k->config.queues->count > queues) k->marked = false; /* as asleep on the new ones: it is to mark itself again */
    if (rc < 0) {
        k->handlers = former;
        (void)td_keeper_describe(k); /* it needs no more memory than before */
        return rc;
    }
    k->generation++;
    remember(&k->reload, set);
    td_pool_reload(*k->config.pool, set, k->generation);
    settle(k);
    log_reloaded(k, former);
    td_handlers_unref(former);
    td_exchange_ask(k, NULL);
    return 0;
}

/* rerun has the last job that failed run again, on the new code. */
static void rerun(td_keeper *k) {
    tidemill_error err;
    char id[24];
    snprintf(id, sizeof id, "%lld", (long long)k->failed_job);
    const tidemill_field fields[] = { { "job", id, true } };
    if (!k->config.rerun || !k->failed_job) return;
    if (td_work_retry(k->failed_job, &err) == 0)
        td_log_write(k->config.log, TIDEMILL_INFO, "the job that failed last runs again, on the new code", fields, 1);
    else
        td_logf(k->config.log, TIDEMILL_WARN, "the job that failed last does not run again: %s", err.message);
    k->failed_job = 0;
}

/* log_same tells of a turn after which the code is what it was before, where that is of interest. */
static void log_same(td_keeper *k) {
    const td_reload *r = &k->reload;
    const tidemill_field fields[] = { { "code", td_handlers_hash(k->handlers), false } };
    if (r->degraded[0])
        td_log_write(k->config.log, TIDEMILL_INFO, "the handlers are mended: they are what runs already", fields, 1);
    else if (r->loud)
        td_log_write(k->config.log, TIDEMILL_INFO, "nothing to reload: the handlers are what runs already", fields, 1);
}

/* take_effect deals with what was loaded. What fails for want of the database is tried again. */
static int take_effect(td_keeper *k, tidemill_error *err) {
    td_reload *r = &k->reload;
    bool same = strcmp(td_handlers_hash(r->next), td_handlers_hash(k->handlers)) == 0;
    if (same) {
        log_same(k);
        td_handlers_unref(r->next);
    } else {
        int rc = switch_to(k, r->next, err);
        if (rc < 0) return rc;
        rerun(k);
    }
    r->next = NULL;
    r->loaded = false;
    r->degraded[0] = r->refused[0] = '\0';
    r->answer = true;
    tell_waiters(k, 0, NULL);
    return 0;
}

int td_reload_tell(td_keeper *k, int64_t request, tidemill_error *err) {
    const td_reload *r = &k->reload;
    const td_running_code code = { k->generation, td_handlers_hash(k->handlers), r->degraded, r->refused };
    return td_work_reloaded(k->process, &code, request, k->queues_json.data, err);
}

int td_reload_beat(td_keeper *k, tidemill_error *err) {
    td_reload *r = &k->reload;
    int rc = r->loaded ? take_effect(k, err) : 0;
    if (rc == 0 && r->answer) {
        rc = td_reload_tell(k, r->answers, err);
        if (rc == 0) r->answer = false;
    }
    if (rc == 0) next_turn(k);
    return rc;
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
    if (a->keeper->stopping && a->done) {
        a->done(a->arg, td_error_set(&err, TIDEMILL_ESTATE, "the runtime is being stopped"), &err);
    } else if (a->done && r->waiters_count == TD_WAITERS_MAX) {
        a->done(a->arg, td_error_set(&err, TIDEMILL_ESTATE, "too many callers wait for a reload already"), &err);
    } else if (a->done) {
        r->waiters[r->waiters_count].done = a->done;
        r->waiters[r->waiters_count].arg = a->arg;
        r->waiters[r->waiters_count++].turn = r->turn + 1;
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
    r->turn = UINT64_MAX; /* for whoever waits */
    if (r->waiters_count)
        tell_waiters(k, td_error_set(&err, TIDEMILL_ESTATE, "the runtime was stopped meanwhile"), &err);
    td_handlers_unref(r->next);
    for (size_t i = 0; i < TD_HISTORY_MAX; i++) td_handlers_unref(r->history[i]);
}
