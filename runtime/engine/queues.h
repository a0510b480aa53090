/* queues.h: the queues that a process serves. The keeper's alone, once it runs. */
#ifndef TD_QUEUES_H
#define TD_QUEUES_H

#include "../vm/vm.h"

/* A queue that is served, and the number of its jobs that run at most. Never moved or freed while the keeper lives. */
typedef struct td_queue_state {
    char *name;
    int workers;
    int busy;
    int free;      /* how many were asked for in the exchange under way, */
    int got;       /* and how many came */
    int ended;     /* how many were in the last batch */
    bool due;      /* there may be something due that was not asked for */
    td_list ahead; /* jobs that are claimed and not started yet: exchange.c */
    int ahead_count;
} td_queue_state;

typedef struct td_queues {
    td_queue_state **list;
    size_t count;
    bool declared; /* none were asked for: the default queue, and those that handlers declare */
} td_queues;

/* td_queues_find returns the queue of this name, or NULL. */
td_queue_state *td_queues_find(const td_queues *queues, const char *name);

/* td_queues_add adds one. Error: MEMORY. */
int td_queues_add(td_queues *queues, const char *name, int workers, tidemill_error *err) TD_MUST_CHECK;

/* td_queues_declare adds those that handlers declare and that are not there yet, if they are wanted. One that nobody
   declares any more is served on, for the jobs that it has. Error: MEMORY. */
int td_queues_declare(td_queues *queues, const td_handlers *handlers, tidemill_error *err) TD_MUST_CHECK;

void td_queues_free(td_queues *queues);

#endif
