/* child.c: starting, killing and reaping.

   A child that was killed may take a while to be gone (its memory is given back first). Until then it is in the
   thread's graveyard: a list of graves, each of which watches a pidfd and reaps. When the thread stops, the graveyard
   is emptied by waiting, for a bounded time. */
#include "child.h"

#include "../loop/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STOP_WAIT_MS = 1000 };

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* ---- The graveyard ---- */

struct td_grave {
    uv_poll_t poll;
    td_list link;
    pid_t pid;
    int pidfd;
};

static const char graveyard_key;

static void on_closed(uv_handle_t *handle) {
    td_grave *grave = handle->data;
    close(grave->pidfd);
    free(grave);
}

/* unbury ends a grave whose child was reaped, or given up. */
static void unbury(td_grave *grave) {
    td_list_remove(&grave->link);
    uv_close((uv_handle_t *)&grave->poll, on_closed);
}

static void on_dead(uv_poll_t *poll, int status, int events) {
    td_grave *grave = poll->data;
    (void)status;
    (void)events;
    if (waitpid(grave->pid, NULL, WNOHANG) != 0) unbury(grave);
}

static void graveyard_free(void *arg) {
    td_list *graveyard = arg;
    while (!td_list_empty(graveyard)) {
        td_grave *grave = td_container(graveyard->next, td_grave, link);
        struct pollfd dead = { grave->pidfd, POLLIN, 0 };
        poll(&dead, 1, STOP_WAIT_MS);
        waitpid(grave->pid, NULL, WNOHANG);
        unbury(grave);
    }
    free(graveyard);
}

/* graveyard_get returns the thread's graveyard, made at its first use; NULL without memory. */
static td_list *graveyard_get(void) {
    td_thread *thread = td_thread_self();
    td_list *graveyard = td_thread_local(thread, &graveyard_key);
    if (graveyard) return graveyard;
    graveyard = malloc(sizeof *graveyard);
    if (!graveyard) return NULL;
    td_list_init(graveyard);
    if (td_thread_set_local(thread, &graveyard_key, graveyard, graveyard_free) == 0) return graveyard;
    free(graveyard);
    return NULL;
}

/* bury takes over a killed child and its pidfd. */
static void bury(td_child *child) {
    td_grave *grave = child->grave;
    child->grave = NULL;
    grave->pid = child->pid;
    grave->pidfd = child->pidfd;
    grave->poll.data = grave;
    if (uv_poll_init(td_thread_loop(td_thread_self()), &grave->poll, grave->pidfd) < 0) {
        waitpid(grave->pid, NULL, 0);
        close(grave->pidfd);
        free(grave);
        return;
    }
    td_list_push(graveyard_get(), &grave->link);
    uv_poll_start(&grave->poll, UV_READABLE, on_dead);
}

/* ---- Pipes ---- */

/* lift moves a descriptor above the standard three, where the child's own will be put. */
static bool lift(int *fd) {
    if (*fd > 2) return true;
    int higher = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
    if (higher < 0) return false;
    close(*fd);
    *fd = higher;
    return true;
}

/* make_pipe makes a pipe of which ends[ours] does not block. */
static bool make_pipe(int ends[2], int ours) {
    if (pipe2(ends, O_CLOEXEC) < 0) {
        ends[0] = ends[1] = -1;
        return false;
    }
    return lift(&ends[0]) && lift(&ends[1]) && fcntl(ends[ours], F_SETFL, O_NONBLOCK) == 0;
}

/* ---- Starting ---- */

/* set_action says what one of the child's descriptors is. */
static int set_action(posix_spawn_file_actions_t *actions, int fd, td_child_io kind, int pipe_end) {
    switch (kind) {
    case TD_CHILD_PIPE:
        return posix_spawn_file_actions_adddup2(actions, pipe_end, fd);
    case TD_CHILD_OURS:
        return 0;
    default:
        return posix_spawn_file_actions_addopen(actions, fd, "/dev/null", fd == 0 ? O_RDONLY : O_WRONLY, 0);
    }
}

/* set_actions says what all of them are. Returns an error number. */
static int set_actions(posix_spawn_file_actions_t *actions, const td_command *command, int in, int out, int err) {
    int rc = set_action(actions, 0, command->in, in);
    if (!rc) rc = set_action(actions, 1, command->out, out);
    if (!rc) rc = set_action(actions, 2, command->err, err);
    if (!rc) rc = posix_spawn_file_actions_addclosefrom_np(actions, 3);
    if (!rc && command->cwd) rc = posix_spawn_file_actions_addchdir_np(actions, command->cwd);
    return rc;
}

/* set_attributes: a group of its own, all signals with their default handling and none blocked. */
static int set_attributes(posix_spawnattr_t *attributes) {
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    short flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    int rc = posix_spawnattr_setflags(attributes, flags);
    if (!rc) rc = posix_spawnattr_setpgroup(attributes, 0);
    if (!rc) rc = posix_spawnattr_setsigdefault(attributes, &all);
    if (!rc) rc = posix_spawnattr_setsigmask(attributes, &none);
    return rc;
}

/* spawn starts the program with the given ends of its pipes. Returns an error number. */
static int spawn(pid_t *pid, const td_command *command, int in, int out, int err) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc) return rc;
    rc = posix_spawnattr_init(&attributes);
    if (rc) {
        posix_spawn_file_actions_destroy(&actions);
        return rc;
    }
    rc = set_actions(&actions, command, in, out, err);
    if (!rc) rc = set_attributes(&attributes);
    if (!rc) rc = posix_spawnp(pid, command->argv[0], &actions, &attributes, command->argv, command->envp);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* fail_start explains an error number of spawn. */
static int fail_start(const td_command *command, int error, td_failure *failure) {
    const char *program = command->argv[0];
    if (command->cwd && access(command->cwd, X_OK) < 0) {
        return td_failure_set(failure, "io", "cwd: the folder %s cannot be entered: %s", command->cwd, strerror(errno));
    }
    if (error == ENOENT && strchr(program, '/')) {
        return td_failure_set(failure, "not_found", "no program %s was found", program);
    }
    if (error == ENOENT) {
        return td_failure_set(failure, "not_found",
                              "no program %s was found in the folders of PATH; install it, or give its whole path",
                              program);
    }
    return td_failure_set(failure, error == ENOMEM ? "memory" : "io", "%s could not be started: %s", program,
                          strerror(error));
}

/* fail_lost: the kernel, or another part of the program, has reaped the child. */
static int fail_lost(td_failure *failure) {
    return td_failure_set(failure, "io",
                          "how the program ended is not known: this process ignores SIGCHLD, or waits for all its "
                          "children elsewhere");
}

/* watch opens the pidfd of a child that was just started. On failure the child is gone. */
static int watch(td_child *child, const char *program, td_failure *failure) {
    child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (child->pidfd >= 0) return 0;
    int error = errno;
    if (error == ESRCH) return fail_lost(failure);
    kill(-child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    return td_failure_set(failure, "io", "%s could not be watched: %s", program, strerror(error));
}

int td_child_start(td_child *child, const td_command *command, td_failure *failure) {
    int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 };
    int rc = 0;
    *child = (td_child){ .pidfd = -1, .in = -1, .out = -1, .err = -1 };
    child->grave = calloc(1, sizeof *child->grave);
    if (!child->grave || !graveyard_get()) {
        rc = td_failure_memory(failure);
        goto out;
    }
    if ((command->in == TD_CHILD_PIPE && !make_pipe(in, 1)) || (command->out == TD_CHILD_PIPE && !make_pipe(out, 0)) ||
        (command->err == TD_CHILD_PIPE && !make_pipe(err, 0))) {
        rc = td_failure_set(failure, "io", "pipes could not be made: %s", strerror(errno));
        goto out;
    }
    int error = spawn(&child->pid, command, in[0], out[1], err[1]);
    rc = error ? fail_start(command, error, failure) : watch(child, command->argv[0], failure);
    if (rc < 0) goto out;
    child->in = in[1], in[1] = -1;
    child->out = out[0], out[0] = -1;
    child->err = err[0], err[0] = -1;
out:
    for (int i = 0; i < 2; i++) {
        close_fd(&in[i]);
        close_fd(&out[i]);
        close_fd(&err[i]);
    }
    if (rc < 0) {
        free(child->grave);
        *child = (td_child){ 0 };
    }
    return rc;
}

/* ---- While it runs ---- */

bool td_child_ended(td_child *child) {
    siginfo_t info = { 0 };
    if (child->lost) return true;
    int rc = waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    child->lost = rc < 0 && errno == ECHILD;
    return child->lost || (rc == 0 && info.si_pid == child->pid);
}

int td_child_wait(td_child *child, uint64_t deadline_ns, td_failure *failure) {
    tidemill_error err;
    while (!td_child_ended(child)) {
        int rc = td_wait_fd(child->pidfd, UV_READABLE, deadline_ns, NULL, &err);
        if (rc < 0) return td_failure_error(failure, &err);
    }
    return 0;
}

/* ---- Its end ---- */

/* kill_group kills what is in the child's group. Of a child that is lost the group's number may already be
   somebody else's. */
static void kill_group(td_child *child) {
    (void)td_child_ended(child);
    if (!child->lost) kill(-child->pid, SIGKILL);
}

int td_child_reap(td_child *child, int *status, int *signal, td_failure *failure) {
    int end = 0;
    kill_group(child);
    pid_t pid = child->lost ? -1 : waitpid(child->pid, &end, 0);
    child->pid = 0;
    if (pid < 0) return fail_lost(failure);
    *status = WIFEXITED(end) ? WEXITSTATUS(end) : -1;
    *signal = WIFSIGNALED(end) ? WTERMSIG(end) : 0;
    return 0;
}

void td_child_end(td_child *child) {
    if (!child->grave) return;
    close_fd(&child->in);
    close_fd(&child->out);
    close_fd(&child->err);
    if (child->pid > 0) {
        kill_group(child);
        if (!child->lost && waitpid(child->pid, NULL, WNOHANG) == 0) bury(child);
    }
    if (child->grave) close_fd(&child->pidfd);
    free(child->grave);
    *child = (td_child){ 0 };
}
