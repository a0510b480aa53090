/* tidemill.h: background jobs on PostgreSQL with handlers in Lua. The one public header.

   Conventions, true of every function here unless it says otherwise:
   - A function that can fail returns 0, or one of the negative TIDEMILL_E... codes; its last argument is a
     tidemill_error that it fills in on failure (NULL is allowed: then only the code is known).
   - Strings are UTF-8 and end in NUL. What is passed in is copied: the caller may free it after the call.
   - Fields named _ms are milliseconds; times (_us) are microseconds since 1970-01-01 00:00 UTC.
   - A client is used by one thread at a time; different clients are independent. A runtime's functions may be called
     from any thread. Nothing here keeps global state, prints, or ends the process.
   - Set an options structure up with its initializer (TIDEMILL_OPTIONS, ...), so that fields added later have
     their defaults. */
#ifndef TIDEMILL_H
#define TIDEMILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TIDEMILL_API        __attribute__((visibility("default")))
#define TIDEMILL_MUST_CHECK __attribute__((warn_unused_result))
#else
#define TIDEMILL_API
#define TIDEMILL_MUST_CHECK
#endif

#define TIDEMILL_VERSION "0.1.0"

/* libpq's connection, declared forward so that this header does not need libpq-fe.h. */
struct pg_conn;

/* ---- Errors ---- */

/* Every error code: X(NAME, value, Lua code, meaning). The enumerators are TIDEMILL_E<NAME>. */
#define TIDEMILL_ERRORS(X)                                                                                             \
    X(INVALID, -1, "invalid", "an argument, option, setting or file is not allowed; the message names it")             \
    X(MEMORY, -2, "memory", "there was not enough memory")                                                             \
    X(CONNECT, -3, "connect",                                                                                          \
      "the database could not be reached, or the connection was lost before anything was done")                        \
    X(SCHEMA, -4, "schema", "the database is not migrated, or was migrated by a newer version")                        \
    X(DATABASE, -5, "database", "the database refused the statement; sqlstate says why")                               \
    X(OUTCOME, -6, "outcome", "the connection was lost during a commit: whether it took effect is unknown")            \
    X(NOT_FOUND, -7, "not_found", "there is no such job or task")                                                      \
    X(STATE, -8, "state", "the thing is not in a state in which this can be done")                                     \
    X(CONFLICT, -9, "conflict", "another job holds the unique key; the message names it")                              \
    X(TIMEOUT, -10, "timeout", "the time allowed ran out")                                                             \
    X(CANCELLED, -11, "cancelled", "it was cancelled")                                                                 \
    X(IO, -12, "io", "a file, socket or process failed")                                                               \
    X(HANDLER, -13, "handler", "a handler failed")

enum {
#define X(name, value, lua, meaning) TIDEMILL_E##name = value,
    TIDEMILL_ERRORS(X)
#undef X
};

/* What went wrong. message is one sentence or more, without a newline at its end; field names the offending
   argument or option where there is one, else ""; sqlstate is PostgreSQL's five characters, else "". */
typedef struct tidemill_error {
    int code;
    char sqlstate[6];
    char field[64];
    char message[1024];
} tidemill_error;

/* tidemill_error_name returns the Lua code of a TIDEMILL_E... code ("invalid", ...), or "unknown". Static memory. */
TIDEMILL_API const char *tidemill_error_name(int code);

/* tidemill_version returns TIDEMILL_VERSION of the library that is linked. Static memory. */
TIDEMILL_API const char *tidemill_version(void);

/* ---- Enqueueing ---- */

/* A connection to a migrated database from which jobs are enqueued. */
typedef struct tidemill_client tidemill_client;

/* tidemill_connect connects to the database at url (a libpq URL or connection string; NULL or "" means libpq's own
   PG... environment variables) and checks that its schema is the one this library needs. Blocks until connected,
   at most 10 s unless the url says connect_timeout.
   *client is the caller's, to be closed with tidemill_close.
   Errors: INVALID (url), CONNECT, SCHEMA, MEMORY. */
TIDEMILL_API int tidemill_connect(const char *url, tidemill_client **client, tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_close closes a client. NULL is allowed. */
TIDEMILL_API void tidemill_close(tidemill_client *client);

/* How a job is to be run. A field that is left at its initial value is stored as not given, and taken from the
   task's declaration, or else from the defaults named here. */
typedef struct tidemill_options {
    int64_t schedule_in_ms;  /* run so much later; 0 to 100 years. Initially TIDEMILL_UNSET. */
    int64_t schedule_at_us;  /* run at this time, at most 100 years away; a past one means now. Not together with
                                schedule_in_ms. Initially TIDEMILL_UNSET. */
    const char *queue;       /* 1 to 100 bytes. NULL: the declared queue, else "default". */
    int max_attempts;        /* 1 to 1000. TIDEMILL_UNSET_INT: declared, else 25. */
    int64_t unique_for_ms;   /* above 0, to 10 years: no second job of the same key is accepted until so long after
                                the job that stands was enqueued. TIDEMILL_UNSET: declared, else none. */
    const char *unique_key;  /* 1 to 200 bytes, within the task. NULL: where a window is given, the arguments. */
    int priority;            /* 0 to 100, lower runs first. TIDEMILL_UNSET_INT: declared, else 1. */
    const char *const *tags; /* tags_count strings of 1 to 100 bytes; 20 at most. NULL: declared, else none. */
    size_t tags_count;
} tidemill_options;

#define TIDEMILL_UNSET     INT64_MIN
#define TIDEMILL_UNSET_INT INT32_MIN
#define TIDEMILL_OPTIONS                                                                                               \
    { TIDEMILL_UNSET, TIDEMILL_UNSET, NULL, TIDEMILL_UNSET_INT, TIDEMILL_UNSET, NULL, TIDEMILL_UNSET_INT, NULL, 0 }

/* What an enqueue returned: the job that stands, and whether it stood already. */
typedef struct tidemill_job {
    int64_t id;
    bool duplicate;
} tidemill_job;

/* tidemill_enqueue stores one job and commits it. args_json is a JSON object (NULL: {}); options may be NULL.
   When it returns 0 the job is committed, or job->duplicate is true and job->id is the job that stands.
   Errors: INVALID (the field is named), CONNECT (nothing was done), OUTCOME, DATABASE, SCHEMA, MEMORY. A lost
   connection is made anew by the next call. */
TIDEMILL_API int tidemill_enqueue(tidemill_client *client, const char *task, const char *args_json,
                                  const tidemill_options *options, tidemill_job *job,
                                  tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_enqueue_many stores count jobs of one task, all or none, in one transaction. args_json has count JSON
   objects; jobs has room for count results (NULL: not wanted), in the same order. Errors as tidemill_enqueue. */
TIDEMILL_API int tidemill_enqueue_many(tidemill_client *client, const char *task, const char *const *args_json,
                                       size_t count, const tidemill_options *options, tidemill_job *jobs,
                                       tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_enqueue_tx is tidemill_enqueue on the caller's own connection, inside the transaction that is open on it:
   the job exists when, and only when, that transaction commits. connection is a PGconn, used during the call only.
   What the database refuses leaves the transaction aborted, as any failed statement does (sqlstate says that it did);
   what is refused before the database was asked leaves it as it was. Where the transaction's snapshot is older than the
   job that stands for a unique key (repeatable read, serializable), that is DATABASE with sqlstate 40001.
   Errors: INVALID, STATE (no transaction is open, another statement runs, or the connection's encoding is not UTF-8),
   CONNECT, DATABASE, SCHEMA, MEMORY. */
TIDEMILL_API int tidemill_enqueue_tx(struct pg_conn *connection, const char *task, const char *args_json,
                                     const tidemill_options *options, tidemill_job *job,
                                     tidemill_error *error) TIDEMILL_MUST_CHECK;

/* ---- Logging ---- */

typedef enum tidemill_level { TIDEMILL_DEBUG, TIDEMILL_INFO, TIDEMILL_WARN, TIDEMILL_ERROR } tidemill_level;

/* One field of a log record. value is JSON text when json is true, else plain text. */
typedef struct tidemill_field {
    const char *name;
    const char *value;
    bool json;
} tidemill_field;

/* One log record; all of it is valid during the callback only. */
typedef struct tidemill_record {
    tidemill_level level;
    int64_t time_us;
    const char *message;
    const tidemill_field *fields;
    size_t fields_count;
} tidemill_record;

/* A log callback. It is called from the runtime's threads, several at a time, and must not wait for long. */
typedef void tidemill_log_fn(void *userdata, const tidemill_record *record);

/* ---- The runtime ---- */

/* A worker process's engine: threads, workers and a few database connections. */
typedef struct tidemill_runtime tidemill_runtime;

/* A queue to serve with a number of workers (jobs that run at the same time), 1 to 10000. */
typedef struct tidemill_queue {
    const char *name;
    int workers;
} tidemill_queue;

typedef struct tidemill_config {
    const char *database; /* as tidemill_connect's url */
    const char *handlers; /* the directory of handler modules */
    const tidemill_queue
        *queues;              /* queues_count queues: only these are served. None: `default` with 100 workers, and */
    size_t queues_count;      /* every queue that a handler declares with 10. */
    int threads;              /* threads that run handlers, 1 to 64; 0: one for each processor */
    int64_t grace_ms;         /* how long a stop lets running jobs end. Initially 25,000. */
    bool reload;              /* load the handlers anew when their files change */
    bool rerun;               /* after a reload, the last job that failed runs again: for development */
    int64_t load_max_ms;      /* how long the handlers may take to load, 1 to 600,000. Initially 10,000. */
    bool keep_logs;           /* keep what completed attempts logged, too, in tidemill.attempts */
    int blocking_threads;     /* threads for tasks that declare blocking, made as needed, 1 to 1000; 0: 32 */
    int64_t memory_max_mb;    /* while the workers hold so many MiB, further jobs wait; 0: no bound */
    bool signals;             /* may set the process's handlers of SIGURG and SIGSEGV, which it puts back at the end.
                                 Without them handlers run up to 2.4 times slower, a call that does not end inside
                                 of Lua's own library (string.find with a bad pattern) is not stopped, and a C stack
                                 that overflows ends the process. */
    const char *name;         /* of this process, as in jobs.attempted_by. NULL: host and process id. */
    tidemill_level log_level; /* records below it are not made. Initially TIDEMILL_INFO. */
    tidemill_log_fn *log;     /* NULL: no log */
    void *log_userdata;
} tidemill_config;

#define TIDEMILL_CONFIG                                                                                                \
    { NULL, NULL, NULL, 0, 0, 25000, false, false, 10000, false, 0, 0, false, NULL, TIDEMILL_INFO, NULL, NULL }

/* tidemill_runtime_start loads the handlers, reaches the database, publishes the tasks and starts working. It returns
   when jobs are being claimed, or says why not; then nothing is left running. *runtime is the caller's, to be ended
   with tidemill_runtime_stop.
   Errors: INVALID (configuration), HANDLER (file, line and reason), CONNECT, SCHEMA, DATABASE, MEMORY, IO. */
TIDEMILL_API int tidemill_runtime_start(const tidemill_config *config, tidemill_runtime **runtime,
                                        tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_runtime_reload loads the handlers anew, all or nothing: when it returns 0, every attempt that starts runs
   code that was read after the call, and those that run end on theirs; else the former code goes on. Blocks meanwhile,
   at most for the time that loading may take (config.load_max_ms) and as long as the database takes. From any thread.
   Errors: HANDLER (file, line and reason), IO, MEMORY, STATE (the runtime is being stopped). */
TIDEMILL_API int tidemill_runtime_reload(tidemill_runtime *runtime, tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_runtime_ask_reload asks for the same and returns at once. What comes of it is logged. Error: MEMORY. */
TIDEMILL_API int tidemill_runtime_ask_reload(tidemill_runtime *runtime, tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_check loads the handlers in dir as a runtime would, without a database. *tasks (may be NULL) is their
   number. Blocks, at most for some 10 s. Errors: as tidemill_runtime_reload, INVALID. */
TIDEMILL_API int tidemill_check(const char *dir, size_t *tasks, tidemill_error *error) TIDEMILL_MUST_CHECK;

/* What a stop came to: jobs that ended within the grace period, and those given back without an attempt counted. */
typedef struct tidemill_stopped {
    int64_t ended;
    int64_t returned;
} tidemill_stopped;

/* tidemill_runtime_stop stops claiming, lets running jobs end within the grace period, gives back what is left, ends
   every thread, and frees the runtime. Blocks meanwhile. stopped may be NULL; runtime may be NULL. */
TIDEMILL_API void tidemill_runtime_stop(tidemill_runtime *runtime, tidemill_stopped *stopped);

/* Counts since the start, and now. */
typedef struct tidemill_statistics {
    int64_t completed, failed, dead, snoozed, cancelled, returned, lost; /* attempts that ended so, since the start */
    int64_t blocked;     /* how often a job blocked a thread that was not for that, for 0.1 s or longer, */
    int64_t written_off; /* and threads that were given up because of it */
    int64_t running;     /* jobs that run now */
    int64_t workers;     /* Lua states that exist now */
} tidemill_statistics;

/* tidemill_runtime_statistics fills *statistics. */
TIDEMILL_API void tidemill_runtime_statistics(const tidemill_runtime *runtime, tidemill_statistics *statistics);

/* tidemill_runtime_survey tells what the running jobs do: *json is an array of objects with job, task, queue, attempt,
   age_ms, cpu_ms, memory_bytes, state (running, waiting, stopping), waits_for (text or null), thread, and, if traces is
   true, traceback. It is the caller's, to be freed with free(). Blocks, for 0.2 s at most: the jobs of a thread that
   does not answer in that time are left out. From any thread. Error: MEMORY. */
TIDEMILL_API int tidemill_runtime_survey(const tidemill_runtime *runtime, bool traces, char **json,
                                         tidemill_error *error) TIDEMILL_MUST_CHECK;

/* ---- The schema ---- */

/* tidemill_migrate_up brings the database at url up to this library's schema; safe when several do so at once.
   *applied (may be NULL) is the number of migrations that were run. Errors: INVALID, CONNECT, SCHEMA (the database is
   newer), DATABASE, MEMORY. */
TIDEMILL_API int tidemill_migrate_up(const char *url, int *applied, tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_migrate_down takes the schema at url back to version (0: removes Tidemill and every job). Errors as
   tidemill_migrate_up. */
TIDEMILL_API int tidemill_migrate_down(const char *url, int version, int *reverted,
                                       tidemill_error *error) TIDEMILL_MUST_CHECK;

/* tidemill_migrate_status tells the version of the database's schema (0: none) and the one this library needs. */
TIDEMILL_API int tidemill_migrate_status(const char *url, int *current, int *needed,
                                         tidemill_error *error) TIDEMILL_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
