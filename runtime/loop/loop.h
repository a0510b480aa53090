/* loop.h: OS threads that each run a libuv loop and carry many fibers (C stacks that switch in user space).

   A fiber belongs to one thread for all its life. It runs until it parks (td_fiber_park or a td_wait_...), is then
   resumed when somebody on its thread wakes it, and ends when its entry function returns or when it is dropped.
   A dropped fiber is never resumed: its stack is given back as it is, so what it holds outside that stack must be in
   its holds, which are released then (last in, first out).

   Order of one turn of a thread: posted calls and I/O, due timers, then the fibers that are ready, each once, then
   those that only gave way (td_fiber_wake of itself and td_fiber_park), one at least and for a millisecond or so.

   Misuse (a call from the wrong thread, a park without a fiber) is an assertion. */
#ifndef TD_LOOP_H
#define TD_LOOP_H

#include "../base/base.h"

#include <uv.h>

typedef struct td_thread td_thread;
typedef struct td_fiber td_fiber;
typedef void td_call_fn(void *arg);

/* ---- Threads ---- */

/* td_thread_start starts an OS thread with a loop. name is at most 15 bytes (shown by ps). All signals are blocked on
   it but faults and SIGCHLD (libuv's). Errors: MEMORY, IO. */
int td_thread_start(td_thread **thread, const char *name, tidemill_error *err) TD_MUST_CHECK;

/* td_thread_post runs fn(arg) on the thread's loop, in the order of the posts. From any thread. Errors: MEMORY, and
   STATE once a stop has come so far that nothing more is run; then arg is still the caller's. */
int td_thread_post(td_thread *thread, td_call_fn *fn, void *arg) TD_MUST_CHECK;

/* td_thread_stop lets the loop run what was posted, drops fibers that are left, closes all handles, joins the
   thread, frees it. From another thread. NULL is allowed. */
void td_thread_stop(td_thread *thread);

/* td_thread_abandon is td_thread_stop for a thread that something does not let go of: it does not wait, and the thread
   ends and frees itself when it can. It must not be watched any more. */
void td_thread_abandon(td_thread *thread);

/* td_thread_self returns the loop thread we run on, else NULL. td_thread_loop: its libuv loop (use on it only). */
td_thread *td_thread_self(void);
uv_loop_t *td_thread_loop(td_thread *thread);

/* td_thread_local returns the object that a layer above keeps with the thread, NULL if none. td_thread_set_local sets
   it, with a function that frees it when the thread stops: on that thread, after its fibers were dropped, before
   handles are closed, the last set first. An object that is replaced, or taken out (object NULL), is the caller's again
   and not freed. key is the address of any static. On the thread itself only. Error: MEMORY. */
void *td_thread_local(td_thread *thread, const void *key);
int td_thread_set_local(td_thread *thread, const void *key, void *object, td_call_fn *free_fn) TD_MUST_CHECK;

/* ---- Fibers ---- */

/* td_fiber_new makes a fiber of the calling loop thread; entry(arg) starts when it is first woken. The C stack has
   stack_size bytes (0: 1 MiB, reserved, touched as used) and a guard. NULL without memory. */
td_fiber *td_fiber_new(td_call_fn *entry, void *arg, size_t stack_size) TD_MUST_CHECK;

/* td_fiber_self: the fiber that runs now, NULL on the loop itself or elsewhere. Fetched anew after each switch. */
td_fiber *td_fiber_self(void);

/* td_fiber_park gives the thread away until td_fiber_wake. It may return for a wake that meant something else: park in
   a loop around a condition. Only from a fiber. */
void td_fiber_park(void);

/* td_fiber_wake makes a parked fiber ready; a ready or running one is woken again when it next parks (once, however
   often it was woken). To wake oneself and park is to give way. On its thread. */
void td_fiber_wake(td_fiber *fiber);

/* td_fiber_start makes a new fiber ready, behind those that were woken: a thread that is given many new fibers at once
   serves timers and I/O in between. On its thread. */
void td_fiber_start(td_fiber *fiber);

/* td_fiber_run runs a fiber that is parked or new at once, until it parks, gives way or ends: what it has to do is done
   when this returns, if it is short, and nothing has been queued. On its thread's loop, not from a fiber. */
void td_fiber_run(td_fiber *fiber);

/* td_fiber_interrupt ends the waits of a fiber (td_wait_...) with CANCELLED, the one that it is in and every later one,
   and wakes it if it is parked otherwise: td_fiber_interrupted tells why. td_fiber_restore ends that. On its thread. */
void td_fiber_interrupt(td_fiber *fiber);
void td_fiber_restore(td_fiber *fiber);
bool td_fiber_interrupted(void);

/* td_fiber_drop ends a fiber that does not run (parked, ready or never started): holds are released, the stack freed.
   On its thread, not from itself. A fiber whose entry returned is freed in the same way by itself. NULL is allowed. */
void td_fiber_drop(td_fiber *fiber);

/* td_fiber_doing says what the running fiber waits for, from now on (static; NULL: nothing in particular), for people
   who ask what it does. Returns what it was before, to be put back. td_fiber_waits returns what a fiber waits for that
   does not run, NULL when it could go on. On its thread. */
const char *td_fiber_doing(const char *what);
const char *td_fiber_waits(const td_fiber *fiber);

/* td_nopreempt_enter and _leave enclose what must not be cut off in the middle, because it owns foreign memory or a
   lock while it calls into code that may be preempted. They nest, and belong to the fiber that runs (none: nothing). */
void td_nopreempt_enter(void);
void td_nopreempt_leave(void);

/* A resource that a fiber owns beyond its stack. Embedded in a heap structure; release must free that structure. */
typedef struct td_hold {
    td_list link;
    void (*release)(struct td_hold *hold);
} td_hold;

/* td_hold_push gives a resource to a fiber; td_hold_take takes it back (without releasing it). */
void td_hold_push(td_fiber *fiber, td_hold *hold, void (*release)(td_hold *));
void td_hold_take(td_hold *hold);

/* ---- Waiting, from a fiber ---- */

/* td_wait_until parks until the monotonic time deadline_ns, never less (a time that is over: gives way). A
   td_fiber_wake meanwhile does not end it, and is kept for the next td_fiber_park. Errors: STATE (not on a fiber),
   CANCELLED (td_fiber_interrupt). */
int td_wait_until(uint64_t deadline_ns, tidemill_error *err);

/* td_wait_fd parks until fd is ready for events (UV_READABLE, UV_WRITABLE), or deadline_ns (UINT64_MAX: none).
   *ready (may be NULL) is what it is ready for, 0 after a timeout; an fd with an error is ready for all. Makes fd
   non-blocking. A td_fiber_wake meanwhile is kept, as above. Errors: TIMEOUT, CANCELLED, IO, MEMORY, STATE. The fd may
   be in no other wait on this thread at the same time. */
int td_wait_fd(int fd, int events, uint64_t deadline_ns, int *ready, tidemill_error *err) TD_MUST_CHECK;

#endif
