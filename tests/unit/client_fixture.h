/* client_fixture.h: for tests of enqueueing from C: a migrated database of the suite's own, looked at through a
   connection that shares nothing with what is tested, and a client. */
#ifndef CLIENT_FIXTURE_H
#define CLIENT_FIXTURE_H

#include "../../runtime/base/base.h"

#include <libpq-fe.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The suite's database. */
static PGconn *watcher;
static char database_url[512], database_name[32];
static tidemill_client *client;

/* ---- Looking at the database ---- */

/* text_of runs SQL and keeps the first field of its first row, "" for none, in out. */
static inline void text_of(PGconn *conn, const char *sql, char out[1024]) {
    PGresult *result = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) fail_msg("%s: %s", sql, PQerrorMessage(conn));
    snprintf(out, 1024, "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
}

static inline void run_sql(PGconn *conn, const char *sql) {
    char ignored[1024];
    text_of(conn, sql, ignored);
}

/* ask_id returns the answer to a query with one %lld in it, a job's id, until the next call. */
static inline const char *ask_id(const char *format, int64_t id) TD_PRINTF(1, 0);
static inline const char *ask_id(const char *format, int64_t id) {
    static char answer[1024];
    char sql[1024];
    snprintf(sql, sizeof sql, format, (long long)id);
    text_of(watcher, sql, answer);
    return answer;
}

static inline const char *ask(const char *sql) {
    static char answer[1024];
    text_of(watcher, sql, answer);
    return answer;
}

/* All that an enqueue can have changed. */
#define STORED                                                                                                         \
    "select (select count(*) from tidemill.jobs) || ' jobs ' || (select count(*) from tidemill.unique_job) || ' keys'"

/* wait_until waits until a condition in SQL is true. */
static inline void wait_until(const char *condition) {
    char sql[1024];
    snprintf(sql, sizeof sql, "select pg_stat_clear_snapshot(); select %s", condition);
    uint64_t until = td_now_ns() + 30 * UINT64_C(1000000000);
    while (strcmp(ask(sql), "t") != 0) {
        if (td_now_ns() > until) fail_msg("it did not happen: %s", condition);
        usleep(2000);
    }
}

#define CLIENTS "from pg_stat_activity where datname = current_database() and application_name = 'tidemill'"

/* kill_clients ends the connections of all clients, and returns when they are gone. */
static inline void kill_clients(void) {
    run_sql(watcher, "select count(pg_terminate_backend(pid)) " CLIENTS);
    wait_until("not exists (select " CLIENTS ")");
}

/* ---- Set-up ---- */

/* name_in writes the cluster's URL with another database's name in it. */
static inline void name_in(char url[512], const char *name) {
    const char *given = getenv("TIDEMILL_TEST_DATABASE");
    const char *host = strstr(given, "://") + 3, *slash = strchr(host, '/');
    snprintf(url, 512, "%.*s/%s%s", (int)(slash - given), given, name, slash + strcspn(slash, "?"));
}

static inline PGconn *connection_to(const char *url) {
    PGconn *conn = PQconnectdb(url);
    if (PQstatus(conn) == CONNECTION_OK) return conn;
    fprintf(stderr, "%s\n", PQerrorMessage(conn));
    PQfinish(conn);
    return NULL;
}

/* in_cluster runs a statement about a database, in another one. */
static inline int in_cluster(const char *format, const char *name) TD_PRINTF(1, 0);
static inline int in_cluster(const char *format, const char *name) {
    char sql[128];
    PGconn *conn = connection_to(getenv("TIDEMILL_TEST_DATABASE"));
    if (!conn) return -1;
    snprintf(sql, sizeof sql, format, name);
    PGresult *result = PQexec(conn, sql);
    int rc = PQresultStatus(result) == PGRES_COMMAND_OK ? 0 : -1;
    PQclear(result);
    PQfinish(conn);
    return rc;
}

static inline int suite_setup(void **state) {
    (void)state;
    tidemill_error err = { 0 };
    if (!getenv("TIDEMILL_TEST_DATABASE")) {
        fprintf(stderr, "TIDEMILL_TEST_DATABASE is not set; give the URL of a PostgreSQL to test on\n");
        return -1;
    }
    snprintf(database_name, sizeof database_name, "unit_%d", (int)getpid());
    name_in(database_url, database_name);
    if (in_cluster("create database %s template template0 encoding 'UTF8'", database_name) < 0) return -1;
    watcher = connection_to(database_url);
    if (watcher && tidemill_migrate_up(database_url, NULL, &err) == 0 &&
        tidemill_connect(database_url, &client, &err) == 0) {
        return 0;
    }
    fprintf(stderr, "%s\n", err.message);
    return -1;
}

static inline int suite_teardown(void **state) {
    (void)state;
    tidemill_close(client);
    PQfinish(watcher);
    return in_cluster("drop database %s with (force)", database_name);
}

#endif
