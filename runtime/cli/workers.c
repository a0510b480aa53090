/* workers.c: `tidemill workers`: what the running jobs do, on every process. */
#include "cli.h"
#include "rows.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define NAP_MS  50
#define WAIT_MS 3000

typedef struct workers_values {
    td_common common;
    bool traces;
} workers_values;

static const td_option options[] = {
    TD_OPT_FLAG("traces", workers_values, traces, "with where each job is, as a Lua traceback"),
};

static const td_column columns[] = {
    { "JOB", true, false },    { "TASK", false, true },  { "AGE ms", true, false },  { "CPU ms", true, false },
    { "MEMORY", true, false }, { "STATE", false, true }, { "PROCESS", false, true },
};

static const td_shown shown[] = {
    { "job", TD_SHOW_TEXT },     { "task", TD_SHOW_TEXT },         { "age_ms", TD_SHOW_TEXT },
    { "cpu_ms", TD_SHOW_TEXT },  { "memory_bytes", TD_SHOW_TEXT }, { "state", TD_SHOW_TEXT },
    { "process", TD_SHOW_TEXT },
};

static bool is_waiting(const td_rows *rows) {
    for (size_t i = 0; i < td_read_count(rows); i++)
        if (strcmp(td_read_get(rows, i, "kind"), "waiting") == 0) return true;
    return false;
}

/* wait_for reads the answers until every process has answered, or the time is over. */
static int wait_for(td_read *read, const char *id, td_rows **rows, tidemill_error *err) {
    uint64_t end_ns = td_now_ns() + WAIT_MS * UINT64_C(1000000);
    const struct timespec nap = { .tv_nsec = NAP_MS * 1000000 };
    for (;;) {
        int rc = td_read_rows(read, "cli_workers_answers", &id, 1, rows, err);
        if (rc < 0 || !is_waiting(*rows) || td_now_ns() > end_ns) return rc;
        td_read_free(*rows);
        *rows = NULL;
        nanosleep(&nap, NULL);
    }
}

/* print_traces appends each job's traceback. */
static void print_traces(td_cli *cli, const td_rows *rows) {
    td_buf *b = &cli->out.text;
    for (size_t i = 0; i < td_read_count(rows); i++) {
        const char *trace = td_read_get(rows, i, "traceback");
        if (!trace) continue;
        td_buf_printf(b, "\njob %s (", td_read_get(rows, i, "job"));
        td_output_clean(b, td_read_get(rows, i, "task"), true);
        td_buf_puts(b, ")\n");
        td_output_clean(b, trace, false);
        td_buf_putc(b, '\n');
    }
}

static int run(td_cli *cli) {
    const workers_values *v = cli->values;
    const char *const parameters[] = { v->traces ? "t" : "f" };
    td_read *read = NULL;
    td_rows *asked = NULL, *rows = NULL;
    tidemill_error err;
    int rc = td_read_open(td_cli_database(cli), &read, &err);
    if (rc == 0) rc = td_read_rows(read, "cli_workers", parameters, 1, &asked, &err);
    if (rc == 0) rc = wait_for(read, td_read_cell(asked, 0, 0), &rows, &err);
    if (rc == 0) rc = td_rows_list(cli, read, rows, columns, shown, TD_COUNT(columns), "no process runs", &err);
    if (rc == 0 && v->traces && !cli->out.json) print_traces(cli, rows);
    td_read_free(asked);
    td_read_free(rows);
    td_read_close(read);
    return rc ? td_cli_fail(&err) : td_cli_end(cli);
}

const td_command td_command_workers = {
    .name = "workers",
    .summary = "shows what the running jobs do, on every process",
    .usage = "",
    .about =
        "Asks every worker process what its jobs do at this moment: how long each has run, the processor time and "
        "memory it took, whether it runs or what it waits for, and with --traces where in its code it is. Nothing is "
        "stopped for that.",
    .examples = "tidemill workers\n"
                "tidemill workers --traces\n",
    .options = options,
    .options_count = TD_COUNT(options),
    .values_size = sizeof(workers_values),
    .run = run,
};
