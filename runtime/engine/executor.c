/* executor.c: a thread and its workers (worker.c): jobs come in, deadlines pass, idle workers go. */
#include "executor.h"

#include "pool.h"
#include "report.h"
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TIDY_MS = 5000,
    MADE_MAX = 8,   /* workers made in one turn of the loop: then those that run have theirs */
    CLOSED_MAX = 4, /* and closed */
};
#define FAREWELL_NS UINT64_C(1000000000)
#define START_NS    UINT64_C(1000000)

static void start_more(void *arg);

/* start_soon has jobs that wait looked at again in the next turn of the loop: once a turn, whoever asks. */
static void start_soon(td_executor *x) {
    if (x->orphaned || x->asked_for_more || td_list_empty(&x->waiting)) return;
    x->asked_for_more = td_thread_post(x->thread, start_more, x) == 0; /* else on_tidy does it */
}

void td_executor_release(td_executor *x, td_job *job) {
    atomic_fetch_sub(&x->load, 1);
    td_nopreempt_enter(); /* the log's callback is the program's */
    pthread_mutex_lock(&x->mutex);
    if (x->orphaned) {
        td_job_free(job);
    } else {
        /* What a disowned executor hands back was reported when it was given back. */
        if (!x->disowned || job->result.outcome != TD_RETURNED) td_report_attempt(x->config.log, job);
        x->config.ended(x->config.arg, job);
    }
    pthread_mutex_unlock(&x->mutex);
    td_nopreempt_leave();
    start_soon(x);
}

void td_executor_worker_gone(td_executor *x) {
    start_soon(x);
    atomic_fetch_sub(&x->workers, 1); /* the last one: the executor may be freed from here on */
}

/* move_all moves all of a list to the end of another. Returns how many. */
static size_t move_all(td_list *to, td_list *from) {
    td_list *node;
    size_t n = 0;
    for (; (node = td_list_shift(from)) != NULL; n++) td_list_push(to, node);
    return n;
}

/* ---- Times ---- */

static void on_timer(uv_timer_t *timer);

void td_executor_watch(td_executor *x, uint64_t at_ns) {
    if (x->timer_ns && x->timer_ns <= at_ns) return;
    uint64_t now = td_now_ns();
    x->timer_ns = at_ns;
    uv_update_time(x->timer.loop);
    uv_timer_start(&x->timer, on_timer, at_ns > now ? (at_ns - now + 999999) / 1000000 : 0, 0);
}

static void earlier(uint64_t *next, uint64_t at_ns) {
    if (at_ns < *next) *next = at_ns;
}

/* check_jobs stops those that are past their deadline, and drops those that have not obeyed. */
static void check_jobs(td_executor *x, uint64_t now, uint64_t *next) {
    for (td_list *node = x->jobs.next, *after; node != &x->jobs; node = after) {
        td_job *job = td_container(node, td_job, link);
        after = node->next;
        if (!job->worker->stopping && job->deadline_ns <= now) {
            char why[96];
            double seconds = (double)(job->deadline_ns - job->started_ns) / 1e9;
            snprintf(why, sizeof why, "the job ran into its timeout of %g s", seconds);
            td_worker_stop(job, TD_TIMEOUT, why);
        }
        if (!job->worker->stopping)
            earlier(next, job->deadline_ns);
        else if (job->worker->drop_ns <= now)
            td_worker_drop(job->worker);
        else
            earlier(next, job->worker->drop_ns);
    }
}

/* check_collecting drops workers whose finalizers do not end. */
static void check_collecting(td_executor *x, uint64_t now, uint64_t *next) {
    for (td_list *node = x->collecting.next, *after; node != &x->collecting; node = after) {
        td_worker *w = td_container(node, td_worker, link);
        after = node->next;
        if (w->drop_ns <= now)
            td_worker_drop(w);
        else
            earlier(next, w->drop_ns);
    }
}

static void on_timer(uv_timer_t *timer) {
    td_executor *x = timer->data;
    uint64_t now = td_now_ns(), next = UINT64_MAX;
    x->timer_ns = 0;
    check_jobs(x, now, &next);
    check_collecting(x, now, &next);
    if (next != UINT64_MAX) td_executor_watch(x, next);
}

/* ---- New code ---- */

static void close_stale(void *arg) {
    td_executor *x = arg;
    for (int i = 0; i < CLOSED_MAX && !td_list_empty(&x->stale); i++)
        td_worker_retire(td_container(x->stale.next, td_worker, link));
    if (!td_list_empty(&x->stale)) (void)!td_thread_post(x->thread, close_stale, x); /* else on_tidy does it */
}

/* renew has jobs that start from now on run on the set that td_executor_reload has left, if there is one. */
static void renew(td_executor *x) {
    pthread_mutex_lock(&x->mutex);
    td_handlers *former = x->next ? x->handlers : NULL;
    if (former) {
        x->handlers = x->next;
        x->next = NULL;
        atomic_store(&x->generation, x->next_generation);
    }
    pthread_mutex_unlock(&x->mutex);
    if (!former) return;
    td_handlers_unref(former);
    bool closing = !td_list_empty(&x->stale);
    move_all(&x->stale, &x->idle);
    if (!closing) close_stale(x);
}

static void renew_on_thread(void *arg) {
    renew(arg);
}

int td_executor_reload(td_executor *x, td_handlers *handlers, int generation) {
    pthread_mutex_lock(&x->mutex);
    td_handlers *former = x->next;
    x->next = td_handlers_ref(handlers);
    x->next_generation = generation;
    pthread_mutex_unlock(&x->mutex);
    td_handlers_unref(former);
    return td_thread_post(x->thread, renew_on_thread, x);
}

int td_executor_generation(const td_executor *x) {
    return atomic_load(&x->generation);
}

/* ---- Jobs coming in ---- */

/* retire_idle closes all idle workers at once. */
static void retire_idle(td_executor *x) {
    move_all(&x->stale, &x->idle);
    while (!td_list_empty(&x->stale)) td_worker_retire(td_container(x->stale.next, td_worker, link));
}

/* refuse gives a job back that nobody can run: no attempt is counted for what is not the job's fault. */
static void refuse(td_executor *x, td_job *job, const tidemill_error *err) {
    job->result = (td_result){ .outcome = TD_RETURNED, .error = td_strdup(err->message), .delay_s = -1 };
    td_executor_release(x, job);
}

/* hand_back ends a job that is not to run here. */
static void hand_back(td_executor *x, td_job *job) {
    if (job->worker) {
        job->worker->stop = TD_RETURNED;
        td_worker_drop(job->worker);
    } else {
        td_list_remove(&job->link);
        job->result = (td_result){ .outcome = TD_RETURNED, .delay_s = -1 };
        td_executor_release(x, job);
    }
}

/* needs_memory says whether the process has reached its bound of memory. */
static bool needs_memory(const td_executor *x) {
    if (!x->config.memory_max) return false;
    return atomic_load(td_tally_bytes(x->config.memory)) + x->unopened * TD_NEW_BYTES >= x->config.memory_max;
}

/* is_full says whether no more jobs are to be started beside those that run. */
static bool is_full(const td_executor *x) {
    return !td_list_empty(&x->jobs) && (x->config.exclusive || needs_memory(x));
}

/* start_one starts a job, or gives it back. */
static void start_one(td_executor *x, td_job *job) {
    tidemill_error err;
    job->task = td_handlers_find(x->handlers, job->claimed.task);
    if (job->task < 0) td_error_set(&err, TIDEMILL_ENOT_FOUND, "the task was taken out of the handlers meanwhile");
    if (job->task < 0 || !td_worker_run(x, job, &err)) refuse(x, job, &err);
}

/* start_waiting starts the jobs that can be, each at once and until it waits: so that short ones all run on the worker
   that is warm. It does so for a short time, and for a few for which a worker has to be made; the others wait for a
   turn of the loop, so that those who run have theirs. Where jobs wait for memory, idle workers give theirs back. */
static void start_waiting(td_executor *x) {
    td_list *node;
    int made = 0;
    uint64_t until_ns = td_now_ns() + START_NS;
    renew(x);
    if (x->disowned || atomic_load(&x->orphaned)) return;
    while (made < MADE_MAX && td_now_ns() < until_ns && !is_full(x) && (node = td_list_shift(&x->waiting)) != NULL) {
        made += td_list_empty(&x->idle);
        start_one(x, td_container(node, td_job, link));
        renew(x);
    }
    if (!is_full(x)) start_soon(x);
    if (!td_list_empty(&x->waiting) && needs_memory(x)) retire_idle(x);
}

static void start_more(void *arg) {
    td_executor *x = arg;
    x->asked_for_more = false;
    start_waiting(x);
}

static void start_jobs(void *arg) {
    td_executor *x = arg;
    pthread_mutex_lock(&x->mutex);
    move_all(&x->waiting, &x->arriving);
    pthread_mutex_unlock(&x->mutex);
    while (x->disowned && !td_list_empty(&x->waiting)) hand_back(x, td_container(x->waiting.next, td_job, link));
    start_waiting(x);
}

int td_executor_run(td_executor *x, td_list *jobs) {
    pthread_mutex_lock(&x->mutex);
    int rc = td_list_empty(&x->arriving) ? td_thread_post(x->thread, start_jobs, x) : 0;
    if (rc == 0) atomic_fetch_add(&x->load, move_all(&x->arriving, jobs));
    pthread_mutex_unlock(&x->mutex);
    return rc;
}

/* ---- Telling what goes on ---- */

static void add_text(td_buf *b, const char *name, const char *text) {
    td_buf_printf(b, ",\"%s\":", name);
    if (text)
        td_buf_json(b, text, strlen(text));
    else
        td_buf_puts(b, "null");
}

/* add_running appends what a running job does. */
static void add_running(td_buf *b, const td_executor *x, const td_job *job, bool traces) {
    const td_worker *w = job->worker;
    const char *waits = td_fiber_waits(w->fiber);
    double age_ms = (double)(td_now_ns() - job->started_ns) / 1e6;
    double cpu_ms = (double)(td_fiber_run_ns(w->fiber) - w->run_ns) / 1e6;
    td_buf_printf(b, "%s{\"job\":%lld", b->len > 0 ? "," : "", (long long)job->claimed.id);
    add_text(b, "task", job->claimed.task);
    add_text(b, "queue", job->claimed.queue);
    td_buf_printf(b, ",\"attempt\":%d,\"age_ms\":%.0f,\"cpu_ms\":%.3f,\"memory_bytes\":%zu", job->claimed.attempt,
                  age_ms, cpu_ms, td_state_memory(w->state));
    add_text(b, "state", w->stopping ? "stopping" : waits ? "waiting" : "running");
    add_text(b, "waits_for", waits);
    add_text(b, "thread", x->name);
    if (traces) {
        td_buf trace = { 0 };
        td_state_trace(w->state, td_fiber_torn(w->fiber), &trace);
        add_text(b, "traceback", trace.data ? trace.data : "");
        td_buf_free(&trace);
    }
    td_buf_putc(b, '}');
}

typedef struct surveying {
    td_executor *executor;
    td_survey *survey;
} surveying;

static void survey_on_thread(void *arg) {
    surveying *s = arg;
    td_executor *x = s->executor;
    td_buf jobs = { 0 };
    for (td_list *node = x->jobs.next; node != &x->jobs; node = node->next)
        add_running(&jobs, x, td_container(node, td_job, link), td_survey_traces(s->survey));
    td_survey_answer(s->survey, &jobs);
    td_buf_free(&jobs);
    td_survey_unref(s->survey);
    free(s);
}

void td_executor_survey(td_executor *x, td_survey *survey) {
    surveying *s = malloc(sizeof *s);
    if (!s) return;
    *s = (surveying){ x, td_survey_ref(survey) };
    if (td_thread_post(x->thread, survey_on_thread, s) == 0) return;
    td_survey_unref(survey);
    free(s);
}

/* ---- Ending jobs ---- */

typedef struct ending {
    td_executor *executor;
    int64_t id, token;
    td_outcome outcome;
    const char *why;
} ending;

static void end_jobs(void *arg) {
    ending *e = arg;
    td_executor *x = e->executor;
    for (td_list *node = x->jobs.next, *after; node != &x->jobs; node = after) {
        td_job *job = td_container(node, td_job, link);
        after = node->next;
        if (e->id == 0 || (job->claimed.id == e->id && job->token == e->token)) td_worker_stop(job, e->outcome, e->why);
    }
    for (td_list *node = x->waiting.next, *after; node != &x->waiting; node = after) {
        td_job *job = td_container(node, td_job, link);
        after = node->next;
        if (e->id != 0 && (job->claimed.id != e->id || job->token != e->token)) continue;
        td_list_remove(node);
        job->result = (td_result){ .outcome = e->outcome, .error = td_strdup(e->why), .delay_s = -1 };
        td_executor_release(x, job);
    }
    free(e);
}

int td_executor_end(td_executor *x, int64_t id, int64_t token, td_outcome outcome, const char *why) {
    ending *e = malloc(sizeof *e);
    if (!e) return TIDEMILL_EMEMORY;
    *e = (ending){ x, id, token, outcome, why };
    int rc = td_thread_post(x->thread, end_jobs, e);
    if (rc < 0) free(e);
    return rc;
}

/* ---- Giving up ---- */

typedef struct disowning {
    td_executor *executor;
    int64_t job;
} disowning;

static void disown_on_thread(void *arg) {
    disowning *d = arg;
    td_executor *x = d->executor;
    x->disowned = x->ending = true;
    for (td_list *node = x->jobs.next, *after; node != &x->jobs; node = after) {
        td_job *job = td_container(node, td_job, link);
        after = node->next;
        if (job->claimed.id != d->job) hand_back(x, job);
    }
    while (!td_list_empty(&x->waiting)) hand_back(x, td_container(x->waiting.next, td_job, link));
    retire_idle(x);
    free(d);
}

void td_executor_disown(td_executor *x, int64_t job) {
    disowning *d = malloc(sizeof *d);
    if (!d) return;
    *d = (disowning){ x, job };
    if (td_thread_post(x->thread, disown_on_thread, d) < 0) free(d);
}

/* ---- Life ---- */

/* on_tidy closes workers that nobody needed for long, and starts jobs that waited for memory which others gave back. */
static void on_tidy(uv_timer_t *timer) {
    td_executor *x = timer->data;
    uint64_t now = td_now_ns();
    start_waiting(x);
    close_stale(x);
    while (!td_list_empty(&x->idle)) { /* the coldest is the last */
        td_worker *w = td_container(x->idle.prev, td_worker, link);
        if (now - w->idle_ns < TD_IDLE_MS * UINT64_C(1000000)) break;
        td_worker_retire(w);
    }
}

static void open_on_thread(void *arg) {
    td_executor *x = arg;
    uv_timer_init(td_thread_loop(x->thread), &x->timer);
    uv_timer_init(td_thread_loop(x->thread), &x->tidy);
    x->timer.data = x->tidy.data = x;
    uv_timer_start(&x->tidy, on_tidy, TIDY_MS, TIDY_MS);
    td_state_preempt(&x->preempt);
    /* Without memory for the pool, tidemill.pg says so when it is used. */
    (void)!td_connections_join(x->thread, x->config.connections, NULL);
}

static void close_on_thread(void *arg) {
    td_executor *x = arg;
    x->ending = true;
    uv_timer_stop(&x->tidy);
    retire_idle(x);
}

static void executor_destroy(td_executor *x) {
    td_handlers_unref(x->handlers);
    td_handlers_unref(x->next);
    td_tally_unref(x->config.memory);
    pthread_mutex_destroy(&x->mutex);
    free(x);
}

int td_executor_start(const td_executor_config *config, td_executor **executor, tidemill_error *err) {
    td_executor *x = calloc(1, sizeof *x);
    if (!x) return td_error_memory(err);
    x->config = *config;
    td_tally_ref(x->config.memory);
    x->log = *config->log;
    snprintf(x->name, sizeof x->name, "%s", config->name);
    x->handlers = td_handlers_ref(config->handlers);
    x->generation = config->generation;
    pthread_mutex_init(&x->mutex, NULL);
    td_list *const lists[] = { &x->arriving, &x->waiting, &x->idle, &x->stale, &x->jobs, &x->collecting };
    for (size_t i = 0; i < TD_COUNT(lists); i++) td_list_init(lists[i]);
    int rc = td_thread_start(&x->thread, config->name, err);
    if (rc == 0 && (td_thread_post(x->thread, open_on_thread, x) < 0 ||
                    td_watch_add(config->watch, x->thread, config->exclusive ? TD_EXCLUSIVE_QUANTUM_MS : TD_QUANTUM_MS,
                                 TD_STUCK_MS, config->stuck, config->stuck_arg) < 0)) {
        td_thread_stop(x->thread);
        rc = td_error_memory(err);
    }
    if (rc < 0) {
        executor_destroy(x);
        return rc;
    }
    *executor = x;
    return 0;
}

size_t td_executor_load(const td_executor *x) {
    return atomic_load(&x->load);
}

int64_t td_executor_workers(const td_executor *x) {
    return atomic_load(&x->workers);
}

/* drop_all drops the workers of a list. */
static void drop_all(td_list *workers) {
    while (!td_list_empty(workers)) td_worker_drop(td_container(workers->next, td_worker, link));
}

/* dispose_of frees an orphaned executor, as its thread ends: a local of that. */
static void dispose_of(void *arg) {
    executor_destroy(arg);
}

static const char orphan_key;

/* adopt_on_thread leaves nothing but the executor itself, when its thread has been let go of. */
static void adopt_on_thread(void *arg) {
    td_executor *x = arg;
    while (!td_list_empty(&x->jobs)) hand_back(x, td_container(x->jobs.next, td_job, link));
    while (!td_list_empty(&x->waiting)) hand_back(x, td_container(x->waiting.next, td_job, link));
    drop_all(&x->idle);
    drop_all(&x->collecting);
    (void)!td_thread_set_local(x->thread, &orphan_key, x, dispose_of);
}

/* leave_alone leaves a stuck executor to itself. */
static void leave_alone(td_executor *x) {
    pthread_mutex_lock(&x->mutex);
    atomic_store(&x->orphaned, true);
    x->log.fn = NULL;
    pthread_mutex_unlock(&x->mutex);
    (void)!td_thread_post(x->thread, adopt_on_thread, x);
    td_thread_abandon(x->thread);
}

void td_executor_close(td_executor *x) {
    if (x->farewell_ns) return;
    while (td_thread_post(x->thread, close_on_thread, x) == TIDEMILL_EMEMORY) uv_sleep(10);
    x->farewell_ns = td_now_ns() + FAREWELL_NS;
}

void td_executor_free(td_executor *x) {
    if (!x) return;
    td_executor_close(x);
    /* Every worker is gone within its grace, but for one that is stuck in foreign code. */
    while (atomic_load(&x->workers) > 0 && td_now_ns() < x->farewell_ns) uv_sleep(1);
    td_watch_remove(x->config.watch, x->thread);
    if (atomic_load(&x->workers) > 0) {
        leave_alone(x);
        return;
    }
    td_thread_stop(x->thread);
    executor_destroy(x);
}
