/* preempt_test.c: fibers that compute are made to give way, the watcher, stacks that overflow, and time accounted.

   What stands for the Lua interpreter here is code in a section of its own, so that its range is known. */
#include "loop_fixture.h"

#include <dirent.h>
#include <poll.h>

/* ---- Code that may be interrupted anywhere, and code that may not ---- */

#if defined(__SANITIZE_ADDRESS__)
#define PLAIN no_sanitize_address, no_sanitize_undefined, noinline
#elif defined(__SANITIZE_THREAD__)
#define PLAIN no_sanitize_thread, noinline
#else
#define PLAIN noinline
#endif
/* ThreadSanitizer keeps them back. */
#if defined(__SANITIZE_THREAD__)
#define SIGNALS_COME false
#else
#define SIGNALS_COME true
#endif
#define SAFE __attribute__((section("safe_text"), PLAIN))

extern char __start_safe_text[], __stop_safe_text[];

static td_preempt preempt;
static _Atomic int arms;

/* spin_safe computes until *stop, or for so many rounds. Returns what tells whether a register was lost. */
SAFE static uint64_t spin_safe(const volatile bool *stop, uint64_t rounds) {
    uint64_t sum = 0;
    double x = 1;
    for (uint64_t i = 0; i < rounds && !*stop; i++) {
        sum += i * i;
        x += 0.5;
    }
    return x > 0 ? sum : 0;
}

/* As lua_sethook is in Lua, arming is in the range itself. */
SAFE static void arm(void *arg) {
    *(volatile bool *)arg = true;
    for (volatile int i = 0; i < 20; i++) continue;
}

/* spin_armed computes elsewhere, and gives way when it was armed, until *stop. */
__attribute__((PLAIN)) static void spin_armed(const volatile bool *stop, volatile bool *armed) {
    while (!*stop) {
        if (!*armed) continue;
        *armed = false;
        atomic_fetch_add(&arms, 1);
        td_fiber_yield();
    }
}

static void spin_ns(uint64_t ns) {
    for (uint64_t end = td_now_ns() + ns; td_now_ns() < end;) continue;
}

static bool never;

/* ---- Set-up ---- */

typedef struct scene {
    rig rig; /* the first member: what the fixture knows */
    td_watch *watch;
    volatile bool stop, armed, others;
    _Atomic int64_t stuck_tag;
    _Atomic uint64_t stuck_ms;
    _Atomic int told;
    gate gate;
    uint64_t number, lateness_ns[64];
} scene;

static void on_stuck(void *arg, int64_t tag, uint64_t ms) {
    scene *s = arg;
    atomic_store(&s->stuck_tag, tag);
    atomic_store(&s->stuck_ms, ms);
    if (atomic_fetch_add(&s->told, 1) == 0) gate_open(&s->gate);
}

static int setup(void **state) {
    scene *s = calloc(1, sizeof *s);
    sem_init(&s->rig.called, 0, 0);
    sem_init(&s->rig.done, 0, 0);
    sem_init(&s->gate, 0, 0);
    s->rig.fds[0] = s->rig.fds[1] = -1;
    *state = s;
    preempt = (td_preempt){ (uintptr_t)__start_safe_text, (uintptr_t)__stop_safe_text, arm };
    if (td_preempt_open(NULL) < 0 || td_watch_start(&s->watch, NULL) < 0) return -1;
    if (td_thread_start(&s->rig.thread, "test", NULL) < 0) return -1;
    return td_watch_add(s->watch, s->rig.thread, TD_QUANTUM_MS, 50, on_stuck, s);
}

static int teardown(void **state) {
    scene *s = *state;
    if (s->rig.thread) td_watch_remove(s->watch, s->rig.thread);
    rig_stop(&s->rig);
    td_watch_stop(s->watch);
    td_preempt_close();
    sem_destroy(&s->rig.called);
    sem_destroy(&s->rig.done);
    sem_destroy(&s->gate);
    free(s);
    return 0;
}

/* start makes a fiber that can be preempted. */
static td_fiber *start(scene *s, td_call_fn *entry) {
    td_fiber *fiber = td_fiber_new(entry, s, 0);
    if (!fiber) abort();
    td_fiber_set_preempt(fiber, &preempt, (void *)&s->armed);
    td_fiber_start(fiber);
    return fiber;
}

/* ---- Giving way ---- */

static void compute(void *arg) {
    scene *s = arg;
    spin_safe(&s->stop, UINT64_MAX);
    note(&s->rig, 2);
    gate_open(&s->rig.done);
}

static void stop_others(void *arg) {
    scene *s = arg;
    note(&s->rig, s->rig.fibers[0] && td_fiber_torn(s->rig.fibers[0]));
    s->stop = true;
}

static void compute_and_stop(void *arg) {
    scene *s = arg;
    s->rig.fibers[0] = start(s, compute);
    start(s, stop_others);
}

static void a_signal_switches_in_code_that_is_safe(void **state) {
    scene *s = *state;
    call(&s->rig, compute_and_stop);
    gate_wait(&s->rig.done);
    assert_happened(&s->rig, 1, 2);
    assert_int_equal(atomic_load(&arms), 0);
}

static void compute_armed(void *arg) {
    scene *s = arg;
    spin_armed(&s->stop, &s->armed);
    note(&s->rig, 2);
    gate_open(&s->rig.done);
}

static void compute_armed_and_stop(void *arg) {
    scene *s = arg;
    s->rig.fibers[0] = start(s, compute_armed);
    start(s, stop_others);
}

static void elsewhere_it_arms(void **state) {
    scene *s = *state;
    atomic_store(&arms, 0);
    call(&s->rig, compute_armed_and_stop);
    gate_wait(&s->rig.done);
    assert_happened(&s->rig, 0, 2); /* not torn */
    assert_true(atomic_load(&arms) >= 1);
    atomic_store(&arms, 0);
}

static void see_others(void *arg) {
    scene *s = arg;
    s->others = true;
}

static void compute_shielded(void *arg) {
    scene *s = arg;
    start(s, see_others);
    td_nopreempt_enter();
    td_nopreempt_enter();
    td_nopreempt_leave();
    for (uint64_t end = td_now_ns() + 20 * MS; td_now_ns() < end;) spin_safe(&s->others, 1000000);
    note(&s->rig, s->others);
    note(&s->rig, s->armed);
    td_nopreempt_leave();
    spin_safe(&s->others, UINT64_MAX);
    note(&s->rig, s->others);
    gate_open(&s->rig.done);
}

static void start_shielded(void *arg) {
    start(arg, compute_shielded);
}

static void a_shielded_fiber_is_left_alone(void **state) {
    scene *s = *state;
    call(&s->rig, start_shielded);
    gate_wait(&s->rig.done);
    assert_happened(&s->rig, 0, 0, 1);
}

static void tick(void *arg) {
    scene *s = arg;
    for (int i = 0; i < 20; i++) {
        uint64_t due_ns = td_now_ns() + 5 * MS;
        (void)td_wait_until(due_ns, NULL);
        s->lateness_ns[i] = td_now_ns() - due_ns;
    }
    s->stop = true;
}

static void compute_and_tick(void *arg) {
    scene *s = arg;
    for (int i = 0; i < 3; i++) start(s, compute);
    start(s, tick);
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void timers_are_on_time_beside_fibers_that_compute(void **state) {
    scene *s = *state;
    call(&s->rig, compute_and_tick);
    for (int i = 0; i < 3; i++) gate_wait(&s->rig.done);
    qsort(s->lateness_ns, 20, sizeof s->lateness_ns[0], by_size);
    assert_true(s->lateness_ns[10] < 20 * MS); /* the machine may be busy; 1 ms it is when it is not */
}

/* ---- Signals as fast as they can be sent ---- */

enum { FLOODED = 6, LAPS = 3000 };

static uint64_t expected;

static void work_and_check(void *arg) {
    scene *s = arg;
    for (int i = 0; i < LAPS; i++) {
        errno = i;
        uint64_t sum = spin_safe(&never, 2000);
        void *memory = malloc((size_t)(i % 500) + 1);
        if (sum != expected || errno != i || !memory) note(&s->rig, 666);
        free(memory);
        if (i % 7 == 0) {
            td_fiber_wake(td_fiber_self());
            td_fiber_park();
        }
        if (i % 50 == 0) (void)td_wait_until(td_now_ns() + 10000, NULL);
    }
    s->number++;
    gate_open(&s->rig.done);
}

static void start_flooded(void *arg) {
    for (int i = 0; i < FLOODED; i++) start(arg, work_and_check);
}

static void *flood(void *arg) {
    scene *s = arg;
    while (!s->stop) pthread_kill(s->rig.thread->os, SIGURG);
    return NULL;
}

static void a_flood_of_signals_harms_nothing(void **state) {
    scene *s = *state;
    pthread_t flooder;
    expected = spin_safe(&never, 2000);
    assert_int_equal(pthread_create(&flooder, NULL, flood, s), 0);
    call(&s->rig, start_flooded);
    for (int i = 0; i < FLOODED; i++) gate_wait(&s->rig.done);
    s->stop = true;
    pthread_join(flooder, NULL);
    assert_int_equal(s->rig.count, 0);
    assert_int_equal(s->number, FLOODED);
}

/* ---- Stacks that overflow ---- */

enum { OVERFLOWS = 300 };

__attribute__((PLAIN)) static int eat(int depth) {
    volatile char frame[2000];
    frame[0] = (char)depth;
    return depth == 0 ? 0 : eat(depth - 1) + frame[0];
}

/* stride steps over much of the stack at once, as a large local array does. */
__attribute__((PLAIN)) static int stride(int depth) {
    volatile char frame[40000];
    frame[0] = (char)depth;
    return depth == 0 ? 0 : stride(depth - 1) + frame[0];
}

static void overflow(void *arg) {
    scene *s = arg;
    s->number += (uint64_t)(s->rig.flag ? stride(100000) : eat(1000000));
}

static void overflowed(void *arg) {
    scene *s = arg;
    td_fiber_drop(s->rig.fibers[0]);
    note(&s->rig, 1);
    s->rig.flag = !s->rig.flag;
    if (s->rig.count == OVERFLOWS) {
        gate_open(&s->rig.done);
        return;
    }
    s->rig.fibers[0] = td_fiber_new(overflow, s, 0);
    td_fiber_set_overflow(s->rig.fibers[0], overflowed, s);
    td_fiber_start(s->rig.fibers[0]);
}

static void start_overflow(void *arg) {
    scene *s = arg;
    s->rig.fibers[0] = td_fiber_new(overflow, s, 0);
    td_fiber_set_overflow(s->rig.fibers[0], overflowed, s);
    td_fiber_start(s->rig.fibers[0]);
    start(s, tick);
}

static void a_stack_that_overflows_ends_its_fiber_only(void **state) {
    scene *s = *state;
    td_preempt_close(); /* cmocka has put its own handler in since */
    assert_int_equal(td_preempt_open(NULL), 0);
    call(&s->rig, start_overflow);
    gate_wait(&s->rig.done);
    assert_int_equal(s->rig.count, OVERFLOWS);
    assert_int_equal(s->number, 0);
}

/* ---- The watcher ---- */

/* watcher_switches: how often the watcher's thread has given its processor away. */
static long watcher_switches(void) {
    DIR *dir = opendir("/proc/self/task");
    long switches = -1;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[300], line[100];
        bool its = false;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        while (file && fgets(line, sizeof line, file)) {
            if (strcmp(line, "Name:\ttd-watch\n") == 0) its = true;
            if (its && strncmp(line, "voluntary_ctxt_switches:", 24) == 0) switches = atol(line + 24);
        }
        if (file) fclose(file);
    }
    if (dir) closedir(dir);
    return switches;
}

static void the_watcher_sleeps_while_nothing_runs_and_wakes(void **state) {
    scene *s = *state;
    for (int round = 0; round < 3; round++) {
        long before, after = watcher_switches();
        int looks = 0;
        do {
            before = after;
            usleep(50000); /* a hundred looks, were it awake */
            after = watcher_switches();
        } while (after != before && ++looks < 200);
        assert_true(before >= 0);
        assert_int_equal(after, before);
        s->stop = false;
        s->rig.count = 0;
        call(&s->rig, compute_and_stop);
        gate_wait(&s->rig.done);
        assert_int_equal(s->rig.count, 2);
    }
}

static void compute_deaf(void *arg) {
    scene *s = arg;
    td_fiber_set_tag(td_fiber_self(), 4711);
    while (!atomic_load(&s->told)) spin_ns(MS);
    gate_open(&s->rig.done);
}

static void sleep_deaf(void *arg) {
    scene *s = arg;
    td_fiber_set_tag(td_fiber_self(), 4712);
    /* One that begins just when the watcher has found the thread awake is interrupted, on a busy machine. */
    for (int tries = 0; tries < 20 && (s->rig.rc = poll(NULL, 0, 200)) != 0; tries++) continue;
    gate_open(&s->rig.done);
}

static void start_deaf(void *arg) {
    scene *s = arg;
    td_fiber_set_preempt(start(s, s->rig.pointer ? sleep_deaf : compute_deaf), NULL, NULL);
}

static void who_does_not_let_go_is_told_of(void **state) {
    scene *s = *state;
    call(&s->rig, start_deaf);
    gate_wait(&s->gate);
    gate_wait(&s->rig.done);
    assert_int_equal(atomic_load(&s->stuck_tag), 4711);
    assert_true(atomic_load(&s->stuck_ms) >= 50);
}

static void a_system_call_that_sleeps_is_told_of_and_not_interrupted(void **state) {
    scene *s = *state;
    s->rig.pointer = s;
    call(&s->rig, start_deaf);
    gate_wait(&s->gate);
    gate_wait(&s->rig.done);
    assert_int_equal(atomic_load(&s->stuck_tag), 4712);
    assert_int_equal(s->rig.rc, 0);
}

static void threads_can_be_added_and_removed_while_it_watches(void **state) {
    scene *s = *state;
    for (int i = 0; i < 200; i++) {
        td_watch_remove(s->watch, s->rig.thread);
        assert_int_equal(td_watch_add(s->watch, s->rig.thread, TD_QUANTUM_MS, 50, on_stuck, s), 0);
        s->stop = false;
        s->rig.count = 0;
        call(&s->rig, compute_and_stop);
        gate_wait(&s->rig.done);
    }
}

/* ---- Threads that are left alone ---- */

static void wait_for_gate(void *arg) {
    gate *g = arg;
    while (sem_wait(g) != 0) continue;
}

static void start_waiting(void *arg) {
    scene *s = arg;
    td_fiber_start(td_fiber_new(wait_for_gate, &s->gate, 0));
}

static long count_threads(void) {
    long n = 0;
    DIR *dir = opendir("/proc/self/task");
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

static void an_abandoned_thread_ends_when_it_can(void **state) {
    scene *s = *state;
    long before = count_threads();
    call(&s->rig, start_waiting);
    td_watch_remove(s->watch, s->rig.thread);
    td_thread_abandon(s->rig.thread);
    s->rig.thread = NULL;
    assert_int_equal(count_threads(), before);
    gate_open(&s->gate);
    for (int i = 0; i < 10000 && count_threads() >= before; i++) usleep(1000);
    assert_int_equal(count_threads(), before - 1);
}

/* ---- Accounting ---- */

static void compute_for_long(void *arg) {
    scene *s = arg;
    struct timespec t;
    uint64_t cpu_ns, end_ns = 0;
    do { /* 50 ms of the thread's processor time, whatever else runs on the machine */
        spin_safe(&never, 100000);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        cpu_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
        if (!end_ns) end_ns = cpu_ns + 50 * MS;
    } while (cpu_ns < end_ns);
    s->lateness_ns[0] = td_fiber_run_ns(td_fiber_self());
    gate_open(&s->rig.done);
}

static void sleep_for_long(void *arg) {
    scene *s = arg;
    for (int i = 0; i < 5; i++) (void)!poll(NULL, 0, 20);
    s->lateness_ns[1] = td_fiber_run_ns(td_fiber_self());
    gate_open(&s->rig.done);
}

static void start_both(void *arg) {
    scene *s = arg;
    td_fiber_set_preempt(start(s, compute_for_long), NULL, NULL); /* so that nobody else's time is in between */
    start(s, sleep_for_long);
}

static void a_fiber_is_charged_for_what_it_computes(void **state) {
    scene *s = *state;
    call(&s->rig, start_both);
    gate_wait(&s->rig.done);
    gate_wait(&s->rig.done);
    assert_true(s->lateness_ns[0] > 45 * MS && s->lateness_ns[0] < 80 * MS);
    assert_true(s->lateness_ns[1] < 20 * MS);
}

/* ---- The program's handlers ---- */

static volatile sig_atomic_t urges;

static void count_urge(int signal) {
    (void)signal;
    urges++;
}

static void the_programs_handlers_are_served_and_put_back(void **state) {
    (void)state;
    struct sigaction mine = { .sa_handler = count_urge }, now;
    urges = 0;
    assert_int_equal(sigaction(SIGURG, &mine, NULL), 0);
    assert_false(td_preempt_opened());
    assert_int_equal(td_preempt_open(NULL), 0);
    assert_int_equal(td_preempt_open(NULL), 0);
    raise(SIGURG); /* not on a thread of ours */
    assert_int_equal(urges, 1);
    td_preempt_close();
    assert_true(td_preempt_opened());
    td_preempt_close();
    assert_false(td_preempt_opened());
    sigaction(SIGURG, NULL, &now);
    assert_true(now.sa_handler == count_urge);
    signal(SIGURG, SIG_DFL);
}

#undef TEST
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest by_signals[] = {
        TEST(a_signal_switches_in_code_that_is_safe),
        TEST(elsewhere_it_arms),
        TEST(a_shielded_fiber_is_left_alone),
        TEST(timers_are_on_time_beside_fibers_that_compute),
        TEST(a_flood_of_signals_harms_nothing),
        TEST(a_stack_that_overflows_ends_its_fiber_only),
        TEST(the_watcher_sleeps_while_nothing_runs_and_wakes),
        TEST(threads_can_be_added_and_removed_while_it_watches),
    };
    const struct CMUnitTest others[] = {
        cmocka_unit_test(the_programs_handlers_are_served_and_put_back),
        TEST(who_does_not_let_go_is_told_of),
        TEST(a_system_call_that_sleeps_is_told_of_and_not_interrupted),
        TEST(an_abandoned_thread_ends_when_it_can),
        TEST(a_fiber_is_charged_for_what_it_computes),
    };
    int failed = SIGNALS_COME ? cmocka_run_group_tests(by_signals, NULL, NULL) : 0;
    return failed + cmocka_run_group_tests(others, NULL, NULL);
}
