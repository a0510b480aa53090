/* private.h: what the keeper's files share: keeper.c (its life), exchange.c (claiming and recording), heart.c (liveness
   and notifications), stuck.c (jobs that block their threads). Everything but the mailbox is touched by the keeper's
   thread only. */
#ifndef TD_ENGINE_PRIVATE_H
#define TD_ENGINE_PRIVATE_H

#include "keeper.h"
#include "load.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    TD_BATCH_MAX = 1000,    /* jobs recorded or claimed in one round trip */
    TD_POLL_MS = 1000,      /* how often it is asked for work that no notification told of */
    TD_HEARTBEAT_MS = 2000, /* tidemill.rescue takes a process for dead after 10 s without */
    TD_ALONE_MS = 8000,     /* without a heartbeat for so long, jobs are ended before others may take them */
    TD_SURVEY_MS = 200,     /* how long a survey waits for a thread that is stuck */
    TD_RETRY_FIRST_MS = 100,
    TD_RETRY_MAX_MS = 5000,
    TD_LAST_CALL_MS = 500, /* from the end of the grace period until jobs that block their threads are given back */
    TD_FAREWELL_MS = 5000, /* how long a stop tries to reach a database that is away */
};

enum {
    TD_HISTORY_MAX = 5,
    TD_WAITERS_MAX = 16,
    TD_CODE_MAX = 65,
    TD_REASON_MAX = sizeof((tidemill_error *)0)->message
};

/* A reload under way, and what those before have left. They take turns: what is asked for while one is under way is the
   next one's, since files may have changed after they were read. */
typedef struct td_reload {
    /* What was asked for, and is not begun. */
    bool wanted;
    bool asked;           /* by somebody, not by a change of the files */
    int64_t request;      /* the newest request of the database's that was heard of; 0: none */
    char to[TD_CODE_MAX]; /* the code to go back to; "": load the files */

    /* The turn under way. */
    uint64_t turn; /* its number */
    uv_work_t work;
    td_loader *loader; /* NULL: nothing is being loaded */
    bool hurried;      /* the load was cut short, since what it reads has changed again */
    bool loaded;       /* next is to be put into effect, by the heart */
    bool answer;       /* the database is to be told, by the heart */
    td_handlers *next; /* counted */
    int rc;            /* of the load */
    tidemill_error error;
    uint64_t began_ns;
    bool loud;       /* what comes of it is logged in any case, since somebody asked for it */
    int64_t answers; /* the request that it answers; 0: none */

    /* What came of the last one. */
    char degraded[TD_REASON_MAX]; /* why the files' code is not in effect; "": it is, or is not wanted */
    char refused[TD_REASON_MAX];  /* why the turn was not even tried; "": it was */
    td_handlers
        *history[TD_HISTORY_MAX]; /* different code that ran, the newest first, counted: the first is in effect */
    struct {
        td_reloaded_fn *done;
        void *arg;
        uint64_t turn; /* told when this one is over */
    } waiters[TD_WAITERS_MAX];
    size_t waiters_count;
} td_reload;

struct td_keeper {
    td_keeper_config config;
    td_thread *thread;
    td_fiber *exchange, *heart, *listener, *changes;
    td_handlers *handlers; /* on which jobs start, counted */
    int generation;
    const char **tasks; /* names, of the handlers */
    size_t tasks_count;
    td_buf tasks_json, queues_json, survey_json;
    int64_t process;
    uv_sem_t told; /* posted when the start has succeeded or failed, and when the stop is done */

    /* Start and stop. */
    int start_rc;
    tidemill_error start_error;
    bool started;
    bool stopping; /* no more is claimed */
    bool done;     /* `told` was posted for the stop */
    uv_timer_t grace;
    tidemill_stopped stopped;

    /* The mailbox: jobs that have ended, from the executors. A post is under way while it is not empty. */
    pthread_mutex_t mutex;
    td_list arriving;

    /* The exchange. A job is in `running` until it arrives, then in `ended`, then in the batch until that is recorded.
     */
    td_list running, ended;
    size_t running_count;
    td_job *batch[TD_BATCH_MAX];
    size_t batch_count;
    int64_t unknown_token;           /* of a claim whose answer was lost; 0: none */
    td_ending endings[TD_BATCH_MAX]; /* what is sent, */
    int64_t spent[TD_BATCH_MAX];
    td_room *rooms;
    td_lease *lease; /* and what is claimed, until it is known to have succeeded */
    td_list claimed;
    bool marked;      /* as asleep, so that enqueues notify */
    uint64_t busy_ns; /* since when every claim came back full; 0: it did not */
    uv_timer_t poll, due;

    /* The heart and the listener. */
    uv_timer_t pulse;
    bool beat;        /* it is to beat now */
    bool alone;       /* the database was out of reach for too long */
    uint64_t beat_ns; /* when the last heartbeat that arrived was sent */
    td_hold ear_hold;
    struct pg_conn *ear; /* the listener's connection, NULL: none */

    /* Reloading (reload.c). */
    td_reload reload;
    int64_t failed_job; /* the last one that failed; 0: none */

    _Atomic int64_t outcomes[TD_RETURNED + 1];
    _Atomic int64_t dead, now_running, blocked, written_off;
};

/* td_exchange_fiber and td_heart_fiber, td_listener_fiber are the entries of the fibers; the argument is the keeper. */
void td_exchange_fiber(void *keeper);
void td_heart_fiber(void *keeper);
void td_listener_fiber(void *keeper);

/* td_keeper_describe makes what is told to the database of the handlers and queues. False without memory. */
bool td_keeper_describe(td_keeper *keeper);

/* td_changes_fiber watches the handlers' files. */
void td_changes_fiber(void *keeper);

/* td_reload_changed has the handlers loaded anew, in a load that begins after the call; td_reload_ask does so because
   somebody asked for it; request is the database's (0: none). td_reload_to goes back to the code of a hash instead.
   td_reload_beat is the heart's part: puts into effect what was loaded, and tells the database. td_reload_stop ends a
   load under way, and has none begin. */
void td_reload_changed(td_keeper *keeper);
void td_reload_ask(td_keeper *keeper, int64_t request);
void td_reload_to(td_keeper *keeper, const char *code, int64_t request);
int td_reload_beat(td_keeper *keeper, tidemill_error *err) TD_MUST_CHECK;
void td_reload_stop(td_keeper *keeper);
/* td_reload_tell tells the database which code runs and what keeps the process from newer code, and answers a request
   (0: none). */
int td_reload_tell(td_keeper *keeper, int64_t request, tidemill_error *err) TD_MUST_CHECK;
void td_reload_free(td_keeper *keeper);

/* td_keeper_differs logs that another process declares a task differently. arg is the keeper. */
void td_keeper_differs(void *keeper, const char *task);

/* td_keeper_begin starts claiming, once the process is registered. */
void td_keeper_begin(td_keeper *keeper);

/* td_exchange_wake has the exchange look again whether there is something to do. */
void td_exchange_wake(td_keeper *keeper);

/* td_exchange_ask has it ask for due jobs of a queue (NULL: of all). */
void td_exchange_ask(td_keeper *keeper, td_queue_state *queue);

/* td_keeper_end_all ends every running job where it is. why is static. */
void td_keeper_end_all(td_keeper *keeper, td_outcome outcome, const char *why);

/* td_keeper_done tells who waits for the stop that it is done. */
void td_keeper_done(td_keeper *keeper);

/* td_keeper_pause parks the running fiber before a further try: longer and longer up to a bound; *pause_ms begins as 0.
 */
void td_keeper_pause(int64_t *pause_ms);

/* td_keeper_job_ended takes a job that has ended, on the keeper's thread. */
void td_keeper_job_ended(td_keeper *keeper, td_job *job);

/* td_stuck_check ends jobs that block their threads past their deadlines. td_stuck_give_back gives back all jobs of an
   executor (NULL: all) but one (an id, 0: none), though they are still there. */
void td_stuck_check(td_keeper *keeper);
void td_stuck_give_back(td_keeper *keeper, const td_executor *executor, int64_t but);

/* td_keeper_job_free frees a job whose end was recorded, or that nobody will record. */
void td_keeper_job_free(td_job *job);

#endif
