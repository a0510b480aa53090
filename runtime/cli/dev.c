/* dev.c: `tidemill dev`: a private database and a worker on it, in one command. */
#include "cluster.h"
#include "json.h"
#include "serve.h"

#include <stdlib.h>
#include <string.h>

#define DIR_DEFAULT ".tidemill"

typedef struct dev_values {
    td_serve_values worker;
    const char *dir;
} dev_values;

static const td_option options[] = {
    TD_OPT(TEXT, "dir", "DIR", dev_values, dir,
           "the folder of the private database, kept between runs; default ./.tidemill"),
    TD_OPT_FLAG("rerun", td_serve_values, rerun, "when a handler was changed, run the last job that failed again"),
    TD_SERVE_OPTIONS,
};

/* What announce needs. */
typedef struct announcement {
    td_cli *cli;
    const char *url;
    const td_cluster *cluster; /* NULL: the database was given */
} announcement;

/* announce tells how to reach the database from elsewhere, once the worker runs. */
static void announce(void *arg) {
    const announcement *a = arg;
    td_buf *b = &a->cli->out.text;
    tidemill_error err;
    if (a->cli->out.json) {
        td_json_open(b, '{');
        td_json_key(b, "database_url");
        td_json_text(b, a->cluster ? a->url : NULL);
        td_json_key(b, "dir");
        td_json_text(b, a->cluster ? td_cluster_dir(a->cluster) : NULL);
        td_json_close(b, '}');
        td_buf_putc(b, '\n');
    } else if (a->cluster) {
        td_buf_printf(b,
                      "\nThe worker runs. From another terminal:\n\n"
                      "  export DATABASE_URL=\\\n'%s'\n"
                      "  tidemill enqueue TASK '{\"some\": \"argument\"}'\n"
                      "  tidemill jobs list\n\nCtrl-C ends it; the jobs are kept.\n\n",
                      a->url);
    } else {
        td_buf_puts(b, "\nThe worker runs on the database that was given. Ctrl-C ends it.\n\n");
    }
    if (td_output_flush(&a->cli->out, &err)) td_cli_fail(&err);
}

/* run_on migrates a database and runs the worker on it. */
static int run_on(td_cli *cli, td_serve *worker, const char *url, const td_cluster *cluster) {
    announcement a = { cli, url, cluster };
    tidemill_error err;
    int applied = 0;
    if (tidemill_migrate_up(url, &applied, &err)) return td_cli_fail(&err);
    if (applied) td_logf(&worker->log, TIDEMILL_INFO, "the database was migrated");
    /* A stop that came meanwhile: do not start only to stop. */
    if (td_signals_asked(worker->signals)) return TD_EXIT_OK;
    return td_serve_run(worker, url, cluster ? td_cluster_fd(cluster) : -1, announce, &a);
}

/* run_private runs the worker on a cluster of its own. */
static int run_private(td_cli *cli, td_serve *worker) {
    const dev_values *v = cli->values;
    const char *dir = v->dir ? v->dir : DIR_DEFAULT;
    td_cluster *cluster = NULL;
    tidemill_error err;
    /* Whoever has it set for production must not have handlers find it here; and this is the database they run on. */
    if (getenv("DATABASE_URL"))
        td_logf(&worker->log, TIDEMILL_WARN, "DATABASE_URL is not used by dev; give --database to use it");
    int rc = td_cluster_start(dir, td_signals_fd(worker->signals), &worker->log, &cluster, &err);
    if (rc == TIDEMILL_ECANCELLED) return TD_EXIT_OK;
    if (rc) return td_cli_fail(&err);
    td_signals_at_once(worker->signals, td_cluster_abandon, cluster);
    setenv("DATABASE_URL", td_cluster_url(cluster), 1);
    int code = run_on(cli, worker, td_cluster_url(cluster), cluster);
    if (code == TD_EXIT_OK && !td_signals_asked(worker->signals)) {
        td_cli_say("PostgreSQL ended by itself; %s says why", td_cluster_log(cluster));
        code = TD_EXIT_FAILED;
    }
    td_signals_at_once(worker->signals, NULL, NULL);
    td_cluster_stop(cluster);
    return code;
}

static int run(td_cli *cli) {
    const dev_values *v = cli->values;
    td_serve worker;
    int code = td_serve_open(cli, true, &worker);
    if (code == TD_EXIT_OK)
        code = v->worker.common.database ? run_on(cli, &worker, v->worker.common.database, NULL)
                                         : run_private(cli, &worker);
    td_serve_close(&worker);
    return code;
}

const td_command td_command_dev = {
    .name = "dev",
    .summary = "a private database and a worker, to develop and to try out",
    .usage = "",
    .about =
        "Starts a private PostgreSQL in a folder (made at the first run, kept between runs), migrates it, runs a "
        "worker on it, and prints the URL by which other programs reach it. Ctrl-C ends all of it. DATABASE_URL is "
        "not used, so that no other database is changed by mistake: handlers see it set to the private one. With "
        "--database that one is migrated and used instead. Logs go to stderr.",
    .examples = "tidemill dev\n"
                "tidemill dev --handlers app/handlers --dir /tmp/try --log-level debug\n",
    .options = options,
    .options_count = TD_COUNT(options),
    .values_size = sizeof(dev_values),
    .run = run,
};
