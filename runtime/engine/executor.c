/* executor.c: a thread's workers.

   A worker is idle (in `idle`), or has a job (which is in `jobs`). Its fiber parks in two places only: here, waiting
   for a job, and inside the handler, waiting for something. So a job can be ended from the loop at any time its worker
   is not itself running: stack and state are given back as they are, and the fiber's holds release the rest. */
#include "executor.h"

#include "../ctx/ctx.h"
#include "../store/query.h"
#include "report.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_MS INT64_C(60000)
#define MEMORY_LIMIT       ((size_t)64 << 20)

typedef struct td_worker {
    td_list link; /* in idle */
    td_executor *executor;
    td_fiber *fiber;
    td_state *state;
    td_job *job;
} td_worker;

struct td_executor {
    td_executor_config config;
    td_thread *thread;
    pthread_mutex_t mutex;
    td_list arriving; /* jobs handed over, under the mutex; one post is under way while there are any */
    td_list idle;     /* of workers, the warmest first */
    td_list jobs;     /* that run */
    uv_timer_t deadline;
    uint64_t deadline_ns; /* when the timer fires; 0: it does not */
    _Atomic int64_t workers;
    _Atomic size_t load;
};

/* ---- Workers ---- */

static void run_job(td_worker *w) {
    td_job *job = w->job;
    const td_claimed *c = &job->claimed;
    int task = td_handlers_find(w->executor->config.handlers, c->task);
    td_ctx ctx = {
        .log = w->executor->config.log,
        .id = c->id,
        .task = c->task,
        .queue = c->queue,
        .tags = c->tags,
        .run = c->run,
        .attempt = c->attempt,
        .max_attempts = c->max_attempts,
        .priority = c->priority,
        .enqueued_us = c->enqueued_us,
        .scheduled_us = c->scheduled_us,
        .deadline_us = td_wall_us() + (int64_t)((job->deadline_ns - job->started_ns) / 1000),
    };
    td_state_set_user(w->state, &ctx);
    td_state_call(w->state, task, c->args, strlen(c->args), c->attempt, td_ctx_push, &ctx, &job->result);
    td_state_set_user(w->state, NULL);
}

static void release(td_executor *x, td_job *job) {
    job->worker = NULL;
    td_list_remove(&job->link);
    atomic_fetch_sub(&x->load, 1);
    td_report_attempt(x->config.log, job);
    x->config.ended(x->config.arg, job);
}

static void work(void *arg) {
    td_worker *w = arg;
    for (;;) {
        while (!w->job) td_fiber_park();
        run_job(w);
        td_job *job = w->job;
        w->job = NULL;
        td_list_unshift(&w->executor->idle, &w->link);
        release(w->executor, job);
    }
}

/* worker_free frees an idle or cut-off worker. clean: its state may be closed, which runs finalizers. */
static void worker_free(td_worker *w, bool clean) {
    td_list_remove(&w->link);
    if (w->fiber) {
        td_fiber_drop(w->fiber);
        atomic_fetch_sub(&w->executor->workers, 1);
    }
    if (clean)
        td_state_free(w->state);
    else
        td_state_drop(w->state);
    free(w);
}

static td_worker *worker_new(td_executor *x, tidemill_error *err) {
    td_worker *w = calloc(1, sizeof *w);
    if (!w) {
        td_error_memory(err);
        return NULL;
    }
    w->executor = x;
    td_list_init(&w->link);
    if (td_state_new(x->config.handlers, td_ctx_modules, td_ctx_modules_count, MEMORY_LIMIT, &w->state, err) < 0) {
        free(w);
        return NULL;
    }
    w->fiber = td_fiber_new(work, w, 0);
    if (!w->fiber) {
        td_error_memory(err);
        worker_free(w, true);
        return NULL;
    }
    atomic_fetch_add(&x->workers, 1);
    return w;
}

/* ---- Deadlines ---- */

static void on_deadline(uv_timer_t *timer);

/* watch sets the timer so that it fires at the time given, unless it fires earlier already. */
static void watch(td_executor *x, uint64_t at_ns) {
    if (x->deadline_ns && x->deadline_ns <= at_ns) return;
    uint64_t now = td_now_ns();
    x->deadline_ns = at_ns;
    uv_update_time(x->deadline.loop);
    uv_timer_start(&x->deadline, on_deadline, at_ns > now ? (at_ns - now + 999999) / 1000000 : 0, 0);
}

/* end_job ends a running job where it is. */
static void end_job(td_executor *x, td_job *job, td_outcome outcome, const char *why) {
    td_worker *w = job->worker;
    w->job = NULL;
    worker_free(w, false);
    td_result_free(&job->result);
    job->result = (td_result){ .outcome = outcome, .error = td_strdup(why), .delay_s = -1 };
    release(x, job);
}

static void on_deadline(uv_timer_t *timer) {
    td_executor *x = timer->data;
    uint64_t now = td_now_ns(), next = UINT64_MAX;
    td_list *node = x->jobs.next;
    x->deadline_ns = 0;
    while (node != &x->jobs) {
        td_job *job = td_container(node, td_job, link);
        node = node->next;
        if (job->deadline_ns <= now) {
            char why[96];
            snprintf(why, sizeof why, "the job ran into its timeout of %.3f s",
                     (double)(job->deadline_ns - job->started_ns) / 1e9);
            end_job(x, job, TD_TIMEOUT, why);
        } else if (job->deadline_ns < next) {
            next = job->deadline_ns;
        }
    }
    if (next != UINT64_MAX) watch(x, next);
}

/* ---- What is posted to the thread ---- */

static void start_job(td_executor *x, td_job *job) {
    tidemill_error err;
    td_list *idle = td_list_shift(&x->idle);
    td_worker *w = idle ? td_container(idle, td_worker, link) : worker_new(x, &err);
    td_list_init(&job->link);
    if (!w) {
        /* No attempt is counted for what is not the job's fault. */
        job->result = (td_result){ .outcome = TD_RETURNED, .error = td_strdup(err.message), .delay_s = -1 };
        release(x, job);
        return;
    }
    const td_task *task =
        td_handlers_task(x->config.handlers, (size_t)td_handlers_find(x->config.handlers, job->claimed.task));
    int64_t timeout_ms = task->timeout_ms == TIDEMILL_UNSET ? TIMEOUT_DEFAULT_MS : task->timeout_ms;
    job->started_ns = td_now_ns();
    job->deadline_ns = job->started_ns + (uint64_t)timeout_ms * 1000000;
    job->worker = w;
    w->job = job;
    td_list_push(&x->jobs, &job->link);
    watch(x, job->deadline_ns);
    td_fiber_wake(w->fiber);
}

/* move_all moves all of a list to the end of another. Returns how many. */
static size_t move_all(td_list *to, td_list *from) {
    td_list *node;
    size_t n = 0;
    for (; (node = td_list_shift(from)) != NULL; n++) td_list_push(to, node);
    return n;
}

static void start_jobs(void *arg) {
    td_executor *x = arg;
    td_list jobs, *node;
    td_list_init(&jobs);
    pthread_mutex_lock(&x->mutex);
    move_all(&jobs, &x->arriving);
    pthread_mutex_unlock(&x->mutex);
    while ((node = td_list_shift(&jobs)) != NULL) start_job(x, td_container(node, td_job, link));
}

int td_executor_run(td_executor *x, td_list *jobs) {
    pthread_mutex_lock(&x->mutex);
    int rc = td_list_empty(&x->arriving) ? td_thread_post(x->thread, start_jobs, x) : 0;
    if (rc == 0) atomic_fetch_add(&x->load, move_all(&x->arriving, jobs));
    pthread_mutex_unlock(&x->mutex);
    return rc;
}

typedef struct ending {
    td_executor *executor;
    int64_t id, token;
    td_outcome outcome;
    const char *why;
} ending;

static void end_jobs(void *arg) {
    ending *e = arg;
    td_list *node = e->executor->jobs.next;
    while (node != &e->executor->jobs) {
        td_job *job = td_container(node, td_job, link);
        node = node->next;
        if (e->id == 0 || (job->claimed.id == e->id && job->token == e->token)) {
            end_job(e->executor, job, e->outcome, e->why);
        }
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

/* ---- Life ---- */

static void close_on_thread(void *arg) {
    td_executor *x = arg;
    td_list *node;
    while ((node = td_list_shift(&x->idle)) != NULL) worker_free(td_container(node, td_worker, link), true);
    uv_close((uv_handle_t *)&x->deadline, NULL);
}

static void open_on_thread(void *arg) {
    td_executor *x = arg;
    uv_timer_init(td_thread_loop(x->thread), &x->deadline);
    x->deadline.data = x;
    /* Without memory for the pool, tidemill.pg says so when it is used. */
    (void)!td_query_setup(x->thread, x->config.database, 0, NULL);
}

int td_executor_start(const td_executor_config *config, td_executor **executor, tidemill_error *err) {
    td_executor *x = calloc(1, sizeof *x);
    if (!x) return td_error_memory(err);
    x->config = *config;
    pthread_mutex_init(&x->mutex, NULL);
    td_list_init(&x->arriving);
    td_list_init(&x->idle);
    td_list_init(&x->jobs);
    int rc = td_thread_start(&x->thread, config->name, err);
    if (rc == 0 && td_thread_post(x->thread, open_on_thread, x) < 0) {
        td_thread_stop(x->thread);
        rc = td_error_memory(err);
    }
    if (rc < 0) {
        pthread_mutex_destroy(&x->mutex);
        free(x);
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

void td_executor_free(td_executor *x) {
    if (!x) return;
    (void)!td_thread_post(x->thread, close_on_thread, x);
    td_thread_stop(x->thread);
    pthread_mutex_destroy(&x->mutex);
    free(x);
}
