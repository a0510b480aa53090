/* keeper.c: the keeper's life. Its thread has four fibers, each in a file of its own by what it does:

     exchange  records what has ended and claims what there is room for, in one round trip (exchange.c)
     heart     says every two seconds that the process lives, and hears which jobs are to stop (heart.c)
     listener  hears that a queue has work, and has the exchange ask for it (heart.c)
     changes   sees that the handlers' files have changed, and has them loaded anew (changes.c, reload.c)

   A stop: claim no more; let running jobs end until the grace period is over, then end them; when all are recorded,
   sign the process off. Where the database does not answer, a second timer ends the waiting: what is left is then found
   by the other processes when the heartbeat has become old. */
#include "../store/query.h"
#include "private.h"
#include "publish.h"
#include "report.h"

#include <stdlib.h>
#include <string.h>

enum { CONNECTIONS = 3 };

/* ---- What the files share ---- */

void td_keeper_job_free(td_job *job) {
    if (--job->lease->open == 0) free(job->lease);
    td_job_free(job);
}

void td_keeper_end_all(td_keeper *k, td_outcome outcome, const char *why) {
    td_pool_end(*k->config.pool, 0, 0, outcome, why);
}

void td_keeper_done(td_keeper *k) {
    if (k->done) return;
    k->done = true;
    uv_sem_post(&k->told);
}

void td_keeper_pause(int64_t *pause_ms) {
    *pause_ms = *pause_ms == 0 ? TD_RETRY_FIRST_MS : *pause_ms * 2 > TD_RETRY_MAX_MS ? TD_RETRY_MAX_MS : *pause_ms * 2;
    (void)td_wait_until(td_now_ns() + (uint64_t)*pause_ms * 1000000, NULL);
}

/* ---- The mailbox ---- */

static bool has_failed(const td_job *job) {
    td_outcome outcome = job->result.outcome;
    return outcome == TD_FAILED || outcome == TD_TIMEOUT || outcome == TD_MEMORY;
}

/* runs_again says whether the job may be due again as soon as its end is recorded: the claim in the same exchange is to
   look, and tells when it will be. */
static bool runs_again(const td_job *job) {
    return job->result.outcome == TD_SNOOZED || (has_failed(job) && !td_report_dies(job));
}

void td_keeper_job_ended(td_keeper *k, td_job *job) {
    if (job->abandoned) {
        td_keeper_job_free(job);
        return;
    }
    td_list_remove(&job->running);
    td_list_push(&k->ended, &job->link);
    k->running_count--;
    job->queue->busy--;
    if (runs_again(job)) job->queue->due = true;
    atomic_fetch_sub(&k->now_running, 1);
    atomic_fetch_add(&k->outcomes[job->result.outcome], 1);
    if (td_report_dies(job)) atomic_fetch_add(&k->dead, 1);
    if (has_failed(job)) k->failed_job = job->claimed.id;
    if (!k->stopping) return;
    if (job->result.outcome == TD_RETURNED)
        k->stopped.returned++;
    else
        k->stopped.ended++;
}

static void take_mail(void *arg) {
    td_keeper *k = arg;
    td_list jobs, *node;
    td_list_init(&jobs);
    pthread_mutex_lock(&k->mutex);
    while ((node = td_list_shift(&k->arriving)) != NULL) td_list_push(&jobs, node);
    pthread_mutex_unlock(&k->mutex);
    while ((node = td_list_shift(&jobs)) != NULL) td_keeper_job_ended(k, td_container(node, td_job, link));
    td_exchange_wake(k);
}

void td_keeper_ended(void *keeper, td_job *job) {
    td_keeper *k = keeper;
    pthread_mutex_lock(&k->mutex);
    bool first = td_list_empty(&k->arriving);
    td_list_push(&k->arriving, &job->link);
    pthread_mutex_unlock(&k->mutex);
    /* Without memory for the post, the next pulse finds it. */
    if (first) (void)!td_thread_post(k->thread, take_mail, k);
}

/* ---- Start ---- */

static void on_poll(uv_timer_t *timer) {
    td_exchange_ask(timer->data, NULL);
}

/* on_pulse is the heart's clock, and the watch on what has to happen though the database does not answer. */
static void on_pulse(uv_timer_t *timer) {
    td_keeper *k = timer->data;
    take_mail(k);
    k->beat = true;
    td_fiber_wake(k->heart);
    td_stuck_check(k);
    if (!k->alone && td_now_ns() - k->beat_ns > TD_ALONE_MS * UINT64_C(1000000)) {
        k->alone = true;
        td_logf(
            k->config.log, TIDEMILL_ERROR,
            "the database was out of reach for %d s: the running jobs are ended, since other processes may take them",
            TD_ALONE_MS / 1000);
        td_keeper_end_all(k, TD_LOST, "the process lost the database, and the job with it");
    }
}

static void timer_init(td_keeper *k, uv_timer_t *timer) {
    uv_timer_init(td_thread_loop(k->thread), timer);
    timer->data = k;
}

static void open_on_thread(void *arg) {
    td_keeper *k = arg;
    timer_init(k, &k->poll);
    timer_init(k, &k->due);
    timer_init(k, &k->pulse);
    timer_init(k, &k->grace);
    td_connections *connections = td_connections_new(k->config.database, CONNECTIONS);
    k->start_rc =
        connections ? td_connections_join(k->thread, connections, &k->start_error) : td_error_memory(&k->start_error);
    td_connections_unref(connections);
    k->heart = td_fiber_new(td_heart_fiber, k, 0);
    k->exchange = td_fiber_new(td_exchange_fiber, k, 0);
    k->listener = td_fiber_new(td_listener_fiber, k, 0);
    if (k->config.watch_files) k->changes = td_fiber_new(td_changes_fiber, k, 0);
    if (k->start_rc == 0 && !(k->heart && k->exchange && k->listener)) k->start_rc = td_error_memory(&k->start_error);
    if (k->start_rc < 0) {
        uv_sem_post(&k->told);
        return;
    }
    td_fiber_wake(k->heart); /* which registers the process, and then calls td_keeper_begin */
}

void td_keeper_begin(td_keeper *k) {
    uv_update_time(td_thread_loop(k->thread));
    uv_timer_start(&k->poll, on_poll, TD_POLL_MS, TD_POLL_MS);
    uv_timer_start(&k->pulse, on_pulse, TD_HEARTBEAT_MS, TD_HEARTBEAT_MS);
    td_fiber_wake(k->listener);
    if (k->changes) td_fiber_wake(k->changes);
    td_exchange_ask(k, NULL);
}

bool td_keeper_describe(td_keeper *k) {
    const td_queues *queues = k->config.queues;
    size_t count = td_handlers_count(k->handlers);
    const char **tasks = realloc(k->tasks, (count + 1) * sizeof *tasks);
    if (tasks) k->tasks = tasks;
    td_room *rooms = realloc(k->rooms, (queues->count + 1) * sizeof *rooms);
    if (rooms) k->rooms = rooms;
    if (!tasks || !rooms) return false;
    k->tasks_count = count;
    for (size_t i = 0; i < count; i++) k->tasks[i] = td_handlers_task(k->handlers, i)->name;
    td_buf_clear(&k->tasks_json);
    td_publish_tasks(&k->tasks_json, k->handlers);
    td_buf_clear(&k->queues_json);
    td_buf_putc(&k->queues_json, '{');
    for (size_t i = 0; i < queues->count; i++)
        td_publish_queue(&k->queues_json, queues->list[i]->name, queues->list[i]->workers);
    td_buf_putc(&k->queues_json, '}');
    return !k->tasks_json.failed && !k->queues_json.failed;
}

td_keeper *td_keeper_new(const td_keeper_config *config) {
    td_keeper *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    k->config = *config;
    k->handlers = td_handlers_ref(config->handlers);
    k->generation = 1;
    k->reload.history[0] = td_handlers_ref(config->handlers);
    td_list_init(&k->running);
    td_list_init(&k->ended);
    td_list_init(&k->arriving);
    td_list_init(&k->claimed);
    pthread_mutex_init(&k->mutex, NULL);
    uv_sem_init(&k->told, 0);
    if (td_keeper_describe(k)) return k;
    td_keeper_free(k);
    return NULL;
}

int td_keeper_start(td_keeper *k, tidemill_error *err) {
    int rc = td_thread_start(&k->thread, "td-keeper", err);
    if (rc == 0 && td_thread_post(k->thread, open_on_thread, k) < 0) rc = td_error_memory(err);
    if (rc < 0) return rc;
    uv_sem_wait(&k->told);
    if (k->start_rc < 0 && err) *err = k->start_error;
    return k->start_rc;
}

/* ---- Stop ---- */

static void on_give_up(uv_timer_t *timer) {
    td_keeper *k = timer->data;
    td_logf(
        k->config.log, TIDEMILL_ERROR,
        "the database did not answer while this process stopped: what it held is given back by the other processes");
    td_keeper_done(k);
}

/* on_last_call gives back what is still there though it was ended: it blocks its thread. */
static void on_last_call(uv_timer_t *timer) {
    td_keeper *k = timer->data;
    td_stuck_give_back(k, NULL, 0);
    uv_timer_start(&k->grace, on_give_up, TD_FAREWELL_MS, 0);
}

static void on_grace_over(uv_timer_t *timer) {
    td_keeper *k = timer->data;
    td_keeper_end_all(k, TD_RETURNED, NULL);
    uv_timer_start(&k->grace, on_last_call, TD_LAST_CALL_MS, 0);
}

typedef struct stop_call {
    td_keeper *keeper;
    int64_t grace_ms;
} stop_call;

static void stop_on_thread(void *arg) {
    stop_call *call = arg;
    td_keeper *k = call->keeper;
    k->stopping = true;
    td_reload_stop(k);
    uv_timer_stop(&k->poll);
    uv_timer_stop(&k->due);
    uv_update_time(td_thread_loop(k->thread));
    uv_timer_start(&k->grace, on_grace_over, (uint64_t)call->grace_ms, 0);
    td_exchange_wake(k);
}

void td_keeper_stop(td_keeper *k, int64_t grace_ms, tidemill_stopped *stopped) {
    stop_call call = { k, grace_ms < 0 ? 0 : grace_ms };
    while (td_thread_post(k->thread, stop_on_thread, &call) == TIDEMILL_EMEMORY) uv_sleep(10);
    uv_sem_wait(&k->told);
    if (stopped) *stopped = k->stopped;
}

/* ---- Statistics and end ---- */

void td_keeper_statistics(const td_keeper *k, tidemill_statistics *s) {
    const _Atomic int64_t *o = k->outcomes;
    s->completed = atomic_load(&o[TD_COMPLETED]);
    s->failed = atomic_load(&o[TD_FAILED]) + atomic_load(&o[TD_TIMEOUT]) + atomic_load(&o[TD_MEMORY]);
    s->dead = atomic_load(&k->dead);
    s->snoozed = atomic_load(&o[TD_SNOOZED]);
    s->cancelled = atomic_load(&o[TD_CANCELLED]);
    s->returned = atomic_load(&o[TD_RETURNED]);
    s->lost = atomic_load(&o[TD_LOST]);
    s->blocked = atomic_load(&k->blocked);
    s->written_off = atomic_load(&k->written_off);
    s->running = atomic_load(&k->now_running);
}

static void free_jobs(td_list *list, size_t offset) {
    td_list *node;
    while ((node = td_list_shift(list)) != NULL) td_keeper_job_free((td_job *)((char *)node - offset));
}

void td_keeper_free(td_keeper *k) {
    if (!k) return;
    td_thread_stop(k->thread);
    free_jobs(&k->running, offsetof(td_job, running));
    free_jobs(&k->ended, offsetof(td_job, link));
    free_jobs(&k->claimed, offsetof(td_job, link));
    for (size_t i = 0; i < k->batch_count; i++) td_keeper_job_free(k->batch[i]);
    td_buf_free(&k->tasks_json);
    td_buf_free(&k->queues_json);
    td_buf_free(&k->survey_json);
    pthread_mutex_destroy(&k->mutex);
    uv_sem_destroy(&k->told);
    td_reload_free(k);
    td_handlers_unref(k->handlers);
    free(k->lease);
    free(k->rooms);
    free(k->tasks);
    free(k);
}
