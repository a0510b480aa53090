/* help.c: a command's help, from its tables. */
#include "cli.h"

#include <ctype.h>
#include <string.h>

#define WIDTH      80 /* also on wider terminals: long lines read badly */
#define GAP        2  /* before the text of an option or a command */
#define NAMES_MOST 26 /* columns for the names; longer ones have their text on the next line */

/* heading appends the title of a section. */
static void heading(td_output *out, const char *title) {
    td_output_puts(out, "\n");
    td_output_style(out, TD_BOLD, title);
    td_output_puts(out, "\n");
}

/* entry appends one line of a list: a name, and its text wrapped in a column of its own. */
static void entry(td_output *out, const char *name, const char *text, size_t column) {
    size_t at = GAP + strlen(name);
    td_buf_printf(&out->text, "%*s%s", GAP, "", name);
    if (at + GAP > column)
        td_buf_printf(&out->text, "\n%*s", (int)column, "");
    else
        td_buf_printf(&out->text, "%*s", (int)(column - at), "");
    td_output_wrap(&out->text, text, (int)column, (int)column, WIDTH);
}

/* option_name writes "--name VALUE". */
static void option_name(const td_option *option, td_buf *b) {
    td_buf_clear(b);
    td_buf_printf(b, "--%s", option->name);
    if (option->argument) td_buf_printf(b, " %s", option->argument);
}

/* names_column returns where the text of a table's options begins. */
static size_t names_column(const td_option *table, size_t count, size_t least) {
    for (size_t i = 0; i < count; i++) {
        size_t width = GAP + 2 + strlen(table[i].name) + (table[i].argument ? 1 + strlen(table[i].argument) : 0) + GAP;
        if (width > least && width <= NAMES_MOST) least = width;
    }
    return least;
}

/* options_list appends the options of a table. */
static void options_list(td_output *out, const td_option *table, size_t count, size_t column) {
    td_buf name = { 0 };
    for (size_t i = 0; i < count; i++) {
        option_name(&table[i], &name);
        if (name.failed) out->text.failed = true;
        if (!name.failed) entry(out, name.data, table[i].help, column);
    }
    td_buf_free(&name);
}

/* commands_list appends a group's commands. */
static void commands_list(td_output *out, const td_command *const *children) {
    size_t column = 0;
    for (const td_command *const *child = children; *child; child++)
        if (strlen((*child)->name) > column) column = strlen((*child)->name);
    for (const td_command *const *child = children; *child; child++)
        entry(out, (*child)->name, (*child)->summary, column + 2 * GAP);
}

/* about appends what the command does: its paragraphs, or its summary as a sentence. */
static void about(td_output *out, const td_command *command) {
    td_buf b = { 0 };
    if (command->about) {
        td_output_wrap(&out->text, command->about, 0, 0, WIDTH);
        return;
    }
    td_buf_printf(&b, "%c%s.", toupper((unsigned char)command->summary[0]), command->summary + 1);
    td_output_wrap(&out->text, b.failed ? "" : b.data, 0, 0, WIDTH);
    td_buf_free(&b);
}

/* lines appends text line by line, indented. */
static void lines(td_output *out, const char *text) {
    while (*text) {
        size_t len = strcspn(text, "\n");
        td_buf_printf(&out->text, "%*s%.*s\n", GAP, "", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

void td_help_print(const td_cli *cli, td_output *out) {
    const td_command *command = cli->command;
    td_output_style(out, TD_BOLD, "Usage:");
    td_buf_printf(&out->text, " %s%s%s%s\n\n", cli->path,
                  command->children ? " COMMAND"
                  : *command->usage ? " "
                                    : "",
                  command->usage, " [OPTIONS]");
    about(out, command);
    if (command->children) {
        heading(out, "Commands:");
        commands_list(out, command->children);
    }
    size_t column = names_column(td_optparse_common, td_optparse_common_count, 0);
    column = names_column(command->options, command->options_count, column);
    if (command->options_count) {
        heading(out, "Options:");
        options_list(out, command->options, command->options_count, column);
    }
    heading(out, "Options of every command:");
    options_list(out, td_optparse_common, td_optparse_common_count, column);
    if (command->examples) {
        heading(out, "Examples:");
        lines(out, command->examples);
    }
}
