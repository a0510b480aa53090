/* enqueue.c: `tidemill enqueue`: stores one job. */
#include "cli.h"
#include "json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STDIN_MAX ((size_t)64 << 20) /* bytes of arguments read; the library's own limit is far lower */

typedef struct enqueue_values {
    td_common common;
    int64_t in_ms, at_us, max_attempts, unique_for_ms, priority;
    const char *queue, *unique_key;
    td_texts tags;
} enqueue_values;

static const td_option options[] = {
    TD_OPT(DURATION, "in", "DURATION", enqueue_values, in_ms, "run it so much later: 90 (seconds), 90s, 5m, 2h, 1d"),
    TD_OPT(TIME, "at", "TIME", enqueue_values, at_us, "run it at this time (RFC 3339): 2030-01-31T08:00:00Z"),
    TD_OPT(TEXT, "queue", "NAME", enqueue_values, queue,
           "put it into this queue; else the one that the task declares, else default"),
    TD_OPT_INT("priority", "N", enqueue_values, priority, 0, 100, "0 to 100, lower runs first; else declared, else 1"),
    TD_OPT_INT("max-attempts", "N", enqueue_values, max_attempts, 1, 1000,
               "attempts before it is dead, 1 to 1000; else declared, else 25"),
    TD_OPT(DURATION, "unique-for", "DURATION", enqueue_values, unique_for_ms,
           "do nothing if a job of this task with the same key (or, without a key, the same arguments) was enqueued "
           "within this time"),
    TD_OPT(TEXT, "unique-key", "KEY", enqueue_values, unique_key,
           "the key; without --unique-for it holds until its job has ended"),
    TD_OPT(LIST, "tag", "TAG", enqueue_values, tags, "tag the job; may be given several times"),
};

/* read_stdin reads all of stdin. *text is the caller's. */
static int read_stdin(char **text, tidemill_error *err) {
    td_buf b = { 0 };
    char piece[8192];
    ssize_t n;
    td_buf_puts(&b, "");
    while ((n = read(STDIN_FILENO, piece, sizeof piece)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || b.len > STDIN_MAX) {
            td_buf_free(&b);
            return td_error_set(err, TIDEMILL_EIO, "the arguments could not be read from stdin: %s",
                                n < 0 ? strerror(errno) : "they are too long");
        }
        td_buf_add(&b, piece, (size_t)n);
    }
    /* A NUL would silently end the text early. */
    if (b.len && strlen(b.data) != b.len) {
        td_buf_free(&b);
        return td_error_field(err, "args", "args: a NUL byte is not allowed; give a JSON object");
    }
    *text = td_buf_take(&b);
    return *text ? 0 : td_error_memory(err);
}

/* job_options turns what was typed into the library's options. */
static tidemill_options job_options(const enqueue_values *v) {
    tidemill_options o = TIDEMILL_OPTIONS;
    o.schedule_in_ms = v->in_ms;
    o.schedule_at_us = v->at_us;
    o.queue = v->queue;
    o.unique_for_ms = v->unique_for_ms;
    o.unique_key = v->unique_key;
    if (v->max_attempts != TIDEMILL_UNSET) o.max_attempts = (int)v->max_attempts;
    if (v->priority != TIDEMILL_UNSET) o.priority = (int)v->priority;
    o.tags = v->tags.items;
    o.tags_count = v->tags.count;
    return o;
}

/* print_job tells what became of the job. */
static int print_job(td_cli *cli, const char *task, const tidemill_job *job) {
    td_buf *b = &cli->out.text;
    if (cli->out.json) {
        td_json_open(b, '{');
        td_json_key(b, "id");
        td_json_integer(b, job->id);
        td_json_key(b, "duplicate");
        td_json_boolean(b, job->duplicate);
        td_json_close(b, '}');
    } else if (job->duplicate) {
        td_buf_printf(b, "duplicate of job %lld", (long long)job->id);
    } else {
        td_buf_printf(b, "enqueued job %lld (", (long long)job->id);
        td_output_clean(b, task, true);
        td_buf_putc(b, ')');
    }
    td_buf_putc(b, '\n');
    return td_cli_end(cli);
}

static int run(td_cli *cli) {
    const enqueue_values *v = cli->values;
    const char *task = cli->args.items[0], *args = cli->args.count > 1 ? cli->args.items[1] : NULL;
    tidemill_client *client = NULL;
    tidemill_options o = job_options(v);
    tidemill_job job;
    tidemill_error err;
    char *input = NULL;
    if (v->in_ms != TIDEMILL_UNSET && v->at_us != TIDEMILL_UNSET)
        return td_cli_usage(cli, "--in and --at exclude each other; give one of them");
    int rc = args && strcmp(args, "-") == 0 ? read_stdin(&input, &err) : 0;
    if (rc == 0) rc = tidemill_connect(td_cli_database(cli), &client, &err);
    if (rc == 0) rc = tidemill_enqueue(client, task, input ? input : args, &o, &job, &err);
    tidemill_close(client);
    free(input);
    return rc ? td_cli_fail(&err) : print_job(cli, task, &job);
}

const td_command td_command_enqueue = {
    .name = "enqueue",
    .summary = "stores a job",
    .usage = "TASK [ARGS]",
    .about =
        "Stores a job of TASK with ARGS, a JSON object ({} if not given; - reads it from stdin), and prints its id, "
        "or the id of the job that stands already where it is a duplicate.",
    .examples = "tidemill enqueue send_welcome_email '{\"user_id\": \"42\"}'\n"
                "tidemill enqueue cleanup --in 2h --queue slow --tag nightly\n"
                "tidemill enqueue import --unique-key daily --unique-for 1d - < args.json\n",
    .options = options,
    .options_count = TD_COUNT(options),
    .values_size = sizeof(enqueue_values),
    .args_min = 1,
    .args_max = 2,
    .run = run,
};
