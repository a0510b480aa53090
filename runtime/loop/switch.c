/* switch.c: from the loop to a fiber and back, by Boost.Context's C entry points, which exist for every processor.

   They save what a called function must keep, and the floating-point control words; not errno and not the locale, which
   belong to the OS thread. The sanitizers must be told of each switch, or they take one stack for another. */
#include "private.h"

#include <time.h>

#define LONG_RUN_NS 200000u

/* Boost.Context's C++ header declares these; they are plain C. */
typedef struct transfer {
    td_context from; /* where the one who jumped here goes on */
    void *data;
} transfer;
td_context make_fcontext(void *top, size_t size, void (*fn)(transfer));
transfer jump_fcontext(td_context to, void *data);

/* What the sanitizers are told, under short names that do nothing without them. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define asan_leaving(save, low, size) __sanitizer_start_switch_fiber(save, low, size)
#define asan_arrived(fake, low, size) __sanitizer_finish_switch_fiber(fake, low, size)
#else
#define asan_leaving(save, low, size) ((void)(save), (void)(low), (void)(size))
#define asan_arrived(fake, low, size) ((void)(fake), (void)(low), (void)(size))
#endif

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define tsan_current()      __tsan_get_current_fiber()
#define tsan_create()       __tsan_create_fiber(0)
#define tsan_destroy(fiber) __tsan_destroy_fiber(fiber)
#define tsan_switching(to)  __tsan_switch_to_fiber(to, 0)
#else
#define tsan_current()      NULL
#define tsan_create()       NULL
#define tsan_destroy(fiber) (void)(fiber)
#define tsan_switching(to)  (void)(to)
#endif

/* arrive: the first thing a fiber does when it goes on. from is where the loop waits. */
static void arrive(td_fiber *fiber, td_context from) {
    td_thread *thread = fiber->thread;
    asan_arrived(fiber->fake_stack, &thread->stack_low, &thread->stack_size);
    thread->context = from;
}

/* leave jumps to the loop. A fiber that has returned has no fake stack to come back to. */
static transfer leave(td_fiber *fiber) {
    td_thread *thread = fiber->thread;
    asan_leaving(fiber->returned ? NULL : &fiber->fake_stack, thread->stack_low, thread->stack_size);
    tsan_switching(thread->tsan);
    return jump_fcontext(thread->context, NULL);
}

/* fiber_main is what a fiber's stack begins with. */
static void fiber_main(transfer t) {
    td_fiber *fiber = t.data;
    arrive(fiber, t.from);
    fiber->entry(fiber->arg);
    fiber->returned = true;
    leave(fiber);
    __builtin_unreachable(); /* nobody goes on with a fiber that returned */
}

void td_switch_init(td_fiber *fiber) {
    fiber->context = make_fcontext(fiber->stack, td_stack_size(fiber->stack), fiber_main);
    fiber->tsan = tsan_create();
}

#if defined(__SANITIZE_ADDRESS__)
/* drop_fake_stack frees the fake stack that AddressSanitizer keeps of a fiber that was cut off. It frees one only when
   its owner leaves it for good: so pretend to go there, and to come back for good. */
__attribute__((no_sanitize_address)) static void drop_fake_stack(td_fiber *fiber) {
    void *own;
    const void *own_low;
    size_t own_size;
    if (!fiber->fake_stack || fiber->returned) return;
    asan_leaving(&own, fiber->stack->low, td_stack_size(fiber->stack));
    asan_arrived(fiber->fake_stack, &own_low, &own_size);
    asan_leaving(NULL, own_low, own_size);
    asan_arrived(own, NULL, NULL);
}
#else
#define drop_fake_stack(fiber) (void)(fiber)
#endif

void td_switch_fini(td_fiber *fiber) {
    drop_fake_stack(fiber);
    tsan_destroy(fiber->tsan);
}

static uint64_t thread_cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void td_switch_clock(td_thread *thread) {
    thread->cpu_ns = thread_cpu_ns();
}

/* td_switch_account adds to the running fiber's time what it has run since that was last done. A short run counts as it
   took; of a long one, in which the thread may have been off its processor or asleep, only what the thread's own clock
   says counts, which is slow to read: it was read at the beginning of the turn, and what the turn's other fibers had is
   known. */
void td_switch_account(td_fiber *fiber) {
    td_thread *thread = fiber->thread;
    uint64_t now_ns = td_now_ns(), took_ns = now_ns - thread->counted_ns;
    thread->counted_ns = now_ns;
    if (took_ns > LONG_RUN_NS) {
        uint64_t cpu_ns = thread_cpu_ns(), since_ns = cpu_ns > thread->cpu_ns ? cpu_ns - thread->cpu_ns : 0;
        thread->cpu_ns = cpu_ns;
        if (since_ns < took_ns) took_ns = since_ns;
    } else {
        thread->cpu_ns += took_ns;
    }
    fiber->run_ns += took_ns;
}

void td_switch_to(td_fiber *fiber) {
    td_thread *thread = fiber->thread;
    uint64_t since_ns = td_now_ns();
    td_watch *watch = atomic_load_explicit(&thread->watch, memory_order_relaxed);
    thread->tsan = tsan_current();
    thread->current = fiber;
    thread->counted_ns = since_ns;
    atomic_store_explicit(&thread->run_tag, fiber->tag, memory_order_relaxed);
    atomic_store(&thread->run_since_ns, since_ns); /* in order before the look at whether the watcher sleeps */
    if (watch) td_watch_awake(watch);
    asan_leaving(&thread->fake_stack, fiber->stack->low, td_stack_size(fiber->stack));
    tsan_switching(fiber->tsan);
    transfer t = jump_fcontext(fiber->context, fiber);
    asan_arrived(thread->fake_stack, NULL, NULL);
    fiber->context = t.from;
    thread->current = NULL;
    atomic_store_explicit(&thread->run_since_ns, 0, memory_order_relaxed);
    td_switch_account(fiber);
}

void td_switch_back(td_fiber *fiber) {
    transfer t = leave(fiber);
    arrive(fiber, t.from);
}
