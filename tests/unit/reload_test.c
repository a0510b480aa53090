/* reload_test.c: tidemill_runtime_reload, tidemill_runtime_ask_reload and tidemill_check, as a program calls them. */
#include "client_fixture.h"

#include <pthread.h>

static char folder[64];
static tidemill_runtime *runtime;

/* ---- The handlers ---- */

static void write_handler(const char *text) {
    char path[128];
    snprintf(path, sizeof path, "%s/answers.lua", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void write_answer(int value) {
    char text[160];
    snprintf(text, sizeof text, "return { name = function() return 'answers' end, handle = function() return %d end }",
             value);
    write_handler(text);
}

/* answer returns the result of a job. */
static int answer(void) {
    char condition[128];
    tidemill_error err;
    tidemill_job job;
    assert_int_equal(tidemill_enqueue(client, "answers", NULL, NULL, &job, &err), 0);
    snprintf(condition, sizeof condition, "exists (select from tidemill.jobs where id = %lld and state = 'completed')",
             (long long)job.id);
    wait_until(condition);
    return atoi(ask_id("select result from tidemill.jobs where id = %lld", job.id));
}

/* ---- The log ---- */

static _Atomic int records_of_nothing;

static void on_log(void *userdata, const tidemill_record *record) {
    (void)userdata;
    if (strncmp(record->message, "nothing to reload", 17) == 0) records_of_nothing++;
}

/* ---- Set-up ---- */

static int setup(void **state) {
    (void)state;
    tidemill_config config = TIDEMILL_CONFIG;
    tidemill_error err;
    strcpy(folder, "/tmp/tmreloadXXXXXX");
    if (!mkdtemp(folder)) return -1;
    write_answer(1);
    config.database = database_url;
    config.handlers = folder;
    config.threads = 2;
    config.load_max_ms = 500;
    config.log = on_log;
    return tidemill_runtime_start(&config, &runtime, &err);
}

static int teardown(void **state) {
    (void)state;
    char path[128];
    tidemill_runtime_stop(runtime, NULL);
    snprintf(path, sizeof path, "%s/answers.lua", folder);
    unlink(path);
    return rmdir(folder);
}

/* ---- Tests ---- */

static void a_reload_is_in_effect_when_it_returns(void **state) {
    (void)state;
    tidemill_error err;
    assert_int_equal(answer(), 1);
    for (int value = 2; value < 10; value++) {
        write_answer(value);
        assert_int_equal(tidemill_runtime_reload(runtime, &err), 0);
        assert_int_equal(answer(), value);
    }
    assert_string_equal(ask("select max(generation) from tidemill.process where stopped_at is null"), "9");
}

static void files_are_not_watched_unless_that_is_asked_for(void **state) {
    (void)state;
    tidemill_error err;
    write_answer(2);
    assert_int_equal(tidemill_runtime_ask_reload(runtime, &err), 0);
    wait_until("(select max(generation) = 2 from tidemill.process where stopped_at is null)");
    write_answer(3);
    assert_int_equal(answer(), 2);
    assert_int_equal(tidemill_runtime_ask_reload(runtime, &err), 0);
    wait_until("(select max(generation) = 3 from tidemill.process where stopped_at is null)");
    assert_int_equal(answer(), 3);
    assert_int_equal(records_of_nothing, 0);
    assert_int_equal(tidemill_runtime_reload(runtime, &err), 0);
    assert_int_equal(records_of_nothing, 1);
}

static void a_broken_reload_says_why_and_changes_nothing(void **state) {
    (void)state;
    tidemill_error err;
    write_handler("\nerror 'no luck'");
    assert_int_equal(tidemill_runtime_reload(runtime, &err), TIDEMILL_EHANDLER);
    assert_non_null(strstr(err.message, "answers.lua:2: no luck"));
    assert_int_equal(tidemill_check(folder, NULL, &err), TIDEMILL_EHANDLER);
    assert_non_null(strstr(err.message, "answers.lua:2: no luck"));
    assert_int_equal(answer(), 1);
    write_handler("while true do end");
    assert_int_equal(tidemill_runtime_reload(runtime, &err), TIDEMILL_EHANDLER);
    assert_non_null(strstr(err.message, "did not finish loading in time"));
    assert_int_equal(answer(), 1);
    write_answer(2);
    size_t tasks = 0;
    assert_int_equal(tidemill_check(folder, &tasks, &err), 0);
    assert_int_equal(tasks, 1);
    assert_int_equal(tidemill_runtime_reload(runtime, &err), 0);
    assert_int_equal(answer(), 2);
}

static void *reload_in_thread(void *arg) {
    return (void *)(intptr_t)tidemill_runtime_reload(arg, NULL);
}

static void many_callers_are_all_answered(void **state) {
    (void)state;
    pthread_t threads[16];
    write_answer(2);
    for (size_t i = 0; i < TD_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reload_in_thread, runtime), 0);
    for (size_t i = 0; i < TD_COUNT(threads); i++) {
        void *rc;
        pthread_join(threads[i], &rc);
        assert_int_equal((intptr_t)rc, 0);
    }
    assert_int_equal(answer(), 2);
}

static void a_bound_on_loading_that_is_not_allowed_is_refused(void **state) {
    (void)state;
    tidemill_config config = TIDEMILL_CONFIG;
    tidemill_runtime *none = NULL;
    tidemill_error err;
    config.database = database_url;
    config.handlers = "handlers";
    config.load_max_ms = 0;
    assert_int_equal(tidemill_runtime_start(&config, &none, &err), TIDEMILL_EINVALID);
    assert_string_equal(err.field, "load_max_ms");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_reload_is_in_effect_when_it_returns, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_not_watched_unless_that_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(a_broken_reload_says_why_and_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(many_callers_are_all_answered, setup, teardown),
        cmocka_unit_test(a_bound_on_loading_that_is_not_allowed_is_refused),
    };
    return cmocka_run_group_tests(tests, suite_setup, suite_teardown);
}
