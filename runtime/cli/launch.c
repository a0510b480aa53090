/* launch.c: runs a program as a given user and waits for it. See launch.h. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* environment returns the variables for a server program: ours without PG..., which would change what it does, and
   without a locale that this machine may not have. The array is malloc'd, its strings are borrowed. */
static char **environment(void) {
    size_t count = 0, n = 0;
    while (environ[count]) count++;
    char **result = calloc(count + 2, sizeof *result);
    if (!result) return NULL;
    for (size_t i = 0; i < count; i++) {
        const char *v = environ[i];
        if (strncmp(v, "PG", 2) != 0 && strncmp(v, "LC_", 3) != 0 && strncmp(v, "LANG", 4) != 0)
            result[n++] = environ[i];
    }
    result[n] = (char *)"LC_ALL=C";
    return result;
}

/* become takes on the account's rights, for good. Only calls that are safe after a fork. */
static bool become(const td_account *account) {
    if (geteuid() == account->uid) return true;
    return setgroups(1, &account->gid) == 0 && setgid(account->gid) == 0 && setuid(account->uid) == 0;
}

/* reset_signals undoes what td_signals_start set up: a server needs its signals. */
static void reset_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* in_child turns the forked child into the program. Writes errno to report_fd if it cannot. Only calls that are safe
   between fork and exec in a program with threads. */
static void in_child(const td_launch *l, char **env, pid_t parent, int input_fd, int report_fd) {
    reset_signals();
    setsid();
    bool ok = dup2(input_fd, 0) >= 0 && dup2(l->output, 1) >= 0 && dup2(l->output, 2) >= 0;
    ok = ok && (l->keep < 0 || fcntl(l->keep, F_SETFD, 0) == 0) && become(l->account) && chdir(l->dir) == 0;
    /* After the change of user, which clears it; and the parent may have ended before. */
    if (ok && l->death_signal) ok = prctl(PR_SET_PDEATHSIG, l->death_signal) == 0 && getppid() == parent;
    if (ok) execve(l->argv[0], (char *const *)l->argv, env);
    int wrong = errno;
    if (write(report_fd, &wrong, sizeof wrong) < 0) _exit(126);
    _exit(127);
}

/* input_of returns a descriptor from which a short text is read; /dev/null for NULL. -1 with errno on failure. */
static int input_of(const char *text) {
    int fds[2];
    if (!text) return open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (pipe2(fds, O_CLOEXEC)) return -1;
    if (write(fds[1], text, strlen(text)) < 0) {
        close(fds[0]);
        fds[0] = -1;
    }
    close(fds[1]);
    return fds[0];
}

/* spawn forks and execs. Returns 0 or errno. */
static int spawn(const td_launch *l, char **env, int input_fd, td_launched *child) {
    int report[2], wrong = 0;
    if (pipe2(report, O_CLOEXEC)) return errno;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) in_child(l, env, parent, input_fd, report[1]);
    if (pid < 0) wrong = errno;
    close(report[1]);
    ssize_t n = pid < 0 ? 0 : read(report[0], &wrong, sizeof wrong);
    close(report[0]);
    if (n > 0) waitpid(pid, NULL, 0);
    if (wrong) return wrong;
    child->pid = pid;
    child->fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (child->fd >= 0) return 0;
    wrong = errno;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    child->pid = 0;
    return wrong;
}

int td_launch_start(const td_launch *l, td_launched *child, tidemill_error *err) {
    *child = (td_launched)TD_LAUNCHED_NONE;
    char **env = environment();
    if (!env) return td_error_memory(err);
    int input_fd = input_of(l->input);
    int wrong = input_fd < 0 ? errno : spawn(l, env, input_fd, child);
    if (input_fd >= 0) close(input_fd);
    free(env);
    if (wrong == 0) return 0;
    return td_error_set(err, TIDEMILL_EIO, "%s could not be run as %s in %s: %s", l->argv[0], l->account->name, l->dir,
                        strerror(wrong));
}

int td_launch_wait(td_launched *child, int stop_fd, int timeout_ms, int *status, tidemill_error *err) {
    struct pollfd fds[] = { { .fd = child->fd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };
    uint64_t deadline = td_now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000;
    for (;;) {
        uint64_t now = td_now_ns();
        int left = timeout_ms < 0 ? -1 : deadline > now ? (int)((deadline - now) / 1000000) + 1 : 0;
        int n = poll(fds, 2, left);
        if (n < 0 && errno == EINTR) continue;
        if (fds[0].revents) break;
        if (fds[1].revents) return td_error_set(err, TIDEMILL_ECANCELLED, "it was stopped");
        if (n <= 0) return td_error_set(err, TIDEMILL_ETIMEOUT, "process %d did not end in time", (int)child->pid);
    }
    waitpid(child->pid, status, 0);
    close(child->fd);
    *child = (td_launched)TD_LAUNCHED_NONE;
    return 0;
}

void td_launch_end(td_launched *child, int signal, int timeout_ms) {
    int status;
    if (child->pid <= 0) return;
    kill(child->pid, signal);
    if (td_launch_wait(child, -1, timeout_ms, &status, NULL) == 0) return;
    kill(child->pid, SIGKILL);
    if (td_launch_wait(child, -1, -1, &status, NULL)) return;
}

int td_launch_run(const td_launch *launch, int stop_fd, tidemill_error *err) {
    td_launched child;
    int status = 0;
    int rc = td_launch_start(launch, &child, err);
    if (rc) return rc;
    rc = td_launch_wait(&child, stop_fd, -1, &status, err);
    td_launch_end(&child, SIGTERM, 5000);
    if (rc || status == 0) return rc;
    return td_error_set(err, TIDEMILL_EIO, "%s failed", launch->argv[0]);
}
