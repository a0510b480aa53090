/* pool.c: which thread runs a job. See pool.h. */
#include "pool.h"

#include "report.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* An executor and what the watcher needs to tell of it. */
typedef struct slot {
    td_pool *pool;
    td_executor *executor;
} slot;

struct td_pool {
    td_pool_config config;
    pthread_mutex_t mutex; /* of all below, which only the keeper changes */
    slot *plain[TD_POOL_MAX];
    slot **blocking;
    int blocking_count;
    slot **lost; /* written off */
    int lost_count;
};

/* ---- Threads ---- */

/* on_stuck is called on the watcher's thread. */
static void on_stuck(void *arg, int64_t job, uint64_t ms) {
    slot *s = arg;
    s->pool->config.stuck(s->pool->config.arg, s->executor, job, ms);
}

static slot *slot_new(td_pool *pool, const char *kind, int number, bool exclusive, tidemill_error *err) {
    char name[16];
    slot *s = calloc(1, sizeof *s);
    if (!s) {
        td_error_memory(err);
        return NULL;
    }
    td_executor_config config = pool->config.executor;
    snprintf(name, sizeof name, "td-%s-%d", kind, number % 1000);
    s->pool = pool;
    config.name = name;
    config.exclusive = exclusive;
    config.stuck = exclusive ? NULL : on_stuck;
    config.stuck_arg = s;
    if (td_executor_start(&config, &s->executor, err) == 0) return s;
    free(s);
    return NULL;
}

static void slot_free(slot *s) {
    if (!s) return;
    td_executor_free(s->executor);
    free(s);
}

int td_pool_new(const td_pool_config *config, td_pool **out, tidemill_error *err) {
    td_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return td_error_memory(err);
    pool->config = *config;
    td_handlers_ref(config->executor.handlers);
    pthread_mutex_init(&pool->mutex, NULL);
    pool->blocking = calloc((size_t)config->blocking_max, sizeof *pool->blocking);
    int rc = pool->blocking ? 0 : td_error_memory(err);
    for (int i = 0; rc == 0 && i < config->threads; i++) {
        pool->plain[i] = slot_new(pool, "exec", i, false, err);
        if (!pool->plain[i]) rc = err ? err->code : TIDEMILL_EIO;
    }
    if (rc < 0) {
        td_pool_free(pool);
        return rc;
    }
    *out = pool;
    return 0;
}

typedef void each_fn(td_executor *executor, void *arg);

static void each(td_pool *pool, each_fn *fn, void *arg) {
    pthread_mutex_lock(&pool->mutex);
    for (int i = 0; i < pool->config.threads; i++)
        if (pool->plain[i]) fn(pool->plain[i]->executor, arg);
    for (int i = 0; i < pool->blocking_count; i++) fn(pool->blocking[i]->executor, arg);
    for (int i = 0; i < pool->lost_count; i++) fn(pool->lost[i]->executor, arg);
    pthread_mutex_unlock(&pool->mutex);
}

static void close_in(td_executor *executor, void *arg) {
    (void)arg;
    td_executor_close(executor);
}

void td_pool_free(td_pool *pool) {
    if (!pool) return;
    each(pool, close_in, NULL);
    for (int i = 0; i < TD_POOL_MAX; i++) slot_free(pool->plain[i]);
    for (int i = 0; i < pool->blocking_count; i++) slot_free(pool->blocking[i]);
    for (int i = 0; i < pool->lost_count; i++) slot_free(pool->lost[i]);
    td_handlers_unref(pool->config.executor.handlers);
    free(pool->blocking);
    free(pool->lost);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

/* ---- Choosing ---- */

/* least_loaded returns the executor with the fewest jobs. */
static td_executor *least_loaded(slot *const *slots, int count) {
    td_executor *best = NULL;
    size_t load = SIZE_MAX;
    for (int i = 0; i < count; i++) {
        size_t its = slots[i] ? td_executor_load(slots[i]->executor) : SIZE_MAX;
        if (its < load) {
            load = its;
            best = slots[i]->executor;
        }
    }
    return best;
}

/* for_blocking returns an executor for a blocking job: one that has none, a new one, or else the one that has fewest.
 */
static td_executor *for_blocking(td_pool *pool) {
    td_executor *best = least_loaded(pool->blocking, pool->blocking_count);
    if ((best && td_executor_load(best) == 0) || pool->blocking_count == pool->config.blocking_max) return best;
    slot *s = slot_new(pool, "block", pool->blocking_count, true, NULL);
    if (!s) return best;
    pthread_mutex_lock(&pool->mutex);
    pool->blocking[pool->blocking_count++] = s;
    pthread_mutex_unlock(&pool->mutex);
    return s->executor;
}

/* give hands one job over, or ends it. */
static void give(td_pool *pool, td_job *job) {
    const td_executor_config *config = &pool->config.executor;
    int number = td_handlers_find(config->handlers, job->claimed.task);
    bool blocking = number >= 0 && td_handlers_task(config->handlers, (size_t)number)->blocking;
    td_list one;
    td_list_init(&one);
    td_list_push(&one, &job->link);
    job->executor = blocking ? for_blocking(pool) : least_loaded(pool->plain, pool->config.threads);
    if (job->executor && td_executor_run(job->executor, &one) == 0) return;
    td_list_remove(&job->link);
    job->result = (td_result){ .outcome = TD_RETURNED, .delay_s = -1 };
    td_report_attempt(config->log, job);
    config->ended(config->arg, job);
}

void td_pool_run(td_pool *pool, td_list *jobs) {
    td_list *node;
    while ((node = td_list_shift(jobs)) != NULL) give(pool, td_container(node, td_job, link));
}

/* ---- All of them ---- */

typedef struct ending {
    int64_t id, token;
    td_outcome outcome;
    const char *why;
} ending;

static void end_in(td_executor *executor, void *arg) {
    const ending *e = arg;
    (void)!td_executor_end(executor, e->id, e->token, e->outcome, e->why);
}

void td_pool_end(td_pool *pool, int64_t id, int64_t token, td_outcome outcome, const char *why) {
    ending e = { id, token, outcome, why };
    each(pool, end_in, &e);
}

static void add_workers(td_executor *executor, void *arg) {
    *(int64_t *)arg += td_executor_workers(executor);
}

int64_t td_pool_workers(td_pool *pool) {
    int64_t sum = 0;
    each(pool, add_workers, &sum);
    return sum;
}

static void survey_one(td_executor *executor, void *arg) {
    td_executor_survey(executor, arg);
}

static void count_one(td_executor *executor, void *arg) {
    (void)executor;
    ++*(int *)arg;
}

td_survey *td_pool_survey(td_pool *pool, bool traces) {
    int threads = 0;
    each(pool, count_one, &threads);
    td_survey *survey = td_survey_new(threads, traces);
    if (survey) each(pool, survey_one, survey);
    return survey;
}

/* ---- New code ---- */

typedef struct reloading {
    td_handlers *handlers;
    int generation;
    bool done;
} reloading;

static void reload_one(td_executor *executor, void *arg) {
    const reloading *r = arg;
    while (td_executor_reload(executor, r->handlers, r->generation) == TIDEMILL_EMEMORY) uv_sleep(1);
}

void td_pool_reload(td_pool *pool, td_handlers *handlers, int generation) {
    reloading r = { handlers, generation, false };
    td_executor_config *config = &pool->config.executor;
    td_handlers_ref(handlers);
    td_handlers_unref(config->handlers);
    config->handlers = handlers;
    config->generation = generation;
    each(pool, reload_one, &r);
}

bool td_pool_reloaded(td_pool *pool) {
    int wanted = pool->config.executor.generation;
    for (int i = 0; i < pool->config.threads; i++)
        if (td_executor_generation(pool->plain[i]->executor) != wanted) return false;
    for (int i = 0; i < pool->blocking_count; i++) {
        const td_executor *x = pool->blocking[i]->executor;
        /* One that has a job may not hear for as long as that runs, and starts the next on the new set all the same. */
        if (td_executor_load(x) == 0 && td_executor_generation(x) != wanted) return false;
    }
    return true;
}

/* ---- Writing off ---- */

/* find_slot returns the place of an executor, or -1. */
static int find_slot(slot *const *slots, int count, const td_executor *executor) {
    for (int i = 0; i < count; i++)
        if (slots[i] && slots[i]->executor == executor) return i;
    return -1;
}

bool td_pool_write_off(td_pool *pool, td_executor *executor, int64_t job) {
    int plain = find_slot(pool->plain, pool->config.threads, executor);
    int blocking = find_slot(pool->blocking, pool->blocking_count, executor);
    if (plain < 0 && blocking < 0) return false;
    slot *fresh = plain >= 0 ? slot_new(pool, "exec", plain, false, NULL) : NULL;
    if (plain >= 0 && !fresh) return false; /* at the next call, perhaps */
    pthread_mutex_lock(&pool->mutex);
    slot **lost = realloc(pool->lost, (size_t)(pool->lost_count + 1) * sizeof(slot *));
    if (lost) {
        pool->lost = lost;
        lost[pool->lost_count++] = plain >= 0 ? pool->plain[plain] : pool->blocking[blocking];
        if (plain >= 0)
            pool->plain[plain] = fresh;
        else /* another is made when it is needed */
            pool->blocking[blocking] = pool->blocking[--pool->blocking_count];
    }
    pthread_mutex_unlock(&pool->mutex);
    if (!lost) {
        slot_free(fresh);
        return false;
    }
    td_executor_disown(executor, job);
    return true;
}
