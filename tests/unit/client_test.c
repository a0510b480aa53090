/* client_test.c: connecting from C, tidemill_enqueue_tx in a caller's own transaction, and connections that are lost.
 */
#include "client_fixture.h"

#include <pthread.h>

/* The caller's own connection, new for each test. */
static PGconn *own;

static int open_own(void **state) {
    (void)state;
    own = connection_to(database_url);
    return own ? 0 : -1;
}

static int close_own(void **state) {
    (void)state;
    PQfinish(own);
    own = NULL;
    return 0;
}

#define OWN_TEST(function) cmocka_unit_test_setup_teardown(function, open_own, close_own)

static const char *count_of(const char *task) {
    static char sql[128];
    snprintf(sql, sizeof sql, "select count(*) from tidemill.jobs where task = '%s'", task);
    return ask(sql);
}

/* assert_error checks a call's code, its error's, and how the message begins. */
static void assert_error(int rc, const tidemill_error *err, int code, const char *message) {
    if (strncmp(err->message, message, strlen(message)) != 0) fail_msg("\"%s\"; not: %s", err->message, message);
    assert_int_equal(rc, code);
    assert_int_equal(err->code, code);
}

/* ---- Connecting ---- */

static void a_database_that_cannot_be_used_is_refused(void **state) {
    (void)state;
    char missing[512];
    name_in(missing, "no_such_database");
    const struct {
        const char *url;
        int code;
        const char *message, *field;
    } cases[] = {
        { "postgresql:///x?host=/nowhere", TIDEMILL_ECONNECT, "the database cannot be reached: ", "" },
        { missing, TIDEMILL_ECONNECT, "the database cannot be reached: ", "" },
        { getenv("TIDEMILL_TEST_DATABASE"), TIDEMILL_ESCHEMA, "the database is not migrated; run tidemill migrate up",
          "" },
        { "nonsense", TIDEMILL_EINVALID, "database: not a valid URL or connection string", "database" },
        { "\xFF", TIDEMILL_EINVALID, "database: not a valid URL or connection string", "database" },
    };
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        tidemill_client *c = NULL;
        tidemill_error err = { 0 };
        assert_error(tidemill_connect(cases[i].url, &c, &err), &err, cases[i].code, cases[i].message);
        assert_string_equal(err.field, cases[i].field);
        assert_null(c);
        assert_int_equal(tidemill_connect(cases[i].url, &c, NULL), cases[i].code);
    }
    tidemill_close(NULL);
}

static void a_database_of_a_newer_version_is_refused_also_by_a_client_that_connects_anew(void **state) {
    (void)state;
    tidemill_client *c = NULL;
    tidemill_error err = { 0 };
    tidemill_job job;
    run_sql(watcher, "insert into tidemill.migration values (99, 'future')");
    int rc = tidemill_connect(database_url, &c, &err);
    assert_error(rc, &err, TIDEMILL_ESCHEMA, "the database was migrated by a newer version (99, this is ");
    kill_clients();
    rc = tidemill_enqueue(client, "newer", NULL, NULL, &job, &err);
    assert_error(rc, &err, TIDEMILL_ESCHEMA, "the database was migrated by a newer version (99, this is ");
    run_sql(watcher, "delete from tidemill.migration where version = 99");
    assert_string_equal(count_of("newer"), "0");
    assert_int_equal(tidemill_enqueue(client, "newer", NULL, NULL, &job, &err), 0);
}

static void a_database_whose_migrations_were_not_recorded_counts_as_not_migrated(void **state) {
    (void)state;
    tidemill_client *c = NULL;
    tidemill_error err = { 0 };
    run_sql(watcher, "create table public.recorded as table tidemill.migration; delete from tidemill.migration");
    int rc = tidemill_connect(database_url, &c, &err);
    run_sql(watcher, "insert into tidemill.migration table public.recorded; drop table public.recorded");
    assert_error(rc, &err, TIDEMILL_ESCHEMA, "the database is not migrated; run tidemill migrate up");
}

static void no_url_means_the_environment(void **state) {
    (void)state;
    static const char *const urls[] = { NULL, "" };
    setenv("PGHOST", PQhost(watcher), 1);
    setenv("PGUSER", PQuser(watcher), 1);
    setenv("PGDATABASE", database_name, 1);
    for (size_t i = 0; i < TD_COUNT(urls); i++) {
        tidemill_client *c = NULL;
        tidemill_error err = { 0 };
        tidemill_job job;
        if (tidemill_connect(urls[i], &c, &err) < 0) fail_msg("%s", err.message);
        assert_int_equal(tidemill_enqueue(c, "environment", NULL, NULL, &job, &err), 0);
        tidemill_close(c);
    }
    unsetenv("PGHOST");
    unsetenv("PGUSER");
    unsetenv("PGDATABASE");
    assert_string_equal(count_of("environment"), "2");
}

/* ---- The caller's transaction ---- */

static void a_job_is_kept_or_dropped_with_the_callers_transaction(void **state) {
    (void)state;
    tidemill_options o = TIDEMILL_OPTIONS;
    tidemill_job dropped, kept, again;
    tidemill_error err;
    o.unique_key = "k";
    o.queue = "q";
    run_sql(own, "begin");
    assert_int_equal(tidemill_enqueue_tx(own, "own", "{\"n\": 1}", &o, &dropped, &err), 0);
    assert_int_equal(tidemill_enqueue_tx(own, "own", "{\"n\": 1}", &o, &again, &err), 0);
    assert_true(!dropped.duplicate && again.duplicate && again.id == dropped.id);
    assert_string_equal(count_of("own"), "0");
    run_sql(own, "rollback");
    assert_string_equal(count_of("own"), "0");
    run_sql(own, "begin");
    assert_int_equal(tidemill_enqueue_tx(own, "own", "{\"n\": 2}", &o, &kept, &err), 0);
    assert_false(kept.duplicate);
    assert_int_equal(PQtransactionStatus(own), PQTRANS_INTRANS);
    run_sql(own, "commit");
    assert_string_equal(ask_id("select concat_ws(' ', task, queue, args) from tidemill.jobs where id = %lld", kept.id),
                        "own q {\"n\": 2}");
    assert_string_equal(count_of("own"), "1");
}

/* enqueue_tx_fails checks that a call on the connection is refused. */
static void enqueue_tx_fails(int code, const char *message) {
    tidemill_job job;
    tidemill_error err = { 0 };
    assert_error(tidemill_enqueue_tx(own, "refused", NULL, NULL, &job, &err), &err, code, message);
    assert_int_equal(tidemill_enqueue_tx(own, "refused", NULL, NULL, &job, NULL), code);
}

static void a_connection_without_a_transaction_is_refused(void **state) {
    (void)state;
    enqueue_tx_fails(TIDEMILL_ESTATE, "no transaction is open on this connection; send begin first, or use ");
    assert_string_equal(count_of("refused"), "0");
}

static void a_connection_on_which_something_runs_is_refused(void **state) {
    (void)state;
    run_sql(own, "begin");
    assert_int_equal(PQsendQuery(own, "select 1"), 1);
    enqueue_tx_fails(TIDEMILL_ESTATE, "another statement is in progress on this connection");
    for (PGresult *r; (r = PQgetResult(own));) PQclear(r);
    assert_int_equal(PQenterPipelineMode(own), 1);
    enqueue_tx_fails(TIDEMILL_ESTATE, "another statement is in progress on this connection");
    assert_int_equal(PQexitPipelineMode(own), 1);
    tidemill_job job;
    assert_int_equal(tidemill_enqueue_tx(own, "refused", NULL, NULL, &job, NULL), 0);
    run_sql(own, "rollback");
}

static void a_transaction_that_failed_is_refused_by_the_database(void **state) {
    (void)state;
    tidemill_job job;
    tidemill_error err = { 0 };
    run_sql(own, "begin");
    PQclear(PQexec(own, "select 1 / 0"));
    int rc = tidemill_enqueue_tx(own, "refused", NULL, NULL, &job, &err);
    assert_error(rc, &err, TIDEMILL_EDATABASE, "current transaction is aborted");
    assert_string_equal(err.sqlstate, "25P02");
}

static void another_encoding_is_refused(void **state) {
    (void)state;
    run_sql(own, "begin; set local client_encoding = 'LATIN1'");
    enqueue_tx_fails(TIDEMILL_ESTATE, "this connection's client_encoding is LATIN1; set it to UTF8");
    run_sql(own, "rollback");
}

static void a_lost_connection_of_the_caller_is_told(void **state) {
    (void)state;
    char sql[100];
    run_sql(own, "begin");
    snprintf(sql, sizeof sql, "select pg_terminate_backend(%d, 30000)", PQbackendPID(own));
    run_sql(watcher, sql);
    enqueue_tx_fails(TIDEMILL_ECONNECT, "the connection ");
    enqueue_tx_fails(TIDEMILL_ECONNECT, "the connection is not open; nothing was done");
    PQfinish(own);
    own = NULL;
    enqueue_tx_fails(TIDEMILL_ECONNECT, "the connection is not open; nothing was done");
}

static void a_database_that_is_not_migrated_is_told(void **state) {
    (void)state;
    PQfinish(own);
    own = connection_to(getenv("TIDEMILL_TEST_DATABASE"));
    tidemill_job job;
    tidemill_error err = { 0 };
    run_sql(own, "begin");
    int rc = tidemill_enqueue_tx(own, "t", NULL, NULL, &job, &err);
    assert_error(rc, &err, TIDEMILL_ESCHEMA, "the database is not migrated; run tidemill migrate up");
}

static void a_snapshot_that_is_too_old_is_a_failure_to_serialize(void **state) {
    (void)state;
    tidemill_options o = TIDEMILL_OPTIONS;
    tidemill_job job;
    tidemill_error err = { 0 };
    o.unique_key = "k";
    run_sql(own, "begin isolation level repeatable read; select count(*) from tidemill.jobs");
    assert_int_equal(tidemill_enqueue(client, "snapshot", NULL, &o, &job, &err), 0);
    int rc = tidemill_enqueue_tx(own, "snapshot", NULL, &o, &job, &err);
    assert_error(rc, &err, TIDEMILL_EDATABASE, "could not serialize access");
    assert_string_equal(err.sqlstate, "40001");
}

/* ---- Lost connections ---- */

static void a_lost_connection_is_made_anew_by_the_next_call(void **state) {
    (void)state;
    const char *const args[] = { NULL, NULL };
    tidemill_job jobs[2];
    tidemill_error err = { 0 };
    kill_clients();
    if (tidemill_enqueue(client, "anew", NULL, NULL, jobs, &err) < 0) fail_msg("%s", err.message);
    kill_clients();
    if (tidemill_enqueue_many(client, "anew", args, 2, NULL, jobs, &err) < 0) fail_msg("%s", err.message);
    assert_string_equal(count_of("anew"), "3");
}

/* kill_waiting, a thread, waits until a client waits for a lock, and ends its connection. */
static void *kill_waiting(void *arg) {
    (void)arg;
    wait_until("exists (select " CLIENTS " and wait_event_type = 'Lock')");
    kill_clients();
    return NULL;
}

static void a_connection_lost_during_an_enqueue_leaves_the_outcome_unknown(void **state) {
    (void)state;
    const char *const args[] = { NULL };
    tidemill_options o = TIDEMILL_OPTIONS;
    tidemill_job job;
    tidemill_error err = { 0 };
    o.unique_key = "k";
    run_sql(own, "begin");
    assert_int_equal(tidemill_enqueue_tx(own, "lost", NULL, &o, &job, &err), 0);
    for (int many = 0; many < 2; many++) {
        pthread_t killer;
        assert_int_equal(pthread_create(&killer, NULL, kill_waiting, NULL), 0);
        int rc = many ? tidemill_enqueue_many(client, "lost", args, 1, &o, &job, &err)
                      : tidemill_enqueue(client, "lost", NULL, &o, &job, &err);
        pthread_join(killer, NULL);
        assert_error(rc, &err, TIDEMILL_EOUTCOME, "whether the job was stored is unknown; look for it, or enqueue it ");
    }
    run_sql(own, "rollback");
    assert_int_equal(tidemill_enqueue(client, "lost", NULL, &o, &job, &err), 0);
    assert_false(job.duplicate);
    assert_string_equal(count_of("lost"), "1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_database_that_cannot_be_used_is_refused),
        cmocka_unit_test(a_database_of_a_newer_version_is_refused_also_by_a_client_that_connects_anew),
        cmocka_unit_test(a_database_whose_migrations_were_not_recorded_counts_as_not_migrated),
        cmocka_unit_test(no_url_means_the_environment),
        OWN_TEST(a_job_is_kept_or_dropped_with_the_callers_transaction),
        OWN_TEST(a_connection_without_a_transaction_is_refused),
        OWN_TEST(a_connection_on_which_something_runs_is_refused),
        OWN_TEST(a_transaction_that_failed_is_refused_by_the_database),
        OWN_TEST(another_encoding_is_refused),
        OWN_TEST(a_lost_connection_of_the_caller_is_told),
        OWN_TEST(a_database_that_is_not_migrated_is_told),
        OWN_TEST(a_snapshot_that_is_too_old_is_a_failure_to_serialize),
        cmocka_unit_test(a_lost_connection_is_made_anew_by_the_next_call),
        OWN_TEST(a_connection_lost_during_an_enqueue_leaves_the_outcome_unknown),
    };
    return cmocka_run_group_tests(tests, suite_setup, suite_teardown);
}
