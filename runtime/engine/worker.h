/* worker.h: a worker, and the executor on whose thread it is: private to worker.c and executor.c.

   A worker is a Lua state and a fiber. It is idle (in the executor's `idle`), or has a job (which is in `jobs`), or
   closes (in `closing`: its state's finalizers run, and then it is gone). Its fiber parks in two places only: waiting
   for a job, and inside the handler; and is made to give way anywhere in there (loop/preempt.h).

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
    TD_KEEP_BYTES = 2 << 20,      /* what a worker may keep mapped while it is idle */
};
#define TD_MEMORY_LIMIT_DEFAULT ((size_t)64 << 20)

typedef struct td_worker {
    td_list link; /* in idle or closing */
    struct td_executor *executor;
    td_fiber *fiber;
    td_state *state;
    td_job *job;
    td_ctx ctx;
    bool retire;      /* it is to close */
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
    td_list arriving; /* jobs handed over, under the mutex; one post is under way while there are any */
    td_list waiting;  /* jobs for which the process has no memory now */
    td_list idle;     /* of workers, the warmest first */
    td_list jobs;     /* that run */
    td_list closing;  /* of workers */
    uv_timer_t timer;
    uint64_t timer_ns; /* when it fires; 0: it does not */
    uv_timer_t tidy;   /* closes what was idle for long */
    bool ending;
    bool disowned;
    td_log log;    /* a copy of the configuration's, so that it can be taken away */
    bool orphaned; /* under the mutex: nobody is there to take jobs that end */
    _Atomic int64_t workers;
    _Atomic size_t load;
};

/* td_worker_run gives a job, which is in no list, to an idle or a new worker. Returns false, with *err set, when none
   can be made; the job is then the caller's still. */
bool td_worker_run(td_executor *executor, td_job *job, tidemill_error *err) TD_MUST_CHECK;

/* td_worker_stop stops a job that runs: it ends as outcome says, with why as its error (copied; NULL: none). */
void td_worker_stop(td_job *job, td_outcome outcome, const char *why);

/* td_worker_drop ends a worker as it is, and its job, if it has one. */
void td_worker_drop(td_worker *worker);

/* td_worker_retire has an idle worker close. */
void td_worker_retire(td_worker *worker);

/* td_executor_watch has the timer fire at the time given at the latest. */
void td_executor_watch(td_executor *executor, uint64_t at_ns);

/* td_executor_release hands a job that has ended back: its result is complete. */
void td_executor_release(td_executor *executor, td_job *job);

#endif
