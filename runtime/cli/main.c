/* main.c: the program `tidemill`: finds the command, parses its options, runs it. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMANDS_MAX 32 /* of one group: for the suggestion's list */

static const td_command command_help;

static const td_command *const commands[] = { &td_command_dev,     &td_command_migrate, &td_command_work,
                                              &td_command_enqueue, &td_command_jobs,    &td_command_dead,
                                              &td_command_queues,  &td_command_reload,  &td_command_check,
                                              &td_command_workers, &command_help,       NULL };

typedef struct root_values {
    td_common common;
    bool version;
} root_values;

static const td_option root_options[] = {
    TD_OPT_FLAG("version", root_values, version, "print the program's version"),
};

const td_command td_command_root = {
    .name = "tidemill",
    .usage = "",
    .about = "Background jobs: stored in PostgreSQL, run by handlers written in Lua. What is asked for is printed on "
             "stdout, messages and logs on stderr. The exit code is 0 when it is done, 1 when it failed, 2 when the "
             "command was not understood.",
    .options = root_options,
    .options_count = TD_COUNT(root_options),
    .values_size = sizeof(root_values),
    .children = commands,
    .examples = "tidemill dev                         a database and a worker, to try it out\n"
                "tidemill migrate up                  set up the database\n"
                "tidemill work --handlers handlers    run jobs\n"
                "tidemill enqueue send_welcome_email '{\"user_id\": \"42\"}'\n"
                "tidemill help jobs list              the help of a command\n",
};

/* child finds a group's command by its name. */
static const td_command *child(const td_command *group, const char *name) {
    for (const td_command *const *c = group->children; c && *c; c++)
        if (strcmp((*c)->name, name) == 0) return *c;
    return NULL;
}

/* descend makes one of the group's commands the current one. Returns false if there is none of that name. */
static bool descend(td_cli *cli, const char *name) {
    const td_command *found = child(cli->command, name);
    if (!found) return false;
    size_t len = strlen(cli->path);
    snprintf(cli->path + len, sizeof cli->path - len, " %s", found->name);
    cli->command = found;
    return true;
}

/* no_such_command says that a group has no such command, and which one may have been meant. */
static int no_such_command(const td_cli *cli, const char *name) {
    const char *names[COMMANDS_MAX + 1];
    size_t n = 0;
    for (const td_command *const *c = cli->command->children; *c && n < COMMANDS_MAX; c++) names[n++] = (*c)->name;
    names[n] = NULL;
    const char *nearest = td_nearest(name, names);
    if (nearest) return td_cli_usage(cli, "there is no command %s; did you mean %s?", name, nearest);
    return td_cli_usage(cli, "there is no command %s", name);
}

/* show_help prints the current command's help on stdout. */
static int show_help(td_cli *cli) {
    td_help_print(cli, &cli->out);
    return td_cli_end(cli);
}

/* run_help is `tidemill help [COMMAND...]`. */
static int run_help(td_cli *cli) {
    td_cli other = { .command = &td_command_root, .path = "tidemill" };
    for (size_t i = 0; i < cli->args.count && other.command->children; i++)
        if (!descend(&other, cli->args.items[i])) return no_such_command(&other, cli->args.items[i]);
    td_help_print(&other, &cli->out);
    return td_cli_end(cli);
}

static const td_command command_help = {
    .name = "help",
    .summary = "shows the help of a command",
    .usage = "[COMMAND...]",
    .examples = "tidemill help jobs list\n",
    .values_size = sizeof(td_common),
    .args_max = TD_ANY,
    .run = run_help,
};

/* no_command answers a group that was called without one: its help, but as an error. */
static int no_command(td_cli *cli) {
    td_output out = cli->out;
    out.text = (td_buf){ 0 };
    out.colour = td_output_colour(2);
    td_help_print(cli, &out);
    if (out.text.data) fputs(out.text.data, stderr);
    td_buf_free(&out.text);
    return TD_EXIT_USAGE;
}

/* take_values replaces the values by the current command's, keeping the common ones that were given before its name. */
static int take_values(td_cli *cli, tidemill_error *err) {
    td_common common = { 0 };
    if (cli->values) common = *(td_common *)cli->values;
    free(cli->values); /* a group's: they have no lists */
    cli->values = calloc(1, cli->command->values_size);
    if (!cli->values) return td_error_memory(err);
    *(td_common *)cli->values = common;
    td_optparse_init(cli->command->options, cli->command->options_count, cli->values);
    return 0;
}

/* run checks the number of arguments and runs the command. */
static int run(td_cli *cli) {
    const td_command *command = cli->command;
    if (cli->args.count < command->args_min)
        return td_cli_usage(cli, "too few arguments: %s %s", cli->path, command->usage);
    if (cli->args.count > command->args_max)
        return td_cli_usage(cli, "too many arguments: %s is not expected", cli->args.items[command->args_max]);
    return command->run(cli);
}

/* walk reads arguments group by group down to the command, and runs it. */
static int walk(td_cli *cli, char **arguments) {
    tidemill_error err;
    for (;;) {
        const td_command *command = cli->command;
        bool group = command->children != NULL;
        size_t used;
        if (take_values(cli, &err)) return td_cli_fail(&err);
        int rc = td_optparse_parse(command->options, command->options_count, arguments, group, cli->values, &cli->args,
                                   &used, &err);
        if (rc == TIDEMILL_EINVALID) return td_cli_usage(cli, "%s", err.message);
        if (rc) return td_cli_fail(&err);
        arguments += used;
        cli->out.json = td_cli_json(cli);
        if (cli->out.json) cli->out.colour = false;
        if (((td_common *)cli->values)->help) return show_help(cli);
        if (!group) return run(cli);
        if (command == &td_command_root && ((root_values *)cli->values)->version) {
            td_buf_printf(&cli->out.text, "tidemill %s\n", tidemill_version());
            return td_cli_end(cli);
        }
        if (!*arguments) return no_command(cli);
        if (!descend(cli, *arguments)) return no_such_command(cli, *arguments);
        arguments++;
    }
}

int main(int argc, char **argv) {
    td_cli cli = { .command = &td_command_root, .path = "tidemill" };
    td_output_init(&cli.out, false);
    int code = walk(&cli, argv + (argc > 0));
    td_optparse_free(cli.command->options, cli.command->options_count, cli.values);
    td_optparse_texts_free(&cli.args);
    free(cli.values);
    td_output_fini(&cli.out);
    return code;
}
