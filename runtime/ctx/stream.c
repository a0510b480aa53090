/* stream.c: one buffer, which holds either what was read ahead or what is still to be written. */
#include "stream.h"

#include "ready.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE_DEFAULT = 4096, SIZE_MAX_GIVEN = 1 << 20 };

/* How long until a fifo without a reader is tried again: nothing tells when one comes. */
#define FIFO_NS UINT64_C(10000000)

static int fail(td_stream *s, int error) {
    s->error = error;
    return -1;
}

/* ---- Its life ---- */

static void free_owned(td_own *own) {
    td_stream *s = td_container(own, td_stream, own);
    if (s->fd >= 0 && !s->shared) close(s->fd);
    if (s->piped) td_child_end(&s->child);
    free(s->data);
    free(s);
}

td_stream *td_stream_new(td_state *state) {
    td_stream *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->fd = -1;
    s->buffering = TD_BUFFER_FULL;
    s->cap = SIZE_DEFAULT;
    td_state_own(state, &s->own, free_owned);
    return s;
}

void td_stream_free(td_stream *s) {
    td_own_take(&s->own);
    free_owned(&s->own);
}

void td_stream_take(td_stream *s, int fd, bool reads, bool writes, bool shared) {
    struct stat st;
    s->fd = fd;
    s->reads = reads;
    s->writes = writes;
    s->shared = shared;
    s->waits = fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISBLK(st.st_mode);
}

static int flags_of(const char *mode) {
    bool both = strchr(mode, '+') != NULL;
    int access = both ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
    int more = *mode == 'w' ? O_CREAT | O_TRUNC : *mode == 'a' ? O_CREAT | O_APPEND : 0;
    return access | more | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

static bool is_fifo(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
}

int td_stream_open(td_stream *s, const char *path, const char *mode) {
    tidemill_error err;
    int flags = flags_of(mode), fd;
    while ((fd = open(path, flags, 0666)) < 0) {
        if (errno == EINTR) continue;
        if (errno != ENXIO || !td_fiber_self() || !is_fifo(path)) return fail(s, errno);
        if (td_wait_until(td_now_ns() + FIFO_NS, &err) < 0) return fail(s, ENXIO);
    }
    td_stream_take(s, fd, (flags & O_ACCMODE) != O_WRONLY, (flags & O_ACCMODE) != O_RDONLY, false);
    if (*mode == 'a' && !s->reads) (void)lseek(fd, 0, SEEK_END); /* where fopen begins, too */
    return 0;
}

/* ---- Waiting ---- */

/* wait_for waits until the descriptor is ready. */
static int wait_for(td_stream *s, int events) {
    tidemill_error err;
    if (!s->waits || td_ready_now(s->fd, events) != 0) return 0;
    if (s->hurry) return fail(s, EAGAIN);
    if (td_fiber_self()) {
        int rc = td_ready_wait(s->fd, events, UINT64_MAX, &err);
        return rc < 0 ? fail(s, rc == TIDEMILL_EMEMORY ? ENOMEM : EIO) : 0;
    }
    struct pollfd p = { .fd = s->fd, .events = events & UV_READABLE ? POLLIN : POLLOUT };
    while (poll(&p, 1, -1) < 0 && errno == EINTR) {
    }
    return 0;
}

/* make_room sees to it that there is a buffer. */
static int make_room(td_stream *s) {
    if (!s->data) s->data = malloc(s->cap);
    return s->data ? 0 : fail(s, ENOMEM);
}

/* ---- Writing ---- */

/* put_all writes bytes to the descriptor. One that blocks takes a page at a time: so much it has room for when it is
   ready. Returns how many it took. */
static size_t put_all(td_stream *s, const char *data, size_t len) {
    size_t done = 0;
    while (done < len) {
        if (wait_for(s, UV_WRITABLE) < 0) break;
        size_t most = s->shared && s->waits && len - done > PIPE_BUF ? PIPE_BUF : len - done;
        ssize_t n = write(s->fd, data + done, most);
        if (n < 0 && (errno == EINTR || (errno == EAGAIN && s->waits && !s->hurry))) continue;
        if (n < 0) {
            s->error = errno;
            break;
        }
        done += (size_t)n;
    }
    return done;
}

/* put_buffer writes the first bytes of the buffer. What could not be written stays there. */
static int put_buffer(td_stream *s, size_t len) {
    if (len == 0) return 0;
    size_t done = put_all(s, s->data, len);
    s->len -= done;
    memmove(s->data, s->data + done, s->len);
    return done == len ? 0 : -1;
}

int td_stream_flush(td_stream *s) {
    return s->writing ? put_buffer(s, s->len) : 0;
}

/* begin_write turns from reading to writing: back to where the reader is. */
static int begin_write(td_stream *s) {
    if (!s->writes) return fail(s, EBADF);
    if (make_room(s) < 0) return -1;
    if (s->writing) return 0;
    if (s->at < s->len && !s->waits) (void)lseek(s->fd, -(off_t)(s->len - s->at), SEEK_CUR);
    s->at = s->len = 0;
    s->writing = true;
    return 0;
}

int td_stream_write(td_stream *s, const char *data, size_t len) {
    if (begin_write(s) < 0) return -1;
    if (len > s->cap - s->len && td_stream_flush(s) < 0) return -1;
    if (len >= s->cap) return put_all(s, data, len) == len ? 0 : -1;
    memcpy(s->data + s->len, data, len);
    s->len += len;
    return 0;
}

int td_stream_end_write(td_stream *s) {
    if (!s->writing || s->buffering == TD_BUFFER_FULL) return 0;
    if (s->buffering == TD_BUFFER_NONE) {
        int rc = td_stream_flush(s);
        s->len = 0; /* what failed is not tried again */
        return rc;
    }
    const char *last = s->len ? memrchr(s->data, '\n', s->len) : NULL;
    return last ? put_buffer(s, (size_t)(last - s->data) + 1) : 0;
}

/* ---- Reading ---- */

/* begin_read turns from writing to reading. */
static int begin_read(td_stream *s) {
    if (!s->reads) return fail(s, EBADF);
    if (make_room(s) < 0 || td_stream_flush(s) < 0) return -1;
    s->writing = false;
    return 0;
}

int td_stream_fill(td_stream *s) {
    if (begin_read(s) < 0) return -1;
    s->at = s->len = 0;
    for (;;) {
        if (wait_for(s, UV_READABLE) < 0) return -1;
        ssize_t n = read(s->fd, s->data, s->cap);
        if (n < 0 && (errno == EINTR || (errno == EAGAIN && s->waits))) continue;
        if (n < 0) return fail(s, errno);
        s->len = (size_t)n;
        return (int)n;
    }
}

int td_stream_peek(td_stream *s) {
    if (!s->writing && s->at < s->len) return (unsigned char)s->data[s->at];
    return td_stream_fill(s) > 0 ? (unsigned char)s->data[0] : -1;
}

int td_stream_getc(td_stream *s) {
    int c = td_stream_peek(s);
    if (c >= 0) s->at++;
    return c;
}

/* ---- Places and buffers ---- */

/* settle writes or gives back what is in the buffer, so that the descriptor is where the stream is. */
static int settle(td_stream *s) {
    if (td_stream_flush(s) < 0) return -1;
    if (!s->writing && s->at < s->len && lseek(s->fd, -(off_t)(s->len - s->at), SEEK_CUR) < 0) return fail(s, errno);
    s->at = s->len = 0;
    return 0;
}

int td_stream_seek(td_stream *s, int64_t offset, int whence, int64_t *place) {
    if (lseek(s->fd, 0, SEEK_CUR) < 0) return fail(s, errno); /* a pipe keeps what was read ahead */
    if (td_stream_flush(s) < 0) return -1;
    if (whence == SEEK_CUR && offset == 0 && !s->writing) { /* asking leaves the buffer alone */
        *place = lseek(s->fd, 0, SEEK_CUR) - (int64_t)(s->len - s->at);
        return 0;
    }
    if (settle(s) < 0) return -1;
    *place = lseek(s->fd, offset, whence);
    return *place < 0 ? fail(s, errno) : 0;
}

int td_stream_buffer(td_stream *s, td_buffering buffering, size_t size) {
    s->buffering = buffering;
    if (buffering == TD_BUFFER_NONE || s->len > s->at || size < 1 || size > SIZE_MAX_GIVEN) return 0;
    free(s->data);
    s->data = NULL;
    s->at = s->len = 0;
    s->cap = size;
    return 0;
}

/* ---- The end ---- */

int td_stream_close(td_stream *s) {
    int rc = td_stream_flush(s);
    s->len = s->at = 0;
    int fd = s->fd;
    s->fd = -1;
    if (close(fd) < 0 && rc == 0) rc = fail(s, errno);
    return rc;
}
