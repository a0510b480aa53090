/* cli.c: what the commands share: the database that is asked for, and messages. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>

const char *td_cli_database(const td_cli *cli) {
    const td_common *common = cli->values;
    if (common->database) return common->database;
    const char *url = getenv("DATABASE_URL");
    return url && *url ? url : NULL;
}

bool td_cli_json(const td_cli *cli) {
    return ((const td_common *)cli->values)->json;
}

/* say prints a sentence that may hold what a user or a job wrote. */
static void say(const char *sentence) {
    td_buf line = { 0 };
    td_buf_puts(&line, "tidemill: ");
    td_output_clean(&line, sentence, false);
    fprintf(stderr, "%s\n", line.failed ? "tidemill: out of memory" : line.data);
    td_buf_free(&line);
}

/* say_format prints a formatted sentence. */
static void TD_PRINTF(1, 0) say_format(const char *format, va_list values) {
    char *sentence = NULL;
    if (vasprintf(&sentence, format, values) < 0) sentence = NULL;
    say(sentence ? sentence : "out of memory");
    free(sentence);
}

void td_cli_say(const char *format, ...) {
    va_list values;
    va_start(values, format);
    say_format(format, values);
    va_end(values);
}

int td_cli_fail(const tidemill_error *err) {
    say(err->message);
    if (err->code == TIDEMILL_ECONNECT)
        fputs("Give its URL with --database or in DATABASE_URL; `tidemill dev` starts a private one.\n", stderr);
    return TD_EXIT_FAILED;
}

int td_cli_usage(const td_cli *cli, const char *format, ...) {
    va_list values;
    va_start(values, format);
    say_format(format, values);
    va_end(values);
    fprintf(stderr, "`%s --help` shows how it is used.\n", cli->path);
    return TD_EXIT_USAGE;
}

int td_cli_end(td_cli *cli) {
    tidemill_error err;
    return td_output_flush(&cli->out, &err) ? td_cli_fail(&err) : TD_EXIT_OK;
}
