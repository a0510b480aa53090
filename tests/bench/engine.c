/* engine.c: what the engine costs, without a database: `make bench-engine`. Prints a table.

   Costs are processor time of the executor's thread, so that they hold on a busy machine, too; latencies are what they
   are, and mean something on an idle one only. */
#include "../unit/engine_fixture.h"
#include "../unit/misdeeds.h"

#include "../../runtime/engine/worker.h"
#include "../../runtime/loop/private.h"

#include <lauxlib.h>
#include <lualib.h>
#include <malloc.h>

enum { MS = 1000000, WAIT_S = 300 };

static double thread_us(pthread_t os) {
    clockid_t clock;
    struct timespec t = { 0 };
    if (pthread_getcpuclockid(os, &clock) == 0) clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double now_ms(void) {
    return (double)td_now_ns() / 1e6;
}

static void heading(const char *text) {
    printf("\n%s\n", text);
    fflush(stdout);
}

static void row(const char *what, double value, const char *unit) {
    printf("  %-56s %10.3f %s\n", what, value, unit);
    fflush(stdout);
}

/* wait_all waits for so many ends, and checks the first that is not as it should be. */
static void wait_all(engine *e, int count, td_outcome outcome) {
    for (int i = 0; i < count; i++) {
        td_job *job = engine_wait(e, 0, WAIT_S);
        if (!job || job->result.outcome != outcome) {
            fprintf(stderr, "a job did not end as it should: %s\n", job ? job->result.error : "not at all");
            exit(1);
        }
        td_job_free(job);
    }
}

/* ---- One job ---- */

/* plain measures lua_pcall of the same function in a plain state, and with its arguments decoded. */
static void plain(const char *args) {
    enum { CALLS = 300000 };
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    (void)luaL_dostring(L, "return function(ctx, args) end");
    double begin = thread_us(pthread_self());
    for (int i = 0; i < CALLS; i++) {
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_pushnil(L);
        lua_pcall(L, 2, 0, 0);
    }
    row("plain lua_pcall", (thread_us(pthread_self()) - begin) / CALLS, "us");
    begin = thread_us(pthread_self());
    for (int i = 0; i < CALLS; i++) {
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        td_value_push(L, args, strlen(args));
        lua_pcall(L, 2, 0, 0);
    }
    row("plain lua_pcall, arguments decoded", (thread_us(pthread_self()) - begin) / CALLS, "us");
    lua_close(L);
}

/* give_many hands over so many jobs at once, of one task. */
static void give_many(engine *e, const char *task, const char *args, int count) {
    td_list jobs;
    td_list_init(&jobs);
    for (int i = 0; i < count; i++) td_list_push(&jobs, &engine_job(e, task, args)->link);
    if (td_executor_run(e->executors[e->turn++ % e->threads], &jobs) < 0) exit(1);
}

/* Who takes ended jobs here is fast, so that it is the engine that is measured. */
typedef struct sink {
    _Atomic int left;
    sem_t done;
} sink;

static void sink_job(void *arg, td_job *job) {
    sink *s = arg;
    td_job_free(job);
    if (atomic_fetch_sub(&s->left, 1) == 1) sem_post(&s->done);
}

/* sink_many runs so many jobs at once to their ends. */
static void sink_many(engine *e, sink *s, const char *args, int count) {
    atomic_store(&s->left, count);
    give_many(e, "noop", args, count);
    sem_wait(&s->done);
}

static void one_job(void) {
    enum { JOBS = 200000, BATCH = 500 };
    static const char args[] = "{\"user_id\": 12345, \"email\": \"somebody@example.com\", \"retry\": false}";
    heading("one job that does nothing");
    plain(args);
    engine *e = engine_new("");
    sink s = { .left = 0 };
    sem_init(&s.done, 0, 0);
    engine_handler(e, "noop", "", "");
    e->log.level = TIDEMILL_WARN;
    engine_start_with(e, 1, (td_executor_config){ .ended = sink_job, .arg = &s });
    sink_many(e, &s, args, BATCH);
    pthread_t os = e->executors[0]->thread->os;
    double begin = thread_us(os);
    for (int i = 0; i < JOBS; i += BATCH) sink_many(e, &s, args, BATCH);
    row("in the engine, arguments decoded, 500 at a time", (thread_us(os) - begin) / JOBS, "us");
    begin = thread_us(os);
    for (int i = 0; i < JOBS / 10; i++) sink_many(e, &s, args, 1);
    row("the same, one at a time (with a wake of the thread)", (thread_us(os) - begin) / (JOBS / 10), "us");
    td_state *state = NULL;
    tidemill_error err;
    if (td_state_new(e->set, td_ctx_modules, td_ctx_modules_count, 0, NULL, &state, &err) < 0) exit(1);
    begin = thread_us(pthread_self());
    for (int i = 0; i < JOBS; i++) td_state_ready(state);
    row("of which: the globals made as new", (thread_us(pthread_self()) - begin) / JOBS, "us");
    td_state_free(state);
    engine_free(e);
    sem_destroy(&s.done);
}

/* ---- Switches ---- */

static sem_t switched;

static void yield_often(void *arg) {
    for (int i = 0; i < 1000000; i++) td_fiber_yield();
    (void)arg;
    sem_post(&switched);
}

static void start_two(void *arg) {
    (void)arg;
    for (int i = 0; i < 2; i++) td_fiber_start(td_fiber_new(yield_often, NULL, 0));
}

static void switches(void) {
    td_thread *thread;
    heading("switches");
    sem_init(&switched, 0, 0);
    if (td_thread_start(&thread, "bench", NULL) < 0 || td_thread_post(thread, start_two, NULL) < 0) exit(1);
    double begin = thread_us(thread->os);
    sem_wait(&switched);
    sem_wait(&switched);
    row("a fiber gives way and goes on (scheduler included)", (thread_us(thread->os) - begin) / 2000000 * 1000, "ns");
    td_thread_stop(thread);
    sem_destroy(&switched);
}

/* ---- Workers ---- */

static void many_workers(int count, bool sleep_again) {
    char title[80];
    engine *e = engine_new("");
    engine_handler(e, "nap", "", "ctx:sleep(1)");
    engine_start(e, 1);
    malloc_trim(0);
    snprintf(title, sizeof title, "%d workers", count);
    heading(title);
    pthread_t os = e->executors[0]->thread->os;
    double cpu = thread_us(os), begin = now_ms();
    give_many(e, "nap", "{}", count);
    while (engine_workers(e) < count || e->executors[0]->unopened > 0) usleep(1000);
    row("made: processor time each", (thread_us(os) - cpu) / count, "us");
    row("mapped for Lua each", (double)atomic_load(td_tally_bytes(e->memory)) / count / 1024, "KiB");
    row("resident, the whole process", (double)engine_resident_kib() / 1024, "MiB");
    wait_all(e, count, TD_COMPLETED);
    row("first round of sleeping 1 s, workers made meanwhile", now_ms() - begin, "ms");
    for (int i = 0; sleep_again && i < 3; i++) {
        begin = now_ms();
        cpu = thread_us(os);
        give_many(e, "nap", "{}", count);
        wait_all(e, count, TD_COMPLETED);
        row("a further round", now_ms() - begin, "ms");
        row("its processor time a job", (thread_us(os) - cpu) / count, "us");
    }
    row("resident at the end", (double)engine_resident_kib() / 1024, "MiB");
    engine_free(e);
}

/* ---- Lateness ---- */

enum { SLEEPERS = 50, NAPS = 100 };

typedef struct sleeper {
    uint64_t late_ns[NAPS];
    sem_t *done;
} sleeper;

static void sleep_often(void *arg) {
    sleeper *s = arg;
    for (int i = 0; i < NAPS; i++) {
        uint64_t due_ns = td_now_ns() + 10 * (uint64_t)MS;
        (void)td_wait_until(due_ns, NULL);
        s->late_ns[i] = td_now_ns() - due_ns;
    }
    sem_post(s->done);
}

static void start_sleepers(void *arg) {
    sleeper *s = arg;
    for (int i = 0; i < SLEEPERS; i++) td_fiber_start(td_fiber_new(sleep_often, &s[i], 0));
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void lateness(const char *what, const char *code, int per_thread, int threads) {
    static sleeper sleepers[ENGINE_THREADS_MAX][SLEEPERS];
    static uint64_t all[ENGINE_THREADS_MAX * SLEEPERS * NAPS];
    char title[200];
    sem_t done;
    size_t n = 0;
    sem_init(&done, 0, 0);
    engine *e = engine_new("timeout = 600,");
    engine_start(e, threads);
    for (int i = 0; i < threads * per_thread; i++) engine_code(e, code);
    for (int t = 0; t < threads; t++) {
        for (int i = 0; i < SLEEPERS; i++) sleepers[t][i].done = &done;
        (void)!td_thread_post(e->executors[t]->thread, start_sleepers, sleepers[t]);
    }
    for (int i = 0; i < threads * SLEEPERS; i++) sem_wait(&done);
    for (int t = 0; t < threads; t++)
        for (int i = 0; i < SLEEPERS; i++)
            for (int k = 0; k < NAPS; k++) all[n++] = sleepers[t][i].late_ns[k];
    qsort(all, n, sizeof all[0], by_size);
    snprintf(title, sizeof title, "  %-40s p50 %7.3f  p90 %7.3f  p99 %7.3f  p99.9 %7.3f  worst %7.3f ms\n", what,
             (double)all[n / 2] / 1e6, (double)all[n * 9 / 10] / 1e6, (double)all[n * 99 / 100] / 1e6,
             (double)all[n * 999 / 1000] / 1e6, (double)all[n - 1] / 1e6);
    fputs(title, stdout);
    fflush(stdout);
    for (int t = 0; t < threads; t++) (void)!td_executor_end(e->executors[t], 0, 0, TD_CANCELLED, NULL);
    engine_free(e);
    sem_destroy(&done);
}

/* ---- Kills ---- */

static void kill_latency(void) {
    enum { REPEATS = 5, TIMEOUT_MS = 100 };
    heading("kills: how long after the deadline (0.1 s) a job has ended, of 5: median and worst, ms");
    engine *e = engine_new("timeout = 0.1, memory_limit = 24,");
    double worst_of_all = 0;
    engine_start(e, 1);
    for (size_t i = 0; i < MISDEEDS; i++) {
        uint64_t late_us[REPEATS];
        if (misdeeds[i].outcome != TD_TIMEOUT) continue;
        for (int k = 0; k < REPEATS; k++) {
            td_job *job = engine_wait(e, engine_code(e, misdeeds[i].code), WAIT_S);
            if (!job || job->result.outcome != TD_TIMEOUT) {
                fprintf(stderr, "%s: %s\n", misdeeds[i].name, job ? td_outcome_name(job->result.outcome) : "no end");
                exit(1);
            }
            late_us[k] = job->wall_us > TIMEOUT_MS * 1000 ? (uint64_t)job->wall_us - TIMEOUT_MS * 1000 : 0;
            td_job_free(job);
        }
        qsort(late_us, REPEATS, sizeof late_us[0], by_size);
        double worst = (double)late_us[REPEATS - 1] / 1e3;
        printf("  %-56s %10.3f %10.3f\n", misdeeds[i].name, (double)late_us[REPEATS / 2] / 1e3, worst);
        fflush(stdout);
        if (worst > worst_of_all) worst_of_all = worst;
    }
    row("worst of all", worst_of_all, "ms");
    engine_free(e);
}

static void show(const char *when) {
    printf("  %-20s resident %7ld KiB  malloc'd %7zu KiB  maps %4ld  descriptors %3ld  threads %2ld\n", when,
           engine_resident_kib(), mallinfo2().uordblks / 1024, engine_count("/proc/self/maps"),
           engine_count("/proc/self/fd"), engine_count("/proc/self/task"));
    fflush(stdout);
}

static void many_kills(int count) {
    engine *e = engine_new("timeout = 0.001, memory_limit = 24,");
    int64_t outcomes[TD_RETURNED + 1] = { 0 };
    heading("10,000 killed jobs in a row");
    engine_start(e, 1);
    double begin = now_ms();
    for (int i = 0; i < count + 200; i++) {
        if (i == 200) show("after 200");
        td_job *job = engine_wait(e, engine_code(e, misdeeds[i % MISDEEDS].code), WAIT_S);
        if (!job) exit(1);
        outcomes[job->result.outcome]++;
        td_job_free(job);
    }
    show("after all");
    row("each", (now_ms() - begin) / (count + 200), "ms");
    printf("  timeout %lld, memory %lld, failed %lld, completed %lld\n", (long long)outcomes[TD_TIMEOUT],
           (long long)outcomes[TD_MEMORY], (long long)outcomes[TD_FAILED], (long long)outcomes[TD_COMPLETED]);
    engine_free(e);
}

int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : NULL;
#define WANTED(name) (!only || strcmp(only, name) == 0)
    if (WANTED("job")) one_job();
    if (WANTED("switch")) switches();
    if (WANTED("workers")) many_workers(1000, false);
    if (WANTED("workers")) many_workers(10000, true);
    if (WANTED("lateness")) {
        heading("how late sleepers of 10 ms wake, 50 on each of 2 threads, beside computing handlers on both");
        lateness("nobody", "return", 1, 2);
        lateness("one loop a thread", "while true do end", 1, 2);
        lateness("five loops a thread", "while true do end", 5, 2);
        lateness("a pattern a thread", "string.find(('a'):rep(40), ('a?'):rep(40) .. ('a'):rep(40))", 1, 2);
        lateness("formats", "while true do string.format('%99.99f', 1e308) end", 1, 2);
        lateness("garbage", "while true do local t = {} for i = 1, 1000 do t[i] = {i} end end", 1, 2);
    }
    if (WANTED("kill")) kill_latency();
    if (WANTED("kills")) many_kills(argc > 2 ? atoi(argv[2]) : 10000);
    return 0;
}
