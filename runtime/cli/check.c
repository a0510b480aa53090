/* check.c: `tidemill check`: would these handlers be taken? */
#include "cli.h"
#include "json.h"

static int run(td_cli *cli) {
    const char *dir = cli->args.count ? cli->args.items[0] : "handlers";
    tidemill_error err;
    size_t tasks = 0;
    if (tidemill_check(dir, &tasks, &err)) return td_cli_fail(&err);
    if (cli->out.json) {
        td_json_open(&cli->out.text, '{');
        td_json_key(&cli->out.text, "tasks");
        td_json_integer(&cli->out.text, (int64_t)tasks);
        td_json_close(&cli->out.text, '}');
        td_buf_putc(&cli->out.text, '\n');
    } else {
        td_buf_printf(&cli->out.text, "%zu task%s, all well\n", tasks, tasks == 1 ? "" : "s");
    }
    return td_cli_end(cli);
}

const td_command td_command_check = {
    .name = "check",
    .summary = "says whether handlers can be loaded, without a database",
    .usage = "[DIR]",
    .about =
        "Loads the handlers in DIR (default ./handlers) as a worker does, on its start and on each reload: syntax, "
        "contract, declarations, duplicate names, what they require, and their selftest(). Exits 0 when all is "
        "well, 1 with file, line and reason when not: for a commit hook or a CI.",
    .examples = "tidemill check\n"
                "tidemill check app/handlers\n",
    .values_size = sizeof(td_common),
    .args_max = 1,
    .run = run,
};
