/* pool.h: connections that threads share: who may have one, and those that wait for the next to use them.

   A turn is the right to one connection. There are as many as the pool may have connections; they are given in the
   order in which fibers asked, whatever their threads, and a fiber that is dropped, waiting or not, loses none. */
#ifndef TD_POOL_H
#define TD_POOL_H

#include "../loop/loop.h"

struct pg_conn;

/* A thread's place at a pool. */
typedef struct td_seat td_seat;

/* One fiber's turn, in a structure that it holds. {0} is none; it must not move. */
typedef struct td_turn {
    td_list link;
    td_seat *seat;
    td_fiber *fiber;
    enum { TD_TURN_NONE, TD_TURN_WAITS, TD_TURN_GIVEN } state; /* under the pool's mutex */
} td_turn;

/* td_pool_join gives the thread a seat: at a pool of its own with so many connections, or (0) at the process's pool for
   this url, which has 4, is made by the first thread and freed with the last. On that thread, once. Errors: MEMORY, IO,
   STATE (it has one). */
int td_pool_join(td_thread *thread, const char *url, int connections, tidemill_error *err) TD_MUST_CHECK;

/* td_pool_seat returns the calling thread's seat, NULL if it has none. td_pool_url: of its database. */
td_seat *td_pool_seat(void);
const char *td_pool_url(const td_seat *seat);

/* td_pool_take returns an idle connection that is open, as far as can be told; NULL for none. For who has a turn. */
struct pg_conn *td_pool_take(td_seat *seat);

/* td_turn_take parks the running fiber until it has a turn. td_turn_end gives it back, with a connection for others to
   use (or NULL), or ends the waiting; none: nothing. On the same thread. */
void td_turn_take(td_turn *turn, td_seat *seat);
void td_turn_end(td_turn *turn, struct pg_conn *conn);

#endif
