/* pg_test.c: tidemill.pg and the store's queries from fibers, against a real PostgreSQL (TIDEMILL_TEST_DATABASE). */
#include "lib_fixture.h"

#include "../../runtime/store/query.h"

#include <libpq-fe.h>

enum { MANY = 100 };

#define PG                                                                                                             \
    "local pg = require 'tidemill.pg'; local tidemill = require 'tidemill'; local arg, number = ...; "                 \
    "local function show(rows, message, code) if not rows then return code .. ': ' .. message end "                    \
    "local out = {} for i, row in ipairs(rows) do local fields = {} for k, v in pairs(row) do "                        \
    "fields[#fields + 1] = k .. '=' .. (math.type(v) or type(v)) .. ' ' .. tostring(v) end "                           \
    "table.sort(fields) out[i] = table.concat(fields, ', ') end "                                                      \
    "return rows.count .. ': ' .. table.concat(out, '; ') end "

/* ---- Set-up: a pool on the thread, and a connection of the test's own ---- */

static PGconn *watcher;

typedef struct setup {
    lib *t;
    td_connections *connections;
    int rc;
    tidemill_error err;
} setup;

static void do_setup(void *arg) {
    setup *s = arg;
    s->rc = td_connections_join(s->t->thread, s->connections, &s->err);
}

/* join gives a thread a seat at connections. */
static void join(lib *t, td_connections *connections) {
    setup s = { .t = t, .connections = connections };
    lib_on_thread(t, do_setup, &s);
    assert_int_equal(s.rc, 0);
}

/* with_pool gives the thread connections of its own. */
static void with_pool(lib *t, const char *url, int max) {
    td_connections *connections = td_connections_new(url ? url : getenv("TIDEMILL_TEST_DATABASE"), max);
    assert_non_null(connections);
    join(t, connections);
    td_connections_unref(connections);
}

/* shared_pool returns 4 connections for several threads. */
static td_connections *shared_pool(void) {
    td_connections *connections = td_connections_new(getenv("TIDEMILL_TEST_DATABASE"), 4);
    assert_non_null(connections);
    return connections;
}

/* ask returns the first field of a query's first row, as a number. */
static int ask(const char *sql) {
    PGresult *result = PQexec(watcher, sql);
    int value = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) ? atoi(PQgetvalue(result, 0, 0)) : -1;
    PQclear(result);
    return value;
}

static int connect_watcher(void **state) {
    (void)state;
    const char *url = getenv("TIDEMILL_TEST_DATABASE");
    if (!url) {
        fprintf(stderr, "TIDEMILL_TEST_DATABASE is not set; give the URL of a PostgreSQL to test on\n");
        return -1;
    }
    watcher = PQconnectdb(url);
    if (PQstatus(watcher) == CONNECTION_OK) return 0;
    fprintf(stderr, "%s\n", PQerrorMessage(watcher));
    return -1;
}

static int close_watcher(void **state) {
    (void)state;
    PQfinish(watcher);
    return 0;
}

/* ---- Values ---- */

static void values_come_back_as_their_types(void **state) {
    static const char *const cases[][2] = {
        { "9223372036854775807::int8", "integer 9223372036854775807" },
        { "'-9223372036854775808'::int8", "integer -9223372036854775808" },
        { "7::int2", "integer 7" },
        { "-7::int4", "integer -7" },
        { "0.1::float8", "float 0.1" },
        { "1::float8", "float 1.0" },
        { "1e300::float8", "float 1e+300" },
        { "'-0'::float8", "float -0.0" },
        { "'Infinity'::float8", "float inf" },
        { "'-Infinity'::float8", "float -inf" },
        { "0.1::float4", "float 0.1" },
        { "12345678901234567890.10::numeric", "string 12345678901234567890.10" },
        { "true", "boolean true" },
        { "false", "boolean false" },
        { "''::text", "string " },
        { "'z\xc3\xbc'::text", "string z\xc3\xbc" },
        { "'\\x00ff'::bytea", "string \\x00ff" },
        { "'{1,2}'::int[]", "string {1,2}" },
        { "date '2030-01-31'", "string 2030-01-31" },
        { "'9007199254740993'::jsonb", "integer 9007199254740993" },
        { "'\"text\"'::json", "string text" },
    };
    lib *t = *state;
    char sql[200], expected[200];
    with_pool(t, NULL, 2);
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        snprintf(sql, sizeof sql, "select %s as v", cases[i][0]);
        snprintf(expected, sizeof expected, "1: v=%s", cases[i][1]);
        ASSERT_RUN(t, PG "return show(pg.query(arg))", sql, expected);
    }
    ASSERT_RUN(t, PG "local v = pg.query(\"select 'NaN'::float8 as v\")[1].v return tostring(v ~= v)", "", "true");
    ASSERT_RUN(t,
               PG "local v = pg.query([[select '{\"a\": [1, null, 0.5]}'::jsonb as v]])[1].v "
                  "return ('%s %s %s %s'):format(v.a[1], v.a[2] == tidemill.null, v.a[3], tidemill.is_array(v.a))",
               "", "1 true 0.5 true");
    ASSERT_RUN(t, PG "local v = pg.query('select null as v, 1 as w')[1] return tostring(v.v) .. v.w", "", "nil1");
}

static void parameters_go_in_exactly(void **state) {
    static const char *const cases[][2] = {
        { "select $1::int8 as v', -9007199254740993", "1: v=integer -9007199254740993" },
        { "select $1::float8 as v', 0.1", "1: v=float 0.1" },
        { "select $1::float8 as v', -0.0", "1: v=float -0.0" },
        { "select $1::float8 as v', 1e300", "1: v=float 1e+300" },
        { "select $1::float8 as v', -math.huge", "1: v=float -inf" },
        { "select $1::bool as v', false", "1: v=boolean false" },
        { "select $1::text as v', [[it\\'s]]", "1: v=string it\\'s" },
        { "select $1::text is null as v', nil", "1: v=boolean true" },
        { "select $1::text is null as v', tidemill.null", "1: v=boolean true" },
        { "select $1::jsonb as v', 'null'", "1: v=userdata userdata: (nil)" },
        { "select $1::jsonb ->> $2 as v', { a = 9007199254740993 }, 'a'", "1: v=string 9007199254740993" },
        { "select $1::jsonb::text as v', {}", "1: v=string {}" },
        { "select $1::jsonb::text as v', tidemill.array{}", "1: v=string []" },
        { "select $1::int + $2::int as v', 1, nil, 2", NULL },
        { "select $1::int + $2 + $3 as v', 1, 2, 3", "1: v=integer 6" },
    };
    lib *t = *state;
    char script[2000];
    with_pool(t, NULL, 2);
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        snprintf(script, sizeof script, PG "return show(pg.query('%s))", cases[i][0]);
        char *text = lib_run(t, script, "");
        if (cases[i][1])
            assert_string_equal(text, cases[i][1]);
        else
            assert_non_null(strstr(text, "08P01: bind message supplies 3 parameters"));
        free(text);
    }
}

static void count_tells_what_was_changed(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    PQclear(PQexec(watcher, "drop table if exists pg_test; create table pg_test (id int primary key)"));
    ASSERT_RUN(t, PG "return show(pg.query('insert into pg_test select generate_series(1, 5)'))", "", "5: ");
    ASSERT_RUN(t, PG "return show(pg.query('delete from pg_test where id > 3 returning id'))", "",
               "2: id=integer 4; id=integer 5");
    ASSERT_RUN(t, PG "return show(pg.query('select id from pg_test where false'))", "", "0: ");
    ASSERT_RUN(t, PG "return show(pg.query('create index on pg_test (id)'))", "", "0: ");
    ASSERT_RUN(t, PG "return show(pg.query(''))", "", "0: ");
    PQclear(PQexec(watcher, "drop table pg_test"));
}

/* ---- Transactions ---- */

/* table makes the tests' table anew. */
static void table(void) {
    PQclear(PQexec(watcher, "drop table if exists pg_test_tx; create table pg_test_tx (id int primary key, next int "
                            "references pg_test_tx deferrable initially deferred)"));
}

static int rows_kept(void) {
    return ask("select count(*) from pg_test_tx");
}

static void a_transaction_takes_effect_as_a_whole(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    table();
    ASSERT_RUN(t,
               PG "local a, b = pg.transaction(function(tx) tx:query('insert into pg_test_tx values (1)') "
                  "local pid = tx:query('select pg_backend_pid() as pid')[1].pid "
                  "tx:query('insert into pg_test_tx values ($1)', 2) "
                  "return pid == tx:query('select pg_backend_pid() as pid')[1].pid, "
                  "show(tx:query('select count(*) as n from pg_test_tx')) end) return tostring(a) .. b",
               "", "true1: n=integer 2");
    assert_int_equal(rows_kept(), 2);
    ASSERT_RUN(t, PG "return tostring(pg.transaction(function(tx) tx:query('delete from pg_test_tx') end))", "",
               "true");
    assert_int_equal(rows_kept(), 0);
    ASSERT_RUN(t, PG "return tostring(pg.transaction(function(tx) return nil end))", "", "true");
    ASSERT_RUN(t, PG "return select('#', pg.transaction(function(tx) return 1, nil, 3 end))", "", "3");
}

static void what_fails_is_rolled_back(void **state) {
    static const char *const cases[][2] = {
        { "error('oops', 0)", "false oops nil nil" },
        { "error({})", "false table nil nil" },
        { "return nil, 'not now', 7", "true nil not now 7" },
        { "return false", "true false nil nil" },
        { "return false, 'x'", "true false x nil" },
        { "tx:query('select 1/0') return 'fine'",
          "true nil the transaction was rolled back, since a statement in it failed: division by zero 22012" },
        { "tx:query('select 1/0') tx:query('select 1') return 'fine'",
          "true nil the transaction was rolled back, since a statement in it failed: division by zero 22012" },
        { "return tx:query('select 1/0')", "true nil division by zero 22012" },
        { "error((select(2, tx:query('select 1/0'))), 0)", "false division by zero nil nil" },
        { "tx:query('update pg_test_tx set next = 5')",
          "true nil insert or update on table \"pg_test_tx\" violates foreign key constraint \"pg_test_tx_next_fkey\" "
          "23503" },
        { "local _, m, c = tx:query('commit') return nil, m, c",
          "true nil the statement ended the transaction, which ends with its function only state" },
        { "tx:query('rollback') return 1",
          "true nil the transaction was rolled back, since a statement in it failed: the statement ended the "
          "transaction, which ends with its function only state" },
        { "return pg.query('select 1')",
          "false tidemill.pg.query: a transaction is open; use tx:query, or end it first nil nil" },
        { "return pg.transaction(print)",
          "false tidemill.pg.transaction: a transaction is open; end it first nil nil" },
        { "return tx:query('select $1', print)",
          "true nil parameter $1: a function cannot be sent; give a string, number, boolean, table or nil invalid" },
        { "coroutine.wrap(function() error('deep', 0) end)()", "false deep nil nil" },
        { "coroutine.yield()", "false attempt to yield from outside a coroutine nil nil" },
        { "tx:query('copy pg_test_tx from stdin') return 1",
          "true nil the transaction was rolled back, since a statement in it failed: copy to or from the client is not "
          "possible here invalid" },
    };
    lib *t = *state;
    char script[2500];
    with_pool(t, NULL, 1);
    table();
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        bool commits = strstr(cases[i][0], "'commit'") != NULL;
        snprintf(script, sizeof script,
                 PG "local ok, a, b, c = pcall(pg.transaction, function(tx) assert(tx:query('insert into pg_test_tx "
                    "values (1)')) %s end) if type(a) == 'table' then a = 'table' end if not ok then a = "
                    "a:gsub('^.-:%%d+: ', '') end "
                    "return ('%%s %%s %%s %%s'):format(ok, a, b, c)",
                 cases[i][0]);
        ASSERT_RUN(t, script, "", cases[i][1]);
        assert_int_equal(rows_kept(), commits);
        if (commits) table();
        ASSERT_RUN(t, PG "return show(pg.query('select 1 as v'))", "", "1: v=integer 1");
    }
}

static void a_savepoint_saves_the_rest(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    table();
    ASSERT_RUN(t,
               PG "local pid = pg.query('select pg_backend_pid() as pid')[1].pid "
                  "local r = pg.transaction(function(tx) tx:query('insert into pg_test_tx values (1)') "
                  "tx:query('savepoint a') tx:query('insert into pg_test_tx values (1)') tx:query('rollback to a') "
                  "tx:query('insert into pg_test_tx values (2)') return 'kept' end) "
                  "return r .. tostring(pid == pg.query('select pg_backend_pid() as pid')[1].pid)",
               "", "kepttrue");
    assert_int_equal(rows_kept(), 2);
}

static void options_of_a_transaction(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    ASSERT_RUN(t,
               PG "return pg.transaction(function(tx) return tx:query('show transaction_isolation')[1]"
                  ".transaction_isolation .. tx:query('show transaction_read_only')[1].transaction_read_only end, "
                  "{ isolation = 'serializable', read_only = true })",
               "", "serializableon");
    ASSERT_RUN(t, PG "return select(2, pcall(pg.transaction, print, { isolation = 'high' }))", "",
               "tidemill.pg.transaction: isolation: high is not allowed; give read committed, repeatable read or "
               "serializable");
    ASSERT_RUN(t, PG "return select(2, pcall(pg.transaction, print, { x = 1 }))", "",
               "tidemill.pg.transaction: x: there is no such option; give isolation, or read_only = true");
}

static void nothing_of_a_transactions_session_reaches_the_next(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    ASSERT_RUN(t,
               PG "pg.transaction(function(tx) tx:query('set statement_timeout = 12345') end) "
                  "return show(pg.query('show statement_timeout'))",
               "", "1: statement_timeout=string 0");
    ASSERT_RUN(t,
               PG "local kept pg.transaction(function(tx) kept = tx end) "
                  "return select(2, pcall(kept.query, kept, 'select 1'))",
               "", "tx:query: this transaction has ended");
}

static void an_ending_attempt_rolls_back(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    table();
    /* a <close> variable of the caller's runs when the rollback is done */
    ASSERT_RUN(t,
               PG "local n pcall(function() local c <close> = setmetatable({}, { __close = function() "
                  "n = pg.query('select count(*) as n from pg_test_tx')[1].n end }) "
                  "pg.transaction(function(tx) tx:query('insert into pg_test_tx values (1)') error('x') end) end) "
                  "return n",
               "", "0");
}

static void a_transaction_whose_connection_is_lost(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    table();
    static const char script[] =
        PG "local _, m, c = pg.transaction(function(tx) tx:query('insert into pg_test_tx values (1)') "
           "tx:query('select pg_terminate_backend(pg_backend_pid())') return tx:query('select 1') and 'fine' end) "
           "return tostring(c) .. ': ' .. tostring(m)";
    char *text = lib_run(t, script, "");
    assert_non_null(strstr(text, "connect: "));
    assert_non_null(strstr(text, "the connection was lost, and the transaction was rolled back"));
    free(text);
    assert_int_equal(rows_kept(), 0);
    ASSERT_RUN(t, PG "return pg.transaction(function(tx) return tx:query('select 1 as v')[1].v end)", "", "1");
    /* an idle connection that was closed is noticed before anything was done */
    assert_int_equal(ask("select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = "
                         "'tidemill' and pid <> pg_backend_pid()"),
                     1);
    ASSERT_RUN(t, PG "return pg.transaction(function(tx) return tx:query('select 1 as v')[1].v end)", "", "1");
}

static void a_dropped_job_rolls_back(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    table();
    static const char *const stuck[] = {
        PG "pg.transaction(function(tx) tx:query('insert into pg_test_tx values (1)') "
           "tx:query('select pg_sleep(1000) /* tx */') end)",
        PG "pg.transaction(function(tx) tx:query('insert into pg_test_tx values (1)') "
           "require 'tidemill.process'.run{ 'sleep', '1000' } end)",
    };
    for (size_t i = 0; i < TD_COUNT(stuck); i++) {
        job *j = job_start(t, stuck[i], "", 0);
        EVENTUALLY(ask("select count(*) from pg_locks where relation = 'pg_test_tx'::regclass and mode = "
                       "'RowExclusiveLock'") == 1);
        job *waiting = job_start(t, PG "return show(pg.query('select 1 as v'))", "", 0);
        job_drop(j);
        job_wait(waiting);
        assert_string_equal(waiting->text, "1: v=integer 1");
        job_free(waiting);
        EVENTUALLY(ask("select count(*) from pg_locks where relation = 'pg_test_tx'::regclass") == 0);
        assert_int_equal(rows_kept(), 0);
    }
}

/* ---- Errors ---- */

static void the_database_says_what_is_wrong(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    ASSERT_RUN(t, PG "return show(pg.query('select 1/0'))", "", "22012: division by zero");
    ASSERT_RUN(t, PG "return show(pg.query('selct'))", "", "42601: syntax error at or near \"selct\"");
    ASSERT_RUN(t, PG "return show(pg.query('select 1; select 2'))", "",
               "42601: cannot insert multiple commands into a prepared statement");
    ASSERT_RUN(t, PG "return show(pg.query('select 1/(3 - v) as v from generate_series(1, 5) v'))", "",
               "22012: division by zero");
    ASSERT_RUN(t, PG "return show(pg.query('copy (select 1) to stdout'))", "",
               "invalid: copy to or from the client is not possible here");
    ASSERT_RUN(t, PG "return show(pg.query('select $1', 'a\\0'))", "",
               "invalid: parameter $1: not valid UTF-8 without NUL; give bytea as '\\x' and hexadecimal digits");
    ASSERT_RUN(t, PG "return show(pg.query('select $1, $2', 1, print))", "",
               "invalid: parameter $2: a function cannot be sent; give a string, number, boolean, table or nil");
    ASSERT_RUN(t, PG "return show(pg.query('select $1', { a = { 0/0 } }))", "",
               "invalid: parameter $1.a[1]: NaN has no JSON form");
    ASSERT_RUN(t, PG "return show(pg.query('select 2 as v'))", "", "1: v=integer 2");
}

static void an_error_leaves_the_connection_in_use(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    ASSERT_RUN(t,
               PG "local a = pg.query('select pg_backend_pid() as pid')[1].pid; pg.query('select 1/0') "
                  "return tostring(a == pg.query('select pg_backend_pid() as pid')[1].pid)",
               "", "true");
}

static void nothing_of_a_session_reaches_the_next_query(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    ASSERT_RUN(
        t, PG "return show(pg.query('begin'))", "",
        "state: the statement left a transaction open, which was rolled back: each statement is a transaction of its "
        "own here; put what belongs together into a transaction's function");
    ASSERT_RUN(t, PG "pg.query('set statement_timeout = 12345') return show(pg.query('show statement_timeout'))", "",
               "1: statement_timeout=string 0");
    ASSERT_RUN(t,
               PG "pg.query('select 1 as a into temp pg_test_t') "
                  "return show(pg.query(\"select to_regclass('pg_test_t') is null as v\"))",
               "", "1: v=boolean true");
    EVENTUALLY(ask("select count(*) from pg_stat_activity where state like 'idle in%'") == 0);
}

static void without_a_database_it_says_so(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, PG "return show(pg.query('select 1'))", "", "state: there is no database to ask on this thread");
    with_pool(t, "postgresql:///x?host=/no/such/folder", 1);
    char *text = lib_run(t, PG "return show(pg.query('select 1'))", "");
    assert_non_null(strstr(text, "connect: the database cannot be reached: connection to server on socket"));
    free(text);
}

static void outside_a_job_it_raises(void **state) {
    (void)state;
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_requiref(L, "tidemill.pg", td_pg_open, 1);
    lua_getfield(L, -1, "query");
    lua_pushstring(L, "select 1");
    assert_int_equal(lua_pcall(L, 1, 1, 0), LUA_ERRRUN);
    assert_string_equal(lua_tostring(L, -1), "tidemill.pg.query: can only be called while a job runs");
    lua_close(L);
}

/* ---- Connections that are lost ---- */

static void a_lost_connection_is_made_anew(void **state) {
    lib *t = *state;
    char sql[100];
    with_pool(t, NULL, 1);
    char *pid = lib_run(t, PG "return pg.query('select pg_backend_pid() as pid')[1].pid", "");
    snprintf(sql, sizeof sql, "select pg_terminate_backend(%s)::int", pid);
    assert_int_equal(ask(sql), 1);
    snprintf(sql, sizeof sql, "select count(*) from pg_stat_activity where pid = %s", pid);
    EVENTUALLY(ask(sql) == 0);
    ASSERT_RUN(t, PG "return show(pg.query('select 1 as v'))", "", "1: v=integer 1");
    free(pid);
}

static void a_connection_lost_in_a_query_leaves_its_outcome_unknown(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    job *j = job_start(t, PG "return show(pg.query('select pg_sleep(1000) /* lost */'))", "", 0);
    EVENTUALLY(ask("select count(pg_terminate_backend(pid)) from pg_stat_activity where query like '%/* lost */%' and "
                   "wait_event = 'PgSleep'") == 1);
    job_wait(j);
    assert_non_null(strstr(j->text, "whether the statement took effect is unknown"));
    job_free(j);
    ASSERT_RUN(t, PG "return show(pg.query('select 1 as v'))", "", "1: v=integer 1");
}

/* ---- Jobs that are stopped ---- */

#define SLEEPING "select count(*) from pg_stat_activity where query like '%%/* %s */%%' and wait_event = 'PgSleep'"

static void a_dropped_job_cancels_its_query(void **state) {
    lib *t = *state;
    char sql[200];
    snprintf(sql, sizeof sql, SLEEPING, "dropped");
    with_pool(t, NULL, 1);
    job *j = job_start(t, PG "pg.query('select pg_sleep(1000) /* dropped */')", "", 0);
    job *waiting = job_start(t, PG "return show(pg.query('select 1 as v'))", "", 0);
    job *hopeless = job_start(t, PG "pg.query('select 2')", "", 0);
    EVENTUALLY(ask(sql) == 1);
    job_drop(hopeless);
    assert_false(waiting->done);
    job_drop(j);
    EVENTUALLY(ask(sql) == 0);
    job_wait(waiting);
    assert_string_equal(waiting->text, "1: v=integer 1");
    job_free(waiting);
}

static void a_thread_that_stops_cancels_its_queries(void **state) {
    lib *t = *state;
    char sql[200];
    snprintf(sql, sizeof sql, SLEEPING, "stopped");
    with_pool(t, NULL, 2);
    job *a = job_start(t, PG "pg.query('select pg_sleep(1000) /* stopped */')", "", 0);
    job *b = job_start(t, PG "pg.query('select pg_sleep(1000) /* stopped */')", "", 0);
    job *c = job_start(t, PG "pg.query('select 1')", "", 0);
    EVENTUALLY(ask(sql) == 2);
    td_thread_stop(t->thread);
    t->thread = NULL;
    EVENTUALLY(ask(sql) == 0);
    job_free(a);
    job_free(b);
    job_free(c);
}

static void nothing(void *arg) {
    (void)arg;
}

static void jobs_are_dropped_at_every_moment(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 2);
    int before = open_files();
    for (int i = 0; i < MANY; i++) {
        job *j = job_start(t, PG "while true do pg.query('set work_mem = 1000') pg.query('select 1') end", "", 0);
        for (int k = 0; k < i % 20; k++) lib_on_thread(t, nothing, NULL);
        job_drop(j);
    }
    ASSERT_RUN(t, PG "return show(pg.query('select 1 as v'))", "", "1: v=integer 1");
    EVENTUALLY(open_files() <= before + 2);
}

static void running_out_of_lua_memory_loses_nothing(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    job *j = job_start_limited(t, PG "pg.query('select generate_series(1, 100000000) as v')", "", 0, 4 << 20);
    job_wait(j);
    assert_true(j->raised);
    assert_string_equal(j->text, "not enough memory");
    job_free(j);
    ASSERT_RUN(t, PG "return show(pg.query('select 1 as v'))", "", "1: v=integer 1");
}

static void each_lua_allocation_may_fail(void **state) {
    lib *t = *state;
    with_pool(t, NULL, 1);
    lib_fail_each_allocation(t,
                             PG
                             "fail_after(arg) local r = pg.query(\"select $1::jsonb as a, $2::text as b\", { 1 }, 'x') "
                             "fail_after(-1) return r[1].a[1] .. r[1].b .. r.count",
                             "1x1", 5);
}

/* ---- Many ---- */

static void more_queries_than_connections_take_turns_in_order(void **state) {
    static const char script[] = PG "return pg.query([[insert into pg_test_log values (default, $1) "
                                    "returning pg_backend_pid() as pid]], number)[1].pid";
    lib *t = *state;
    job *jobs[MANY];
    PQclear(PQexec(watcher, "drop table if exists pg_test_log; create table pg_test_log (at serial, number int)"));
    with_pool(t, NULL, 1);
    for (int i = 0; i < MANY; i++) jobs[i] = job_start(t, script, "", i);
    for (int i = 0; i < MANY; i++) {
        job_wait(jobs[i]);
        assert_string_equal(jobs[i]->text, jobs[0]->text); /* one connection */
    }
    for (int i = 0; i < MANY; i++) job_free(jobs[i]);
    assert_int_equal(ask("select count(*) from pg_test_log where at = number + 1"), MANY);
    PQclear(PQexec(watcher, "drop table pg_test_log"));
}

/* Each of them waits for a lock that is given up only when all of them wait. */
static void queries_wait_at_the_same_time_on_one_thread(void **state) {
    enum { TOGETHER = 20 };
    lib *t = *state;
    job *jobs[TOGETHER];
    with_pool(t, NULL, TOGETHER);
    assert_int_equal(ask("select 1 from pg_advisory_lock(7111)"), 1);
    for (int i = 0; i < TOGETHER; i++) {
        jobs[i] = job_start(t,
                            PG "return show(pg.query('select $1::int as v from pg_advisory_xact_lock_shared(7111)', "
                               "number))",
                            "", i);
    }
    EVENTUALLY(ask("select count(*) from pg_locks where objid = 7111 and not granted") == TOGETHER);
    assert_int_equal(ask("select 1 from pg_advisory_unlock(7111)"), 1);
    for (int i = 0; i < TOGETHER; i++) {
        char expected[40];
        snprintf(expected, sizeof expected, "1: v=integer %d", i);
        job_wait(jobs[i]);
        assert_string_equal(jobs[i]->text, expected);
        job_free(jobs[i]);
    }
}

/* ---- One pool for all threads ---- */

/* Two threads, and more jobs on each than there are connections: 4 at a time, in order, whatever their thread. */
static void threads_share_their_connections(void **state) {
    enum { EACH = 30 };
    lib *t = *state, other = *t;
    job *jobs[2 * EACH];
    tidemill_error err;
    assert_int_equal(td_thread_start(&other.thread, "other", &err), 0);
    pthread_mutex_init(&other.mutex, NULL);
    pthread_cond_init(&other.changed, NULL);
    td_connections *shared = shared_pool();
    join(t, shared);
    join(&other, shared);
    td_connections_unref(shared);
    assert_int_equal(ask("select 1 from pg_advisory_lock(7112)"), 1);
    for (int i = 0; i < 2 * EACH; i++) {
        jobs[i] = job_start(i % 2 ? t : &other,
                            PG "return pg.query('select pg_backend_pid() as pid, "
                               "pg_advisory_xact_lock_shared(7112)')[1].pid",
                            "", i);
    }
    EVENTUALLY(ask("select count(*) from pg_locks where objid = 7112 and not granted") == 4);
    for (int i = 0; i < 4; i++) job_drop(jobs[i + 20]), jobs[i + 20] = NULL; /* waiting for a turn, or for the lock */
    EVENTUALLY(ask("select count(*) from pg_locks where objid = 7112 and not granted") == 4);
    assert_int_equal(ask("select 1 from pg_advisory_unlock(7112)"), 1);
    char *pids[8] = { NULL };
    size_t count = 0;
    for (int i = 0; i < 2 * EACH; i++) {
        size_t k = 0;
        if (!jobs[i]) continue;
        job_wait(jobs[i]);
        assert_false(jobs[i]->raised);
        while (k < count && strcmp(pids[k], jobs[i]->text) != 0) k++;
        if (k == count && count < TD_COUNT(pids)) pids[count++] = strdup(jobs[i]->text);
        job_free(jobs[i]);
    }
    assert_in_range(count, 1, 4);
    while (count > 0) free(pids[--count]);

    /* A thread that stops while its fibers wait leaves its turns to the other. */
    job *stuck[8];
    for (int i = 0; i < 8; i++)
        stuck[i] = job_start(&other, PG "pg.query('select pg_sleep(1000) /* shared */')", "", i);
    EVENTUALLY(ask("select count(*) from pg_stat_activity where query like '%/* shared */%' and wait_event = "
                   "'PgSleep'") == 4);
    job *waiting = job_start(t, PG "return show(pg.query('select 1 as v'))", "", 0);
    td_thread_stop(other.thread);
    other.thread = NULL;
    job_wait(waiting);
    assert_string_equal(waiting->text, "1: v=integer 1");
    job_free(waiting);
    for (int i = 0; i < 8; i++) job_free(stuck[i]);
    pthread_mutex_destroy(&other.mutex);
    pthread_cond_destroy(&other.changed);
}

/* Jobs come and go on three threads for a while; the turns are all there afterwards. */
static void turns_are_not_lost_between_threads(void **state) {
    enum { THREADS = 3, ROUNDS = 40, EACH = 6 };
    lib *t = *state, others[THREADS];
    tidemill_error err;
    td_connections *shared = shared_pool();
    for (int k = 0; k < THREADS; k++) {
        others[k] = *t;
        pthread_mutex_init(&others[k].mutex, NULL);
        pthread_cond_init(&others[k].changed, NULL);
        assert_int_equal(td_thread_start(&others[k].thread, "other", &err), 0);
        join(&others[k], shared);
    }
    join(t, shared);
    td_connections_unref(shared);
    for (int round = 0; round < ROUNDS; round++) {
        job *jobs[THREADS * EACH];
        for (int i = 0; i < THREADS * EACH; i++) {
            jobs[i] = job_start(&others[i % THREADS],
                                PG "for i = 1, 3 do pg.query('select 1') pg.transaction(function(tx) "
                                   "tx:query('select 2') end) end while number % 3 == 0 do pg.query('select 3') end "
                                   "return 'done'",
                                "", i);
        }
        for (int i = 0; i < THREADS * EACH; i++) {
            if (i % 3 == 0) {
                job_drop(jobs[i]);
                continue;
            }
            job_wait(jobs[i]);
            assert_string_equal(jobs[i]->text, "done");
            job_free(jobs[i]);
        }
    }
    for (int k = 0; k < THREADS; k++) {
        td_thread_stop(others[k].thread);
        pthread_mutex_destroy(&others[k].mutex);
        pthread_cond_destroy(&others[k].changed);
    }
    assert_int_equal(ask("select 1 from pg_advisory_lock(7113)"), 1);
    job *last[4];
    for (int i = 0; i < 4; i++)
        last[i] =
            job_start(t, PG "return show(pg.query('select 1 as v from pg_advisory_xact_lock_shared(7113)'))", "", i);
    EVENTUALLY(ask("select count(*) from pg_locks where objid = 7113 and not granted") == 4);
    assert_int_equal(ask("select 1 from pg_advisory_unlock(7113)"), 1);
    for (int i = 0; i < 4; i++) {
        job_wait(last[i]);
        assert_string_equal(last[i]->text, "1: v=integer 1");
        job_free(last[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LIB_TEST(values_come_back_as_their_types),
        LIB_TEST(parameters_go_in_exactly),
        LIB_TEST(count_tells_what_was_changed),
        LIB_TEST(a_transaction_takes_effect_as_a_whole),
        LIB_TEST(what_fails_is_rolled_back),
        LIB_TEST(a_savepoint_saves_the_rest),
        LIB_TEST(options_of_a_transaction),
        LIB_TEST(nothing_of_a_transactions_session_reaches_the_next),
        LIB_TEST(an_ending_attempt_rolls_back),
        LIB_TEST(a_transaction_whose_connection_is_lost),
        LIB_TEST(a_dropped_job_rolls_back),
        LIB_TEST(threads_share_their_connections),
        LIB_TEST(turns_are_not_lost_between_threads),
        LIB_TEST(the_database_says_what_is_wrong),
        LIB_TEST(an_error_leaves_the_connection_in_use),
        LIB_TEST(nothing_of_a_session_reaches_the_next_query),
        LIB_TEST(without_a_database_it_says_so),
        LIB_TEST(outside_a_job_it_raises),
        LIB_TEST(a_lost_connection_is_made_anew),
        LIB_TEST(a_connection_lost_in_a_query_leaves_its_outcome_unknown),
        LIB_TEST(a_dropped_job_cancels_its_query),
        LIB_TEST(a_thread_that_stops_cancels_its_queries),
        LIB_TEST(jobs_are_dropped_at_every_moment),
        LIB_TEST(running_out_of_lua_memory_loses_nothing),
        LIB_TEST(each_lua_allocation_may_fail),
        LIB_TEST(more_queries_than_connections_take_turns_in_order),
        LIB_TEST(queries_wait_at_the_same_time_on_one_thread),
    };
    return cmocka_run_group_tests(tests, connect_watcher, close_watcher);
}
