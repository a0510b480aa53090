/* migrate.c: `tidemill migrate`: the schema of a database, up, down and its state. */
#include "cli.h"
#include "json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct migrate_values {
    td_common common;
    int64_t to;
    bool yes;
} migrate_values;

static const td_option down_options[] = {
    TD_OPT_INT("to", "N", migrate_values, to, 0, 1000000,
               "the version to go back to; 0 removes Tidemill and every job. Default: the one before the current"),
    TD_OPT_FLAG("yes", migrate_values, yes, "do not ask"),
};

/* print_change tells how many migrations were run and what the version is now. */
static int print_change(td_cli *cli, const char *word, int changed, int version) {
    td_buf *b = &cli->out.text;
    if (cli->out.json) {
        td_json_open(b, '{');
        td_json_key(b, word);
        td_json_integer(b, changed);
        td_json_key(b, "version");
        td_json_integer(b, version);
        td_json_close(b, '}');
    } else if (changed == 0) {
        td_buf_printf(b, "nothing to do: the schema is at version %d", version);
    } else {
        td_buf_printf(b, "%s %d migration%s: the schema is at version %d", word, changed, changed == 1 ? "" : "s",
                      version);
    }
    td_buf_putc(b, '\n');
    return td_cli_end(cli);
}

static int run_up(td_cli *cli) {
    const char *url = td_cli_database(cli);
    int applied = 0, current = 0, needed = 0;
    tidemill_error err;
    int rc = tidemill_migrate_up(url, &applied, &err);
    if (rc == 0) rc = tidemill_migrate_status(url, &current, &needed, &err);
    return rc ? td_cli_fail(&err) : print_change(cli, "applied", applied, current);
}

/* state_name puts a database's version next to the one that is needed into a word. */
static const char *state_name(int current, int needed) {
    if (current == 0) return "none";
    if (current == needed) return "current";
    return current < needed ? "behind" : "newer";
}

static int run_status(td_cli *cli) {
    int current = 0, needed = 0;
    tidemill_error err;
    if (tidemill_migrate_status(td_cli_database(cli), &current, &needed, &err)) return td_cli_fail(&err);
    const char *state = state_name(current, needed);
    td_buf *b = &cli->out.text;
    if (cli->out.json) {
        td_json_open(b, '{');
        td_json_key(b, "current");
        td_json_integer(b, current);
        td_json_key(b, "needed");
        td_json_integer(b, needed);
        td_json_key(b, "state");
        td_json_text(b, state);
        td_json_close(b, '}');
    } else if (strcmp(state, "none") == 0) {
        td_buf_printf(b, "the database has no Tidemill schema; `tidemill migrate up` makes version %d", needed);
    } else if (strcmp(state, "current") == 0) {
        td_buf_printf(b, "the schema is at version %d: up to date", current);
    } else if (strcmp(state, "behind") == 0) {
        td_buf_printf(b, "the schema is at version %d, this program needs %d: run `tidemill migrate up`", current,
                      needed);
    } else {
        td_buf_printf(b, "the schema is at version %d, newer than this program's %d: update the program", current,
                      needed);
    }
    td_buf_putc(b, '\n');
    return td_cli_end(cli);
}

/* confirmed asks on the terminal whether the schema may be taken back. Returns TD_EXIT_OK when it may. */
static int confirmed(const td_cli *cli, int from, int to) {
    const migrate_values *v = cli->values;
    const char *loss = to == 0 ? "this removes Tidemill and deletes every job" : "this may delete what is stored";
    char answer[16];
    if (v->yes) return TD_EXIT_OK;
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return td_cli_usage(cli, "from version %d to %d: %s; give --yes if that is meant", from, to, loss);
    fprintf(stderr, "From version %d to %d: %s. Type yes to go on: ", from, to, loss);
    if (fgets(answer, sizeof answer, stdin) && strcmp(answer, "yes\n") == 0) return TD_EXIT_OK;
    td_cli_say("nothing was changed");
    return TD_EXIT_FAILED;
}

static int run_down(td_cli *cli) {
    const migrate_values *v = cli->values;
    const char *url = td_cli_database(cli);
    int current = 0, needed = 0, reverted = 0;
    tidemill_error err;
    if (tidemill_migrate_status(url, &current, &needed, &err)) return td_cli_fail(&err);
    int to = v->to != TIDEMILL_UNSET ? (int)v->to : current - 1;
    if (current == 0 || to == current) return print_change(cli, "reverted", 0, current);
    if (to > current) {
        td_cli_say("--to: %d is above the current version %d; give a lower one", to, current);
        return TD_EXIT_FAILED;
    }
    int code = confirmed(cli, current, to);
    if (code != TD_EXIT_OK) return code;
    int rc = tidemill_migrate_down(url, to, &reverted, &err);
    return rc ? td_cli_fail(&err) : print_change(cli, "reverted", reverted, to);
}

static const td_command up = {
    .name = "up",
    .summary = "brings the schema to this program's version",
    .usage = "",
    .about = "Brings the schema of the database to this program's version. Several may do so at once, and workers may "
             "be running.",
    .examples = "tidemill migrate up --database postgresql://localhost/app\n",
    .values_size = sizeof(migrate_values),
    .run = run_up,
};

static const td_command down = {
    .name = "down",
    .summary = "takes the schema back to an earlier version",
    .usage = "",
    .about =
        "Takes the schema of the database back to an earlier version. Version 0 removes Tidemill and deletes every "
        "job. Asks on a terminal; elsewhere it needs --yes.",
    .examples = "tidemill migrate down --to 0 --yes\n",
    .options = down_options,
    .options_count = TD_COUNT(down_options),
    .values_size = sizeof(migrate_values),
    .run = run_down,
};

static const td_command status = {
    .name = "status",
    .summary = "tells the schema's version and the one needed",
    .usage = "",
    .about = "Tells the version of the database's schema, and the one that this program needs. With --json, state is "
             "none, behind, current or newer.",
    .examples = "tidemill migrate status\n"
                "tidemill migrate status --json\n",
    .values_size = sizeof(migrate_values),
    .run = run_status,
};

static const td_command *const children[] = { &up, &down, &status, NULL };

const td_command td_command_migrate = {
    .name = "migrate",
    .summary = "sets up the schema in a database and keeps it current",
    .usage = "",
    .examples = "tidemill migrate up\n"
                "tidemill migrate status\n"
                "tidemill migrate down --to 0\n",
    .values_size = sizeof(migrate_values),
    .children = children,
};
