/* runtime.c: a worker process's engine, put together: handlers, executors, keeper. */
#include "../ctx/ctx.h"
#include "../engine/keeper.h"
#include "../engine/load.h"
#include "../store/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_WORKERS = 100,
    QUEUE_MAX = 100, /* bytes of a name */
    WORKERS_MAX = 10000,
    HANDLERS_CONNECTIONS = 4,
    BLOCKING_MAX = 1000,
};
#define SURVEY_NS     UINT64_C(200000000)
#define MEMORY_MAX_MB (INT64_C(1) << 30)
#define LOAD_MAX_MS   (INT64_C(600) * 1000)
#define GRACE_MAX_MS  (INT64_C(24) * 3600 * 1000)

struct tidemill_runtime {
    char *database, *name;
    td_log log;
    int64_t grace_ms;
    td_handlers *handlers;
    char *dir;
    td_queues queues;
    int threads;
    td_connections *connections; /* that handlers share */
    td_pool *pool;
    td_keeper *keeper;
    td_watch *watch;
    td_tally *memory; /* what the workers have mapped */
    bool signals;
};

/* ---- Configuration ---- */

static int check_config(const tidemill_config *c, tidemill_error *err) {
    if (!c->handlers || !*c->handlers) {
        return td_error_field(err, "handlers", "handlers: nothing was given; give the folder of the handlers");
    }
    if (c->threads < 0 || c->threads > TD_POOL_MAX) {
        return td_error_field(err, "threads",
                              "threads: %d is not allowed; give 1 to %d, or 0 for one for each processor", c->threads,
                              TD_POOL_MAX);
    }
    if (c->grace_ms < 0 || c->grace_ms > GRACE_MAX_MS) {
        return td_error_field(err, "grace_ms", "grace_ms: %lld is not allowed; give 0 to %lld (a day)",
                              (long long)c->grace_ms, (long long)GRACE_MAX_MS);
    }
    if (c->load_max_ms < 1 || c->load_max_ms > LOAD_MAX_MS) {
        return td_error_field(err, "load_max_ms", "load_max_ms: %lld is not allowed; give 1 to %lld (ten minutes)",
                              (long long)c->load_max_ms, (long long)LOAD_MAX_MS);
    }
    if (c->blocking_threads < 0 || c->blocking_threads > BLOCKING_MAX) {
        return td_error_field(err, "blocking_threads", "blocking_threads: %d is not allowed; give 1 to %d, or 0 for %d",
                              c->blocking_threads, BLOCKING_MAX, TD_BLOCKING_MAX);
    }
    if (c->memory_max_mb < 0 || c->memory_max_mb > MEMORY_MAX_MB) {
        return td_error_field(err, "memory_max_mb",
                              "memory_max_mb: %lld is not allowed; give 1 to %lld, or 0 for no bound",
                              (long long)c->memory_max_mb, (long long)MEMORY_MAX_MB);
    }
    if (c->name && (!*c->name || strlen(c->name) > 200 || !td_utf8_valid(c->name, strlen(c->name)))) {
        return td_error_field(err, "name", "name: it is empty, too long or not UTF-8; give 1 to 200 bytes");
    }
    return td_conn_check_url(c->database, err);
}

static int check_queue(const tidemill_runtime *r, const tidemill_queue *q, tidemill_error *err) {
    size_t len = q->name ? strlen(q->name) : 0;
    if (len == 0 || len > QUEUE_MAX || !td_utf8_valid(q->name, len)) {
        return td_error_field(err, "queues", "queues: a name is empty, too long or not UTF-8; give 1 to %d bytes",
                              QUEUE_MAX);
    }
    if (q->workers < 1 || q->workers > WORKERS_MAX) {
        return td_error_field(err, "queues", "queues: %d workers for %s are not allowed; give 1 to %d", q->workers,
                              q->name, WORKERS_MAX);
    }
    if (td_queues_find(&r->queues, q->name)) {
        return td_error_field(err, "queues", "queues: %s is given twice; give each queue once", q->name);
    }
    return 0;
}

/* choose_queues takes those that are given, else the default queue and those that handlers declare. */
static int choose_queues(tidemill_runtime *r, const tidemill_config *c, tidemill_error *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->queues_count; i++) {
        rc = check_queue(r, &c->queues[i], err);
        if (rc == 0) rc = td_queues_add(&r->queues, c->queues[i].name, c->queues[i].workers, err);
    }
    r->queues.declared = c->queues_count == 0;
    if (r->queues.declared) rc = td_queues_add(&r->queues, "default", DEFAULT_WORKERS, err);
    return rc < 0 ? rc : td_queues_declare(&r->queues, r->handlers, err);
}

static char *default_name(void) {
    char host[128] = "unknown";
    td_buf b = { 0 };
    gethostname(host, sizeof host - 1);
    td_buf_printf(&b, "%s:%d", host, (int)getpid());
    return td_buf_take(&b);
}

static int processors(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > TD_POOL_MAX ? TD_POOL_MAX : (int)n;
}

static int copy_config(tidemill_runtime *r, const tidemill_config *c, tidemill_error *err) {
    r->database = td_strdup(c->database ? c->database : "");
    r->dir = td_strdup(c->handlers);
    r->name = c->name ? td_strdup(c->name) : default_name();
    r->log = (td_log){ c->log, c->log_userdata, c->log_level };
    r->grace_ms = c->grace_ms;
    r->threads = c->threads ? c->threads : processors();
    return r->database && r->dir && r->name ? 0 : td_error_memory(err);
}

/* ---- Start ---- */

/* check_database says at once when the database cannot be reached or has another schema. */
static int check_database(const tidemill_runtime *r, tidemill_error *err) {
    struct pg_conn *conn = NULL;
    int rc = td_conn_open(r->database, &conn, err);
    td_conn_close(conn);
    return rc;
}

static int start_engine(tidemill_runtime *r, const tidemill_config *c, tidemill_error *err) {
    td_keeper_config keeper = {
        .database = r->database,
        .name = r->name,
        .dir = r->dir,
        .handlers = r->handlers,
        .log = &r->log,
        .watch = r->watch,
        .queues = &r->queues,
        .keep_logs = c->keep_logs,
        .watch_files = c->reload,
        .load_max_ms = c->load_max_ms,
        .rerun = c->rerun,
        .pool = &r->pool,
    };
    r->keeper = td_keeper_new(&keeper);
    r->connections = td_connections_new(r->database, HANDLERS_CONNECTIONS);
    r->memory = td_tally_new();
    if (!r->keeper || !r->connections) return td_error_memory(err);
    td_pool_config pool = {
        .executor = { .handlers = r->handlers,
                      .generation = 1,
                      .log = &r->log,
                      .connections = r->connections,
                      .watch = r->watch,
                      .signals = r->signals,
                      .memory = r->memory,
                      .memory_max = (size_t)c->memory_max_mb << 20,
                      .ended = td_keeper_ended,
                      .arg = r->keeper },
        .threads = r->threads,
        .blocking_max = c->blocking_threads ? c->blocking_threads : TD_BLOCKING_MAX,
        .stuck = td_keeper_stuck,
        .arg = r->keeper,
    };
    if (!r->memory) return td_error_memory(err);
    int rc = td_pool_new(&pool, &r->pool, err);
    return rc == 0 ? td_keeper_start(r->keeper, err) : rc;
}

static void log_started(const tidemill_runtime *r) {
    char tasks[24], threads[24];
    td_buf queues = { 0 };
    for (size_t i = 0; i < r->queues.count; i++)
        td_buf_printf(&queues, "%s%s=%d", i > 0 ? " " : "", r->queues.list[i]->name, r->queues.list[i]->workers);
    snprintf(tasks, sizeof tasks, "%zu", td_handlers_count(r->handlers));
    snprintf(threads, sizeof threads, "%d", r->threads);
    const tidemill_field fields[] = {
        { "process", r->name, false },
        { "tasks", tasks, true },
        { "queues", queues.data ? queues.data : "", false },
        { "threads", threads, true },
        { "code", td_handlers_hash(r->handlers), false },
    };
    td_log_write(&r->log, TIDEMILL_INFO, "started", fields, TD_COUNT(fields));
    td_buf_free(&queues);
}

static void runtime_free(tidemill_runtime *r) {
    td_pool_free(r->pool);
    td_keeper_free(r->keeper);
    td_watch_stop(r->watch);
    td_tally_unref(r->memory);
    if (r->signals) td_preempt_close();
    td_handlers_unref(r->handlers);
    td_connections_unref(r->connections);
    td_queues_free(&r->queues);
    free(r->dir);
    free(r->database);
    free(r->name);
    free(r);
}

int tidemill_runtime_start(const tidemill_config *config, tidemill_runtime **runtime, tidemill_error *err) {
    int rc = check_config(config, err);
    if (rc < 0) return rc;
    tidemill_runtime *r = calloc(1, sizeof *r);
    if (!r) return td_error_memory(err);
    rc = copy_config(r, config, err);
    if (rc == 0 && config->signals) {
        rc = td_preempt_open(err);
        r->signals = rc == 0;
    }
    if (rc == 0) rc = td_watch_start(&r->watch, err);
    if (rc == 0) rc = td_load_handlers(r->dir, r->watch, config->load_max_ms, &r->handlers, err);
    if (rc == 0) rc = choose_queues(r, config, err);
    if (rc == 0) rc = check_database(r, err);
    if (rc == 0) rc = start_engine(r, config, err);
    if (rc < 0) {
        runtime_free(r);
        return rc;
    }
    log_started(r);
    *runtime = r;
    return 0;
}

/* ---- The rest of its life ---- */

void tidemill_runtime_stop(tidemill_runtime *r, tidemill_stopped *stopped) {
    if (stopped) *stopped = (tidemill_stopped){ 0 };
    if (!r) return;
    td_logf(&r->log, TIDEMILL_INFO, "stopping: running jobs have %lld s to end", (long long)(r->grace_ms / 1000));
    td_keeper_stop(r->keeper, r->grace_ms, stopped);
    runtime_free(r);
}

void tidemill_runtime_statistics(const tidemill_runtime *r, tidemill_statistics *statistics) {
    td_keeper_statistics(r->keeper, statistics);
    statistics->workers = td_pool_workers(r->pool);
}

/* A caller that waits for a reload. */
typedef struct reload_wait {
    uv_sem_t done;
    int rc;
    tidemill_error error;
} reload_wait;

static void reload_done(void *arg, int rc, const tidemill_error *err) {
    reload_wait *w = arg;
    w->rc = rc;
    if (rc < 0) w->error = *err;
    uv_sem_post(&w->done);
}

int tidemill_runtime_reload(tidemill_runtime *r, tidemill_error *err) {
    reload_wait w = { .rc = 0 };
    uv_sem_init(&w.done, 0);
    int rc = td_keeper_reload(r->keeper, reload_done, &w);
    if (rc == 0) {
        uv_sem_wait(&w.done);
        rc = w.rc;
        if (rc < 0 && err) *err = w.error;
    } else {
        rc = td_error_memory(err);
    }
    uv_sem_destroy(&w.done);
    return rc;
}

int tidemill_runtime_ask_reload(tidemill_runtime *r, tidemill_error *err) {
    return td_keeper_reload(r->keeper, NULL, NULL) < 0 ? td_error_memory(err) : 0;
}

int tidemill_check(const char *dir, size_t *tasks, tidemill_error *err) {
    td_watch *watch = NULL;
    td_handlers *handlers = NULL;
    if (!dir || !*dir)
        return td_error_field(err, "handlers", "handlers: nothing was given; give the folder of the handlers");
    int rc = td_watch_start(&watch, err);
    if (rc == 0) rc = td_load_handlers(dir, watch, TD_LOAD_MAX_MS, &handlers, err);
    if (rc == 0 && tasks) *tasks = td_handlers_count(handlers);
    td_handlers_unref(handlers);
    td_watch_stop(watch);
    return rc;
}

int tidemill_runtime_survey(const tidemill_runtime *r, bool traces, char **json, tidemill_error *err) {
    td_survey *survey = td_pool_survey(r->pool, traces);
    td_buf b = { 0 };
    if (!survey) return td_error_memory(err);
    for (uint64_t end_ns = td_now_ns() + SURVEY_NS; !td_survey_done(survey) && td_now_ns() < end_ns;) uv_sleep(1);
    td_survey_take(survey, &b);
    td_survey_unref(survey);
    *json = td_buf_take(&b);
    return *json ? 0 : td_error_memory(err);
}
