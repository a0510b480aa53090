/* work.c: `tidemill work`: a worker process. */
#include "serve.h"

static const td_option options[] = { TD_SERVE_OPTIONS };

static int run(td_cli *cli) {
    td_serve worker;
    int code = td_serve_open(cli, false, &worker);
    if (code == TD_EXIT_OK) code = td_serve_run(&worker, td_cli_database(cli), -1, NULL, NULL);
    td_serve_close(&worker);
    return code;
}

const td_command td_command_work = {
    .name = "work",
    .summary = "runs jobs until it is stopped",
    .usage = "",
    .about = "Runs the jobs of a database with the handlers of a folder until SIGTERM or SIGINT, which stops claiming, "
             "lets running jobs end within the grace period, and gives back the rest without counting the attempt. A "
             "second signal ends it at once. Logs go to stderr. With a handler that is broken it does not start.",
    .examples = "tidemill work\n"
                "tidemill work --handlers app/handlers --queue default=50 --queue mail=5\n"
                "tidemill work --log-format json --grace 60 2>> tidemill.log\n",
    .options = options,
    .options_count = TD_COUNT(options),
    .values_size = sizeof(td_serve_values),
    .run = run,
};
