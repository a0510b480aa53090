/* worker.c: a worker's life. See worker.h. */
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Running a job ---- */

static void prepare_ctx(td_worker *w) {
    const td_job *job = w->job;
    const td_claimed *c = &job->claimed;
    w->ctx = (td_ctx){
        .log = &w->executor->log,
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
}

static void run_job(td_worker *w) {
    td_job *job = w->job;
    const td_claimed *c = &job->claimed;
    int64_t limit = td_handlers_task(td_state_handlers(w->state), (size_t)job->task)->memory_limit_bytes;
    prepare_ctx(w);
    td_state_set_limit(w->state, limit == TIDEMILL_UNSET ? TD_MEMORY_LIMIT_DEFAULT : (size_t)limit);
    td_state_ready(w->state);
    td_state_set_user(w->state, &w->ctx);
    td_state_call(w->state, job->task, c->args, strlen(c->args), c->attempt, td_ctx_push, &w->ctx, &job->result);
    td_state_set_user(w->state, NULL);
}

/* finish takes the job from its worker, with what it cost, and hands it back. */
static void finish(td_worker *w) {
    td_job *job = w->job;
    job->cpu_us = (int64_t)((td_fiber_run_ns(w->fiber) - w->run_ns) / 1000);
    w->idle_ns = td_now_ns();
    job->wall_us = (int64_t)((w->idle_ns - job->started_ns) / 1000);
    job->peak_bytes = (int64_t)td_state_peak(w->state);
    job->log = td_ctx_take_log(&w->ctx);
    job->worker = NULL;
    w->job = NULL;
    td_list_remove(&job->link);
    td_executor_release(w->executor, job);
}

/* give_up ends a worker's job where it is. What is known of its end already stays. */
static void give_up(td_worker *w, td_outcome outcome, const char *why, bool torn) {
    td_buf trace = { 0 };
    if (w->job->result.decided) {
        finish(w);
        return;
    }
    td_state_trace(w->state, torn, &trace);
    td_result_free(&w->job->result);
    w->job->result =
        (td_result){ .outcome = outcome, .error = td_strdup(why), .traceback = td_buf_take(&trace), .delay_s = -1 };
    finish(w);
}

/* worker_free frees all of a worker but its fiber. */
static void worker_free(td_worker *w) {
    td_executor *x = w->executor;
    td_list_remove(&w->link);
    td_ctx_forget(&w->ctx);
    td_state_drop(w->state);
    if (!w->opened) x->unopened--;
    free(w);
    td_executor_worker_gone(x);
}

/* begin_collecting limits the time that a worker without a job may take for its finalizers. */
static void begin_collecting(td_worker *w) {
    td_list_push(&w->executor->collecting, &w->link);
    if (w->drop_ns) return;
    w->drop_ns = td_now_ns() + TD_GRACE_MS * UINT64_C(1000000);
    td_executor_watch(w->executor, w->drop_ns);
}

/* close_worker ends a worker from within its fiber, which returns next. */
static void close_worker(td_worker *w) {
    begin_collecting(w);
    td_state_close(w->state);
    td_fiber_set_preempt(w->fiber, NULL, NULL);
    worker_free(w);
}

/* clean_up collects the garbage of the last job, so that neither its memory nor its finalizers burden the next. Returns
   whether the worker is fit for that. */
static bool clean_up(td_worker *w) {
    bool finalizes = td_state_finalizes(w->state);
    if (!finalizes && td_state_mapped(w->state) <= TD_KEEP_BYTES) return true;
    begin_collecting(w);
    td_state_trim(w->state);
    td_list_remove(&w->link);
    w->drop_ns = 0;
    return !td_state_finalizes(w->state) && td_state_memory(w->state) <= TD_RETIRE_BYTES;
}

/* open completes the state of a new worker. Where that fails, its job ends with that: failed where it is the handlers'
   fault, else given back. */
static bool open_worker(td_worker *w) {
    tidemill_error err;
    int rc = td_state_open(w->state, td_ctx_modules, td_ctx_modules_count, &err);
    if (rc == 0) {
        w->executor->unopened--;
        return w->opened = true;
    }
    if (w->stopping) {
        give_up(w, w->stop, w->why[0] ? w->why : NULL, false);
        return false;
    }
    w->job->result = (td_result){ .outcome = rc == TIDEMILL_EHANDLER ? TD_FAILED : TD_RETURNED,
                                  .error = td_strdup(err.message),
                                  .delay_s = -1 };
    finish(w);
    return false;
}

/* work_once waits for a job and runs it. Returns whether the worker may have another. */
static bool work_once(td_worker *w) {
    while (!w->job && !w->retire) td_fiber_park();
    if (!w->job) return false;
    run_job(w);
    bool worn = w->stopping || w->job->result.outcome == TD_MEMORY;
    finish(w);
    return !worn && !w->executor->ending && td_state_handlers(w->state) == w->executor->handlers && clean_up(w);
}

static void work(void *arg) {
    td_worker *w = arg;
    bool fit = open_worker(w);
    while (fit) {
        fit = work_once(w);
        if (!fit) break;
        td_list_unshift(&w->executor->idle, &w->link);
    }
    close_worker(w);
}

/* ---- Ending one from outside ---- */

/* dispose frees a worker that does not run and has no job. */
static void dispose(td_worker *w) {
    td_fiber_drop(w->fiber);
    worker_free(w);
}

void td_worker_drop(td_worker *w) {
    if (w->job) give_up(w, w->stop, w->why[0] ? w->why : NULL, td_fiber_torn(w->fiber));
    dispose(w);
}

/* overflowed is called in the place of a fiber whose C stack has overflowed. */
static void overflowed(void *arg) {
    td_worker *w = arg;
    if (w->job) give_up(w, TD_FAILED, "the job overflowed its C stack", true);
    dispose(w);
}

void td_worker_stop(td_job *job, td_outcome outcome, const char *why) {
    td_worker *w = job->worker;
    if (w->stopping) return;
    w->stopping = true;
    w->stop = outcome;
    snprintf(w->why, sizeof w->why, "%s", why ? why : "");
    td_state_stop(w->state, outcome, why ? w->why : NULL);
    td_fiber_interrupt(w->fiber);
    w->drop_ns = td_now_ns() + TD_GRACE_MS * UINT64_C(1000000);
    td_executor_watch(w->executor, w->drop_ns);
}

void td_worker_retire(td_worker *w) {
    td_list_remove(&w->link);
    w->retire = true;
    td_fiber_wake(w->fiber);
}

/* ---- Making one, and giving it a job ---- */

static td_worker *worker_new(td_executor *x, tidemill_error *err) {
    td_worker *w = calloc(1, sizeof *w);
    if (!w) {
        td_error_memory(err);
        return NULL;
    }
    w->executor = x;
    td_list_init(&w->link);
    w->state = td_state_make(x->handlers, TD_MEMORY_LIMIT_DEFAULT, td_tally_bytes(x->config.memory));
    if (w->state) w->fiber = td_fiber_new(work, w, 0);
    if (!w->fiber) {
        td_error_memory(err);
        td_state_free(w->state);
        free(w);
        return NULL;
    }
    if (x->config.signals)
        td_fiber_set_preempt(w->fiber, &x->preempt, w->state);
    else
        td_state_tick(w->state);
    td_fiber_set_overflow(w->fiber, overflowed, w);
    atomic_fetch_add(&x->workers, 1);
    x->unopened++;
    return w;
}

bool td_worker_run(td_executor *x, td_job *job, tidemill_error *err) {
    td_list *idle = td_list_shift(&x->idle);
    td_worker *w = idle ? td_container(idle, td_worker, link) : worker_new(x, err);
    if (!w) return false;
    const td_task *task = td_handlers_task(x->handlers, (size_t)job->task);
    int64_t timeout_ms = task->timeout_ms == TIDEMILL_UNSET ? TD_TIMEOUT_DEFAULT_MS : task->timeout_ms;
    job->generation = atomic_load(&x->generation);
    memcpy(job->code, td_handlers_hash(x->handlers), sizeof job->code);
    job->started_ns = td_now_ns();
    job->deadline_ns = job->started_ns + (uint64_t)timeout_ms * 1000000;
    atomic_store(&job->overdue_ns, job->deadline_ns + TD_OVERDUE_MS * UINT64_C(1000000));
    job->worker = w;
    w->job = job;
    w->run_ns = td_fiber_run_ns(w->fiber);
    td_fiber_set_tag(w->fiber, job->claimed.id);
    td_list_push(&x->jobs, &job->link);
    td_executor_watch(x, job->deadline_ns);
    td_fiber_run(w->fiber);
    return true;
}
