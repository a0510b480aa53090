/* queues.c: `tidemill queues`: what is in each queue, and how many workers serve it. */
#include "rows.h"

typedef struct queues_values {
    td_common common;
} queues_values;

static const td_column columns[] = {
    { "QUEUE", false, true },     { "WORKERS", true, false },   { "AVAILABLE", true, false },
    { "RUNNING", true, false },   { "SCHEDULED", true, false }, { "DEAD", true, false },
    { "COMPLETED", true, false }, { "CANCELLED", true, false }, { "OLDEST", false, false },
};

static const td_shown shown[] = {
    { "queue", TD_SHOW_TEXT },     { "workers", TD_SHOW_TEXT },   { "available", TD_SHOW_TEXT },
    { "running", TD_SHOW_TEXT },   { "scheduled", TD_SHOW_TEXT }, { "dead", TD_SHOW_TEXT },
    { "completed", TD_SHOW_TEXT }, { "cancelled", TD_SHOW_TEXT }, { "oldest_due", TD_SHOW_AGE },
};

static int run(td_cli *cli) {
    td_read *read = NULL;
    td_rows *rows = NULL;
    tidemill_error err;
    int rc = td_read_open(td_cli_database(cli), &read, &err);
    if (rc == 0) rc = td_read_rows(read, "cli_queues", NULL, 0, &rows, &err);
    if (rc == 0) rc = td_rows_list(cli, read, rows, columns, shown, TD_COUNT(columns), "no queues", &err);
    td_read_free(rows);
    td_read_close(read);
    return rc ? td_cli_fail(&err) : td_cli_end(cli);
}

const td_command td_command_queues = {
    .name = "queues",
    .summary = "shows each queue: its jobs by state, its workers",
    .usage = "",
    .about =
        "Shows each queue that has jobs or workers: how many workers serve it now, how many jobs are in each state, "
        "and since when the oldest one that is due waits. A queue with jobs and no worker is one that nobody serves.",
    .examples = "tidemill queues\n"
                "tidemill queues --json\n",
    .values_size = sizeof(queues_values),
    .run = run,
};
