/* enqueue.c: storing jobs. See enqueue.h. */
#include "enqueue.h"

#include "array.h"
#include "conn.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_EXAMPLE "give a JSON object such as {\"user_id\": 42}"

/* ---- Checks ---- */

int td_enqueue_text(const char *field, const char *what, const char *text, size_t len, size_t max,
                    tidemill_error *err) {
    if (len == 0) {
        return td_error_field(err, field, "%s: an empty %s is not allowed; give 1 to %zu bytes", field, what, max);
    }
    if (len > max) {
        return td_error_field(err, field, "%s: a %s of %zu bytes is not allowed; give 1 to %zu bytes", field, what, len,
                              max);
    }
    if (!td_utf8_valid(text, len)) {
        return td_error_field(err, field, "%s: the %s is not valid UTF-8 without NUL; give such text", field, what);
    }
    return 0;
}

/* text_given checks a text that may not have been given. */
static int text_given(const char *field, const char *what, const char *text, size_t max, tidemill_error *err) {
    return text ? td_enqueue_text(field, what, text, strlen(text), max, err) : 0;
}

int td_enqueue_not_whole(const char *field, const char *shown, int min, int max, tidemill_error *err) {
    return td_error_field(err, field, "%s: %s is not allowed; give a whole number from %d to %d", field, shown, min,
                          max);
}

static int whole_given(const char *field, int value, int min, int max, tidemill_error *err) {
    if (value == TIDEMILL_UNSET_INT || (value >= min && value <= max)) return 0;
    char shown[16];
    snprintf(shown, sizeof shown, "%d", value);
    return td_enqueue_not_whole(field, shown, min, max, err);
}

static int check_times(const tidemill_options *o, tidemill_error *err) {
    int64_t in = o->schedule_in_ms, at = o->schedule_at_us, unique = o->unique_for_ms;
    if (in != TIDEMILL_UNSET && (in < 0 || in > TD_ENQUEUE_IN_MAX_MS)) {
        return td_error_field(err, "schedule_in", "schedule_in: %" PRId64 " ms is not allowed; give 0 to 100 years",
                              in);
    }
    if (at != TIDEMILL_UNSET && (at < TD_ENQUEUE_AT_MIN_US || at > TD_ENQUEUE_AT_MAX_US)) {
        return td_error_field(err, "schedule_at",
                              "schedule_at: %" PRId64 " us is not allowed; give a time in the years 1 to 9999", at);
    }
    if (in != TIDEMILL_UNSET && at != TIDEMILL_UNSET) {
        return td_error_field(err, "schedule_at",
                              "schedule_at: not allowed together with schedule_in; give one of the two");
    }
    if (unique != TIDEMILL_UNSET && (unique <= 0 || unique > TD_ENQUEUE_UNIQUE_MAX_MS)) {
        return td_error_field(err, "unique_for",
                              "unique_for: %" PRId64 " ms is not allowed; give more than 0, to 10 years", unique);
    }
    return 0;
}

static int check_tags(const tidemill_options *o, tidemill_error *err) {
    if (o->tags_count > TD_ENQUEUE_TAGS_MAX) {
        return td_error_field(err, "tags", "tags: %zu tags are not allowed; give at most %d", o->tags_count,
                              TD_ENQUEUE_TAGS_MAX);
    }
    for (size_t i = 0; i < o->tags_count; i++) {
        const char *tag = o->tags ? o->tags[i] : NULL;
        if (!tag) return td_error_field(err, "tags", "tags: tag %zu is NULL; give a text", i + 1);
        int rc = td_enqueue_text("tags", "tag", tag, strlen(tag), TD_ENQUEUE_TAG_MAX, err);
        if (rc < 0) return rc;
    }
    return 0;
}

static int check_options(const tidemill_options *o, tidemill_error *err) {
    int rc = check_times(o, err);
    if (rc == 0) rc = text_given("queue", "name", o->queue, TD_ENQUEUE_QUEUE_MAX, err);
    if (rc == 0) rc = whole_given("max_attempts", o->max_attempts, 1, TD_ENQUEUE_ATTEMPTS_MAX, err);
    if (rc == 0) rc = text_given("unique_key", "key", o->unique_key, TD_ENQUEUE_KEY_MAX, err);
    if (rc == 0) rc = whole_given("priority", o->priority, 0, TD_ENQUEUE_PRIORITY_MAX, err);
    if (rc == 0) rc = check_tags(o, err);
    return rc;
}

/* check_args sees to what can be seen without reading the JSON; that is the database's part. */
static int check_args(const char *args_json, tidemill_error *err) {
    if (!td_utf8_valid(args_json, strlen(args_json))) {
        return td_error_field(err, "args", "args: not valid UTF-8; give a JSON object in UTF-8");
    }
    if (args_json[strspn(args_json, " \t\r\n")] != '{') {
        return td_error_field(err, "args", "args: not a JSON object; " ARGS_EXAMPLE);
    }
    return 0;
}

static int check_job(const char *task, const tidemill_options *o, tidemill_error *err) {
    if (!task) return td_error_field(err, "task", "task: NULL is not allowed; give the name of a task");
    int rc = text_given("task", "name", task, TD_ENQUEUE_TASK_MAX, err);
    return rc < 0 ? rc : check_options(o, err);
}

/* ---- Parameters ---- */

enum { TASK, ARGS, SCHEDULE_IN, SCHEDULE_AT, QUEUE, MAX_ATTEMPTS, UNIQUE_FOR, UNIQUE_KEY, PRIORITY, TAGS };

static const tidemill_options none_given = TIDEMILL_OPTIONS;

static void number_param(td_enqueue_call *call, int i, int64_t value, int64_t unset) {
    if (value == unset) return;
    snprintf(call->digits[i], sizeof call->digits[i], "%" PRId64, value);
    call->values[i] = call->digits[i];
}

/* set_params fills in all but args. */
static int set_params(td_enqueue_call *call, const char *task, const tidemill_options *o, tidemill_error *err) {
    call->values[TASK] = task;
    call->values[QUEUE] = o->queue;
    call->values[UNIQUE_KEY] = o->unique_key;
    number_param(call, SCHEDULE_IN, o->schedule_in_ms, TIDEMILL_UNSET);
    int64_t at = o->schedule_at_us; /* before 1970 is as much in the past as 1970 is */
    number_param(call, SCHEDULE_AT, at != TIDEMILL_UNSET && at < 0 ? 0 : at, TIDEMILL_UNSET);
    number_param(call, UNIQUE_FOR, o->unique_for_ms, TIDEMILL_UNSET);
    number_param(call, MAX_ATTEMPTS, o->max_attempts, TIDEMILL_UNSET_INT);
    number_param(call, PRIORITY, o->priority, TIDEMILL_UNSET_INT);
    if (!o->tags) return 0;
    td_array_open(&call->tags);
    for (size_t i = 0; i < o->tags_count; i++) td_array_text(&call->tags, o->tags[i]);
    td_array_close(&call->tags);
    call->values[TAGS] = call->tags.data;
    return call->tags.failed ? td_error_memory(err) : 0;
}

int td_enqueue_prepare(td_enqueue_call *call, const char *task, const char *args_json, const tidemill_options *options,
                       tidemill_error *err) {
    const tidemill_options *o = options ? options : &none_given;
    const char *args = args_json ? args_json : "{}";
    *call = (td_enqueue_call){ 0 };
    int rc = check_job(task, o, err);
    if (rc == 0) rc = check_args(args, err);
    if (rc == 0) rc = set_params(call, task, o, err);
    call->values[ARGS] = args;
    return rc;
}

/* many_args makes the text of an array of all arguments. */
static int many_args(td_buf *b, const char *const *args_json, size_t count, tidemill_error *err) {
    td_array_open(b);
    for (size_t i = 0; i < count; i++) {
        const char *args = args_json && args_json[i] ? args_json[i] : "{}";
        int rc = check_args(args, err);
        if (rc < 0) return rc;
        td_array_text(b, args);
    }
    td_array_close(b);
    if (b->failed) return td_error_memory(err);
    if (b->len < (size_t)1 << 30) return 0; /* PostgreSQL's bound for one value */
    return td_error_field(err, "args",
                          "args: %zu jobs with %zu bytes of arguments are too many for one call; use several", count,
                          b->len);
}

static int prepare_many(td_enqueue_call *call, const char *task, const char *const *args_json, size_t count,
                        const tidemill_options *options, tidemill_error *err) {
    const tidemill_options *o = options ? options : &none_given;
    *call = (td_enqueue_call){ 0 };
    int rc = check_job(task, o, err);
    if (rc == 0) rc = set_params(call, task, o, err);
    if (rc == 0) rc = many_args(&call->args, args_json, count, err);
    call->values[ARGS] = call->args.data;
    return rc;
}

void td_enqueue_call_free(td_enqueue_call *call) {
    td_buf_free(&call->tags);
    td_buf_free(&call->args);
}

/* ---- The answer ---- */

/* explain makes the database's errors about the arguments' JSON into sentences about args. */
static int explain(int rc, tidemill_error *err) {
    static const struct {
        char sqlstate[6];
        const char *message;
    } errors[] = {
        { "22P02", "args: not valid JSON; " ARGS_EXAMPLE },
        { "22P05", "args: \\u0000 is not allowed, PostgreSQL's text has no such character; leave it out" },
        { "22021", "args: not valid UTF-8; give a JSON object in UTF-8" },
        { "22003", "args: a number is beyond what PostgreSQL can hold; give it as a string" },
        { "54001", "args: nested too deeply; give at most 100 levels" },
        { "54000", "args: too large; give less, and a reference to the rest" },
    };
    for (size_t i = 0; err && i < TD_COUNT(errors); i++) {
        char sqlstate[6];
        memcpy(sqlstate, err->sqlstate, sizeof sqlstate);
        if (strcmp(errors[i].sqlstate, sqlstate) != 0) continue;
        rc = td_error_field(err, "args", "%s", errors[i].message);
        memcpy(err->sqlstate, sqlstate, sizeof sqlstate);
    }
    return rc;
}

int td_enqueue_answer(int rc, const PGresult *result, size_t count, tidemill_job *jobs, tidemill_error *err) {
    if (rc == TIDEMILL_EOUTCOME) {
        td_error_prefix(err,
                        "whether the job was stored is unknown; look for it, or enqueue it again if that does no harm");
        return rc;
    }
    if (rc < 0) return explain(rc, err);
    if ((size_t)PQntuples(result) != count) {
        return td_error_set(err, TIDEMILL_EDATABASE, "%zu jobs were enqueued, but %d results came back", count,
                            PQntuples(result));
    }
    for (int i = 0; jobs && i < PQntuples(result); i++) {
        jobs[i].id = (int64_t)strtoll(PQgetvalue(result, i, 0), NULL, 10);
        jobs[i].duplicate = PQgetvalue(result, i, 1)[0] == 't';
    }
    return 0;
}

/* ---- On a connection that blocks ---- */

/* run calls the function and reads count rows of its result. */
static int run(PGconn *conn, const char *name, const td_enqueue_call *call, size_t count, tidemill_job *jobs,
               tidemill_error *err) {
    tidemill_error own;
    if (!err) err = &own; /* the answer reads it */
    bool committing = PQtransactionStatus(conn) == PQTRANS_IDLE;
    PGresult *result = NULL;
    int rc = td_conn_run(conn, name, TD_ENQUEUE_PARAMS, call->values, &result, err);
    if (rc == TIDEMILL_ECONNECT && committing) rc = err->code = TIDEMILL_EOUTCOME;
    rc = td_enqueue_answer(rc, result, count, jobs, err);
    PQclear(result);
    return rc;
}

int td_enqueue(PGconn *conn, const char *task, const char *args_json, const tidemill_options *options,
               tidemill_job *job, tidemill_error *err) {
    td_enqueue_call call;
    int rc = td_enqueue_prepare(&call, task, args_json, options, err);
    if (rc == 0) rc = run(conn, "statements/enqueue.sql", &call, 1, job, err);
    td_enqueue_call_free(&call);
    return rc;
}

int td_enqueue_many(PGconn *conn, const char *task, const char *const *args_json, size_t count,
                    const tidemill_options *options, tidemill_job *jobs, tidemill_error *err) {
    td_enqueue_call call;
    int rc = prepare_many(&call, task, args_json, count, options, err);
    if (rc == 0 && count > 0) rc = run(conn, "statements/enqueue_many.sql", &call, count, jobs, err);
    td_enqueue_call_free(&call);
    return rc;
}
