/* launch.h: runs a program as a given user and waits for it, for the private cluster of `dev`. */
#ifndef TD_LAUNCH_H
#define TD_LAUNCH_H

#include "../base/base.h"

#include <sys/types.h>

/* Whom to run as. */
typedef struct td_account {
    uid_t uid;
    gid_t gid;
    char name[64];
} td_account;

/* What to run. All is borrowed during td_launch_start. */
typedef struct td_launch {
    const char *const *argv;   /* argv[0] is the program's path */
    const td_account *account; /* whose rights it gets; our own if we are that user */
    const char *dir;           /* where it runs */
    const char *input;         /* a short text on its stdin; NULL: none */
    int output;                /* a descriptor for its stdout and stderr */
    int keep;                  /* one more descriptor that it inherits; -1: none */
    int death_signal;          /* what it gets when this thread ends; 0: nothing */
} td_launch;

typedef struct td_launched {
    pid_t pid; /* 0: none */
    int fd;    /* a pidfd: readable when it has ended */
} td_launched;

#define TD_LAUNCHED_NONE                                                                                               \
    { 0, -1 }

/* td_launch_start runs a program in a session of its own, so that a terminal's Ctrl-C does not reach it, without the
   environment's PG... and locale variables. Errors: IO (with errno's text: also when its folder cannot be entered by
   the account, or the program cannot be run), MEMORY. */
int td_launch_start(const td_launch *launch, td_launched *child, tidemill_error *err) TD_MUST_CHECK;

/* td_launch_wait waits until a child has ended, at most timeout_ms (-1: no limit), or until stop_fd (-1: none) is
   readable. On 0 the child is gone and *status is as of waitpid. Errors: TIMEOUT, CANCELLED (it still runs). */
int td_launch_wait(td_launched *child, int stop_fd, int timeout_ms, int *status, tidemill_error *err) TD_MUST_CHECK;

/* td_launch_end sends a signal, waits, and after timeout_ms sends SIGKILL. Nothing if there is no child. */
void td_launch_end(td_launched *child, int signal, int timeout_ms);

/* td_launch_run is start and wait. A child that a stop interrupts is ended. Errors: as both; and IO when its status is
   not 0. */
int td_launch_run(const td_launch *launch, int stop_fd, tidemill_error *err) TD_MUST_CHECK;

#endif
