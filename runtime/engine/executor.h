/* executor.h: an OS thread that runs jobs on its workers. A worker is a Lua state and a fiber; it is made when a job
   finds none idle, and the one that was busy last is taken first, since its memory is warm. */
#ifndef TD_EXECUTOR_H
#define TD_EXECUTOR_H

#include "../loop/preempt.h"
#include "../store/connections.h"
#include "job.h"
#include "survey.h"
#include "tally.h"

typedef struct td_executor td_executor;

typedef struct td_executor_config {
    const char *name;      /* of the thread, at most 15 bytes */
    td_handlers *handlers; /* to begin with; counted by the executor */
    int generation;        /* its number */
    const td_log *log;
    td_connections *connections; /* for handlers; counted by each thread */
    td_watch *watch;             /* over its thread */
    bool signals;                /* td_preempt_open was called; else workers give way by themselves, at a cost */
    td_tally *memory;            /* what all workers of the process have mapped (counted by the executor, too); */
    size_t memory_max;           /* from here on jobs wait for others to end (0: no bound) */
    bool exclusive;              /* one job at a time */
    /* stuck is called, on the watcher's thread, when the job of this id does not let go of the thread; NULL: never. */
    void (*stuck)(void *arg, int64_t job, uint64_t ms);
    void *stuck_arg;
    /* ended is called on the executor's thread, with a job that is the callee's from then on. */
    void (*ended)(void *arg, td_job *job);
    void *arg;
} td_executor_config;

/* td_executor_start starts the thread. *config is copied; what it points to must outlive the executor. */
int td_executor_start(const td_executor_config *config, td_executor **executor, tidemill_error *err) TD_MUST_CHECK;

/* td_executor_run hands jobs over (a list by their link, empty afterwards), from any thread. They are the executor's
   unless MEMORY is returned. */
int td_executor_run(td_executor *executor, td_list *jobs) TD_MUST_CHECK;

/* td_executor_end ends the job of this id and lease token where it is, as outcome says, with why as its error (static,
   or NULL); id 0: all jobs. Nothing happens to one that has ended already. From any thread. Error: MEMORY. */
int td_executor_end(td_executor *executor, int64_t id, int64_t token, td_outcome outcome,
                    const char *why) TD_MUST_CHECK;

/* td_executor_reload has jobs that start from now on run on another set; those that run end on theirs. It is so when it
   returns, but for a job that is being started; also after MEMORY, but then idle workers are not closed before the next
   job comes. td_executor_generation returns the number of the set on which the last job started, or the next will if
   the thread has had a turn meanwhile. From any thread. */
int td_executor_reload(td_executor *executor, td_handlers *handlers, int generation) TD_MUST_CHECK;
int td_executor_generation(const td_executor *executor);

/* td_executor_survey has the thread answer a survey, when it can. From any thread. */
void td_executor_survey(td_executor *executor, td_survey *survey);

/* td_executor_workers returns how many workers exist now; td_executor_load how many jobs it has been given that have
   not ended. From any thread. */
int64_t td_executor_workers(const td_executor *executor);
size_t td_executor_load(const td_executor *executor);

/* td_executor_disown tells an executor, whose thread is stuck in the job of this id, that it is to run nothing else: as
   soon as it can it hands all its other jobs back, and runs none that it is given. From any thread. */
void td_executor_disown(td_executor *executor, int64_t job);

/* td_executor_close begins what td_executor_free ends, so that several can be closed at once. From any thread. */
void td_executor_close(td_executor *executor);

/* td_executor_free stops the thread and frees everything; no job may be left in it. A thread that is stuck is not
   waited for: it frees everything, its job included, when it can. NULL is allowed. */
void td_executor_free(td_executor *executor);

#endif
