/* runtime.c: a worker process's engine, put together: handlers, executors, keeper. */
#include "../ctx/ctx.h"
#include "../engine/keeper.h"
#include "../store/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_WORKERS = 100,
    DECLARED_WORKERS = 10,
    QUEUE_MAX = 100, /* bytes of a name */
    WORKERS_MAX = 10000,
};
#define GRACE_MAX_MS (INT64_C(24) * 3600 * 1000)

struct tidemill_runtime {
    char *database, *name;
    td_log log;
    int64_t grace_ms;
    td_handlers *handlers;
    td_queue_state *queues;
    size_t queues_count;
    td_executor *executors[TD_EXECUTORS_MAX];
    size_t executors_count;
    td_keeper *keeper;
};

/* ---- Configuration ---- */

static int check_config(const tidemill_config *c, tidemill_error *err) {
    if (!c->handlers || !*c->handlers) {
        return td_error_field(err, "handlers", "handlers: nothing was given; give the folder of the handlers");
    }
    if (c->threads < 0 || c->threads > TD_EXECUTORS_MAX) {
        return td_error_field(err, "threads",
                              "threads: %d is not allowed; give 1 to %d, or 0 for one for each processor", c->threads,
                              TD_EXECUTORS_MAX);
    }
    if (c->grace_ms < 0 || c->grace_ms > GRACE_MAX_MS) {
        return td_error_field(err, "grace_ms", "grace_ms: %lld is not allowed; give 0 to %lld (a day)",
                              (long long)c->grace_ms, (long long)GRACE_MAX_MS);
    }
    if (c->name && (!*c->name || strlen(c->name) > 200 || !td_utf8_valid(c->name, strlen(c->name)))) {
        return td_error_field(err, "name", "name: it is empty, too long or not UTF-8; give 1 to 200 bytes");
    }
    return td_conn_check_url(c->database, err);
}

static td_queue_state *find_queue(const tidemill_runtime *r, const char *name) {
    for (size_t i = 0; i < r->queues_count; i++)
        if (strcmp(r->queues[i].name, name) == 0) return &r->queues[i];
    return NULL;
}

static int add_queue(tidemill_runtime *r, const char *name, int workers, tidemill_error *err) {
    td_queue_state *queue = &r->queues[r->queues_count];
    *queue = (td_queue_state){ .name = td_strdup(name), .workers = workers };
    if (!queue->name) return td_error_memory(err);
    r->queues_count++;
    return 0;
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
    if (find_queue(r, q->name)) {
        return td_error_field(err, "queues", "queues: %s is given twice; give each queue once", q->name);
    }
    return 0;
}

/* choose_queues takes those that are given, else the default queue and those that handlers declare. */
static int choose_queues(tidemill_runtime *r, const tidemill_config *c, tidemill_error *err) {
    size_t tasks = td_handlers_count(r->handlers);
    int rc = 0;
    r->queues = calloc(c->queues_count + tasks + 1, sizeof *r->queues);
    if (!r->queues) return td_error_memory(err);
    for (size_t i = 0; rc == 0 && i < c->queues_count; i++) {
        rc = check_queue(r, &c->queues[i], err);
        if (rc == 0) rc = add_queue(r, c->queues[i].name, c->queues[i].workers, err);
    }
    if (c->queues_count > 0) return rc;
    rc = add_queue(r, "default", DEFAULT_WORKERS, err);
    for (size_t i = 0; rc == 0 && i < tasks; i++) {
        const char *name = td_handlers_task(r->handlers, i)->queue;
        if (name && !find_queue(r, name)) rc = add_queue(r, name, DECLARED_WORKERS, err);
    }
    return rc;
}

static char *default_name(void) {
    char host[128] = "unknown";
    td_buf b = { 0 };
    gethostname(host, sizeof host - 1);
    td_buf_printf(&b, "%s:%d", host, (int)getpid());
    return td_buf_take(&b);
}

static int copy_config(tidemill_runtime *r, const tidemill_config *c, tidemill_error *err) {
    r->database = td_strdup(c->database ? c->database : "");
    r->name = c->name ? td_strdup(c->name) : default_name();
    r->log = (td_log){ c->log, c->log_userdata, c->log_level };
    r->grace_ms = c->grace_ms;
    return r->database && r->name ? 0 : td_error_memory(err);
}

/* ---- Start ---- */

/* check_database says at once when the database cannot be reached or has another schema. */
static int check_database(const tidemill_runtime *r, tidemill_error *err) {
    struct pg_conn *conn = NULL;
    int rc = td_conn_open(r->database, &conn, err);
    td_conn_close(conn);
    return rc;
}

static int processors(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > TD_EXECUTORS_MAX ? TD_EXECUTORS_MAX : (int)n;
}

static int start_executors(tidemill_runtime *r, int threads, tidemill_error *err) {
    for (int i = 0; i < threads; i++) {
        char name[16];
        snprintf(name, sizeof name, "td-exec-%d", i & 63);
        td_executor_config config = {
            .name = name,
            .handlers = r->handlers,
            .log = &r->log,
            .database = r->database,
            .ended = td_keeper_ended,
            .arg = r->keeper,
        };
        int rc = td_executor_start(&config, &r->executors[i], err);
        if (rc < 0) return rc;
        r->executors_count++;
    }
    return 0;
}

static int start_engine(tidemill_runtime *r, int threads, tidemill_error *err) {
    td_keeper_config config = {
        .database = r->database,
        .name = r->name,
        .handlers = r->handlers,
        .log = &r->log,
        .queues = r->queues,
        .queues_count = r->queues_count,
        .executors = r->executors,
        .executors_count = (size_t)threads,
    };
    r->keeper = td_keeper_new(&config);
    if (!r->keeper) return td_error_memory(err);
    int rc = start_executors(r, threads, err);
    return rc == 0 ? td_keeper_start(r->keeper, err) : rc;
}

static void log_started(const tidemill_runtime *r) {
    char tasks[24], threads[24];
    td_buf queues = { 0 };
    for (size_t i = 0; i < r->queues_count; i++)
        td_buf_printf(&queues, "%s%s=%d", i > 0 ? " " : "", r->queues[i].name, r->queues[i].workers);
    snprintf(tasks, sizeof tasks, "%zu", td_handlers_count(r->handlers));
    snprintf(threads, sizeof threads, "%zu", r->executors_count);
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
    for (size_t i = 0; i < r->executors_count; i++) td_executor_free(r->executors[i]);
    td_keeper_free(r->keeper);
    td_handlers_unref(r->handlers);
    for (size_t i = 0; i < r->queues_count; i++) free(r->queues[i].name);
    free(r->queues);
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
    if (rc == 0) rc = td_handlers_load(config->handlers, td_ctx_modules, td_ctx_modules_count, &r->handlers, err);
    if (rc == 0) rc = choose_queues(r, config, err);
    if (rc == 0) rc = check_database(r, err);
    if (rc == 0) rc = start_engine(r, config->threads ? config->threads : processors(), err);
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
    statistics->workers = 0;
    for (size_t i = 0; i < r->executors_count; i++) statistics->workers += td_executor_workers(r->executors[i]);
}
