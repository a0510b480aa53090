/* worker.h: a worker, and the executor on whose thread it is: private to worker.c and executor.c.

   A worker is a Lua state and a fiber, on which all of the state's Lua runs, the handlers' top level included. It has a
   job (which is in the executor's `jobs`), or is idle (in `idle`, or
   `stale`), or collects its garbage in between, or closes (both
   in `collecting`, with a time by which finalizers have to be done). Its fiber parks in two places only: waiting for a
   job, and inside the handler; and is made to give way anywhere in there (loop/preempt.h).

   How a job is stopped: the call is asked to end at its next instruction (td_state_stop), and its waits are ended
   (td_fiber_interrupt); a <close> variable may still run. When the grace is over and it has not ended, the worker is
   dropped: stack and state are given back as they are, and the fiber's holds release the rest. Either way the worker
   has no further job, since what its state was left with is not known. */
#ifndef TD_WORKER_H
#define TD_WORKER_H

#include "executor.h"

#include "../ctx/ctx.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    TD_GRACE_MS = 25,             /* from a stop until a worker is dropped */
    TD_EXCLUSIVE_QUANTUM_MS = 10, /* there is nobody to give way to, but a deadline */
    TD_IDLE_MS = 30000,           /* a worker that was idle for so long is closed */
    TD_NEW_BYTES = 64 << 10,      /* what a worker needs at first */
    TD_KEEP_BYTES = 2 << 20,      /* with more than this mapped, a worker's garbage is collected after the job; */
    TD_RETIRE_BYTES = 16 << 20,   /* and when that leaves more than this in use, the worker is closed */
};
#define TD_MEMORY_LIMIT_DEFAULT ((size_t)64 << 20)

typedef struct td_worker {
    td_list link; /* in idle or collecting */
    struct td_executor *executor;
    td_fiber *fiber;
    td_state *state;
    td_job *job;
    td_ctx ctx;
    bool retire;      /* it is to close */
    bool opened;      /* its state is complete */
    bool stopping;    /* its job is, */
    td_outcome stop;  /* to end so, */
    char why[96];     /* for this reason; empty: none */
    uint64_t drop_ns; /* and by then it is dropped; 0: not */
    uint64_t idle_ns; /* since when it is idle */
    uint64_t run_ns;  /* of its fiber, when its job began */
} td_worker;

struct td_executor {
    td_executor_config config;
    char name[16];
    td_thread *thread;
    td_handlers *handlers; /* on which jobs start, counted */
    _Atomic int generation;
    td_preempt preempt;
    pthread_mutex_t mutex;
    td_handlers *next; /* on which they are to start, counted, under the mutex; NULL: as before */
    int next_generation;
    td_list arriving;   /* jobs handed over, under the mutex; one post is under way while there are any */
    td_list waiting;    /* jobs that cannot be started now */
    td_list idle;       /* of workers, the warmest first */
    td_list stale;      /* of idle workers of former code, which are closed a few at a time */
    td_list jobs;       /* that run */
    td_list collecting; /* of workers */
    uv_timer_t timer;
    uint64_t timer_ns;    /* when it fires; 0: it does not */
    size_t unopened;      /* workers whose states are not complete, so that what they need is not counted yet */
    uv_timer_t tidy;      /* closes what was idle for long */
    uint64_t farewell_ns; /* until when td_executor_free waits; 0: it is not being closed */
    bool asked_for_more;  /* a post is under way that starts waiting jobs */
    bool ending;
    bool disowned;
    td_log log;            /* a copy of the configuration's, so that it can be taken away */
    _Atomic bool orphaned; /* set under the mutex: nobody is there to take jobs that end */
    _Atomic int64_t workers;
    _Atomic size_t load;
};

/* td_worker_run gives a job, which is in no list, to an idle or a new worker, and lets that run: a job that is short
   and waits for nothing has ended afterwards. Returns false, with *err set, when no worker can be made; the job is then
   the caller's still. On the loop. */
bool td_worker_run(td_executor *executor, td_job *job, tidemill_error *err) TD_MUST_CHECK;

/* td_worker_stop stops a job that runs: it ends as outcome says, with why as its error (copied; NULL: none). */
void td_worker_stop(td_job *job, td_outcome outcome, const char *why);

/* td_worker_drop ends a worker as it is, and its job, if it has one. */
void td_worker_drop(td_worker *worker);

/* td_worker_retire has an idle worker close. */
void td_worker_retire(td_worker *worker);

/* td_executor_watch has the timer fire at the time given at the latest. */
void td_executor_watch(td_executor *executor, uint64_t at_ns);

/* td_executor_worker_gone counts a worker that is no more. */
void td_executor_worker_gone(td_executor *executor);

/* td_executor_release hands a job that has ended back: its result is complete. */
void td_executor_release(td_executor *executor, td_job *job);

#endif
