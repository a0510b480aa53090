/* drive: what the benchmark does from C. Every command takes the database first and prints one line of JSON.

     drive one URL LANES SECONDS         enqueue one by one through the library, on so many connections
     drive many URL BATCH SECONDS        many at once through the library
     drive copy URL SECONDS              a bare COPY of the same rows into bench.plain
     drive latency URL COUNT PAUSE_MS    enqueue one by one; prints a line "ID SENT_US" for each
     drive store URL LANES SPIN_US       the store's own layout: tidemill.work until nothing is left, so much work a job
     drive layout URL LANES SPIN_US      the peers' layout: update to claim, delete and insert to finish
     drive hold URL snapshot|xid         keeps a transaction open until it is killed */
#include "tidemill.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LANES_MAX = 64, BATCH = 1000, COPY_ROWS = 10000 };

static const char *url;
static double seconds, spin_us;
static int batch;

typedef struct lane {
    pthread_t thread;
    int number;
    long done;
    double first, last;
} lane;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "drive: %s: %s\n", what, why);
    exit(1);
}

/* ---- Bare libpq ---- */

static PGconn *connect_bare(void) {
    PGconn *c = PQconnectdb(url);
    if (PQstatus(c) != CONNECTION_OK) die("connect", PQerrorMessage(c));
    return c;
}

static PGresult *checked(PGconn *c, PGresult *r) {
    ExecStatusType s = PQresultStatus(r);
    if (s != PGRES_COMMAND_OK && s != PGRES_TUPLES_OK && s != PGRES_COPY_IN) die("statement", PQerrorMessage(c));
    return r;
}

static void run(PGconn *c, const char *sql) {
    PQclear(checked(c, PQexec(c, sql)));
}

/* spin is the work of n jobs. One lane at a time: the work of a process's handlers is one core's. */
static void spin(int n) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    struct timespec t;
    if (spin_us <= 0) return;
    pthread_mutex_lock(&mutex);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    double end = (double)t.tv_sec + (double)t.tv_nsec / 1e9 + n * spin_us / 1e6, at = 0;
    while (at < end) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        at = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    }
    pthread_mutex_unlock(&mutex);
}

static void note(lane *l, int n) {
    l->last = now();
    if (l->first == 0)
        l->first = l->last; /* what came first is not counted: its time is not known */
    else
        l->done += n;
}

/* ids_of makes an array of the first column, and with what else is given for each. */
static void append_ids(char *out, const PGresult *r, int column) {
    char *p = out;
    *p++ = '{';
    for (int i = 0; i < PQntuples(r); i++) p += sprintf(p, "%s%s", i ? "," : "", PQgetvalue(r, i, column));
    strcpy(p, "}");
}

static void repeat(char *out, const char *what, int n) {
    char *p = out;
    *p++ = '{';
    for (int i = 0; i < n; i++) p += sprintf(p, "%s%s", i ? "," : "", what);
    strcpy(p, "}");
}

/* ---- The store's layout ---- */

/* clang-format off */
#define WORK \
    "select kind, id from tidemill.work(process_id => $1, ids => $2, leases => $3, outcomes => $4, errors => null, " \
    "tracebacks => null, results => null, delays => null, cpu_us => $5, wall_us => $5, peak_bytes => $5, logs => null, " \
    "generations => null, codes => null, spent => $6, token => $7, queues => array['default'], free => array[1000], " \
    "tasks => array['noop'], asleep => null)"
/* clang-format on */

static void *store_lane(void *arg) {
    lane *l = arg;
    PGconn *c = connect_bare();
    PGresult *r = checked(c, PQexec(c, "select tidemill.start_process('bare')"));
    char process[24], token[24], spent[32] = "{}";
    snprintf(process, sizeof process, "%s", PQgetvalue(r, 0, 0));
    PQclear(r);
    PQclear(checked(c, PQprepare(c, "work", WORK, 0, NULL)));
    char *ids = malloc(BATCH * 24), *leases = malloc(BATCH * 24), *outcomes = malloc(BATCH * 12),
         *costs = malloc(BATCH * 4);
    int held = 0;
    unsigned long draw = (unsigned long)getpid() * 64 + (unsigned long)l->number;
    strcpy(ids, "{}");
    do {
        repeat(leases, held ? token : "", held);
        repeat(outcomes, "completed", held);
        repeat(costs, "10", held);
        if (held) snprintf(spent, sizeof spent, "{%s}", token);
        draw = draw * 6364136223846793005UL + 1442695040888963407UL;
        snprintf(token, sizeof token, "%lu", draw >> 2);
        const char *params[] = { process, ids, leases, outcomes, costs, spent, token };
        r = checked(c, PQexecPrepared(c, "work", 7, params, NULL, NULL, 0));
        int jobs = 0;
        char *p = ids;
        *p++ = '{';
        for (int i = 0; i < PQntuples(r); i++)
            if (strcmp(PQgetvalue(r, i, 0), "job") == 0)
                p += sprintf(p, "%s%s", jobs++ ? "," : "", PQgetvalue(r, i, 1));
        strcpy(p, "}");
        PQclear(r);
        if (held) note(l, held);
        held = jobs;
        spin(held);
    } while (held > 0);
    PQfinish(c);
    return NULL;
}

/* ---- The peers' layout ---- */

static void *layout_lane(void *arg) {
    lane *l = arg;
    PGconn *c = connect_bare();
    PQclear(
        checked(c, PQprepare(c, "claim",
                             "update bench.jobs j set locked_by = $1, locked_at = now() where id in (select id from "
                             "bench.jobs where run_at <= now() and locked_at is null order by priority, run_at, id "
                             "limit 1000 for update skip locked) returning id, task, args, priority, run_at",
                             0, NULL)));
    PQclear(checked(c, PQprepare(c, "finish",
                                 "with d as (delete from bench.jobs where id = any ($1::bigint[]) returning *) insert "
                                 "into bench.archive select id, task, args, priority, run_at, now() from d",
                                 0, NULL)));
    char *ids = malloc(BATCH * 24);
    for (;;) {
        const char *me[] = { "bench" };
        PGresult *r = checked(c, PQexecPrepared(c, "claim", 1, me, NULL, NULL, 0));
        int n = PQntuples(r);
        append_ids(ids, r, 0);
        PQclear(r);
        if (n == 0) break;
        spin(n);
        const char *params[] = { ids };
        PQclear(checked(c, PQexecPrepared(c, "finish", 1, params, NULL, NULL, 0)));
        note(l, n);
    }
    PQfinish(c);
    return NULL;
}

/* ---- Enqueueing ---- */

static tidemill_client *connect_client(void) {
    tidemill_client *client;
    tidemill_error err;
    if (tidemill_connect(url, &client, &err) < 0) die("connect", err.message);
    return client;
}

static void *one_lane(void *arg) {
    lane *l = arg;
    tidemill_client *client = connect_client();
    tidemill_error err;
    l->first = now();
    for (l->last = l->first; l->last - l->first < seconds; l->last = now(), l->done++) {
        tidemill_job job;
        char args[48];
        snprintf(args, sizeof args, "{\"user_id\": %ld}", l->done);
        if (tidemill_enqueue(client, "noop", args, NULL, &job, &err) < 0) die("enqueue", err.message);
    }
    tidemill_close(client);
    return NULL;
}

static void *many_lane(void *arg) {
    lane *l = arg;
    tidemill_client *client = connect_client();
    tidemill_error err;
    const char **args = calloc((size_t)batch, sizeof *args);
    char(*texts)[48] = calloc((size_t)batch, sizeof *texts);
    l->first = now();
    for (l->last = l->first; l->last - l->first < seconds; l->last = now(), l->done += batch) {
        for (int i = 0; i < batch; i++) {
            snprintf(texts[i], sizeof texts[i], "{\"user_id\": %ld}", l->done + i);
            args[i] = texts[i];
        }
        if (tidemill_enqueue_many(client, "noop", args, (size_t)batch, NULL, NULL, &err) < 0)
            die("enqueue", err.message);
    }
    tidemill_close(client);
    return NULL;
}

static void *copy_lane(void *arg) {
    lane *l = arg;
    PGconn *c = connect_bare();
    l->first = now();
    for (l->last = l->first; l->last - l->first < seconds; l->last = now(), l->done += COPY_ROWS) {
        PQclear(checked(c, PQexec(c, "copy bench.plain (lane, args) from stdin")));
        for (int i = 0; i < COPY_ROWS; i++) {
            char row[64];
            int n = snprintf(row, sizeof row, "1\t{\"user_id\": %ld}\n", l->done + i);
            if (PQputCopyData(c, row, n) != 1) die("copy", PQerrorMessage(c));
        }
        if (PQputCopyEnd(c, NULL) != 1) die("copy", PQerrorMessage(c));
        PQclear(checked(c, PQgetResult(c)));
        PQclear(PQgetResult(c));
    }
    PQfinish(c);
    return NULL;
}

static void latency(int count, int pause_ms) {
    tidemill_client *client = connect_client();
    tidemill_error err;
    for (int i = 0; i < count; i++) {
        tidemill_job job;
        double sent = now();
        if (tidemill_enqueue(client, "noop", "{\"user_id\": 1}", NULL, &job, &err) < 0) die("enqueue", err.message);
        printf("%lld %.0f\n", (long long)job.id, sent * 1e6);
        usleep((useconds_t)pause_ms * 1000);
    }
    tidemill_close(client);
}

static void hold(const char *kind) {
    PGconn *c = connect_bare();
    run(c, "begin isolation level repeatable read");
    run(c, strcmp(kind, "xid") == 0 ? "select pg_current_xact_id()" : "select 1");
    puts("held");
    fflush(stdout);
    for (;;) pause();
}

/* ---- Lanes ---- */

/* run_lanes has them all work at once, and prints what they did in the time from the first to the last. */
static void run_lanes(int count, void *(*work)(void *)) {
    lane lanes[LANES_MAX] = { 0 };
    double first = 1e18, last = 0;
    long done = 0;
    for (int i = 0; i < count; i++) {
        lanes[i].number = i;
        if (pthread_create(&lanes[i].thread, NULL, work, &lanes[i]) != 0) die("thread", "it could not be started");
    }
    for (int i = 0; i < count; i++) {
        pthread_join(lanes[i].thread, NULL);
        done += lanes[i].done;
        if (lanes[i].first > 0 && lanes[i].first < first) first = lanes[i].first;
        if (lanes[i].last > last) last = lanes[i].last;
    }
    printf("{\"stored\": %ld, \"seconds\": %.6f}\n", done, last - first);
}

int main(int argc, char **argv) {
    if (argc < 4) die("usage", "drive COMMAND URL ARGUMENTS");
    const char *command = argv[1], *last = argv[argc - 1];
    url = argv[2];
    int lanes = atoi(argv[3]) < LANES_MAX ? atoi(argv[3]) : LANES_MAX;
    seconds = spin_us = atof(last);
    batch = atoi(argv[3]);
    if (strcmp(command, "one") == 0)
        run_lanes(lanes, one_lane);
    else if (strcmp(command, "many") == 0)
        run_lanes(1, many_lane);
    else if (strcmp(command, "copy") == 0)
        run_lanes(1, copy_lane);
    else if (strcmp(command, "store") == 0)
        run_lanes(lanes, store_lane);
    else if (strcmp(command, "layout") == 0)
        run_lanes(lanes, layout_lane);
    else if (strcmp(command, "latency") == 0)
        latency(atoi(argv[3]), atoi(last));
    else if (strcmp(command, "hold") == 0)
        hold(last);
    else
        die("usage", "there is no such command");
    return 0;
}
