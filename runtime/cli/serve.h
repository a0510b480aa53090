/* serve.h: the worker process that `work` and `dev` have in common: its options, its log, and running until stopped.
 */
#ifndef TD_SERVE_H
#define TD_SERVE_H

#include "cli.h"
#include "logger.h"
#include "signals.h"

/* The values of the worker's options; the first member of a command's structure of values. */
typedef struct td_serve_values {
    td_common common;
    const char *handlers, *log_format, *log_level, *name;
    td_texts queues;
    bool no_reload, rerun, keep_logs;
    int64_t threads, blocking_threads, grace_ms, memory_max_mb, load_max_ms;
} td_serve_values;

/* The rows of the worker's options, for a command's table. */
/* clang-format off */
#define TD_SERVE_OPTIONS                                                                                               \
    TD_OPT(TEXT, "handlers", "DIR", td_serve_values, handlers,                                                         \
           "the folder of handlers, one Lua file a task; default ./handlers"),                                         \
    TD_OPT(LIST, "queue", "NAME=N", td_serve_values, queues,                                                           \
           "serve this queue with N workers (10 if =N is left out); may be given several times. Without it: default "  \
           "with 100 workers, and each queue that a handler declares with 10"),                                        \
    TD_OPT_INT("threads", "N", td_serve_values, threads, 1, 64,                                                        \
               "threads that run handlers, 1 to 64; default one for each processor"),                                  \
    TD_OPT_INT("blocking-threads", "N", td_serve_values, blocking_threads, 1, 1000,                                    \
               "threads for tasks that declare blocking, made as needed, 1 to 1000; default 32"),                      \
    TD_OPT(DURATION, "grace", "SECONDS", td_serve_values, grace_ms,                                                    \
           "how long running jobs may go on when the worker is stopped; default 25"),                                  \
    TD_OPT_INT("memory-max", "MIB", td_serve_values, memory_max_mb, 1, 1 << 30,                                        \
               "while the workers hold so much memory, further jobs wait; default no bound"),                          \
    TD_OPT_FLAG("keep-logs", td_serve_values, keep_logs,                                                               \
                "keep what completed attempts logged, too; else only those that did not complete"),                   \
    TD_OPT_FLAG("no-reload", td_serve_values, no_reload,                                                               \
                "do not load the handlers anew when their files change; SIGHUP and `tidemill reload` still do"),       \
    TD_OPT(DURATION, "load-max", "SECONDS", td_serve_values, load_max_ms,                                              \
           "how long the handlers may take to load; default 10"),                                                      \
    TD_OPT(TEXT, "name", "NAME", td_serve_values, name,                                                                \
           "this process's name, shown as attempted_by; default its host and process id"),                             \
    TD_OPT_CHOICE("log-level", "LEVEL", td_serve_values, log_level, td_logger_levels,                                  \
                  "debug, info, warn or error; default info"),                                                         \
    TD_OPT_CHOICE("log-format", "FORMAT", td_serve_values, log_format, td_logger_formats,                              \
                  "text or json, written to stderr; default text on a terminal, else json")
/* clang-format on */

/* A worker process in the making. */
typedef struct td_serve {
    const td_serve_values *values;
    td_logger logger;
    td_log log;
    tidemill_queue *queues;
    size_t queues_count;
    td_signals *signals;
} td_serve;

/* td_serve_open reads the worker's options, checks that the handlers' folder is there, and starts to wait for signals.
   Returns an exit code, with what is wrong said. To be ended with td_serve_close in any case. */
int td_serve_open(const td_cli *cli, bool hangup_stops, td_serve *worker);
void td_serve_close(td_serve *worker);

/* td_serve_run starts a runtime on a database, calls started(arg) (may be NULL), and runs until a stop is asked for or
   the descriptor also (-1: none) is readable; then stops the runtime. Returns an exit code. */
int td_serve_run(td_serve *worker, const char *database, int also, void (*started)(void *arg), void *arg);

#endif
