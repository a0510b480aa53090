/* enqueue.h: storing jobs over a connection that blocks. What SQL checks is left to it; checked here is what SQL cannot
   tell, and what would fail only after the statement was sent, which aborts a caller's transaction. */
#ifndef TD_ENQUEUE_H
#define TD_ENQUEUE_H

#include "../base/base.h"

struct pg_conn;
struct pg_result;

/* The bounds of what is given with a job, as in tidemill.h. Bytes, where nothing else is said. */
enum {
    TD_ENQUEUE_TASK_MAX = 100,
    TD_ENQUEUE_QUEUE_MAX = 100,
    TD_ENQUEUE_KEY_MAX = 200,
    TD_ENQUEUE_TAG_MAX = 100,
    TD_ENQUEUE_TAGS_MAX = 20, /* tags */
    TD_ENQUEUE_ATTEMPTS_MAX = 1000,
    TD_ENQUEUE_PRIORITY_MAX = 100,
};
#define TD_ENQUEUE_YEAR_MS       INT64_C(31557600000) /* 365.25 days */
#define TD_ENQUEUE_IN_MAX_MS     (100 * TD_ENQUEUE_YEAR_MS)
#define TD_ENQUEUE_UNIQUE_MAX_MS (10 * TD_ENQUEUE_YEAR_MS)
#define TD_ENQUEUE_AT_MIN_US     (INT64_C(-62135596800) * 1000000)     /* 0001-01-01 */
#define TD_ENQUEUE_AT_MAX_US     (INT64_C(253402300800) * 1000000 - 1) /* the end of 9999 */

/* td_enqueue_text checks a name, key or other text of len bytes: 1 to max, UTF-8, no NUL. what is its kind in messages
   ("name", "key"). Errors: INVALID with the field. */
int td_enqueue_text(const char *field, const char *what, const char *text, size_t len, size_t max,
                    tidemill_error *err) TD_MUST_CHECK;

/* td_enqueue_not_whole refuses a number (shown as it was given) that is not a whole one from min to max. */
int td_enqueue_not_whole(const char *field, const char *shown, int min, int max, tidemill_error *err);

/* td_enqueue stores one job: tidemill_enqueue on a connection, in the transaction that is open on it, if any; else it
   is committed. A connection lost meanwhile is CONNECT within a transaction, OUTCOME without one. */
int td_enqueue(struct pg_conn *conn, const char *task, const char *args_json, const tidemill_options *options,
               tidemill_job *job, tidemill_error *err) TD_MUST_CHECK;

/* td_enqueue_many is the same for count jobs of one task. jobs may be NULL. */
int td_enqueue_many(struct pg_conn *conn, const char *task, const char *const *args_json, size_t count,
                    const tidemill_options *options, tidemill_job *jobs, tidemill_error *err) TD_MUST_CHECK;

/* ---- Its parts, for who runs the statement otherwise (submit.h) ---- */

enum { TD_ENQUEUE_PARAMS = 10 };

/* The parameters of sql/statements/enqueue.sql or enqueue_many.sql. Not to be moved. */
typedef struct td_enqueue_call {
    const char *values[TD_ENQUEUE_PARAMS];
    char digits[TD_ENQUEUE_PARAMS][24];
    td_buf tags, args;
} td_enqueue_call;

/* td_enqueue_prepare checks what is given, which must stay where it is, and fills *call, which is freed also after an
   error. Errors: INVALID, MEMORY. */
int td_enqueue_prepare(td_enqueue_call *call, const char *task, const char *args_json, const tidemill_options *options,
                       tidemill_error *err) TD_MUST_CHECK;
void td_enqueue_call_free(td_enqueue_call *call);

/* td_enqueue_answer reads what came of the statement: rc and *err, or else a result with count rows. */
int td_enqueue_answer(int rc, const struct pg_result *result, size_t count, tidemill_job *jobs,
                      tidemill_error *err) TD_MUST_CHECK;

#endif
