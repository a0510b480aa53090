/* jobs.c: `tidemill jobs`: lists, shows, retries and cancels jobs. */
#include "action.h"
#include "rows.h"
#include "show.h"

#include <stdio.h>
#include <string.h>

typedef struct jobs_values {
    td_common common;
    const char *state, *task, *queue, *reason;
    int64_t limit;
} jobs_values;

static const char *const states[] = { "scheduled", "available", "running", "completed", "cancelled", "dead", NULL };

static const td_option list_options[] = {
    TD_OPT_CHOICE("state", "STATE", jobs_values, state, states,
                  "only those in this state: scheduled, available, running, completed, cancelled or dead"),
    TD_OPT(TEXT, "task", "TASK", jobs_values, task, "only those of this task"),
    TD_OPT(TEXT, "queue", "NAME", jobs_values, queue, "only those in this queue"),
    TD_OPT_INT("limit", "N", jobs_values, limit, 1, 1000000, "how many at most; default 20"),
};

static const td_option cancel_options[] = {
    TD_OPT(TEXT, "reason", "TEXT", jobs_values, reason, "why, kept with the job"),
};

static const td_column columns[] = { { "ID", true, false },        { "TASK", false, true },    { "QUEUE", false, true },
                                     { "STATE", false, false },    { "ATTEMPT", true, false }, { "DUE", false, false },
                                     { "LAST ERROR", false, true } };

static const td_shown shown[] = { { "id", TD_SHOW_TEXT },        { "task", TD_SHOW_TEXT },
                                  { "queue", TD_SHOW_TEXT },     { "state", TD_SHOW_STATE },
                                  { "attempt", TD_SHOW_TEXT },   { "scheduled_at", TD_SHOW_AGE },
                                  { "last_error", TD_SHOW_TEXT } };

static int run_list(td_cli *cli) {
    const jobs_values *v = cli->values;
    td_read *read = NULL;
    td_rows *rows = NULL;
    tidemill_error err;
    char limit[24];
    snprintf(limit, sizeof limit, "%lld", (long long)(v->limit == TIDEMILL_UNSET ? 20 : v->limit));
    const char *const parameters[] = { v->state, v->task, v->queue, limit };
    int rc = td_read_open(td_cli_database(cli), &read, &err);
    if (rc == 0) rc = td_read_rows(read, "cli_jobs_list", parameters, TD_COUNT(parameters), &rows, &err);
    if (rc == 0) rc = td_rows_list(cli, read, rows, columns, shown, TD_COUNT(columns), "no such jobs", &err);
    td_read_free(rows);
    td_read_close(read);
    return rc ? td_cli_fail(&err) : td_cli_end(cli);
}

static int run_show(td_cli *cli) {
    return td_show_job(cli, "cli_job", "there is no such job");
}

static int run_retry(td_cli *cli) {
    static const td_said said[] = { { "available", "job %s is due now" } };
    return td_action_each(cli, "cli_job_retry", false, NULL, said, TD_COUNT(said));
}

static int run_cancel(td_cli *cli) {
    static const td_said said[] = { { "cancelled", "cancelled job %s" },
                                    { "running", "job %s is running: it was asked to stop" } };
    const jobs_values *v = cli->values;
    return td_action_each(cli, "cli_job_cancel", true, v->reason, said, TD_COUNT(said));
}

static const td_command list = {
    .name = "list",
    .summary = "lists jobs, newest first",
    .usage = "",
    .examples = "tidemill jobs list\n"
                "tidemill jobs list --state scheduled --task send_welcome_email\n"
                "tidemill jobs list --queue mail --limit 100 --json\n",
    .options = list_options,
    .options_count = TD_COUNT(list_options),
    .values_size = sizeof(jobs_values),
    .run = run_list,
};

static const td_command show = {
    .name = "show",
    .summary = "shows all about a job, with its attempts and their errors",
    .usage = "ID",
    .examples = "tidemill jobs show 42\n",
    .values_size = sizeof(jobs_values),
    .args_min = 1,
    .args_max = 1,
    .run = run_show,
};

static const td_command retry = {
    .name = "retry",
    .summary = "makes scheduled jobs due now; requeues dead ones",
    .usage = "ID...",
    .examples = "tidemill jobs retry 42 43\n",
    .values_size = sizeof(jobs_values),
    .args_min = 1,
    .args_max = TD_ANY,
    .run = run_retry,
};

static const td_command cancel = {
    .name = "cancel",
    .summary = "cancels jobs; running ones are asked to stop",
    .usage = "ID...",
    .examples = "tidemill jobs cancel 42 --reason 'sent by hand'\n",
    .options = cancel_options,
    .options_count = TD_COUNT(cancel_options),
    .values_size = sizeof(jobs_values),
    .args_min = 1,
    .args_max = TD_ANY,
    .run = run_cancel,
};

static const td_command *const children[] = { &list, &show, &retry, &cancel, NULL };

const td_command td_command_jobs = {
    .name = "jobs",
    .summary = "lists, shows, retries and cancels jobs",
    .usage = "",
    .examples = "tidemill jobs list --state running\n"
                "tidemill jobs show 42\n",
    .values_size = sizeof(jobs_values),
    .children = children,
};
