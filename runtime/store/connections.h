/* connections.h: connections that threads share: who may have one, and those that wait for the next to use them.

   A turn is the right to one connection. There are as many as there may be connections; they are given in the
   order in which fibers asked, whatever their threads, and a fiber that is dropped, waiting or not, loses none. */
#ifndef TD_CONNECTIONS_H
#define TD_CONNECTIONS_H

#include "../loop/loop.h"

struct pg_conn;

/* A thread's place at them. */
typedef struct td_seat td_seat;

/* One fiber's turn, in a structure that it holds. {0} is none; it must not move. */
typedef struct td_turn {
    td_list link;
    td_seat *seat;
    td_fiber *fiber;
    enum { TD_TURN_NONE, TD_TURN_WAITS, TD_TURN_GIVEN } state; /* under their mutex */
} td_turn;

/* Connections to one database, at most so many, for any number of threads. Counted; nothing is connected yet. */
typedef struct td_connections td_connections;

/* td_connections_new makes them, counted once for the caller; url is as tidemill_connect's. NULL without memory. */
td_connections *td_connections_new(const char *url, int max);
td_connections *td_connections_ref(td_connections *connections);
void td_connections_unref(td_connections *connections);

/* td_connections_join gives a thread a seat at them, until it ends. On that thread, once. Errors: MEMORY, IO, STATE (it
   has one). */
int td_connections_join(td_thread *thread, td_connections *connections, tidemill_error *err) TD_MUST_CHECK;

/* td_connections_seat returns the calling thread's seat, NULL if it has none. td_connections_url: of its database. */
td_seat *td_connections_seat(void);
const char *td_connections_url(const td_seat *seat);

/* td_connections_take returns an idle connection that is open, as far as can be told; NULL for none. For who has a
 * turn. */
struct pg_conn *td_connections_take(td_seat *seat);

/* td_turn_take parks the running fiber until it has a turn. td_turn_end gives it back, with a connection for others to
   use (or NULL), or ends the waiting; none: nothing. On the same thread. */
void td_turn_take(td_turn *turn, td_seat *seat);
void td_turn_end(td_turn *turn, struct pg_conn *conn);

#endif
