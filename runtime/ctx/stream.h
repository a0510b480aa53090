/* stream.h: an open file with its buffer, as C's stdio has, but without its locks: a worker may be cut off in the
   middle of any instruction of Lua's, and nobody would unlock them.

   Files on disks are read and written directly: the page cache answers at once in most cases, and where a disk does
   not, it is a matter of milliseconds, less than what handing each of many small reads to another thread would cost.
   All else (pipes, terminals, sockets) is waited for on the fiber; where there is none, while a handler file is loaded,
   on the thread. Not thread-safe: a stream belongs to one state. */
#ifndef TD_STREAM_H
#define TD_STREAM_H

#include "child.h"

#include "../vm/vm.h"

typedef enum td_buffering { TD_BUFFER_NONE, TD_BUFFER_FULL, TD_BUFFER_LINE } td_buffering;

typedef struct td_stream {
    td_own own;
    int fd; /* -1: closed */
    bool reads, writes;
    bool shared; /* not ours to close, nor to be made non-blocking: 0, 1, 2 */
    bool waits;  /* it may have to be waited for */
    bool hurry;  /* but not any more: its state is being closed */
    td_buffering buffering;
    char *data; /* of cap bytes, NULL before the first use */
    size_t cap;
    size_t at, len; /* reading: what is in data but not yet read; writing: 0, and what is not yet written */
    bool writing;
    int error;  /* errno of the last failure; cleared by nobody but the caller */
    bool piped; /* it is one end of child */
    td_child child;
} td_stream;

/* td_stream_new makes a closed stream that the state owns, NULL without memory. td_stream_free closes and frees it;
   what is not yet written is lost then (td_stream_close). */
td_stream *td_stream_new(td_state *state);
void td_stream_free(td_stream *s);

/* All below return 0 or more, or -1 with s->error. */

/* td_stream_open opens a file as fopen does; mode is checked. A fifo's other side is waited for. */
int td_stream_open(td_stream *s, const char *path, const char *mode) TD_MUST_CHECK;
/* td_stream_take makes it the stream of an open descriptor; shared: that stays open. */
void td_stream_take(td_stream *s, int fd, bool reads, bool writes, bool shared);

/* td_stream_fill reads what there is into the empty buffer. Returns how much, 0 at the end. */
int td_stream_fill(td_stream *s) TD_MUST_CHECK;
/* td_stream_getc returns the next byte, -1 at the end or after a failure. td_stream_peek leaves it there. */
int td_stream_getc(td_stream *s);
int td_stream_peek(td_stream *s);

/* td_stream_write puts data into the buffer, and writes that when it is full. td_stream_end_write is called after a
   number of them: it writes what the buffering does not keep back. */
int td_stream_write(td_stream *s, const char *data, size_t len) TD_MUST_CHECK;
int td_stream_end_write(td_stream *s) TD_MUST_CHECK;
int td_stream_flush(td_stream *s) TD_MUST_CHECK;

/* td_stream_seek moves as lseek does. *place is where it is then. */
int td_stream_seek(td_stream *s, int64_t offset, int whence, int64_t *place) TD_MUST_CHECK;
int td_stream_buffer(td_stream *s, td_buffering buffering, size_t size) TD_MUST_CHECK;

/* td_stream_close writes what is left, and closes it whatever came of that. */
int td_stream_close(td_stream *s) TD_MUST_CHECK;

#endif
