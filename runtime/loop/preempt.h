/* preempt.h: fibers that compute are made to give way, so that timers, I/O and other fibers get their turn.

   No fiber pays for this while it runs: a watcher, a thread of its own, sees that one has run for a quantum and signals
   its thread (SIGURG). The signal's handler switches fibers right there if the program counter is in code that is known
   to be safe for that (a td_preempt's range); elsewhere it arms the fiber, so that it gives way by itself as soon as it
   can. Where a fiber is in between td_nopreempt_enter and _leave, nothing happens, and the watcher asks again.

   A stack that overflows into its guard ends its fiber only: the same signal machinery (SIGSEGV on a stack of its
   own) leaves it for good, and the fiber's owner is told. */
#ifndef TD_PREEMPT_H
#define TD_PREEMPT_H

#include "loop.h"

enum { TD_QUANTUM_MS = 1 };

/* td_preempt_open installs the process's two signal handlers, if nobody has yet: they are counted, and the program's
   own are put back by the last td_preempt_close. Signals that are none of ours go to the program's handlers. From any
   thread. Error: IO. */
int td_preempt_open(tidemill_error *err) TD_MUST_CHECK;
void td_preempt_close(void);

/* td_preempt_opened says whether the handlers are installed. */
bool td_preempt_opened(void);

/* How to interrupt what a fiber runs. */
typedef struct td_preempt {
    uintptr_t low, high;    /* code in which it may be switched away at any instruction; equal: nowhere */
    void (*arm)(void *arg); /* has it call td_fiber_yield soon; called in a signal handler, on the fiber's stack */
} td_preempt;

/* td_fiber_set_preempt says how to interrupt a fiber (NULL: not at all). *preempt must outlive it. On its thread. */
void td_fiber_set_preempt(td_fiber *fiber, const td_preempt *preempt, void *arg);

/* td_fiber_yield lets the running fiber give way, as td_fiber_wake of itself and td_fiber_park do, but loses no wake.
 */
void td_fiber_yield(void);

/* td_fiber_torn says whether a fiber that does not run was switched away in the middle of an instruction sequence: what
   it worked on may be half changed. */
bool td_fiber_torn(const td_fiber *fiber);

/* td_fiber_set_overflow sets what is called on the loop, in the fiber's place, when its stack has overflowed. It has to
   drop the fiber. */
void td_fiber_set_overflow(td_fiber *fiber, td_call_fn *fn, void *arg);

/* td_fiber_set_tag names what a fiber does, for who is told that it is stuck. On its thread. */
void td_fiber_set_tag(td_fiber *fiber, int64_t tag);

/* td_fiber_run_ns returns how long a fiber has had the processor so far. On its thread. */
uint64_t td_fiber_run_ns(td_fiber *fiber);

/* ---- The watcher ---- */

typedef struct td_watch td_watch;

/* What is called, on the watcher's thread, when a fiber has not let go of its thread for `stuck_ms` though asked, and
   again after each further stuck_ms of the same spell; tag is the fiber's, ms is how long it has been. What the thread
   waits for a processor does not count. */
typedef void td_stuck_fn(void *arg, int64_t tag, uint64_t ms);

/* td_watch_start starts a watcher. It sleeps while no thread of its runs anything. Errors: MEMORY, IO. */
int td_watch_start(td_watch **watch, tidemill_error *err) TD_MUST_CHECK;

/* td_watch_add has a thread watched, whose fibers may run for quantum_ms at a time; stuck may be NULL. td_watch_remove
   ends that, before the thread is stopped: when it has returned, stuck is not called any more. From any other thread.
   A thread is watched by one watcher in its life. Error: MEMORY. */
int td_watch_add(td_watch *watch, td_thread *thread, uint64_t quantum_ms, uint64_t stuck_ms, td_stuck_fn *stuck,
                 void *arg) TD_MUST_CHECK;
void td_watch_remove(td_watch *watch, td_thread *thread);

/* td_watch_stop ends the watcher, when all threads that it watched are stopped. NULL is allowed. */
void td_watch_stop(td_watch *watch);

#endif
