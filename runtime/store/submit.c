/* submit.c: enqueueing from a fiber. See submit.h. */
#include "submit.h"

#include "../loop/loop.h"
#include "enqueue.h"
#include "sql.h"

#include <libpq-fe.h>
#include <stdlib.h>

/* The statement's parameters, owned by the fiber. */
typedef struct submission {
    td_hold hold;
    td_enqueue_call call;
} submission;

static void submission_free(submission *s) {
    td_enqueue_call_free(&s->call);
    free(s);
}

static void release(td_hold *hold) {
    submission_free(td_container(hold, submission, hold));
}

int td_submit(td_session *session, const char *task, const char *args_json, const tidemill_options *options,
              tidemill_job *job, tidemill_error *err) {
    PGresult *result = NULL;
    submission *s = calloc(1, sizeof *s);
    if (!s) return td_error_memory(err);
    td_hold_push(td_fiber_self(), &s->hold, release);
    int rc = td_enqueue_prepare(&s->call, task, args_json, options, err);
    if (rc == 0) {
        const char *sql = td_sql_text("statements/enqueue.sql");
        if (session)
            rc = td_query_run_in(session, sql, TD_ENQUEUE_PARAMS, s->call.values, NULL, NULL, &result, err);
        else
            rc = td_query_exec(sql, TD_ENQUEUE_PARAMS, s->call.values, &result, err);
        rc = td_enqueue_answer(rc, result, 1, job, err);
    }
    PQclear(result);
    td_hold_take(&s->hold);
    submission_free(s);
    return rc;
}
