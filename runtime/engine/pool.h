/* pool.h: the threads of a process that run jobs: some for handlers that wait without holding their thread, and others,
   made when they are needed, each for one job of a blocking task at a time.

   A thread that a handler does not let go of, since foreign code blocks in there, is first told of, and then written
   off: a new one takes its place, and the jobs that waited on it are given back. It may end the job that it is stuck
   in, and is then of no further use. Used on the keeper's thread, where nothing else is said. */
#ifndef TD_POOL_H
#define TD_POOL_H

#include "executor.h"

enum {
    TD_STUCK_MS = 100,     /* so long without letting go is worth a line in the log, */
    TD_WRITE_OFF_MS = 500, /* and so long the end of the thread */
    TD_BLOCKING_MAX = 32,  /* threads for blocking tasks, unless set */
    TD_POOL_MAX = 64,      /* threads that run handlers */
};

typedef struct td_pool td_pool;

typedef struct td_pool_config {
    td_executor_config
        executor;     /* of each thread; name, exclusive, stuck and stuck_arg are the pool's, handlers are counted */
    int threads;      /* 1 to TD_POOL_MAX */
    int blocking_max; /* threads for blocking tasks; 1 or more */
    /* stuck is called, on the watcher's thread, with an executor whose thread has not been let go of for so long by the
       job of this id; and again from time to time. */
    void (*stuck)(void *arg, td_executor *executor, int64_t job, uint64_t ms);
    void *arg;
} td_pool_config;

/* td_pool_new starts the threads. From any thread. *config is copied. Errors: MEMORY, IO. */
int td_pool_new(const td_pool_config *config, td_pool **pool, tidemill_error *err) TD_MUST_CHECK;

/* td_pool_run hands jobs over (a list by their link, empty afterwards). Jobs that no thread could be given end as
   returned at once. */
void td_pool_run(td_pool *pool, td_list *jobs);

/* td_pool_end ends the job of this id and lease token where it is, as outcome says, with why as its error (static, or
   NULL); id 0: all jobs. */
void td_pool_end(td_pool *pool, int64_t id, int64_t token, td_outcome outcome, const char *why);

/* td_pool_write_off gives up an executor, unless that has happened already; job is the one it is stuck in. Returns
   whether it did. What else it has is the caller's to give back. */
bool td_pool_write_off(td_pool *pool, td_executor *executor, int64_t job);

/* td_pool_reload has jobs that start from now on run on another handler set. td_pool_reloaded says whether that is so
   on every thread, but for those that were written off. */
void td_pool_reload(td_pool *pool, td_handlers *handlers, int generation);
bool td_pool_reloaded(td_pool *pool);

/* td_pool_survey asks every thread what its jobs do; the answers come by and by. The survey is the caller's; NULL
   without memory. From any thread. */
td_survey *td_pool_survey(td_pool *pool, bool traces);

/* td_pool_workers returns how many workers exist now. From any thread. */
int64_t td_pool_workers(td_pool *pool);

/* td_pool_free stops the threads; those that are stuck are left to end by themselves. From any thread. NULL is allowed.
 */
void td_pool_free(td_pool *pool);

#endif
