/* wait.c: a fiber waits for a time, or for a descriptor, while its thread goes on.

   A fiber may be woken while it waits by somebody who means something else. Then it goes on waiting, and the wake is
   kept: it ends the next td_fiber_park, so that none is lost. */
#include "private.h"

#include <stdlib.h>

/* One wait for a descriptor. It belongs to the fiber, as a hold, until uv_close has it; on_closed frees it. */
typedef struct fd_wait {
    td_hold hold;
    uv_poll_t poll;
    td_fiber *fiber;
    int events; /* asked for */
    int ready;  /* 0: nothing yet */
} fd_wait;

/* park_until parks until the deadline is over, *ready is not 0, or the fiber is interrupted, whatever else wakes it. */
static void park_until(td_fiber *self, uint64_t deadline_ns, const int *ready) {
    bool other = false;
    self->due = false;
    if (deadline_ns < UINT64_MAX) td_sleepers_add(&self->thread->sleepers, self, deadline_ns);
    while (!self->interrupted) {
        td_switch_back(self);
        if (self->due || *ready) break;
        other = !self->interrupted;
    }
    td_sleepers_remove(&self->thread->sleepers, self);
    if (other) self->token = true;
}

/* not_on_fiber is the error of a wait that nobody could end. */
static int not_on_fiber(tidemill_error *err) {
    return td_error_set(err, TIDEMILL_ESTATE, "this can wait only on a fiber; start one with td_fiber_new");
}

/* cancelled is the error of a wait that was interrupted. */
static int cancelled(tidemill_error *err) {
    return td_error_set(err, TIDEMILL_ECANCELLED, "the job is being stopped");
}

int td_wait_until(uint64_t deadline_ns, tidemill_error *err) {
    td_fiber *self = td_fiber_self();
    if (!self) return not_on_fiber(err);
    const int never = 0;
    park_until(self, deadline_ns, &never);
    return self->interrupted ? cancelled(err) : 0;
}

/* on_closed frees a wait that libuv has let go of. */
static void on_closed(uv_handle_t *handle) {
    free(td_container(handle, fd_wait, poll));
}

/* wait_release ends a wait. libuv forgets the descriptor at once, so that it may be closed or waited for again. */
static void wait_release(td_hold *hold) {
    fd_wait *wait = td_container(hold, fd_wait, hold);
    uv_close((uv_handle_t *)&wait->poll, on_closed);
}

/* on_ready: an error of the descriptor counts as ready for all that was asked: as after poll(2), the next call on it
   says what is wrong. */
static void on_ready(uv_poll_t *poll, int status, int events) {
    fd_wait *wait = td_container(poll, fd_wait, poll);
    wait->ready = status < 0 ? wait->events : events;
    uv_poll_stop(poll);
    td_schedule_ready(wait->fiber);
}

/* wait_new begins to watch fd. *wait is a hold of the fiber. */
static int wait_new(td_fiber *self, int fd, int events, fd_wait **out, tidemill_error *err) {
    fd_wait *wait = calloc(1, sizeof *wait);
    if (!wait) return td_error_memory(err);
    int rc = uv_poll_init(&self->thread->loop, &wait->poll, fd);
    if (rc < 0) {
        free(wait);
        goto failed;
    }
    wait->fiber = self;
    wait->events = events;
    td_hold_push(self, &wait->hold, wait_release);
    rc = uv_poll_start(&wait->poll, events, on_ready);
    *out = wait;
    if (rc == 0) return 0;
    td_hold_take(&wait->hold);
    wait_release(&wait->hold);
failed:
    return td_error_set(err, rc == UV_ENOMEM ? TIDEMILL_EMEMORY : TIDEMILL_EIO,
                        "descriptor %d cannot be waited for: %s", fd, uv_strerror(rc));
}

int td_wait_fd(int fd, int events, uint64_t deadline_ns, int *ready, tidemill_error *err) {
    td_fiber *self = td_fiber_self();
    if (!self) return not_on_fiber(err);
    fd_wait *wait = NULL;
    td_nopreempt_enter();
    int rc = wait_new(self, fd, events, &wait, err);
    if (rc == 0) {
        park_until(self, deadline_ns, &wait->ready);
        if (wait->ready == 0 && self->interrupted)
            rc = cancelled(err);
        else if (wait->ready == 0)
            rc = td_error_set(err, TIDEMILL_ETIMEOUT, "descriptor %d was not ready in time", fd);
        if (ready) *ready = wait->ready;
        td_hold_take(&wait->hold);
        wait_release(&wait->hold);
    }
    td_nopreempt_leave();
    return rc;
}
