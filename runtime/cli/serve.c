/* serve.c: the worker process that `work` and `dev` have in common. See serve.h. */
#include "serve.h"

#include "parse.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HANDLERS_DEFAULT "handlers"

/* handlers_dir returns the folder of handlers that is asked for. */
static const char *handlers_dir(const td_serve_values *v) {
    return v->handlers ? v->handlers : HANDLERS_DEFAULT;
}

/* check_handlers says at once what is wrong with the folder, before a database is reached or made. */
static int check_handlers(const td_serve_values *v) {
    const char *dir = handlers_dir(v);
    struct stat st;
    int number = stat(dir, &st) ? errno : 0;
    if (number == 0 && !S_ISDIR(st.st_mode)) number = ENOTDIR;
    if (number == 0 && access(dir, R_OK | X_OK)) number = errno;
    if (number == 0) return TD_EXIT_OK;
    if (number == ENOENT && !v->handlers)
        td_cli_say("there is no folder " HANDLERS_DEFAULT " here; make it, with a Lua file for each task, or give "
                   "--handlers DIR");
    else
        td_cli_say("the handlers' folder %s cannot be read: %s; give --handlers DIR", dir,
                   number == ENOTDIR ? "it is not a folder" : strerror(number));
    return TD_EXIT_FAILED;
}

/* read_queues reads the --queue options. Returns an exit code. */
static int read_queues(const td_cli *cli, const td_texts *given, td_serve *worker) {
    tidemill_error err;
    if (given->count == 0) return TD_EXIT_OK;
    worker->queues = calloc(given->count, sizeof *worker->queues);
    if (!worker->queues) {
        td_error_memory(&err);
        return td_cli_fail(&err);
    }
    for (size_t i = 0; i < given->count; i++) {
        tidemill_queue *queue = &worker->queues[i];
        char *name;
        if (td_parse_queue(given->items[i], &name, &queue->workers, &err))
            return td_cli_usage(cli, "--queue: %s", err.message);
        queue->name = name;
        worker->queues_count++;
        for (size_t j = 0; j < i; j++)
            if (strcmp(worker->queues[j].name, name) == 0)
                return td_cli_usage(cli, "--queue: %s is given twice; give each queue once", name);
    }
    return TD_EXIT_OK;
}

int td_serve_open(const td_cli *cli, bool hangup_stops, td_serve *worker) {
    const td_serve_values *v = cli->values;
    tidemill_error err;
    *worker = (td_serve){ .values = v };
    td_logger_init(&worker->logger, STDERR_FILENO, v->log_format ? v->log_format : cli->out.json ? "json" : NULL);
    worker->log = (td_log){ td_logger_write, &worker->logger, td_logger_level(v->log_level) };
    int code = read_queues(cli, &v->queues, worker);
    if (code == TD_EXIT_OK) code = check_handlers(v);
    if (code != TD_EXIT_OK) return code;
    if (td_signals_start(hangup_stops, &worker->log, &worker->signals, &err)) return td_cli_fail(&err);
    return TD_EXIT_OK;
}

void td_serve_close(td_serve *worker) {
    td_signals_stop(worker->signals);
    for (size_t i = 0; i < worker->queues_count; i++) free((char *)worker->queues[i].name);
    free(worker->queues);
}

/* configure makes the runtime's configuration. It borrows all from the worker. */
static tidemill_config configure(td_serve *worker, const char *database) {
    const td_serve_values *v = worker->values;
    tidemill_config config = TIDEMILL_CONFIG;
    config.database = database;
    config.handlers = handlers_dir(v);
    config.queues = worker->queues;
    config.queues_count = worker->queues_count;
    if (v->threads != TIDEMILL_UNSET) config.threads = (int)v->threads;
    if (v->grace_ms != TIDEMILL_UNSET) config.grace_ms = v->grace_ms;
    if (v->memory_max_mb != TIDEMILL_UNSET) config.memory_max_mb = v->memory_max_mb;
    if (v->blocking_threads != TIDEMILL_UNSET) config.blocking_threads = (int)v->blocking_threads;
    config.reload = !v->no_reload;
    config.rerun = v->rerun;
    if (v->load_max_ms != TIDEMILL_UNSET) config.load_max_ms = v->load_max_ms;
    config.keep_logs = v->keep_logs;
    config.signals = true;
    config.name = v->name;
    config.log_level = worker->log.level;
    config.log = td_logger_write;
    config.log_userdata = &worker->logger;
    return config;
}

/* reload does what SIGHUP asks for. What comes of it is logged. */
static void reload(td_serve *worker, tidemill_runtime *runtime) {
    tidemill_error err;
    td_signals_reload_taken(worker->signals);
    if (tidemill_runtime_ask_reload(runtime, &err))
        td_logf(&worker->log, TIDEMILL_ERROR, "SIGHUP: the handlers are not reloaded: %s", err.message);
}

/* wait_for_stop waits until a stop is asked for, or `also` is readable, and reloads when that is asked for. */
static void wait_for_stop(td_serve *worker, tidemill_runtime *runtime, int also) {
    struct pollfd fds[] = { { .fd = td_signals_fd(worker->signals), .events = POLLIN },
                            { .fd = also, .events = POLLIN },
                            { .fd = td_signals_reload_fd(worker->signals), .events = POLLIN } };
    for (;;) {
        if (poll(fds, 3, -1) < 0 && errno == EINTR) continue;
        if (fds[0].revents || fds[1].revents) return;
        if (fds[2].revents) reload(worker, runtime);
    }
}

/* log_stopped tells what the stop came to. */
static void log_stopped(const td_serve *worker, const tidemill_stopped *stopped) {
    char ended[24], returned[24];
    snprintf(ended, sizeof ended, "%lld", (long long)stopped->ended);
    snprintf(returned, sizeof returned, "%lld", (long long)stopped->returned);
    const tidemill_field fields[] = { { "ended", ended, true }, { "returned", returned, true } };
    td_log_write(&worker->log, TIDEMILL_INFO, "stopped", fields, TD_COUNT(fields));
}

int td_serve_run(td_serve *worker, const char *database, int also, void (*started)(void *arg), void *arg) {
    tidemill_config config = configure(worker, database);
    tidemill_runtime *runtime = NULL;
    tidemill_stopped stopped = { 0 };
    tidemill_error err;
    if (tidemill_runtime_start(&config, &runtime, &err)) return td_cli_fail(&err);
    if (started) started(arg);
    wait_for_stop(worker, runtime, also);
    tidemill_runtime_stop(runtime, &stopped);
    log_stopped(worker, &stopped);
    return TD_EXIT_OK;
}
