/* show.c: everything about one job. See show.h. */
#include "show.h"

#include "json.h"
#include "parse.h"
#include "rows.h"

#include <stdio.h>
#include <string.h>

/* The fields of a job in the order in which they are read; columns that a statement does not have are left out. */
static const struct {
    const char *column, *label;
    bool time;
} fields[] = {
    { "reason", "reason", false },
    { "queue", "queue", false },
    { "priority", "priority", false },
    { "tags", "tags", false },
    { "unique_key", "unique key", false },
    { "enqueued_at", "enqueued", true },
    { "scheduled_at", "scheduled", true },
    { "attempted_at", "attempted", true },
    { "finished_at", "finished", true },
    { "died_at", "died", true },
    { "attempted_by", "attempted by", false },
    { "last_error", "last error", false },
    { "args", "args", false },
    { "result", "result", false },
};

/* print_fields prints the job's own columns. */
static void print_fields(td_cli *cli, const td_read *read, const td_rows *job) {
    td_output *out = &cli->out;
    td_buf value = { 0 };
    td_buf_printf(&value, "Job %s  ", td_read_get(job, 0, "id"));
    td_output_style(out, TD_BOLD, value.failed ? "" : value.data);
    td_output_style(out, TD_BOLD, td_read_get(job, 0, "task"));
    td_output_puts(out, "\n");
    td_output_field(out, "state", td_rows_style(td_read_get(job, 0, "state")), td_read_get(job, 0, "state"));
    td_buf_clear(&value);
    td_buf_printf(&value, "%s of %s", td_read_get(job, 0, "attempt"), td_read_get(job, 0, "max_attempts"));
    td_output_field(out, "attempt", TD_PLAIN, value.data);
    for (size_t i = 0; i < TD_COUNT(fields); i++) {
        const char *text = td_read_get(job, 0, fields[i].column);
        if (!text || strcmp(text, "[]") == 0) continue; /* no tags */
        td_buf_clear(&value);
        td_rows_value(&value, job, 0, fields[i].column, fields[i].time ? read : NULL);
        td_output_field(out, fields[i].label, TD_PLAIN, value.data);
    }
    if (value.failed) out->text.failed = true;
    td_buf_free(&value);
}

/* seconds appends how long an attempt took. */
static void took(td_buf *b, const char *started, const char *finished) {
    int64_t from, to;
    if (!started || !finished || td_parse_time(started, &from, NULL) || td_parse_time(finished, &to, NULL)) return;
    int64_t ms = (to - from) / 1000;
    td_buf_printf(b, ", took %lld.%03lld s", (long long)(ms / 1000), (long long)(ms % 1000));
}

/* print_attempt prints one attempt. */
static void print_attempt(td_cli *cli, const td_read *read, const td_rows *attempts, size_t row) {
    td_output *out = &cli->out;
    const char *outcome = td_read_get(attempts, row, "outcome"), *worker = td_read_get(attempts, row, "worker");
    const char *generation = td_read_get(attempts, row, "generation"), *code = td_read_get(attempts, row, "code");
    const char *error = td_read_get(attempts, row, "error"), *traceback = td_read_get(attempts, row, "traceback");
    td_buf line = { 0 };
    td_buf_printf(&out->text, "\n  run %s, attempt %s: ", td_read_get(attempts, row, "run"),
                  td_read_get(attempts, row, "attempt"));
    td_output_style(out, td_rows_style(outcome ? outcome : "running"), outcome ? outcome : "running");
    td_output_puts(out, "\n");
    td_rows_value(&line, attempts, row, "started_at", read);
    took(&line, td_read_get(attempts, row, "started_at"), td_read_get(attempts, row, "finished_at"));
    if (line.data) td_output_block(out, line.data, 4);
    td_buf_clear(&line);
    if (worker) td_buf_printf(&line, "by %s", worker);
    if (code) td_buf_printf(&line, ", on code %s (generation %s)", code, generation);
    if (worker && line.data) td_output_block(out, line.data, 4);
    if (line.failed) out->text.failed = true;
    td_buf_free(&line);
    if (error) td_output_block(out, error, 4);
    /* A traceback usually begins with the error. */
    if (traceback && error && strncmp(traceback, error, strlen(error)) == 0) traceback += strlen(error);
    if (traceback) td_output_block(out, traceback + strspn(traceback, "\n"), 6);
}

/* print_job prints the job with its attempts, for reading or as JSON. */
static void print_job(td_cli *cli, const td_read *read, const td_rows *job, const td_rows *attempts) {
    td_buf *b = &cli->out.text;
    if (cli->out.json) {
        td_rows_json(b, job, 0, true);
        td_json_key(b, "attempts");
        td_rows_json_list(b, attempts);
        td_json_close(b, '}');
        td_buf_putc(b, '\n');
        return;
    }
    print_fields(cli, read, job);
    for (size_t row = 0; row < td_read_count(attempts); row++) print_attempt(cli, read, attempts, row);
}

int td_show_job(td_cli *cli, const char *statement, const char *absent) {
    const char *id = cli->args.items[0];
    td_read *read = NULL;
    td_rows *job = NULL, *attempts = NULL;
    tidemill_error err;
    int64_t number;
    if (td_parse_integer(id, 1, INT64_MAX, &number, NULL))
        return td_cli_usage(cli, "%s is not a job's id; give a whole number above 0", id);
    int rc = td_read_open(td_cli_database(cli), &read, &err);
    if (rc == 0) rc = td_read_rows(read, statement, &id, 1, &job, &err);
    if (rc == 0 && td_read_count(job) == 0) rc = td_error_set(&err, TIDEMILL_ENOT_FOUND, "job %s: %s", id, absent);
    if (rc == 0) rc = td_read_rows(read, "cli_job_attempts", &id, 1, &attempts, &err);
    if (rc == 0) print_job(cli, read, job, attempts);
    td_read_free(job);
    td_read_free(attempts);
    td_read_close(read);
    return rc ? td_cli_fail(&err) : td_cli_end(cli);
}
