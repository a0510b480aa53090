/* ready.h: waiting for a descriptor that is not ours alone.

   td_wait_fd makes a descriptor non-blocking, for everybody who has it open (a terminal, say), and allows one wait for
   it on a thread. Here it is watched through an epoll set of its own, which changes nothing about it and may be done by
   any number of fibers. */
#ifndef TD_READY_H
#define TD_READY_H

#include "../loop/loop.h"

/* td_ready_now returns which of events (UV_READABLE, UV_WRITABLE) fd is ready for now, 0 for none. A descriptor with an
   error, or at its end, is ready for all, as is one that never waits (a file). -1 (with errno) if it is not open. */
int td_ready_now(int fd, int events);

/* td_ready_wait parks the running fiber until fd is ready for one of events, or deadline_ns (UINT64_MAX: none).
   Returns what it is ready for. Errors: TIMEOUT, IO, MEMORY. */
int td_ready_wait(int fd, int events, uint64_t deadline_ns, tidemill_error *err) TD_MUST_CHECK;

#endif
