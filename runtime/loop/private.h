/* private.h: what a thread and a fiber are made of. Private to loop.

   Only a thread's own code touches its scheduler (fibers, queues, sleepers, stacks): nothing there is locked. The one
   structure that other threads reach is the mailbox, under its mutex.

   Preemption (preempt.c): a fiber may be switched away from a signal handler only while the program counter is in
   foreign code that is known to be safe (the Lua interpreter), never in this layer, and never while its nopreempt count
   is above 0. So the scheduler's structures are always whole when a handler looks at them. The handler may read
   td_fiber_self() and nopreempt, and may leave the fiber by td_schedule_yield. */
#ifndef TD_LOOP_PRIVATE_H
#define TD_LOOP_PRIVATE_H

#include "preempt.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- Stacks (stack.c) ---- */

/* A stack of C. This record lies at the top of the memory it describes: a guard, then what may be used, up to it. The
   guard is as wide as the frames of careless C code, which would step over a single page. */
typedef struct td_stack {
    struct td_stack *next; /* in the cache */
    char *low;             /* the lowest usable byte, just above the guard */
    size_t mapped_bytes;   /* with the guard and this record */
    unsigned valgrind;     /* valgrind's name for it */
} td_stack;

/* Stacks to be used again, all of the default size, a thread's own. {0} is an empty one. */
typedef struct td_stack_cache {
    td_stack *first;
    size_t count;
} td_stack_cache;

/* td_stack_new returns a stack of size_bytes (0: the default), NULL without memory. */
td_stack *td_stack_new(td_stack_cache *cache, size_t size_bytes) TD_MUST_CHECK;
/* td_stack_free takes back a stack that nothing runs on. td_stack_fini unmaps what the cache has. */
void td_stack_free(td_stack_cache *cache, td_stack *stack);
void td_stack_fini(td_stack_cache *cache);
/* td_stack_size: the usable bytes from low. */
size_t td_stack_size(const td_stack *stack);

/* ---- Fibers ---- */

/* Where a suspended fiber or thread goes on: Boost.Context's fcontext_t. */
typedef void *td_context;

/* Not in the heap of sleepers. */
#define TD_AWAKE SIZE_MAX

/* A fiber is running (thread->current), ready (its link is in one of the thread's queues) or parked (neither). */
struct td_fiber {
    td_thread *thread;
    td_context context; /* of a fiber that does not run: where it goes on */
    td_stack *stack;
    td_call_fn *entry;
    void *arg;
    td_list link;                /* in thread->ready, thread->yielded, or in the batch of the turn */
    td_list all;                 /* in thread->fibers */
    td_list holds;               /* td_hold, the last given first */
    uint64_t due_ns, due_number; /* when it is to be woken; the number orders equal times */
    size_t due_place;            /* in thread->sleepers, or TD_AWAKE */
    bool due;                    /* due_ns came */
    bool token;                  /* woken while it was ready or running */
    bool returned;               /* of entry: it is freed next */
    bool interrupted;
    bool torn;       /* switched away by a signal */
    bool overflowed; /* its stack: it will not run again */
    volatile unsigned nopreempt;
    uint64_t run_ns;
    int64_t tag;
    const char *doing;
    const td_preempt *volatile preempt; /* NULL: it is not to be preempted; read by a signal's handler, as is */
    void *volatile preempt_arg;
    td_call_fn *overflow;
    void *overflow_arg;
    void *fake_stack; /* AddressSanitizer's, while it does not run */
    void *tsan;       /* ThreadSanitizer's name for it */
};

/* ---- Threads ---- */

/* A call on its way to a thread. */
typedef struct td_post {
    struct td_post *next;
    td_call_fn *fn;
    void *arg;
} td_post;

/* The mailbox: posts in order, the newest at *tail. */
typedef struct td_mailbox {
    pthread_mutex_t mutex;
    td_post *first, **tail;
    bool stopping; /* td_thread_stop was called: the loop ends when the mailbox is empty */
    bool closed;   /* no posts are taken any more */
} td_mailbox;

/* A binary heap of the sleeping fibers by (due_ns, due_number). It has room for every fiber of the thread, so that to
   fall asleep needs no memory. */
typedef struct td_sleepers {
    td_fiber **heap;
    size_t count, cap;
    uint64_t next_number;
} td_sleepers;

typedef struct td_local td_local;

struct td_thread {
    pthread_t os;
    char name[16];
    uv_loop_t loop;
    uv_async_t mail;     /* rings when something was posted */
    uv_prepare_t before; /* before the loop waits: sets the alarm */
    uv_check_t after;    /* after it waited: runs fibers */
    uv_idle_t busy;      /* active while fibers are ready: then the loop does not wait */
    uv_timer_t alarm;    /* ends the waiting when the first sleeper is due */
    uint64_t alarm_ns;   /* what it is set for, UINT64_MAX when it is not */
    td_mailbox mailbox;
    td_local *locals; /* the last set first */
    td_list fibers;   /* all of them */
    size_t fibers_count;
    td_list ready, yielded; /* yielded: those that could have gone on, and only gave way */
    td_sleepers sleepers;
    td_stack_cache stacks;
    td_fiber *volatile current;
    _Atomic uint64_t run_since_ns; /* when current was switched to; 0 on the loop */
    _Atomic int64_t run_tag;       /* and its tag */
    int os_id;                     /* the thread's number in /proc */
    bool abandoned;                /* nobody waits for its end */
    uint64_t counted_ns;           /* until when the time of the running fiber is in its run_ns */
    uint64_t cpu_ns;               /* the thread's processor time when last read, and what its fibers have had since */
    _Atomic(td_watch *) watch;     /* who watches it, NULL: nobody */
    stack_t alternate;             /* for a stack that overflowed */
    td_context context;            /* while a fiber runs: where the loop goes on */
    void *fake_stack, *tsan;
    const void *stack_low; /* of the OS thread, as AddressSanitizer knows it */
    size_t stack_size;
};

/* ---- Switching (switch.c): knows nothing of the scheduler ---- */

/* td_switch_init prepares a new fiber with a stack; td_switch_fini forgets one that will not run again. */
void td_switch_init(td_fiber *fiber);
void td_switch_fini(td_fiber *fiber);
/* td_switch_to runs a fiber from the loop until it calls td_switch_back, or its entry returned. */
void td_switch_to(td_fiber *fiber);
void td_switch_back(td_fiber *fiber);
/* td_switch_account adds to the running fiber's time what it has run since that was last done. */
void td_switch_account(td_fiber *fiber);
/* td_switch_clock reads the thread's clock, before fibers run whose time is to be accounted. */
void td_switch_clock(td_thread *thread);

/* ---- Scheduling (schedule.c) ---- */

/* td_schedule_init adds the thread's handles to its loop. They are closed with all others. */
void td_schedule_init(td_thread *thread);
/* td_schedule_ready puts a fiber that does not run in the queue, if it is in none. */
void td_schedule_ready(td_fiber *fiber);
/* td_schedule_yield lets the running fiber give way: it goes on after those that are ready and the timers that are due.
 */
void td_schedule_yield(td_fiber *fiber);

/* ---- Preemption (preempt.c) ---- */

/* td_preempt_thread_open and _close prepare the calling OS thread for the signals. */
void td_preempt_thread_open(td_thread *thread);
void td_preempt_thread_close(td_thread *thread);
/* td_watch_awake has the watcher watch, which may be asleep. Called at each switch to a fiber. */
void td_watch_awake(td_watch *watch);
/* td_watch_unref lets go of a thread's watcher (NULL: none), when the thread has ended: one that was abandoned may look
   at it for longer than it is watched. */
void td_watch_unref(td_watch *watch);

/* ---- Sleepers (sleepers.c) ---- */

/* td_sleepers_reserve makes room for count fibers; false without memory. */
bool td_sleepers_reserve(td_sleepers *sleepers, size_t count) TD_MUST_CHECK;
void td_sleepers_fini(td_sleepers *sleepers);
/* td_sleepers_add puts a fiber to sleep until due_ns; td_sleepers_remove takes it out (one that is awake: nothing). */
void td_sleepers_add(td_sleepers *sleepers, td_fiber *fiber, uint64_t due_ns);
void td_sleepers_remove(td_sleepers *sleepers, td_fiber *fiber);
/* td_sleepers_first: who is due first, NULL if nobody sleeps. */
td_fiber *td_sleepers_first(const td_sleepers *sleepers);

#endif
