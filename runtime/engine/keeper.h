/* keeper.h: the one thread of a process that speaks with the database about jobs: it claims them for the executors, and
   records how they ended. */
#ifndef TD_KEEPER_H
#define TD_KEEPER_H

#include "pool.h"
#include "queues.h"

typedef struct td_keeper td_keeper;

typedef struct td_keeper_config {
    const char *database, *name;
    const char *dir;       /* of the handlers */
    td_handlers *handlers; /* to begin with; counted by the keeper */
    const td_log *log;
    td_watch *watch;
    td_queues *queues;
    bool keep_logs;      /* of completed attempts, too */
    bool watch_files;    /* reload when they change */
    int64_t load_max_ms; /* how long that may take */
    bool rerun;          /* after a reload, the last job that failed runs again */
    td_pool **pool;      /* where the pool will be, when td_keeper_start is called */
} td_keeper_config;

/* td_keeper_new makes a keeper that does nothing yet, so that executors can name it. *config is copied; what it points
   to must outlive the keeper. NULL without memory. */
td_keeper *td_keeper_new(const td_keeper_config *config);

/* td_keeper_start registers the process, publishes its tasks, and begins to claim. Blocks until that is so.
   Errors: CONNECT, OUTCOME, DATABASE, SCHEMA, MEMORY, IO. */
int td_keeper_start(td_keeper *keeper, tidemill_error *err) TD_MUST_CHECK;

/* td_keeper_ended takes a job that has ended, from an executor's thread: td_executor_config's ended. */
void td_keeper_ended(void *keeper, td_job *job);

/* td_keeper_stuck is told of a job that does not let go of its thread, from the watcher's: td_pool_config's stuck. */
void td_keeper_stuck(void *keeper, td_executor *executor, int64_t job, uint64_t ms);

/* What came of a reload. */
typedef void td_reloaded_fn(void *arg, int rc, const tidemill_error *err);

/* td_keeper_reload loads the handlers anew, as they are now or later; done (may be NULL) is called on the keeper's
   thread when that has failed, or has been put into effect everywhere. From any thread. Error: MEMORY. */
int td_keeper_reload(td_keeper *keeper, td_reloaded_fn *done, void *arg) TD_MUST_CHECK;

/* td_keeper_stop claims no more, waits up to grace_ms for running jobs, ends the others, and gives them back. Blocks.
   Only after a start that succeeded. */
void td_keeper_stop(td_keeper *keeper, int64_t grace_ms, tidemill_stopped *stopped);

/* td_keeper_statistics fills all fields but workers. From any thread. */
void td_keeper_statistics(const td_keeper *keeper, tidemill_statistics *statistics);

/* td_keeper_free ends the thread, if it was started; the executors must be gone by then. NULL is allowed. */
void td_keeper_free(td_keeper *keeper);

#endif
