/* keeper.h: the one thread of a process that speaks with the database about jobs: it claims them for the executors, and
   records how they ended. */
#ifndef TD_KEEPER_H
#define TD_KEEPER_H

#include "executor.h"

typedef struct td_keeper td_keeper;

/* A queue that is served, and the number of its jobs that run at most. The rest is the keeper's. */
typedef struct td_queue_state {
    char *name;
    int workers;
    int busy;
    int free; /* how many were asked for in the exchange under way, */
    int got;  /* and how many came */
    bool due; /* there may be something due that was not asked for */
} td_queue_state;

typedef struct td_keeper_config {
    const char *database, *name;
    td_handlers *handlers;
    const td_log *log;
    td_queue_state *queues;
    size_t queues_count;
    td_executor **executors;
    size_t executors_count;
} td_keeper_config;

/* td_keeper_new makes a keeper that does nothing yet, so that executors can name it. *config is copied; what it points
   to must outlive the keeper. NULL without memory. */
td_keeper *td_keeper_new(const td_keeper_config *config);

/* td_keeper_start registers the process, publishes its tasks, and begins to claim. Blocks until that is so.
   Errors: CONNECT, OUTCOME, DATABASE, SCHEMA, MEMORY, IO. */
int td_keeper_start(td_keeper *keeper, tidemill_error *err) TD_MUST_CHECK;

/* td_keeper_ended takes a job that has ended, from an executor's thread: td_executor_config's ended. */
void td_keeper_ended(void *keeper, td_job *job);

/* td_keeper_stop claims no more, waits up to grace_ms for running jobs, ends the others, and gives them back. Blocks.
   Only after a start that succeeded. */
void td_keeper_stop(td_keeper *keeper, int64_t grace_ms, tidemill_stopped *stopped);

/* td_keeper_statistics fills all fields but workers. From any thread. */
void td_keeper_statistics(const td_keeper *keeper, tidemill_statistics *statistics);

/* td_keeper_free ends the thread, if it was started; the executors must be gone by then. NULL is allowed. */
void td_keeper_free(td_keeper *keeper);

#endif
