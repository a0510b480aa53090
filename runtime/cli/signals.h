/* signals.h: SIGTERM, SIGINT and SIGHUP of a program that works until it is stopped.

   The first one asks for a stop; a second one ends the process at once, also while something blocks. A thread of its
   own waits for them, so that nothing runs in a signal's handler. */
#ifndef TD_SIGNALS_H
#define TD_SIGNALS_H

#include "../base/base.h"

typedef struct td_signals td_signals;

/* td_signals_start blocks SIGTERM, SIGINT and SIGHUP in the calling thread, which must be the only one (threads made
   later inherit that), ignores SIGPIPE, and starts waiting. A SIGHUP stops like a SIGTERM if hangup_stops; else it asks
   for a reload. *signals is the caller's. Errors: IO, MEMORY. */
int td_signals_start(bool hangup_stops, const td_log *log, td_signals **signals, tidemill_error *err) TD_MUST_CHECK;

/* td_signals_at_once sets what a second signal calls (on the signals' thread) before the process ends with exit code
   1; it must do with little, since other threads are in the middle of anything. NULL: nothing. */
void td_signals_at_once(td_signals *signals, void (*call)(void *arg), void *arg);

/* td_signals_fd returns a descriptor that is readable from when a stop was asked for. Do not read it. */
int td_signals_fd(const td_signals *signals);

/* td_signals_reload_fd returns a descriptor that is readable when a reload was asked for, until
 * td_signals_reload_taken. */
int td_signals_reload_fd(const td_signals *signals);
void td_signals_reload_taken(td_signals *signals);

/* td_signals_asked: whether a stop was asked for. */
bool td_signals_asked(const td_signals *signals);

/* td_signals_stop ends the waiting; signals stay blocked. NULL is allowed. */
void td_signals_stop(td_signals *signals);

#endif
