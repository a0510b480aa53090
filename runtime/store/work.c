/* work.c: a worker process's statements. */
#include "work.h"

#include "array.h"
#include "query.h"
#include "sql.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMS = 13 };

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
    for (int i = 1; i <= 8; i++) td_array_open(&p[i]);
    for (size_t i = 0; i < x->endings_count; i++) {
        const td_ending *e = &x->endings[i];
        char delay[40];
        snprintf(delay, sizeof delay, "%.6f", e->delay_s);
        td_array_int(&p[1], e->id);
        td_array_int(&p[2], e->lease);
        td_array_text(&p[3], e->outcome);
        td_array_text(&p[4], e->error);
        td_array_text(&p[5], e->traceback);
        td_array_text(&p[6], e->result);
        td_array_text(&p[7], e->delay_s < 0 ? NULL : delay);
    }
    for (size_t i = 0; i < x->spent_count; i++) td_array_int(&p[8], x->spent[i]);
}

static void fill_claim(td_buf *p, const td_exchange *x) {
    for (int i = 10; i <= 12; i++) td_array_open(&p[i]);
    for (size_t i = 0; i < x->rooms_count; i++) {
        td_array_text(&p[10], x->rooms[i].queue);
        td_array_int(&p[11], x->rooms[i].free);
    }
    for (size_t i = 0; x->rooms_count > 0 && i < x->tasks_count; i++) td_array_text(&p[12], x->tasks[i]);
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
    } else {
        reply->ask_again = true;
    }
    return 0;
}

int td_work_exchange(const td_exchange *x, td_exchange_reply *reply, tidemill_error *err) {
    td_buf p[PARAMS] = { 0 };
    const char *params[PARAMS];
    PGresult *result = NULL;
    int rc = 0;
    bool failed = false;
    td_buf_printf(&p[0], "%" PRId64, x->process);
    td_buf_printf(&p[9], "%" PRId64, x->token);
    fill_endings(p, x);
    fill_claim(p, x);
    for (int i = 0; i < PARAMS; i++) {
        if (i != 0 && i != 9) td_array_close(&p[i]);
        failed |= p[i].failed;
        params[i] = p[i].data;
    }
    reply->jobs = 0;
    reply->room_left = reply->ask_again = false;
    reply->wait_ms = -1;
    rc =
        failed ? td_error_memory(err) : td_query_exec(td_sql_text("statements/work.sql"), PARAMS, params, &result, err);
    for (int i = 0; rc == 0 && i < PQntuples(result); i++) rc = take_row(result, i, reply, err);
    PQclear(result);
    for (int i = 0; i < PARAMS; i++) td_buf_free(&p[i]);
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

int td_work_start(const char *name, const char *tasks_json, void (*differing)(void *arg, const char *task), void *arg,
                  int64_t *process, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = td_query_exec(td_sql_text("statements/process_start.sql"), 1, &name, &result, err);
    if (rc < 0) return rc;
    *process = int_at(result, 0, 0);
    PQclear(result);
    rc = run("statements/process_publish.sql", *process, 2, tasks_json, &result, err);
    if (rc < 0) return rc;
    for (int i = 0; i < PQntuples(result); i++) differing(arg, PQgetvalue(result, i, 0));
    PQclear(result);
    return 0;
}

int td_work_heartbeat(int64_t process, bool *alive, void (*stop)(void *arg, int64_t id), void *arg,
                      tidemill_error *err) {
    PGresult *result = NULL;
    int rc = run("statements/process_heartbeat.sql", process, 1, NULL, &result, err);
    if (rc < 0) return rc;
    *alive = PQgetvalue(result, 0, 0)[0] == 't';
    /* A JSON array of whole numbers: [1,2]. */
    for (const char *at = PQgetvalue(result, 0, 1); *at; at++) {
        if (*at < '0' || *at > '9') continue;
        char *end;
        stop(arg, strtoll(at, &end, 10));
        at = end - 1;
    }
    PQclear(result);
    return 0;
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
