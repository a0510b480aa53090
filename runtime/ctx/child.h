/* child.h: a child process in a process group of its own, awaited by its pidfd: no handler of SIGCHLD is needed, and
   none of the program's signal handlers is touched. All functions run on a loop thread, and none blocks. */
#ifndef TD_CHILD_H
#define TD_CHILD_H

#include "failure.h"

#include <sys/types.h>

typedef struct td_grave td_grave;

/* A running child. {0} is none. */
typedef struct td_child {
    pid_t pid;        /* 0: none, or reaped */
    int pidfd;        /* readable when it has ended */
    int in, out, err; /* our ends of its pipes, not blocking; -1 when closed. The owner closes them by td_child_end. */
    bool lost;        /* somebody else has reaped it, so its end is not known */
    td_grave *grave;
} td_child;

/* What one of a child's standard descriptors is: /dev/null, a pipe to us, or what ours is. */
typedef enum td_child_io { TD_CHILD_NULL, TD_CHILD_PIPE, TD_CHILD_OURS } td_child_io;

/* What to start: all of it is used during the call only. */
typedef struct td_command {
    char *const *argv, *const *envp;
    const char *cwd; /* NULL: where we are */
    td_child_io in, out, err;
} td_command;

/* td_child_start starts a program, found by PATH, with default signal handling and no descriptor but the standard
   three. Failures: not_found, io, memory; then *child is {0} and nothing is left. */
int td_child_start(td_child *child, const td_command *command, td_failure *failure) TD_MUST_CHECK;

/* td_child_wait parks the running fiber until the child has ended, or deadline_ns (UINT64_MAX: none). Failures:
   timeout, io, memory. */
int td_child_wait(td_child *child, uint64_t deadline_ns, td_failure *failure) TD_MUST_CHECK;

/* td_child_ended says whether it has ended. It stays unreaped, so its process group can still be named. */
bool td_child_ended(td_child *child);

/* td_child_reap takes the end of a child that has ended: its exit status, or else (-1) the signal that ended it (else
   0). What it left in its group is killed first. Failure: io, when the end is not known. */
int td_child_reap(td_child *child, int *status, int *signal, td_failure *failure) TD_MUST_CHECK;

/* td_child_end closes our ends, kills the group if the child was not reaped, and sees to it that it is reaped later. */
void td_child_end(td_child *child);

#endif
