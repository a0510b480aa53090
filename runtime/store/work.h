/* work.h: what a worker process asks of the database. From a fiber of a thread with td_connections_join; each call is
   one round trip and parks the fiber meanwhile. */
#ifndef TD_WORK_H
#define TD_WORK_H

#include "../base/base.h"

/* How one attempt ended, as it is to be recorded. Borrowed texts, NULL where there is none; delay_s below 0: none. */
typedef struct td_ending {
    int64_t id, lease;
    const char *outcome, *error, *traceback, *result;
    double delay_s;
    int64_t cpu_us, wall_us, peak_bytes; /* what it cost; below 0: not known */
    const char *log;
    int generation;   /* of the code that it ran on, */
    const char *code; /* and that code's hash; "": it did not run */
} td_ending;

/* A queue, and how many jobs of it may be started. */
typedef struct td_room {
    const char *queue;
    int free;
} td_room;

typedef struct td_exchange {
    int64_t process;
    const td_ending *endings;
    size_t endings_count;
    const int64_t *spent; /* tokens of which no job is held any more */
    size_t spent_count;
    int64_t token; /* for what is claimed; drawn at random */
    const td_room *rooms;
    size_t rooms_count; /* 0: claim nothing */
    const char *const *tasks;
    size_t tasks_count;
    enum { TD_MARKS_KEEP, TD_MARKS_SET, TD_MARKS_CLEAR } marks; /* as asleep on the rooms' queues */
} td_exchange;

/* A started job. The texts are owned by whoever was given it: td_claimed_free. */
typedef struct td_claimed {
    int64_t id;
    char *task, *queue, *args, *tags; /* args and tags are JSON */
    int run, attempt, max_attempts, priority;
    int64_t enqueued_us, scheduled_us;
} td_claimed;

void td_claimed_free(td_claimed *claimed);

/* What an exchange came to. A callback each, called before td_work_exchange returns. */
typedef struct td_exchange_reply {
    void *arg;
    int (*job)(void *arg, td_claimed *claimed); /* takes the texts; not 0: out of memory */
    void (*stale)(void *arg, int64_t id);
    size_t jobs;     /* how many were started */
    bool room_left;  /* fewer were due than there was room for */
    int64_t wait_ms; /* until the next is due; below 0: none waits */
} td_exchange_reply;

/* Errors: as td_query_exec. After OUTCOME, what was sent may or may not have happened: endings can be sent again, and
   what was claimed under the token must be given back. */
int td_work_exchange(const td_exchange *exchange, td_exchange_reply *reply, tidemill_error *err) TD_MUST_CHECK;

/* td_work_start registers the process with the queues that it serves (a JSON object of numbers of workers), and
   publishes its tasks (a JSON array). differing is called for each task that another live process declared differently.
 */
int td_work_start(const char *name, const char *queues_json, const char *tasks_json,
                  void (*differing)(void *arg, const char *task), void *arg, int64_t *process,
                  tidemill_error *err) TD_MUST_CHECK;

/* What a heartbeat is answered with. */
typedef struct td_pulse {
    void *arg;
    /* stop is called for each of the process's running jobs that was asked to stop, with the job's lease, and whether
       it is to be cancelled or discarded. */
    void (*stop)(void *arg, int64_t id, int64_t lease, bool cancel);
    bool alive;         /* false: it was taken for dead */
    int64_t reload;     /* a reload that was asked for and that this process has not answered; 0: none */
    char reload_to[65]; /* to the code of this hash; "": to what the files hold now */
    int64_t inquiry;    /* somebody wants to know what the running jobs do; 0: nobody */
    bool traces;        /* with tracebacks */
} td_pulse;

/* td_work_heartbeat says that the process is alive, and gives back the jobs of those that are not. */
int td_work_heartbeat(int64_t process, td_pulse *pulse, tidemill_error *err) TD_MUST_CHECK;

/* td_work_publish publishes what the handlers declare, as td_work_start does. */
int td_work_publish(int64_t process, const char *tasks_json, void (*differing)(void *arg, const char *task), void *arg,
                    tidemill_error *err) TD_MUST_CHECK;

/* Which code a process runs. */
typedef struct td_running_code {
    int generation;
    const char *hash;
    const char *degraded; /* what keeps it from the files' code; "": nothing */
    const char *refused;  /* why the last request was not tried; "": it was */
} td_running_code;

/* td_work_reloaded tells which code a process runs and which queues it serves, and which request that answers (0:
 * none).
 */
int td_work_reloaded(int64_t process, const td_running_code *code, int64_t request, const char *queues_json,
                     tidemill_error *err) TD_MUST_CHECK;

/* td_work_answer answers an inquiry with a JSON array. */
int td_work_answer(int64_t process, int64_t inquiry, const char *jobs_json, tidemill_error *err) TD_MUST_CHECK;

/* td_work_retry makes a job that failed due now, if it can be. */
int td_work_retry(int64_t id, tidemill_error *err) TD_MUST_CHECK;

/* td_work_stop ends the process; what it still holds is given back. td_work_give_back does so for one token. */
int td_work_stop(int64_t process, tidemill_error *err) TD_MUST_CHECK;
int td_work_give_back(int64_t process, int64_t token, tidemill_error *err) TD_MUST_CHECK;

#endif
