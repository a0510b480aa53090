/* cli.h: the program `tidemill`: its commands as data, and what they share.

   A command is a td_command: its options (a table), its help, and a function; or a group of commands. main.c finds the
   command, parses its options and calls it; each command's file defines one td_command.

   Exit codes: 0 done, 1 failed, 2 wrong usage. What was asked for goes to stdout, messages and logs to stderr. */
#ifndef TD_CLI_H
#define TD_CLI_H

#include "optparse.h"
#include "output.h"

enum { TD_EXIT_OK = 0, TD_EXIT_FAILED = 1, TD_EXIT_USAGE = 2 };

#define TD_ANY SIZE_MAX /* any number of arguments */

struct td_cli;

typedef struct td_command {
    const char *name;     /* one word */
    const char *summary;  /* one line, for the group's list */
    const char *usage;    /* its arguments: "TASK [ARGS]"; "" for none */
    const char *about;    /* paragraphs, wrapped by help; NULL */
    const char *examples; /* lines, shown as they are; NULL */
    const td_option *options;
    size_t options_count;
    size_t values_size; /* of its structure of values, which begins with a td_common */
    size_t args_min, args_max;
    int (*run)(struct td_cli *cli);           /* returns an exit code */
    const struct td_command *const *children; /* of a group, NULL-terminated; a group has no run */
} td_command;

/* One call of the program. */
typedef struct td_cli {
    const td_command *command;
    char path[64]; /* "tidemill jobs list" */
    void *values;  /* the command's options */
    td_texts args; /* what is no option */
    td_output out;
} td_cli;

extern const td_command td_command_root;
extern const td_command td_command_migrate, td_command_work, td_command_enqueue, td_command_jobs, td_command_dead,
    td_command_queues, td_command_dev, td_command_reload, td_command_check, td_command_workers;

/* td_cli_database returns the database asked for: --database, else DATABASE_URL, else NULL (libpq's variables). */
const char *td_cli_database(const td_cli *cli);

/* td_cli_json: whether --json was given. */
bool td_cli_json(const td_cli *cli);

/* td_cli_say prints "tidemill: sentence" on stderr; td_cli_fail an error's message, and where to name the
   database when that cannot be reached, returning TD_EXIT_FAILED; td_cli_usage a sentence and where help is, returning
   TD_EXIT_USAGE. */
void td_cli_say(const char *format, ...) TD_PRINTF(1, 2);
int td_cli_fail(const tidemill_error *err);
int td_cli_usage(const td_cli *cli, const char *format, ...) TD_PRINTF(2, 3);

/* td_cli_end writes the output that gathered. Returns an exit code. */
int td_cli_end(td_cli *cli);

/* td_help_print appends a command's help, at most 80 columns wide. */
void td_help_print(const td_cli *cli, td_output *out);

#endif
