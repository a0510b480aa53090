/* job.h: one claimed job on its way through the process. The keeper makes it, an executor runs it, and the keeper frees
   it once its end is recorded; whoever has it has it alone. */
#ifndef TD_JOB_H
#define TD_JOB_H

#include "../store/work.h"
#include "../vm/vm.h"

#include <stdatomic.h>

enum {
    TD_TIMEOUT_DEFAULT_MS = 60000,
    TD_OVERDUE_MS = 1000, /* so long past its deadline a job is in foreign code */
};

struct td_executor;
struct td_worker;
struct td_queue_state;

/* A claimed batch: its token, and how many of its jobs are not yet recorded as ended. The keeper's alone. */
typedef struct td_lease {
    int64_t token;
    size_t open;
    size_t ending; /* while a batch of endings is put together: how many of them are in it */
} td_lease;

typedef struct td_job {
    td_list link;    /* the executor's: arriving or running; then the keeper's: arriving or ended */
    td_list running; /* the keeper's list of all that it has handed out */
    td_claimed claimed;
    int64_t token; /* of its lease */
    td_lease *lease;
    struct td_queue_state *queue;
    struct td_executor *executor;
    struct td_worker *worker; /* NULL unless it runs */
    int task;                 /* its number in the handler set, */
    int generation;           /* which has this number, */
    char code[13];            /* and this hash */
    uint64_t claimed_ns, started_ns, deadline_ns;
    _Atomic uint64_t overdue_ns; /* when it can no longer be running, but in foreign code; UINT64_MAX: not begun */
    int64_t cpu_us, wall_us, peak_bytes; /* what the attempt cost */
    char *log;                           /* the end of what it logged, malloc'd; NULL: nothing */
    td_result result;
    bool abandoned; /* the keeper has recorded an end of it already; what comes is only to be freed */
} td_job;

/* td_job_free frees a job but for its lease. */
void td_job_free(td_job *job);

#endif
