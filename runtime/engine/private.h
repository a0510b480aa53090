/* private.h: what the keeper's files share: keeper.c (its life), exchange.c (claiming and recording), heart.c (liveness
   and notifications). Everything but the mailbox is touched by the keeper's thread only. */
#ifndef TD_ENGINE_PRIVATE_H
#define TD_ENGINE_PRIVATE_H

#include "keeper.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    TD_BATCH_MAX = 1000,    /* jobs recorded or claimed in one round trip */
    TD_POLL_MS = 1000,      /* how often it is asked for work that no notification told of */
    TD_HEARTBEAT_MS = 2000, /* tidemill.rescue takes a process for dead after 10 s without */
    TD_ALONE_MS = 8000,     /* without a heartbeat for so long, jobs are ended before others may take them */
    TD_RETRY_FIRST_MS = 100,
    TD_RETRY_MAX_MS = 5000,
    TD_FAREWELL_MS = 5000, /* how long a stop tries to reach a database that is away */
};

struct td_keeper {
    td_keeper_config config;
    td_thread *thread;
    td_fiber *exchange, *heart, *listener;
    const char **tasks; /* names, of the handlers */
    size_t tasks_count;
    td_buf tasks_json, queues_json;
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

    _Atomic int64_t outcomes[TD_RETURNED + 1];
    _Atomic int64_t dead, now_running;
};

/* td_exchange_fiber and td_heart_fiber, td_listener_fiber are the entries of the fibers; the argument is the keeper. */
void td_exchange_fiber(void *keeper);
void td_heart_fiber(void *keeper);
void td_listener_fiber(void *keeper);

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

/* td_keeper_job_free frees a job whose end was recorded, or that nobody will record. */
void td_keeper_job_free(td_job *job);

#endif
