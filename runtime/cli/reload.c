/* reload.c: `tidemill reload`: new code on every process. */
#include "cli.h"
#include "rows.h"

#include <string.h>
#include <time.h>

#define NAP_MS 50

typedef struct reload_values {
    td_common common;
    const char *to;
    int64_t wait_ms;
} reload_values;

static const td_option options[] = {
    TD_OPT(TEXT, "to", "HASH", reload_values, to,
           "go back to the code of this hash, or of one that begins so, among the last five of each process"),
    TD_OPT(DURATION, "wait", "SECONDS", reload_values, wait_ms, "how long to wait for the processes; default 30"),
};

static const td_column columns[] = {
    { "PROCESS", false, true },
    { "GENERATION", true, false },
    { "CODE", false, false },
    { "STATE", false, true },
};

static const td_shown shown[] = {
    { "process", TD_SHOW_TEXT },
    { "generation", TD_SHOW_TEXT },
    { "code", TD_SHOW_TEXT },
    { "state", TD_SHOW_TEXT },
};

/* count_kind counts the rows of a kind. */
static size_t count_kind(const td_rows *rows, const char *kind) {
    size_t n = 0;
    for (size_t i = 0; i < td_read_count(rows); i++) n += strcmp(td_read_get(rows, i, "kind"), kind) == 0;
    return n;
}

/* wait_for reads how far the processes are, until none is still at it or the time is over. */
static int wait_for(td_read *read, const char *id, int64_t wait_ms, td_rows **rows, tidemill_error *err) {
    uint64_t end_ns = td_now_ns() + (uint64_t)wait_ms * 1000000;
    const struct timespec nap = { .tv_nsec = NAP_MS * 1000000 };
    for (;;) {
        int rc = td_read_rows(read, "cli_reload_status", &id, 1, rows, err);
        if (rc < 0 || count_kind(*rows, "waiting") == 0 || td_now_ns() > end_ns) return rc;
        td_read_free(*rows);
        *rows = NULL;
        nanosleep(&nap, NULL);
    }
}

static int report(td_cli *cli, const td_read *read, const td_rows *rows) {
    tidemill_error err;
    size_t bad = td_read_count(rows) - count_kind(rows, "done");
    int rc = td_rows_list(cli, read, rows, columns, shown, TD_COUNT(columns),
                          "no process runs; the next to start loads the handlers as they are", &err);
    if (rc < 0) return td_cli_fail(&err);
    int code = td_cli_end(cli);
    if (bad) td_cli_say("%zu of %zu processes do not run what was asked for", bad, td_read_count(rows));
    return code != TD_EXIT_OK ? code : bad ? TD_EXIT_FAILED : TD_EXIT_OK;
}

/* is_hash says whether a text is a hash, or the beginning of one. */
static bool is_hash(const char *text) {
    size_t len = strspn(text, "0123456789abcdef");
    return len >= 4 && len <= 12 && !text[len];
}

static int run(td_cli *cli) {
    const reload_values *v = cli->values;
    td_read *read = NULL;
    td_rows *asked = NULL, *rows = NULL;
    tidemill_error err;
    int code = TD_EXIT_FAILED;
    if (v->to && !is_hash(v->to))
        return td_cli_usage(cli, "--to: %s is not the hash of code; give 4 to 12 of its digits, as jobs show has them",
                            v->to);
    int rc = td_read_open(td_cli_database(cli), &read, &err);
    if (rc == 0) rc = td_read_rows(read, "cli_reload", &v->to, 1, &asked, &err);
    if (rc == 0) {
        rc = wait_for(read, td_read_cell(asked, 0, 0), v->wait_ms == TIDEMILL_UNSET ? 30000 : v->wait_ms, &rows, &err);
    }
    if (rc == 0) code = report(cli, read, rows);
    td_read_free(asked);
    td_read_free(rows);
    td_read_close(read);
    return rc ? td_cli_fail(&err) : code;
}

const td_command td_command_reload = {
    .name = "reload",
    .summary = "has every process load its handlers anew",
    .usage = "",
    .about =
        "Asks every worker process on the database to load the handlers from its folder, waits until they have, and "
        "says which code each runs. A process whose handlers are broken goes on with the code that it had, and "
        "says why. Exits 0 when every process runs what was asked for.",
    .examples = "tidemill reload\n"
                "tidemill reload --to 5be89dc0\n",
    .options = options,
    .options_count = TD_COUNT(options),
    .values_size = sizeof(reload_values),
    .run = run,
};
