/* engine_test.c: executors and their workers under handlers that misbehave (misdeeds.h), without a database. */
#include "engine_fixture.h"
#include "misdeeds.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { NAPPERS = 300, AT_ONCE = 4, THREADS = 2, WAIT_S = 60 };

#define assert_contains(text, part)                                                                                    \
    do {                                                                                                               \
        const char *text_ = (text);                                                                                    \
        if (!text_ || !strstr(text_, (part)))                                                                          \
            fail_msg("%s: \"%s\" does not contain \"%s\"", what, text_ ? text_ : "NULL", part);                        \
    } while (0)

/* must_end waits for the end of a job. */
static td_job *must_end(engine *e, int64_t id) {
    td_job *job = engine_wait(e, id, WAIT_S);
    if (!job) fail_msg("job %lld did not end", (long long)id);
    return job;
}

static void assert_outcome(const td_job *job, const char *what, td_outcome outcome) {
    const td_result *r = &job->result;
    if (r->outcome == outcome) return;
    fail_msg("%s: %s, not %s: %s\n%s", what, td_outcome_name(r->outcome), td_outcome_name(outcome),
             r->error ? r->error : "", r->traceback ? r->traceback : "");
}

/* assert_as_new has jobs look around on all workers there may be. */
static void assert_as_new(engine *e) {
    int64_t ids[64];
    for (size_t i = 0; i < TD_COUNT(ids); i++) ids[i] = engine_do(e, "calm", "ctx:sleep(0.05) " LOOK_AROUND);
    for (size_t i = 0; i < TD_COUNT(ids); i++) {
        td_job *job = must_end(e, ids[i]);
        assert_outcome(job, "looking around", TD_COMPLETED);
        assert_string_equal(job->result.result, "\"as new\"");
        td_job_free(job);
    }
}

static int setup(void **state) {
    engine *e = *state = engine_new("timeout = 1, memory_limit = 24,");
    engine_handler(e, "calm", "timeout = 50, memory_limit = 24,", ENGINE_RUN);
    return 0;
}

static int teardown(void **state) {
    engine_free(*state);
    return 0;
}

/* ---- Misdeeds, beside jobs that wait ---- */

static void check_misdeed(const misdeed *m, const td_job *job) {
    const char *what = m->name;
    assert_outcome(job, what, m->outcome);
    if (m->error) assert_contains(job->result.error, m->error);
    if (m->trace) assert_contains(job->result.traceback, m->trace);
    if (job->result.error && strlen(job->result.error) > 8192) fail_msg("%s: the error is too long", what);
    if (m->outcome == TD_TIMEOUT && job->wall_us > 1500000)
        fail_msg("%s: ended only after %lld ms", what, (long long)job->wall_us / 1000);
}

/* do_misdeed starts one. Those that are not to run into their timeout have a long one: the machine may be busy. */
static int64_t do_misdeed(engine *e, const misdeed *m) {
    return engine_do(e, m->outcome == TD_TIMEOUT ? "run" : "calm", m->code);
}

/* misbehave does some of the misdeeds at once. Who naps beside them must not notice. */
static void misbehave(engine *e, size_t from, size_t to) {
    int64_t naps[NAPPERS], ids[AT_ONCE];
    for (int i = 0; i < NAPPERS; i++) naps[i] = engine_run(e, "nap", "{}");
    for (size_t i = from; i < to; i++) ids[i - from] = do_misdeed(e, &misdeeds[i]);
    for (size_t i = from; i < to; i++) {
        td_job *job = must_end(e, ids[i - from]);
        check_misdeed(&misdeeds[i], job);
        td_job_free(job);
    }
    for (int i = 0; i < NAPPERS; i++) {
        td_job *job = must_end(e, naps[i]);
        assert_outcome(job, misdeeds[from].name, TD_COMPLETED);
        if (job->wall_us > 5000000) fail_msg("%s: a nap took %lld us", misdeeds[from].name, (long long)job->wall_us);
        td_job_free(job);
    }
}

static void misdeeds_end_and_neighbours_do_not_notice(void **state) {
    engine *e = *state;
    engine_handler(e, "nap", "", "for i = 1, 10 do ctx:sleep(0.1) end");
    engine_start(e, THREADS);
    for (size_t i = 0; i < MISDEEDS; i += AT_ONCE) misbehave(e, i, i + AT_ONCE < MISDEEDS ? i + AT_ONCE : MISDEEDS);
    assert_as_new(e);
}

/* The same one after another on one worker, as long as it lasts, so that each finds what the last one left. */
static void what_follows_on_the_same_worker_is_not_harmed(void **state) {
    engine *e = *state;
    engine_start(e, 1);
    for (size_t i = 0; i < MISDEEDS; i++) {
        if (misdeeds[i].outcome == TD_TIMEOUT) continue;
        td_job *job = must_end(e, do_misdeed(e, &misdeeds[i]));
        check_misdeed(&misdeeds[i], job);
        td_job_free(job);
        job = must_end(e, engine_do(e, "calm", LOOK_AROUND));
        assert_outcome(job, misdeeds[i].name, TD_COMPLETED);
        td_job_free(job);
    }
}

/* ---- Ends ---- */

static void a_close_variable_has_its_grace(void **state) {
    engine *e = *state;
    engine_start(e, 1);
    const char *what = "the grace";
    td_job *job = must_end(e, engine_code(e, "local x <close> = setmetatable({}, {__close = function() ctx.log:info("
                                             "'closed ' .. tostring(ctx:cancelled())) end}) while true do end"));
    assert_outcome(job, what, TD_TIMEOUT);
    assert_contains(job->log, "closed true");
    assert_contains(job->result.error, "the job ran into its timeout of 1 s");
    td_job_free(job);
}

static void ends_from_outside_reach_a_job_where_it_is(void **state) {
    engine *e = *state;
    engine_handler(e, "forever", "timeout = 1000,", ENGINE_RUN);
    engine_start(e, 1);
    static const char *const codes[] = { "while true do end", "ctx:sleep(1000)",
                                         "while true do pcall(ctx.sleep, ctx, 9) end",
                                         "string.find(('a'):rep(40), ('a?'):rep(40) .. ('a'):rep(40))" };
    for (size_t i = 0; i < TD_COUNT(codes); i++) {
        int64_t id = engine_do(e, "forever", codes[i]);
        assert_int_equal(td_executor_end(e->executors[0], id, id + 1, TD_CANCELLED, "of another lease"), 0);
        assert_int_equal(td_executor_end(e->executors[0], id, id, TD_CANCELLED, "no longer wanted"), 0);
        td_job *job = must_end(e, id);
        assert_outcome(job, codes[i], TD_CANCELLED);
        assert_string_equal(job->result.error, "no longer wanted");
        td_job_free(job);
    }
}

static void the_memory_limit_is_the_tasks(void **state) {
    engine *e = *state;
    const char *what = "memory";
    engine_handler(e, "small", "memory_limit = 2,", "local t = {} for i = 1, 1e9 do t[i] = {} end");
    engine_handler(e, "fits", "memory_limit = 40,", "return #('x'):rep(18 << 20)");
    engine_start(e, 1);
    td_job *job = must_end(e, engine_run(e, "small", "{}"));
    assert_outcome(job, what, TD_MEMORY);
    assert_string_equal(job->result.error, "the job needed more memory than its limit of 2 MiB");
    assert_true(job->peak_bytes <= 2 << 20 && job->peak_bytes > 1 << 20);
    td_job_free(job);
    job = must_end(e, engine_run(e, "fits", "{}"));
    assert_outcome(job, what, TD_COMPLETED);
    assert_true(job->peak_bytes > 36 << 20);
    td_job_free(job);
}

static void recursion_with_enough_memory_overflows_the_stack(void **state) {
    engine *e = *state;
    const char *what = "recursion";
    engine_handler(e, "deep", "timeout = 50, memory_limit = 200,", "local function f() return 1 + f() end return f()");
    engine_start(e, 1);
    td_job *job = must_end(e, engine_run(e, "deep", "{}"));
    assert_outcome(job, what, TD_FAILED);
    assert_contains(job->result.error, "stack overflow");
    assert_contains(job->result.traceback, "(skipping");
    td_job_free(job);
}

static void what_a_job_keeps_in_memory_does_not_count_for_the_next(void **state) {
    engine *e = *state;
    engine_handler(e, "hoard", "memory_limit = 40,",
                   "cache = cache or {} package.loaded.hoard_cache = {} "
                   "package.loaded.hoard_cache[1] = ('x'):rep(19 << 20)");
    engine_handler(e, "needs", "memory_limit = 40,", "return #('y'):rep(18 << 20)");
    engine_start(e, 1);
    for (int i = 0; i < 3; i++) {
        td_job *job = must_end(e, engine_run(e, "hoard", "{}"));
        assert_outcome(job, "hoard", TD_COMPLETED);
        td_job_free(job);
        job = must_end(e, engine_run(e, "needs", "{}"));
        assert_outcome(job, "needs", TD_COMPLETED);
        td_job_free(job);
    }
}

static void a_failure_stays_one_when_its_backoff_does_not_end(void **state) {
    engine *e = *state;
    const char *what = "backoff";
    engine_handler(e, "odd", "timeout = 0.2, backoff = function() while true do end end,", "error('the cause', 0)");
    engine_start(e, 1);
    td_job *job = must_end(e, engine_run(e, "odd", "{}"));
    assert_outcome(job, what, TD_FAILED);
    assert_string_equal(job->result.error, "the cause");
    assert_true(job->wall_us < 700000);
    assert_contains(job->result.traceback, "odd.lua");
    td_job_free(job);
}

static void processor_time_and_wall_time_are_told_apart(void **state) {
    engine *e = *state;
    engine_start(e, 1);
    td_job *job = must_end(e, engine_do(e, "calm", "local c = os.clock() while os.clock() - c < 0.2 do end"));
    assert_outcome(job, "computing", TD_COMPLETED);
    assert_true(job->cpu_us > 100000 && job->cpu_us <= job->wall_us + 20000);
    td_job_free(job);
    job = must_end(e, engine_code(e, "ctx:sleep(0.2)"));
    assert_true(job->wall_us >= 200000 && job->cpu_us < 100000);
    td_job_free(job);
}

/* ---- Workers ---- */

/* write_moody writes a handler whose file does something the third time that it is read: twice it is checked. */
static void write_moody(engine *e, const char *what) {
    td_buf text = { 0 };
    td_buf_printf(&text,
                  "local f = io.open('%s/seen', 'a+') f:write('x') f:seek('set') local n = #f:read('a') f:close() "
                  "if n > 2 then %s end return { name = function() return 'moody' end, timeout = 0.3, handle = "
                  "function() end }",
                  e->dir, what);
    engine_file(e, "moody.lua", text.data);
    td_buf_free(&text);
}

static void handlers_that_do_not_load_end_their_jobs_only(void **state) {
    engine *e = *state;
    const char *what = "loading";
    write_moody(e, "while true do end");
    engine_start(e, 1);
    td_job *job = must_end(e, engine_run(e, "moody", "{}"));
    assert_outcome(job, what, TD_TIMEOUT);
    assert_contains(job->result.traceback, "moody.lua:1:");
    td_job_free(job);
}

static void a_handler_that_fails_to_load_fails_the_attempt(void **state) {
    engine *e = *state;
    const char *what = "loading";
    write_moody(e, "error('not today')");
    engine_start(e, 1);
    td_job *job = must_end(e, engine_run(e, "moody", "{}"));
    assert_outcome(job, what, TD_FAILED);
    assert_contains(job->result.error, "not today");
    td_job_free(job);
}

static void workers_are_used_again_and_remade_after_a_stop(void **state) {
    engine *e = *state;
    engine_handler(e, "mark", "", "package.loaded.seen = (package.loaded.seen or 0) + 1 return package.loaded.seen");
    engine_start(e, 1);
    static const char *const expected[] = { "1", "2", "3" };
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            td_job *job = must_end(e, engine_run(e, "mark", "{}"));
            assert_string_equal(job->result.result, expected[i]);
            td_job_free(job);
        }
        td_job_free(must_end(e, engine_code(e, "while true do end")));
    }
    assert_true(engine_workers(e) <= 1);
}

static void jobs_wait_while_the_process_has_no_memory(void **state) {
    engine *e = *state;
    enum { JOBS = 12 };
    int64_t ids[JOBS];
    e->memory_max = 40 << 20;
    engine_handler(e, "big", "memory_limit = 40,",
                   "local s = ('x'):rep(15 << 20) ctx:sleep(0.05) return collectgarbage('count') // 1024");
    engine_start(e, 1);
    for (int i = 0; i < JOBS; i++) ids[i] = engine_run(e, "big", "{}");
    size_t most = 0;
    for (int i = 0; i < JOBS; i++) {
        td_job *job = must_end(e, ids[i]);
        assert_outcome(job, "big", TD_COMPLETED);
        td_job_free(job);
        size_t now = atomic_load(td_tally_bytes(e->memory));
        if (now > most) most = now;
    }
    assert_true(most > 0);
}

static void a_finalizer_left_behind_costs_the_worker_only(void **state) {
    engine *e = *state;
    engine_start(e, 1);
    for (int i = 0; i < 20; i++) {
        td_job *job = must_end(e, engine_code(e, "setmetatable({}, {__gc = function() while true do end end})"));
        assert_outcome(job, "leaving a finalizer", TD_COMPLETED);
        assert_true(job->wall_us < 900000);
        td_job_free(job);
        job = must_end(e, engine_code(e, "for i = 1, 10000 do local x = {i} end collectgarbage() return 1"));
        assert_outcome(job, "after it", TD_COMPLETED);
        assert_true(job->cpu_us < 500000);
        td_job_free(job);
    }
}

/* What the process has: its maps, descriptors and threads. */
typedef struct holdings {
    long maps, fds, threads;
} holdings;

static holdings count_holdings(void) {
    return (holdings){ engine_count("/proc/self/maps"), engine_count("/proc/self/fd"),
                       engine_count("/proc/self/task") };
}

/* kill_many runs each misdeed several times, with hardly any time for it. */
static void kill_many(engine *e, int count) {
    for (int i = 0; i < count; i++) {
        td_job_free(must_end(e, engine_do(e, "short", misdeeds[i % MISDEEDS].code)));
    }
}

static void many_kills_leave_the_process_as_it_was(void **state) {
    engine *e = *state;
    engine_handler(e, "short", "timeout = 0.002, memory_limit = 24, ", ENGINE_RUN);
    holdings before = { 0 };
    for (int round = 0; round < 3; round++) { /* the first is for what is made once */
        engine_start(e, THREADS);
        kill_many(e, round == 0 ? MISDEEDS : 3 * MISDEEDS);
        assert_true(engine_workers(e) <= 2 * THREADS);
        engine_stop(e);
        holdings now = count_holdings();
        if (round > 0) {
            assert_int_equal(now.fds, before.fds);
            assert_int_equal(now.threads, before.threads);
            assert_true(now.maps <= before.maps + 40); /* malloc's */
        }
        before = now;
    }
}

/* ---- Without signals ---- */

static void without_signals_loops_still_end_and_others_go_on(void **state) {
    engine *e = *state;
    int64_t naps[20], ids[20];
    size_t count = 0;
    e->signals = false;
    engine_handler(e, "nap", "", "for i = 1, 10 do ctx:sleep(0.1) end");
    engine_start(e, THREADS);
    for (size_t i = 0; i < TD_COUNT(naps); i++) naps[i] = engine_run(e, "nap", "{}");
    for (size_t i = 0; i < TD_COUNT(ids); i++)
        if (!strstr(misdeeds[i].code, "xpcall(error, ")) ids[count++] = engine_code(e, misdeeds[i].code);
    for (size_t i = 0; i < count; i++) {
        td_job *job = must_end(e, ids[i]);
        assert_outcome(job, "a loop", TD_TIMEOUT);
        td_job_free(job);
    }
    for (size_t i = 0; i < TD_COUNT(naps); i++) {
        td_job *job = must_end(e, naps[i]);
        assert_outcome(job, "nap", TD_COMPLETED);
        td_job_free(job);
    }
}

/* ---- Foreign code ---- */

typedef struct stuck_report {
    sem_t told;
    _Atomic int64_t job;
} stuck_report;

static void on_stuck(void *arg, int64_t job, uint64_t ms) {
    stuck_report *r = arg;
    (void)ms;
    atomic_store(&r->job, job);
    sem_post(&r->told);
}

/* The only foreign code at hand that blocks: a FIFO that nobody writes is opened by the loader, not by the runtime's
 * io.
 */
static void a_thread_that_is_stuck_is_told_of_and_left_alone(void **state) {
    engine *e = *state;
    stuck_report report = { .job = 0 };
    char fifo[100], body[200];
    sem_init(&report.told, 0, 0);
    snprintf(fifo, sizeof fifo, "%s/fifo", e->dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    snprintf(body, sizeof body, "loadfile('%s')", fifo);
    engine_handler(e, "blocks", "", body);
    engine_start_with(e, 1, (td_executor_config){ .stuck = on_stuck, .stuck_arg = &report });
    int64_t waits = engine_code(e, "ctx:sleep(1000)");
    int64_t id = engine_run(e, "blocks", "{}");
    sem_wait(&report.told);
    assert_int_equal(atomic_load(&report.job), id);
    td_executor_disown(e->executors[0], id);
    int64_t late = engine_code(e, "return 1");
    FILE *file = fopen(fifo, "w"); /* lets go of it */
    assert_non_null(file);
    fclose(file);
    td_job *job = must_end(e, id);
    assert_outcome(job, "what blocked", TD_COMPLETED);
    td_job_free(job);
    job = must_end(e, waits);
    assert_outcome(job, "what waited", TD_RETURNED);
    td_job_free(job);
    job = must_end(e, late);
    assert_outcome(job, "what came later", TD_RETURNED);
    td_job_free(job);
    sem_destroy(&report.told);
}

static void an_executor_is_freed_though_its_thread_is_stuck(void **state) {
    engine *e = *state;
    char fifo[100], body[200];
    stuck_report report = { .job = 0 };
    sem_init(&report.told, 0, 0);
    snprintf(fifo, sizeof fifo, "%s/fifo", e->dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    snprintf(body, sizeof body, "loadfile('%s') while true do ctx:sleep(0.01) end", fifo);
    engine_handler(e, "blocks", "", body);
    long threads = engine_count("/proc/self/task");
    engine_start_with(e, 1, (td_executor_config){ .stuck = on_stuck, .stuck_arg = &report });
    engine_code(e, "ctx:sleep(1000)");
    engine_run(e, "blocks", "{}");
    sem_wait(&report.told);
    engine_code(e, "return 1"); /* waits for the thread */
    engine_stop(e);
    FILE *file = fopen(fifo, "w");
    assert_non_null(file);
    fclose(file);
    for (int i = 0; i < 10000 && engine_count("/proc/self/task") > threads; i++) usleep(1000);
    assert_true(engine_count("/proc/self/task") <= threads);
    sem_destroy(&report.told);
}

/* ---- Jobs that come and go ---- */

static void *give_many(void *arg) {
    engine *e = arg;
    for (int i = 0; i < 500; i++) {
        td_job *job = engine_job(e, "run", "{\"code\":\"return 1\"}");
        job->claimed.id = job->token = 1;
        engine_give(e, i % e->threads, job);
        (void)!td_executor_end(e->executors[i % e->threads], 0, 0, TD_CANCELLED, NULL);
    }
    return NULL;
}

static void jobs_given_and_ended_from_several_threads_all_end(void **state) {
    engine *e = *state;
    pthread_t threads[3];
    engine_start(e, THREADS);
    for (size_t i = 0; i < TD_COUNT(threads); i++) assert_int_equal(pthread_create(&threads[i], NULL, give_many, e), 0);
    for (int i = 0; i < 1500; i++) {
        td_job *job = must_end(e, 0);
        assert_true(job->result.outcome == TD_COMPLETED || job->result.outcome == TD_CANCELLED);
        td_job_free(job);
    }
    for (size_t i = 0; i < TD_COUNT(threads); i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) assert_int_equal(td_executor_load(e->executors[i]), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest by_signals[] = {
        TEST(misdeeds_end_and_neighbours_do_not_notice), TEST(what_follows_on_the_same_worker_is_not_harmed),
        TEST(ends_from_outside_reach_a_job_where_it_is), TEST(a_finalizer_left_behind_costs_the_worker_only),
        TEST(many_kills_leave_the_process_as_it_was),
    };
    const struct CMUnitTest others[] = {
        TEST(a_close_variable_has_its_grace),
        TEST(the_memory_limit_is_the_tasks),
        TEST(recursion_with_enough_memory_overflows_the_stack),
        TEST(what_a_job_keeps_in_memory_does_not_count_for_the_next),
        TEST(a_failure_stays_one_when_its_backoff_does_not_end),
        TEST(processor_time_and_wall_time_are_told_apart),
        TEST(handlers_that_do_not_load_end_their_jobs_only),
        TEST(a_handler_that_fails_to_load_fails_the_attempt),
        TEST(workers_are_used_again_and_remade_after_a_stop),
        TEST(jobs_wait_while_the_process_has_no_memory),
        TEST(without_signals_loops_still_end_and_others_go_on),
        TEST(a_thread_that_is_stuck_is_told_of_and_left_alone),
        TEST(an_executor_is_freed_though_its_thread_is_stuck),
        TEST(jobs_given_and_ended_from_several_threads_all_end),
    };
    int failed = ENGINE_SIGNALS ? cmocka_run_group_tests(by_signals, NULL, NULL) : 0;
    return failed + cmocka_run_group_tests(others, NULL, NULL);
}
