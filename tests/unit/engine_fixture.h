/* engine_fixture.h: for tests and benchmarks of executors: handlers written to a folder, executors over them, jobs made
   by hand, and their ends. No database.

   The task "run" does what its argument `code` says, as function(ctx, args). Whoever waits for ends is the test's own
   thread. */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include "../../runtime/ctx/ctx.h"
#include "../../runtime/engine/executor.h"

#include <assert.h>
#include <dirent.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ENGINE_THREADS_MAX = 8 };

typedef struct engine {
    char dir[64];
    td_handlers *set;
    td_watch *watch;
    td_tally *memory;
    td_log log;
    td_executor *executors[ENGINE_THREADS_MAX];
    int threads;
    bool signals;
    size_t memory_max;
    int64_t ids;
    int turn; /* the executor that gets the next job */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    td_list ended; /* under the mutex, and */
    size_t count;  /* how many there are in it */
} engine;

/* ---- Handlers ---- */

static inline void engine_file(engine *e, const char *name, const char *text) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", e->dir, name);
    FILE *file = fopen(path, "w");
    assert(file);
    fputs(text, file);
    fclose(file);
}

/* engine_handler writes a task with more fields and the body of its handle(ctx, args). */
static inline void engine_handler(engine *e, const char *task, const char *fields, const char *body) {
    td_buf text = { 0 };
    char name[80];
    td_buf_printf(&text, "return { name = function() return '%s' end, %s handle = function(ctx, args) %s end }\n", task,
                  fields, body);
    snprintf(name, sizeof name, "%s.lua", task);
    engine_file(e, name, text.data);
    td_buf_free(&text);
}

static inline void engine_log_nowhere(void *userdata, const tidemill_record *record) {
    (void)userdata;
    (void)record;
}

/* The body of "run". */
#define ENGINE_RUN "return assert(load('local ctx, args = ... ' .. args.code, '=code'))(ctx, args)"

/* engine_new makes a folder with the task "run", which has these further fields (such as "timeout = 1,"). */
static inline engine *engine_new(const char *fields) {
    engine *e = calloc(1, sizeof *e);
    const char *tmp = getenv("TMPDIR");
    assert(e);
    snprintf(e->dir, sizeof e->dir, "%.40s/tmengXXXXXX", tmp ? tmp : "/tmp");
    char *made = mkdtemp(e->dir);
    assert(made);
    (void)made;
    pthread_mutex_init(&e->mutex, NULL);
    pthread_cond_init(&e->changed, NULL);
    td_list_init(&e->ended);
    e->signals = true;
    e->log = (td_log){ .fn = engine_log_nowhere, .level = TIDEMILL_DEBUG };
    engine_handler(e, "run", fields, ENGINE_RUN);
    return e;
}

/* ---- Executors ---- */

static inline void engine_take(void *arg, td_job *job) {
    engine *e = arg;
    pthread_mutex_lock(&e->mutex);
    td_list_push(&e->ended, &job->link);
    e->count++;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->mutex);
}

/* engine_start loads the folder and starts executors. engine_start_with: with more of a configuration. */
static inline void engine_start_with(engine *e, int threads, td_executor_config config) {
    tidemill_error err = { 0 };
    int rc = td_handlers_load(e->dir, td_ctx_modules, td_ctx_modules_count, &e->set, &err);
    if (rc == 0 && e->signals) rc = td_preempt_open(&err);
    if (rc == 0) rc = td_watch_start(&e->watch, &err);
    if (rc == 0) e->memory = td_tally_new();
    config.name = "test-exec";
    config.handlers = e->set;
    config.log = &e->log;
    config.watch = e->watch;
    config.signals = e->signals;
    config.memory = e->memory;
    config.memory_max = e->memory_max;
    if (!config.ended) {
        config.ended = engine_take;
        config.arg = e;
    }
    for (; rc == 0 && e->threads < threads; e->threads++)
        rc = td_executor_start(&config, &e->executors[e->threads], &err);
    if (rc < 0) {
        fprintf(stderr, "the engine did not start: %s\n", err.message);
        abort();
    }
}

static inline void engine_start(engine *e, int threads) {
    engine_start_with(e, threads, (td_executor_config){ 0 });
}

static inline int64_t engine_workers(const engine *e) {
    int64_t sum = 0;
    for (int i = 0; i < e->threads; i++) sum += td_executor_workers(e->executors[i]);
    return sum;
}

/* engine_stop ends the executors; what has ended stays. */
static inline void engine_stop(engine *e) {
    for (int i = 0; i < e->threads; i++) td_executor_close(e->executors[i]);
    for (int i = 0; i < e->threads; i++) td_executor_free(e->executors[i]);
    e->threads = 0;
    td_watch_stop(e->watch);
    e->watch = NULL;
    if (e->set && e->signals) td_preempt_close();
    td_tally_unref(e->memory);
    td_handlers_unref(e->set);
    e->set = NULL;
    e->memory = NULL;
}

static inline int engine_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline void engine_free(engine *e) {
    td_list *node;
    if (!e) return;
    engine_stop(e);
    while ((node = td_list_shift(&e->ended)) != NULL) td_job_free(td_container(node, td_job, link));
    nftw(e->dir, engine_remove, 8, FTW_DEPTH | FTW_PHYS);
    pthread_mutex_destroy(&e->mutex);
    pthread_cond_destroy(&e->changed);
    free(e);
}

/* ---- Jobs ---- */

static inline td_job *engine_job(engine *e, const char *task, const char *args) {
    td_job *job = calloc(1, sizeof *job);
    assert(job);
    job->claimed = (td_claimed){ .id = ++e->ids,
                                 .task = td_strdup(task),
                                 .queue = td_strdup("default"),
                                 .args = td_strdup(args),
                                 .tags = td_strdup("[]"),
                                 .run = 1,
                                 .attempt = 1,
                                 .max_attempts = 5 };
    job->token = job->claimed.id;
    job->result.delay_s = -1;
    job->overdue_ns = UINT64_MAX;
    td_list_init(&job->running);
    return job;
}

/* engine_give hands a job to an executor. Returns its id. */
static inline int64_t engine_give(engine *e, int executor, td_job *job) {
    td_list one;
    int64_t id = job->claimed.id;
    td_list_init(&one);
    td_list_push(&one, &job->link);
    int rc = td_executor_run(e->executors[executor], &one);
    assert(rc == 0);
    (void)rc;
    return id;
}

/* engine_run has a task run, on the executors in turn. Returns the job's id. */
static inline int64_t engine_run(engine *e, const char *task, const char *args) {
    return engine_give(e, e->turn++ % e->threads, engine_job(e, task, args));
}

/* engine_do has a task whose body is ENGINE_RUN do something. */
static inline int64_t engine_do(engine *e, const char *task, const char *code) {
    td_buf args = { 0 };
    td_buf_puts(&args, "{\"code\":");
    td_buf_json(&args, code, strlen(code));
    td_buf_putc(&args, '}');
    int64_t id = engine_run(e, task, args.data);
    td_buf_free(&args);
    return id;
}

/* engine_code has the task "run" do something. */
static inline int64_t engine_code(engine *e, const char *code) {
    return engine_do(e, "run", code);
}

/* engine_find returns the ended job of this id (0: any), taken out, or NULL. Under the mutex. */
static inline td_job *engine_find(engine *e, int64_t id) {
    for (td_list *node = e->ended.next; node != &e->ended; node = node->next) {
        td_job *job = td_container(node, td_job, link);
        if (id && job->claimed.id != id) continue;
        td_list_remove(node);
        e->count--;
        return job;
    }
    return NULL;
}

/* engine_wait returns the job of this id (0: any) when it has ended, the caller's to free; NULL after timeout_s. */
static inline td_job *engine_wait(engine *e, int64_t id, int timeout_s) {
    struct timespec deadline;
    td_job *job;
    int rc = 0;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += timeout_s;
    pthread_mutex_lock(&e->mutex);
    while (!(job = engine_find(e, id)) && rc == 0) rc = pthread_cond_timedwait(&e->changed, &e->mutex, &deadline);
    pthread_mutex_unlock(&e->mutex);
    return job;
}

/* ---- The process ---- */

/* engine_count counts what is in a folder of /proc, or the lines of a file of it. */
static inline long engine_count(const char *path) {
    long n = 0;
    DIR *dir = opendir(path);
    if (dir) {
        while (readdir(dir)) n++;
        closedir(dir);
        return n - 2;
    }
    FILE *file = fopen(path, "r");
    for (int c; file && (c = getc(file)) != EOF;) n += c == '\n';
    if (file) fclose(file);
    return n;
}

/* engine_resident_kib: what the process has resident. */
static inline long engine_resident_kib(void) {
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
    if (file) fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

#endif
