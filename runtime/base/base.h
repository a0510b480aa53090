/* base.h: what every layer uses: error filling, a growing buffer, clocks, random numbers, UTF-8, lists, log records. */
#ifndef TD_BASE_H
#define TD_BASE_H

#include "../tidemill.h"

#include <stdarg.h>

#define TD_MUST_CHECK   __attribute__((warn_unused_result))
#define TD_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define TD_COUNT(array) (sizeof(array) / sizeof(array)[0])

/* td_error_set fills *err (NULL: nothing) with a code and a message, clearing field and sqlstate. Returns code. */
int td_error_set(tidemill_error *err, int code, const char *format, ...) TD_PRINTF(3, 4);

/* td_error_field is td_error_set for a bad argument or option: code INVALID, and the field named. Returns INVALID.
   The message should read "field: value is not allowed; give ...". */
int td_error_field(tidemill_error *err, const char *field, const char *format, ...) TD_PRINTF(3, 4);

/* td_error_prefix puts "text: " before the message on the error's way up. Returns err's code; INVALID where err is
   NULL, so keep the code of the call that failed where err may be NULL. */
int td_error_prefix(tidemill_error *err, const char *format, ...) TD_PRINTF(2, 3);

/* td_error_memory is td_error_set for a failed allocation. Returns TIDEMILL_EMEMORY. */
int td_error_memory(tidemill_error *err);

/* A growing byte buffer. {0} is an empty one. After a failed allocation `failed` is true and appends do nothing, so
   that a chain of appends is checked once. data is always NUL-terminated when not NULL. */
typedef struct td_buf {
    char *data;
    size_t len, cap;
    bool failed;
} td_buf;

void td_buf_add(td_buf *b, const void *data, size_t len);
void td_buf_puts(td_buf *b, const char *text);
void td_buf_putc(td_buf *b, char c);
void td_buf_printf(td_buf *b, const char *format, ...) TD_PRINTF(2, 3);
void td_buf_vprintf(td_buf *b, const char *format, va_list args) TD_PRINTF(2, 0);
/* td_buf_json appends text as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD, controls are escaped. */
void td_buf_json(td_buf *b, const char *text, size_t len);
/* td_buf_double appends a finite double in a form that reads back the same, whatever the locale: 15 to 17 digits, as
   few as suffice; one without a fraction, below 1e20, in digits with ".0" (1000000000000000.0, since jsonb would print
   1e15 as an integer). -0.0 becomes "0.0". */
void td_buf_double(td_buf *b, double value);
/* td_buf_clear empties it and keeps its memory; td_buf_free gives the memory back. */
void td_buf_clear(td_buf *b);
void td_buf_free(td_buf *b);
/* td_buf_take returns the data, which the caller frees with free(), and empties b. NULL when an append failed. */
char *td_buf_take(td_buf *b);

/* td_now_ns: the monotonic clock, nanoseconds. td_wall_us: microseconds since 1970. */
uint64_t td_now_ns(void);
int64_t td_wall_us(void);

/* td_time_read reads an RFC 3339 time with its zone, "2030-01-31T08:00:00Z" or "2030-01-31 08:00:00.5+02:00" (also
   "+02", as PostgreSQL prints it), into microseconds since 1970. Returns false for anything else, also the 30th of
   February. */
bool td_time_read(const char *text, int64_t *us);

/* td_random64 returns 64 bits from the system's generator; td_random_id a positive 63-bit one, never 0. */
uint64_t td_random64(void);
int64_t td_random_id(void);

/* td_strdup, td_memdup: malloc'd copies ending in NUL, NULL for NULL or without memory. */
char *td_strdup(const char *text);
char *td_memdup(const void *data, size_t len);

/* td_utf8_valid: whether len bytes are valid UTF-8 without NUL. */
bool td_utf8_valid(const char *text, size_t len);

/* td_text_clean appends text to b as clean, bounded UTF-8 for storing and showing: invalid bytes become U+FFFD; NUL,
   escape and other control characters (but newline and tab) become visible as \xNN. At most max bytes are appended
   (max 64 or more): what is longer is cut at a character and ends in "... (N bytes cut)", N of text's bytes. */
void td_text_clean(td_buf *b, const char *text, size_t len, size_t max);

/* td_edit_distance: Levenshtein distance of two short words. td_nearest returns the word of a NULL-terminated list
   nearest to word if it is near enough to be a likely slip, else NULL. */
size_t td_edit_distance(const char *a, const char *b);
const char *td_nearest(const char *word, const char *const *words);

/* An intrusive doubly linked list with a head that is itself a node. */
typedef struct td_list {
    struct td_list *next, *prev;
} td_list;

void td_list_init(td_list *head);
void td_list_push(td_list *head, td_list *node);    /* at the end */
void td_list_unshift(td_list *head, td_list *node); /* at the front */
void td_list_remove(td_list *node);                 /* a node in no list is left alone */
td_list *td_list_shift(td_list *head);              /* takes the first, NULL if none */
bool td_list_empty(const td_list *head);
#define td_container(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* A log sink: the configuration's callback and level. Copied by value; never NULL itself. */
typedef struct td_log {
    tidemill_log_fn *fn;
    void *userdata;
    tidemill_level level;
} td_log;

/* td_log_write sends a record made of message and fields, if level is high enough. */
void td_log_write(const td_log *log, tidemill_level level, const char *message, const tidemill_field *fields,
                  size_t count);
/* td_log_on: whether records of this level are wanted. */
bool td_log_on(const td_log *log, tidemill_level level);
/* td_logf formats a message without fields. */
void td_logf(const td_log *log, tidemill_level level, const char *format, ...) TD_PRINTF(3, 4);

#endif
