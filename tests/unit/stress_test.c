/* stress_test.c: many Lua programs under preemption as often as possible, their results compared with those of an
   undisturbed run. TIDEMILL_STRESS_S says for how long (10 s). */
#include "engine_fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>

#include <cmocka.h>

#include "../../runtime/engine/worker.h"
#include "../../runtime/loop/private.h"

enum { THREADS = 2, AT_ONCE = 60 };

static const char *const programs[] = {
    "local r = 0 for i = 1, 300 do local s = ('ab'):rep(i % 37) .. i s = s:upper():reverse():gsub('%d+', function(d) "
    "return '<' .. d .. '>' end) r = r + #s + (s:find('>', 1, true) or 0) end return r",
    "local t = {} for i = 1, 3000 do t[i] = i * 7919 % 3001 end table.sort(t, function(a, b) return a > b end) local r "
    "= 0 "
    "for i = 2, #t do if t[i - 1] < t[i] then return -1 end r = r + t[i] * (i % 7) end return r",
    "local r = 0 for i = 1, 400 do local ok, e = pcall(function(x) if x % 3 == 0 then error({v = x}) elseif x % 3 == 1 "
    "then "
    "error('s' .. x) end return x end, i) if ok then r = r + e elseif type(e) == 'table' then r = r + e.v * 2 else r = "
    "r + "
    "#e end end return r",
    "local r = 0 for k = 1, 20 do local g = coroutine.wrap(function(n) for i = 1, n do local x = coroutine.yield(i * "
    "k) r = "
    "r + (x or 0) end return -1 end) local v = g(30) while v ~= -1 do r = r + v v = g(v % 5) end end return r",
    "local r = 0 local mt = {__index = function(t, k) return k * 2 end, __add = function(a, b) return a.v + b.v end, "
    "__tostring = function(s) return 'o' .. s.v end, __gc = function() r = r + 0 end} for i = 1, 500 do local a, b = "
    "setmetatable({v = i}, mt), setmetatable({v = i + 1}, mt) r = r + (a + b) + a[i] + #tostring(b) end return r",
    "local t = {} for i = 1, 2000 do t['k' .. i * 31 % 977] = i end local r = 0 for k, v in pairs(t) do r = r + v * #k "
    "end "
    "for i = 1, 1000 do t['k' .. i] = nil end for k, v in pairs(t) do r = r + v end return r",
    "local x = 0.1 for i = 1, 20000 do x = x * 1.0000001 + math.sin(i) * math.sqrt(i) end return "
    "string.format('%.17g', x)",
    "local o = {} for i = 1, 300 do o[i] = string.format('%5.3f %d %q %s', i / 7, i, 'a\\n' .. i, tostring(i % 2 == "
    "0)) end "
    "return table.concat(o, ';')",
    "local f = load('local a = ... local t = {} for i = 1, a do t[i] = function() return i + a end end local r = 0 for "
    "i = "
    "1, a do r = r + t[i]() end return r') return f(300)",
    "local s = ('a'):rep(20) return (s:find(('a?'):rep(15) .. ('a'):rep(15) .. 'b') or 0) + 7",
    "local t = table.pack(table.unpack({}, 1, 200)) table.move({1, 2, 3, 4, 5}, 1, 5, 2000, t) local r = 0 for i = "
    "2000, "
    "2004 do r = r + t[i] end collectgarbage('step') return r + t.n",
    "local r = {} for w in ('the quick brown fox '):rep(50):gmatch('%a+') do r[#r + 1] = w:sub(1, 2) .. #w end return "
    "table.concat(r)",
    "local p = string.pack('>I4s2d', 77, 'hello', 1.5) local a, b, c = string.unpack('>I4s2d', p) local r = 0 for i = "
    "1, 300 "
    "do r = r + utf8.len(utf8.char(i + 100, 0x4e00 + i)) end return a + #b + c + r",
    "local r = 0 for i = 1, 5 do ctx:sleep(0.001) r = r + i end return r",
    "local r = {} for i = 1, 200 do local x <close> = setmetatable({}, {__close = function() r[#r + 1] = i end}) end "
    "return "
    "#r",
    "local co = coroutine.wrap(function() table.sort({3, 1, 2, 5, 4}, function(a, b) ctx:sleep(0) return a < b end) "
    "coroutine.yield(7) return 8 end) return co() + co()",
    "local t = {} for i = 1, 5000 do t[i] = {i, tostring(i)} end collectgarbage() local r = 0 for i = 1, #t do r = r + "
    "#t[i][2] "
    "+ t[i][1] end return r",
    "local f = function(...) return select('#', ...) + (select(3, ...)) end local r = 0 for i = 1, 500 do r = r + f(i, "
    "i, i) "
    "end return r",
};

enum { PROGRAMS = TD_COUNT(programs) };

static char *expected[PROGRAMS];

/* run_quietly notes what each program comes to when nobody disturbs it. */
static void run_quietly(void) {
    engine *e = engine_new("timeout = 600,");
    e->signals = false;
    engine_start(e, 1);
    for (size_t i = 0; i < PROGRAMS; i++) {
        td_job *job = engine_wait(e, engine_code(e, programs[i]), 60);
        assert_non_null(job);
        if (job->result.outcome != TD_COMPLETED) fail_msg("program %zu: %s", i, job->result.error);
        expected[i] = td_strdup(job->result.result);
        td_job_free(job);
    }
    engine_free(e);
}

typedef struct disturber {
    engine *engine;
    pthread_t targets[THREADS];
    volatile bool stop;
    uint64_t signals;
} disturber;

/* disturb signals the executors' threads at random moments, some of them close together. */
static void *disturb(void *arg) {
    disturber *d = arg;
    for (uint64_t random = td_random64() | 1; !d->stop; d->signals++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        pthread_kill(d->targets[random % THREADS], SIGURG);
        for (uint64_t end = td_now_ns() + random % 32 * 1000; td_now_ns() < end && random % 8 != 0;) continue;
    }
    return NULL;
}

static int64_t numbers[AT_ONCE]; /* which job runs */
static size_t which[AT_ONCE];    /* which program */

static void begin(engine *e, int slot, size_t program) {
    which[slot] = program % PROGRAMS;
    numbers[slot] = engine_code(e, programs[which[slot]]);
}

static void check(const td_job *job, size_t program) {
    if (job->result.outcome != TD_COMPLETED)
        fail_msg("program %zu: %s: %s", program, td_outcome_name(job->result.outcome), job->result.error);
    assert_string_equal(job->result.result ? job->result.result : "", expected[program] ? expected[program] : "");
}

static void results_are_the_same_however_often_they_are_preempted(void **state) {
    (void)state;
    const char *seconds = getenv("TIDEMILL_STRESS_S");
    uint64_t end_ns = td_now_ns() + (seconds ? strtoull(seconds, NULL, 10) : 10) * UINT64_C(1000000000);
    uint64_t done = 0;
    pthread_t os;
    run_quietly();
    engine *e = engine_new("timeout = 600,");
    engine_start(e, THREADS);
    disturber d = { .engine = e };
    for (int i = 0; i < THREADS; i++) d.targets[i] = e->executors[i]->thread->os;
    assert_int_equal(pthread_create(&os, NULL, disturb, &d), 0);
    for (int i = 0; i < AT_ONCE; i++) begin(e, i, (size_t)i);
    while (td_now_ns() < end_ns) {
        td_job *job = engine_wait(e, 0, 60);
        assert_non_null(job);
        int slot = 0;
        while (numbers[slot] != job->claimed.id) slot++;
        check(job, which[slot]);
        td_job_free(job);
        begin(e, slot, (size_t)++done * 7);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        td_job *job = engine_wait(e, numbers[i], 60);
        assert_non_null(job);
        check(job, which[i]);
        td_job_free(job);
    }
    d.stop = true;
    pthread_join(os, NULL);
    engine_free(e);
    for (size_t i = 0; i < PROGRAMS; i++) free(expected[i]);
    print_message("%llu programs under %llu signals\n", (unsigned long long)done, (unsigned long long)d.signals);
    assert_true(done > PROGRAMS);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(results_are_the_same_however_often_they_are_preempted) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
