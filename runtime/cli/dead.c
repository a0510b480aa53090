/* dead.c: `tidemill dead`: the dead-letter queue: lists, shows and requeues what gave up. */
#include "action.h"
#include "json.h"
#include "rows.h"
#include "show.h"

#include <stdio.h>

typedef struct dead_values {
    td_common common;
    const char *task, *queue;
    int64_t limit;
    bool all;
} dead_values;

/* clang-format off */
#define FILTERS                                                                                                        \
    TD_OPT(TEXT, "task", "TASK", dead_values, task, "only those of this task"),                                        \
    TD_OPT(TEXT, "queue", "NAME", dead_values, queue, "only those of this queue")
/* clang-format on */

static const td_option list_options[] = {
    FILTERS,
    TD_OPT_INT("limit", "N", dead_values, limit, 1, 1000000, "how many at most; default 20"),
};

static const td_option requeue_options[] = {
    TD_OPT_FLAG("all", dead_values, all, "all of them, or all that the filters leave"),
    FILTERS,
};

static const td_column columns[] = { { "ID", true, false },      { "TASK", false, true },  { "QUEUE", false, true },
                                     { "ATTEMPT", true, false }, { "DIED", false, false }, { "REASON", false, true } };

static const td_shown shown[] = { { "id", TD_SHOW_TEXT },      { "task", TD_SHOW_TEXT },   { "queue", TD_SHOW_TEXT },
                                  { "attempt", TD_SHOW_TEXT }, { "died_at", TD_SHOW_AGE }, { "reason", TD_SHOW_TEXT } };

static int run_list(td_cli *cli) {
    const dead_values *v = cli->values;
    td_read *read = NULL;
    td_rows *rows = NULL;
    tidemill_error err;
    char limit[24];
    snprintf(limit, sizeof limit, "%lld", (long long)(v->limit == TIDEMILL_UNSET ? 20 : v->limit));
    const char *const parameters[] = { v->task, v->queue, limit };
    int rc = td_read_open(td_cli_database(cli), &read, &err);
    if (rc == 0) rc = td_read_rows(read, "cli_dead_list", parameters, TD_COUNT(parameters), &rows, &err);
    if (rc == 0) rc = td_rows_list(cli, read, rows, columns, shown, TD_COUNT(columns), "no dead jobs", &err);
    td_read_free(rows);
    td_read_close(read);
    return rc ? td_cli_fail(&err) : td_cli_end(cli);
}

static int run_show(td_cli *cli) {
    return td_show_job(cli, "cli_dead", "it is not among the dead");
}

/* requeue_all requeues every dead job that the filters leave. */
static int requeue_all(td_cli *cli) {
    const dead_values *v = cli->values;
    const char *const parameters[] = { v->task, v->queue };
    td_read *read = NULL;
    td_rows *rows = NULL;
    tidemill_error err;
    int rc = td_read_open(td_cli_database(cli), &read, &err);
    if (rc == 0) rc = td_read_rows(read, "cli_dead_requeue_all", parameters, TD_COUNT(parameters), &rows, &err);
    if (rc == 0) {
        const char *count = td_read_count(rows) ? td_read_cell(rows, 0, 0) : "0";
        td_buf_printf(&cli->out.text, cli->out.json ? "{\"requeued\":%s}\n" : "requeued %s dead jobs\n", count);
    }
    td_read_free(rows);
    td_read_close(read);
    return rc ? td_cli_fail(&err) : td_cli_end(cli);
}

static int run_requeue(td_cli *cli) {
    static const td_said said[] = { { "available", "requeued job %s" } };
    const dead_values *v = cli->values;
    if (v->all && cli->args.count) return td_cli_usage(cli, "--all and ids exclude each other; give one of them");
    if (v->all) return requeue_all(cli);
    if (v->task || v->queue) return td_cli_usage(cli, "--task and --queue need --all");
    if (cli->args.count == 0) return td_cli_usage(cli, "give the ids of dead jobs, or --all");
    return td_action_each(cli, "cli_dead_requeue", false, NULL, said, TD_COUNT(said));
}

static const td_command list = {
    .name = "list",
    .summary = "lists dead jobs, latest first",
    .usage = "",
    .examples = "tidemill dead list\n"
                "tidemill dead list --task import --json\n",
    .options = list_options,
    .options_count = TD_COUNT(list_options),
    .values_size = sizeof(dead_values),
    .run = run_list,
};

static const td_command show = {
    .name = "show",
    .summary = "shows all about a dead job, with its attempts and their errors",
    .usage = "ID",
    .examples = "tidemill dead show 42\n",
    .values_size = sizeof(dead_values),
    .args_min = 1,
    .args_max = 1,
    .run = run_show,
};

static const td_command requeue = {
    .name = "requeue",
    .summary = "lets dead jobs run again, with their attempts anew",
    .usage = "[ID...]",
    .about =
        "Lets dead jobs run again: those whose ids are given, or with --all every one that the filters leave. They "
        "keep their ids and their history, and get their task's number of attempts anew.",
    .examples = "tidemill dead requeue 42 43\n"
                "tidemill dead requeue --all --task send_welcome_email\n",
    .options = requeue_options,
    .options_count = TD_COUNT(requeue_options),
    .values_size = sizeof(dead_values),
    .args_max = TD_ANY,
    .run = run_requeue,
};

static const td_command *const children[] = { &list, &show, &requeue, NULL };

const td_command td_command_dead = {
    .name = "dead",
    .summary = "lists, shows and requeues dead jobs",
    .usage = "",
    .about =
        "The dead-letter queue: jobs whose attempts are used up, that were discarded, or whose arguments their task "
        "does not take. They are kept until they are requeued.",
    .examples = "tidemill dead list\n"
                "tidemill dead show 42\n"
                "tidemill dead requeue 42\n",
    .values_size = sizeof(dead_values),
    .children = children,
};
