/* work.c: a worker process's statements. */
#include "work.h"

#include "../loop/loop.h"
#include "array.h"
#include "query.h"
#include "sql.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The parameters of work.sql, in its order. */
enum {
    PROCESS,
    IDS,
    LEASES,
    OUTCOMES,
    ERRORS,
    TRACEBACKS,
    RESULTS,
    DELAYS,
    CPU,
    WALL,
    PEAK,
    LOGS,
    GENERATIONS,
    CODES,
    SPENT,
    TOKEN,
    QUEUES,
    FREE,
    TASKS,
    ASLEEP,
    PARAMS
};

void td_claimed_free(td_claimed *claimed) {
    free(claimed->task);
    free(claimed->queue);
    free(claimed->args);
    free(claimed->tags);
    *claimed = (td_claimed){ 0 };
}

/* ---- An exchange ---- */

/* The parameters that are arrays, by their place among all. */
static void fill_endings(td_buf *p, const td_exchange *x) {
    for (int i = IDS; i <= SPENT; i++) td_array_open(&p[i]);
    for (size_t i = 0; i < x->endings_count; i++) {
        const td_ending *e = &x->endings[i];
        char delay[40];
        snprintf(delay, sizeof delay, "%.6f", e->delay_s);
        td_array_int(&p[IDS], e->id);
        td_array_int(&p[LEASES], e->lease);
        td_array_text(&p[OUTCOMES], e->outcome);
        td_array_text(&p[ERRORS], e->error);
        td_array_text(&p[TRACEBACKS], e->traceback);
        td_array_text(&p[RESULTS], e->result);
        td_array_text(&p[DELAYS], e->delay_s < 0 ? NULL : delay);
        td_array_int(&p[CPU], e->cpu_us);
        td_array_int(&p[WALL], e->wall_us);
        td_array_int(&p[PEAK], e->peak_bytes);
        td_array_text(&p[LOGS], e->log);
        td_array_int(&p[GENERATIONS], e->generation);
        td_array_text(&p[CODES], e->code);
    }
    for (size_t i = 0; i < x->spent_count; i++) td_array_int(&p[SPENT], x->spent[i]);
}

static void fill_claim(td_buf *p, const td_exchange *x) {
    for (int i = QUEUES; i <= TASKS; i++) td_array_open(&p[i]);
    for (size_t i = 0; i < x->rooms_count; i++) {
        td_array_text(&p[QUEUES], x->rooms[i].queue);
        td_array_int(&p[FREE], x->rooms[i].free);
    }
    for (size_t i = 0; x->rooms_count > 0 && i < x->tasks_count; i++) td_array_text(&p[TASKS], x->tasks[i]);
}

static int64_t int_at(const PGresult *result, int row, int column) {
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

static int take_job(const PGresult *result, int row, td_exchange_reply *reply, tidemill_error *err) {
    td_claimed c = {
        .id = int_at(result, row, 1),
        .task = td_strdup(PQgetvalue(result, row, 2)),
        .queue = td_strdup(PQgetvalue(result, row, 3)),
        .run = (int)int_at(result, row, 4),
        .attempt = (int)int_at(result, row, 5),
        .max_attempts = (int)int_at(result, row, 6),
        .priority = (int)int_at(result, row, 7),
        .args = td_strdup(PQgetvalue(result, row, 8)),
        .tags = td_strdup(PQgetvalue(result, row, 9)),
        .enqueued_us = int_at(result, row, 10),
        .scheduled_us = int_at(result, row, 11),
    };
    if (!c.task || !c.queue || !c.args || !c.tags || reply->job(reply->arg, &c) != 0) {
        td_claimed_free(&c);
        return td_error_memory(err);
    }
    reply->jobs++;
    return 0;
}

static int take_row(const PGresult *result, int row, td_exchange_reply *reply, tidemill_error *err) {
    const char *kind = PQgetvalue(result, row, 0);
    if (strcmp(kind, "job") == 0) return take_job(result, row, reply, err);
    if (strcmp(kind, "stale") == 0) {
        reply->stale(reply->arg, int_at(result, row, 1));
    } else if (strcmp(kind, "next") == 0) {
        reply->room_left = true;
        if (!PQgetisnull(result, row, 12)) reply->wait_ms = int_at(result, row, 12);
    }
    return 0;
}

/* The parameters, owned by the fiber. */
typedef struct sending {
    td_hold hold;
    td_buf p[PARAMS];
} sending;

static void sending_free(sending *s) {
    for (int i = 0; i < PARAMS; i++) td_buf_free(&s->p[i]);
    free(s);
}

static void release(td_hold *hold) {
    sending_free(td_container(hold, sending, hold));
}

/* fill makes the parameters. */
static int fill(sending *s, const td_exchange *x, const char *params[PARAMS], tidemill_error *err) {
    bool failed = false;
    td_buf_printf(&s->p[PROCESS], "%" PRId64, x->process);
    td_buf_printf(&s->p[TOKEN], "%" PRId64, x->token);
    fill_endings(s->p, x);
    fill_claim(s->p, x);
    for (int i = 0; i < ASLEEP; i++) {
        if (i != PROCESS && i != TOKEN) td_array_close(&s->p[i]);
        failed |= s->p[i].failed;
        params[i] = s->p[i].data;
    }
    params[ASLEEP] = x->marks == TD_MARKS_KEEP ? NULL : x->marks == TD_MARKS_SET ? "t" : "f";
    return failed ? td_error_memory(err) : 0;
}

int td_work_exchange(const td_exchange *x, td_exchange_reply *reply, tidemill_error *err) {
    const char *params[PARAMS];
    PGresult *result = NULL;
    sending *s = calloc(1, sizeof *s);
    if (!s) return td_error_memory(err);
    reply->jobs = 0;
    reply->room_left = false;
    reply->wait_ms = -1;
    td_hold_push(td_fiber_self(), &s->hold, release);
    int rc = fill(s, x, params, err);
    if (rc == 0) rc = td_query_exec(td_sql_text("statements/work.sql"), PARAMS, params, &result, err);
    td_hold_take(&s->hold);
    sending_free(s);
    for (int i = 0; rc == 0 && i < PQntuples(result); i++) rc = take_row(result, i, reply, err);
    PQclear(result);
    return rc;
}

/* ---- The process ---- */

/* run does a statement whose first parameter is the process and the second some text. */
static int run(const char *name, int64_t process, int n, const char *text, PGresult **result, tidemill_error *err) {
    char id[24];
    snprintf(id, sizeof id, "%" PRId64, process);
    const char *params[] = { id, text };
    return td_query_exec(td_sql_text(name), n, params, result, err);
}

int td_work_publish(int64_t process, const char *tasks_json, void (*differing)(void *arg, const char *task), void *arg,
                    tidemill_error *err) {
    PGresult *result = NULL;
    int rc = run("statements/process_publish.sql", process, 2, tasks_json, &result, err);
    if (rc < 0) return rc;
    for (int i = 0; i < PQntuples(result); i++) differing(arg, PQgetvalue(result, i, 0));
    PQclear(result);
    return 0;
}

int td_work_start(const char *name, const char *queues_json, const char *tasks_json,
                  void (*differing)(void *arg, const char *task), void *arg, int64_t *process, tidemill_error *err) {
    PGresult *result = NULL;
    const char *params[] = { name, queues_json };
    int rc = td_query_exec(td_sql_text("statements/process_start.sql"), 2, params, &result, err);
    if (rc < 0) return rc;
    *process = int_at(result, 0, 0);
    PQclear(result);
    return td_work_publish(*process, tasks_json, differing, arg, err);
}

int td_work_heartbeat(int64_t process, td_pulse *pulse, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = run("statements/process_heartbeat.sql", process, 1, NULL, &result, err);
    if (rc < 0) return rc;
    pulse->alive = PQgetvalue(result, 0, 0)[0] == 't';
    pulse->reload = PQgetisnull(result, 0, 4) ? 0 : int_at(result, 0, 4);
    snprintf(pulse->reload_to, sizeof pulse->reload_to, "%s", PQgetvalue(result, 0, 5));
    pulse->inquiry = PQgetisnull(result, 0, 6) ? 0 : int_at(result, 0, 6);
    pulse->traces = PQgetvalue(result, 0, 7)[0] == 't';
    for (int i = 0; i < PQntuples(result); i++) {
        if (PQgetisnull(result, i, 1)) continue;
        bool cancel = strcmp(PQgetvalue(result, i, 3), "cancelled") == 0;
        pulse->stop(pulse->arg, int_at(result, i, 1), int_at(result, i, 2), cancel);
    }
    PQclear(result);
    return 0;
}

int td_work_reloaded(int64_t process, const td_running_code *code, int64_t request, const char *queues_json,
                     tidemill_error *err) {
    PGresult *result = NULL;
    char id[24], number[16], answers[24];
    snprintf(id, sizeof id, "%" PRId64, process);
    snprintf(number, sizeof number, "%d", code->generation);
    snprintf(answers, sizeof answers, "%" PRId64, request);
    const char *params[] = { id,
                             number,
                             code->hash,
                             *code->degraded ? code->degraded : NULL,
                             *code->refused ? code->refused : NULL,
                             request ? answers : NULL,
                             queues_json };
    int rc = td_query_exec(td_sql_text("statements/process_reloaded.sql"), TD_COUNT(params), params, &result, err);
    if (rc == 0) PQclear(result);
    return rc;
}

int td_work_answer(int64_t process, int64_t inquiry, const char *jobs_json, tidemill_error *err) {
    PGresult *result = NULL;
    char id[24], asked[24];
    snprintf(id, sizeof id, "%" PRId64, process);
    snprintf(asked, sizeof asked, "%" PRId64, inquiry);
    const char *params[] = { id, asked, jobs_json };
    int rc = td_query_exec(td_sql_text("statements/process_answer.sql"), 3, params, &result, err);
    if (rc == 0) PQclear(result);
    return rc;
}

int td_work_retry(int64_t id, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = run("statements/cli_job_retry.sql", id, 1, NULL, &result, err);
    if (rc == 0) PQclear(result);
    return rc;
}

int td_work_stop(int64_t process, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = run("statements/process_stop.sql", process, 2, "returned", &result, err);
    if (rc == 0) PQclear(result);
    return rc;
}

int td_work_give_back(int64_t process, int64_t token, tidemill_error *err) {
    PGresult *result = NULL;
    char tokens[32];
    snprintf(tokens, sizeof tokens, "{%" PRId64 "}", token);
    int rc = run("statements/process_give_back.sql", process, 2, tokens, &result, err);
    if (rc == 0) PQclear(result);
    return rc;
}
