/* ready.c: one epoll set a wait, which the fiber holds. */
#include "ready.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

typedef struct watch {
    td_hold hold;
    int epoll;
} watch;

static void release(td_hold *hold) {
    watch *w = td_container(hold, watch, hold);
    close(w->epoll);
    free(w);
}

int td_ready_now(int fd, int events) {
    struct pollfd p = { .fd = fd };
    if (events & UV_READABLE) p.events |= POLLIN;
    if (events & UV_WRITABLE) p.events |= POLLOUT;
    if (poll(&p, 1, 0) <= 0) return 0;
    if (p.revents & POLLNVAL) {
        errno = EBADF;
        return -1;
    }
    if (p.revents & (POLLERR | POLLHUP)) return events;
    return (p.revents & POLLIN ? UV_READABLE : 0) | (p.revents & POLLOUT ? UV_WRITABLE : 0);
}

static int fail(int fd, int error, tidemill_error *err) {
    return td_error_set(err, TIDEMILL_EIO, "descriptor %d cannot be waited for: %s", fd, strerror(error));
}

/* watch_new puts fd into a set. NULL with errno. */
static watch *watch_new(int fd, int events) {
    struct epoll_event event = { .events = 0 };
    if (events & UV_READABLE) event.events |= EPOLLIN;
    if (events & UV_WRITABLE) event.events |= EPOLLOUT;
    watch *w = malloc(sizeof *w);
    if (!w) return NULL;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll >= 0 && epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event) == 0) return w;
    int error = errno;
    if (w->epoll >= 0) close(w->epoll);
    free(w);
    errno = error;
    return NULL;
}

int td_ready_wait(int fd, int events, uint64_t deadline_ns, tidemill_error *err) {
    if (fd < 0) return fail(fd, EBADF, err); /* poll passes those over */
    for (;;) {
        int ready = td_ready_now(fd, events);
        if (ready < 0) return fail(fd, errno, err);
        if (ready > 0) return ready;
        watch *w = watch_new(fd, events);
        if (!w) return errno == ENOMEM ? td_error_memory(err) : fail(fd, errno, err);
        td_hold_push(td_fiber_self(), &w->hold, release);
        int rc = td_wait_fd(w->epoll, UV_READABLE, deadline_ns, NULL, err);
        td_hold_take(&w->hold);
        release(&w->hold);
        if (rc == TIDEMILL_ETIMEOUT) return td_error_set(err, rc, "descriptor %d was not ready in time", fd);
        if (rc < 0) return rc;
    }
}
