/* loop_fixture.h: for tests of loop: a thread per test, calls on it that the test waits for, and a gate that fibers
   open. What runs on the loop thread only records; the test's own thread asserts (cmocka cannot do so on another one).
 */
#ifndef LOOP_FIXTURE_H
#define LOOP_FIXTURE_H

#include "../../runtime/loop/private.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MS UINT64_C(1000000) /* in ns */

#if defined(__SANITIZE_THREAD__)
#define MANY 2000 /* ThreadSanitizer can tell 8,000 threads and fibers apart */
#else
#define MANY 10000
#endif

/* Each opening lets one waiter through; a waiter gives up after 30 seconds. */
typedef sem_t gate;

static inline void gate_open(gate *g) {
    sem_post(g);
}

static inline void gate_wait(gate *g) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 30;
    int rc;
    do rc = sem_timedwait(g, &deadline);
    while (rc != 0 && errno == EINTR);
    assert_int_equal(rc, 0);
}

/* What a test has. Its arrays and counts are the loop thread's until a gate is passed. */
typedef struct rig {
    td_thread *thread;
    gate called, done;
    td_call_fn *fn;
    int order[2 * MANY]; /* what happened, in turn */
    size_t count;
    int fds[2];
    td_fiber *fibers[8];
    uint64_t deadline_ns;
    int rc, ready;
    bool flag, busy;
    void *pointer;
} rig;

/* note records that something happened. */
static inline void note(rig *r, int what) {
    r->order[r->count++] = what;
}

static inline void run_call(void *arg) {
    rig *r = arg;
    r->fn(r);
    gate_open(&r->called);
}

/* call runs fn(r) on the thread and waits until it returned. */
static inline void call(rig *r, td_call_fn *fn) {
    r->fn = fn;
    assert_int_equal(td_thread_post(r->thread, run_call, r), 0);
    gate_wait(&r->called);
}

static inline void nothing(void *arg) {
    (void)arg;
}

static inline void see_ready(void *arg) {
    rig *r = arg;
    r->busy = !td_list_empty(&r->thread->ready);
}

/* settle waits until the thread has had its turn with everything that is ready now. */
static inline void settle(rig *r) {
    for (int i = 0; i < 3; i++) call(r, nothing);
    do call(r, see_ready);
    while (r->busy);
    call(r, nothing);
}

static inline void assert_order(const rig *r, const int *expected, size_t count) {
    assert_int_equal(r->count, count);
    for (size_t i = 0; i < count; i++) assert_int_equal(r->order[i], expected[i]);
}
#define assert_happened(r, ...)                                                                                        \
    assert_order(r, (const int[]){ __VA_ARGS__ }, sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

/* spawn starts a fiber, on the loop thread. */
static inline td_fiber *spawn(td_call_fn *entry, void *arg) {
    td_fiber *fiber = td_fiber_new(entry, arg, 0);
    if (fiber) td_fiber_wake(fiber);
    return fiber;
}

static inline int rig_setup(void **state) {
    rig *r = calloc(1, sizeof *r);
    sem_init(&r->called, 0, 0);
    sem_init(&r->done, 0, 0);
    r->fds[0] = r->fds[1] = -1;
    *state = r;
    return td_thread_start(&r->thread, "test", NULL);
}

/* rig_stop stops the thread, which a test may do early. */
static inline void rig_stop(rig *r) {
    td_thread_stop(r->thread);
    r->thread = NULL;
}

static inline int rig_teardown(void **state) {
    rig *r = *state;
    rig_stop(r);
    for (int i = 0; i < 2; i++)
        if (r->fds[i] >= 0) close(r->fds[i]);
    sem_destroy(&r->called);
    sem_destroy(&r->done);
    free(r);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, rig_setup, rig_teardown)

/* A hold that notes its number when it is released. */
typedef struct noted_hold {
    td_hold hold;
    rig *rig;
    int number;
} noted_hold;

static inline void release_noted(td_hold *hold) {
    noted_hold *h = td_container(hold, noted_hold, hold);
    note(h->rig, h->number);
    free(h);
}

static inline noted_hold *hold_noted(rig *r, td_fiber *fiber, int number) {
    noted_hold *h = calloc(1, sizeof *h);
    h->rig = r;
    h->number = number;
    td_hold_push(fiber, &h->hold, release_noted);
    return h;
}

#endif
