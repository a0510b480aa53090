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
    prepare_ctx(w);
    td_state_ready(w->state);
    td_state_set_user(w->state, &w->ctx);
    td_state_call(w->state, job->task, c->args, strlen(c->args), c->attempt, td_ctx_push, &w->ctx, &job->result);
    td_state_set_user(w->state, NULL);
}

/* finish takes the job from its worker, with what it cost, and hands it back. */
static void finish(td_worker *w) {
    td_job *job = w->job;
    job->cpu_us = (int64_t)((td_fiber_run_ns(w->fiber) - w->run_ns) / 1000);
    job->wall_us = (int64_t)((td_now_ns() - job->started_ns) / 1000);
    job->peak_bytes = (int64_t)td_state_peak(w->state);
    job->log = td_ctx_take_log(&w->ctx);
    job->worker = NULL;
    w->job = NULL;
    td_list_remove(&job->link);
    td_executor_release(w->executor, job);
}

/* close_worker ends a worker from within its fiber, which returns next. */
static void close_worker(td_worker *w) {
    td_executor *x = w->executor;
    td_list_push(&x->closing, &w->link);
    if (!w->drop_ns) {
        w->drop_ns = td_now_ns() + TD_GRACE_MS * UINT64_C(1000000);
        td_executor_watch(x, w->drop_ns);
    }
    td_state_close(w->state);
    td_fiber_set_preempt(w->fiber, NULL, NULL);
    td_state_drop(w->state);
    td_list_remove(&w->link);
    atomic_fetch_sub(&x->workers, 1);
    free(w);
}

static void go_idle(td_worker *w) {
    if (td_state_mapped(w->state) > TD_KEEP_BYTES) td_state_trim(w->state);
    w->idle_ns = td_now_ns();
    td_list_unshift(&w->executor->idle, &w->link);
}

static void work(void *arg) {
    td_worker *w = arg;
    for (;;) {
        while (!w->job && !w->retire) td_fiber_park();
        if (!w->job) break;
        run_job(w);
        bool stopped = w->stopping;
        finish(w);
        if (stopped || w->executor->ending || td_state_handlers(w->state) != w->executor->handlers) break;
        go_idle(w);
    }
    close_worker(w);
}

/* ---- Ending one from outside ---- */

/* give_up ends a worker's job where it is. */
static void give_up(td_worker *w, td_outcome outcome, const char *why, bool torn) {
    td_buf trace = { 0 };
    td_state_trace(w->state, torn, &trace);
    td_result_free(&w->job->result);
    w->job->result =
        (td_result){ .outcome = outcome, .error = td_strdup(why), .traceback = td_buf_take(&trace), .delay_s = -1 };
    finish(w);
}

/* dispose frees a worker that does not run and has no job. */
static void dispose(td_worker *w) {
    td_list_remove(&w->link);
    td_fiber_drop(w->fiber);
    td_ctx_forget(&w->ctx);
    td_state_drop(w->state);
    atomic_fetch_sub(&w->executor->workers, 1);
    free(w);
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
    if (td_state_new(x->handlers, td_ctx_modules, td_ctx_modules_count, TD_MEMORY_LIMIT_DEFAULT, x->config.memory,
                     &w->state, err) < 0) {
        free(w);
        return NULL;
    }
    w->fiber = td_fiber_new(work, w, 0);
    if (!w->fiber) {
        td_error_memory(err);
        td_state_free(w->state);
        free(w);
        return NULL;
    }
    td_fiber_set_preempt(w->fiber, &x->preempt, w->state);
    td_fiber_set_overflow(w->fiber, overflowed, w);
    atomic_fetch_add(&x->workers, 1);
    return w;
}

bool td_worker_run(td_executor *x, td_job *job, tidemill_error *err) {
    td_list *idle = td_list_shift(&x->idle);
    td_worker *w = idle ? td_container(idle, td_worker, link) : worker_new(x, err);
    if (!w) return false;
    const td_task *task = td_handlers_task(x->handlers, (size_t)job->task);
    int64_t timeout_ms = task->timeout_ms == TIDEMILL_UNSET ? TD_TIMEOUT_DEFAULT_MS : task->timeout_ms;
    int64_t limit = task->memory_limit_bytes;
    td_state_set_limit(w->state, limit == TIDEMILL_UNSET ? TD_MEMORY_LIMIT_DEFAULT : (size_t)limit);
    job->generation = atomic_load(&x->generation);
    memcpy(job->code, td_handlers_hash(x->handlers), sizeof job->code);
    job->started_ns = td_now_ns();
    job->deadline_ns = job->started_ns + (uint64_t)timeout_ms * 1000000;
    job->worker = w;
    w->job = job;
    w->run_ns = td_fiber_run_ns(w->fiber);
    td_fiber_set_tag(w->fiber, job->claimed.id);
    td_list_push(&x->jobs, &job->link);
    td_executor_watch(x, job->deadline_ns);
    td_fiber_start(w->fiber);
    return true;
}
