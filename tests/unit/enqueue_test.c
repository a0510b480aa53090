/* enqueue_test.c: tidemill_enqueue and tidemill_enqueue_many: options, arguments, checks; each check also inside a
   caller's transaction, which it leaves as it was. What the database checks is complete in spec/enqueue_sql_spec.lua.
 */
#include "client_fixture.h"

#define HUNDRED                                                                                                        \
    "gggggggggggggggggggggggggggggggggggggggggggggggggg"                                                               \
    "gggggggggggggggggggggggggggggggggggggggggggggggggg"
#define YEAR_MS INT64_C(31557600000)

static int64_t enqueued(const char *task, const char *args, const tidemill_options *options) {
    tidemill_job job = { 0 };
    tidemill_error err = { 0 };
    if (tidemill_enqueue(client, task, args, options, &job, &err) < 0) fail_msg("%s", err.message);
    assert_false(job.duplicate);
    return job.id;
}

/* ---- What is stored ---- */

#define JOB                                                                                                            \
    "select concat_ws(' ', task, queue, state, priority, max_attempts, args, tags, unique_key, "                       \
    "extract(epoch from scheduled_at - enqueued_at)::float8) from tidemill.jobs where id = %lld"

static void the_initializer_is_what_the_header_says(void **state) {
    (void)state;
    tidemill_options o = TIDEMILL_OPTIONS;
    assert_true(o.schedule_in_ms == TIDEMILL_UNSET && o.schedule_at_us == TIDEMILL_UNSET);
    assert_true(o.unique_for_ms == TIDEMILL_UNSET && !o.unique_key && !o.queue && !o.tags && o.tags_count == 0);
    assert_true(o.max_attempts == TIDEMILL_UNSET_INT && o.priority == TIDEMILL_UNSET_INT);
}

static void nothing_given_is_the_defaults(void **state) {
    (void)state;
    tidemill_options none = TIDEMILL_OPTIONS;
    assert_string_equal(ask_id(JOB, enqueued("plain", NULL, NULL)), "plain default available 1 25 {} {} 0");
    assert_string_equal(ask_id(JOB, enqueued("plain", "{}", &none)), "plain default available 1 25 {} {} 0");
}

static void every_option_is_stored(void **state) {
    (void)state;
    const char *const tags[] = { "a", "b \"c\" \\" };
    tidemill_options o = TIDEMILL_OPTIONS;
    o.schedule_in_ms = 90500;
    o.queue = "fast";
    o.max_attempts = 1000;
    o.unique_for_ms = 3600000;
    o.unique_key = "k1";
    o.priority = 0;
    o.tags = tags;
    o.tags_count = 2;
    assert_string_equal(ask_id(JOB, enqueued("named", " \n{\"b\": 1, \"a\": [null]}", &o)),
                        "named fast scheduled 0 1000 {\"a\": [null], \"b\": 1} {a,\"b \\\"c\\\" \\\\\"} k1 90.5");
}

static void a_time_is_microseconds_since_1970(void **state) {
    (void)state;
    tidemill_options o = TIDEMILL_OPTIONS;
    o.schedule_at_us = INT64_C(4076668800000001);
    int64_t id = enqueued("at", NULL, &o);
    assert_string_equal(ask_id("select scheduled_at at time zone 'UTC' from tidemill.jobs where id = %lld", id),
                        "2099-03-08 16:00:00.000001");
    const int64_t past[] = { 0, -1, INT64_C(-62135596800000000) };
    for (size_t i = 0; i < TD_COUNT(past); i++) {
        o.schedule_at_us = past[i];
        assert_string_equal(ask_id(JOB, enqueued("past", NULL, &o)), "past default available 1 25 {} {} 0");
    }
}

static void every_option_may_be_at_its_bounds(void **state) {
    (void)state;
    const char *tags[20];
    for (size_t i = 0; i < TD_COUNT(tags); i++) tags[i] = HUNDRED;
    tidemill_options o = TIDEMILL_OPTIONS;
    o.schedule_in_ms = 100 * YEAR_MS;
    o.queue = HUNDRED;
    o.max_attempts = 1;
    o.unique_for_ms = 10 * YEAR_MS;
    o.unique_key = HUNDRED HUNDRED;
    o.priority = 100;
    o.tags = tags;
    o.tags_count = 20;
    int64_t id = enqueued(HUNDRED, NULL, &o);
    assert_string_equal(ask_id("select concat_ws(' ', length(task), length(queue), priority, max_attempts, "
                               "cardinality(tags), length(unique_key), scheduled_at - enqueued_at) from tidemill.jobs "
                               "where id = %lld",
                               id),
                        "100 100 100 1 20 200 36525 days");
    o = (tidemill_options)TIDEMILL_OPTIONS;
    o.schedule_in_ms = 0;
    o.unique_for_ms = 1;
    enqueued("least", NULL, &o);
}

static void what_is_not_given_is_the_declarations(void **state) {
    (void)state;
    run_sql(watcher,
            "select tidemill.publish(tidemill.start_process('played'), '[{\"name\": \"declared\", \"queue\": \"slow\", "
            "\"priority\": 7, \"max_attempts\": 3, \"tags\": [\"t\"], \"unique_for_ms\": 3600000, \"args\": "
            "[{\"name\": \"s\", \"type\": \"string\", \"optional\": false}]}]')");
    int64_t id = enqueued("declared", "{\"s\": \"\"}", NULL);
    assert_string_equal(ask_id(JOB, id), "declared slow available 7 3 {\"s\": \"\"} {t} 0");
    tidemill_job job;
    tidemill_error err;
    assert_int_equal(tidemill_enqueue(client, "declared", "{\"s\": \"\"}", NULL, &job, &err), 0);
    assert_true(job.duplicate && job.id == id);
    tidemill_options o = { .schedule_in_ms = TIDEMILL_UNSET,
                           .schedule_at_us = TIDEMILL_UNSET,
                           .unique_for_ms = TIDEMILL_UNSET,
                           .queue = "q",
                           .priority = 1,
                           .max_attempts = 25,
                           .tags = (const char *const[]){ NULL } };
    assert_string_equal(ask_id(JOB, enqueued("declared", "{\"s\": \"x\"}", &o)),
                        "declared q available 1 25 {\"s\": \"x\"} {} 0");
    assert_int_equal(tidemill_enqueue(client, "declared", "{\"s\": 1}", NULL, &job, &err), TIDEMILL_EINVALID);
    assert_string_equal(err.field, "args.s");
}

static void a_duplicate_is_the_job_that_stands(void **state) {
    (void)state;
    tidemill_options o = TIDEMILL_OPTIONS;
    tidemill_job job, jobs[3];
    o.unique_key = "k";
    int64_t id = enqueued("unique", "{\"n\": 1}", &o);
    assert_int_equal(tidemill_enqueue(client, "unique", "{\"n\": 2}", &o, &job, NULL), 0);
    assert_true(job.duplicate && job.id == id);
    o.unique_key = NULL;
    o.unique_for_ms = 3660000;
    id = enqueued("unique", "{\"a\": 1, \"b\": 2}", &o);
    run_sql(watcher, "update tidemill.unique_job set enqueued_at = enqueued_at - interval '1 hour' "
                     "where job = (select max(id) from tidemill.jobs)");
    const char *const args[] = { "{\"c\": 1}", "{\"b\": 2, \"a\": 1}", "{\"c\": 1}" };
    assert_int_equal(tidemill_enqueue_many(client, "unique", args, 3, &o, jobs, NULL), 0);
    assert_true(!jobs[0].duplicate && jobs[1].duplicate && jobs[2].duplicate);
    assert_true(jobs[1].id == id && jobs[2].id == jobs[0].id);
    o.unique_for_ms = 3599999;
    enqueued("unique", "{\"b\": 2, \"a\": 1}", &o);
}

static void arguments_cross_unchanged(void **state) {
    (void)state;
    static const char *const values[] = {
        "9007199254740993",     "-9223372036854775808", "0.1", "1.0", "\"\"", "[]", "{}", "null", "true",
        "\"\xF0\x9F\x98\x80\"", "\"\\\"\\\\\""
    };
    char args[100];
    for (size_t i = 0; i < TD_COUNT(values); i++) {
        snprintf(args, sizeof args, "{\"v\": %s}", values[i]);
        assert_string_equal(ask_id("select args from tidemill.jobs where id = %lld", enqueued("v", args, NULL)), args);
        const char *const list[] = { "{}", args };
        tidemill_job jobs[2];
        assert_int_equal(tidemill_enqueue_many(client, "v", list, 2, NULL, jobs, NULL), 0);
        assert_string_equal(ask_id("select args from tidemill.jobs where id = %lld", jobs[1].id), args);
    }
}

static void many_are_stored_in_their_order(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static char texts[COUNT][32];
    const char *args[COUNT];
    tidemill_job jobs[COUNT];
    tidemill_options o = TIDEMILL_OPTIONS;
    o.queue = "m";
    for (int i = 0; i < COUNT; i++) {
        snprintf(texts[i], sizeof texts[i], "{\"n\": %d}", i);
        args[i] = i == 7 ? NULL : texts[i];
    }
    assert_int_equal(tidemill_enqueue_many(client, "many", args, COUNT, &o, jobs, NULL), 0);
    for (int i = 1; i < COUNT; i++) assert_true(jobs[i].id > jobs[i - 1].id && !jobs[i].duplicate);
    assert_string_equal(ask("select string_agg(coalesce(args ->> 'n', '?'), ',' order by id) = "
                            "(select string_agg(case n when 7 then '?' else n::text end, ',' order by n) "
                            "from generate_series(0, 999) n) from tidemill.jobs where queue = 'm'"),
                        "t");
    assert_int_equal(tidemill_enqueue_many(client, "many", args, 2, &o, NULL, NULL), 0);
    assert_string_equal(ask("select count(*) from tidemill.jobs where queue = 'm'"), "1002");
    assert_int_equal(tidemill_enqueue_many(client, "many", NULL, 0, &o, NULL, NULL), 0);
}

/* ---- What is refused ---- */

/* refusal: all that is wrong with a call. */
typedef struct refusal {
    const char *task, *args;
    tidemill_options options;
    const char *field, *message, *sqlstate;
} refusal;

/* assert_refused makes a call in each of the three ways: the same error each time, and nothing stored. What is refused
   without asking the database (sqlstate "") leaves the caller's transaction usable. */
static void assert_refused(const refusal *r) {
    char before[1024];
    snprintf(before, sizeof before, "%s", ask(STORED));
    PGconn *own = connection_to(database_url);
    const char *const many[] = { "{\"fine\": 1}", r->args };
    for (int way = 0; way < 3; way++) {
        tidemill_error err = { 0 };
        tidemill_job jobs[2] = { { -7, true }, { -7, true } };
        run_sql(own, "begin");
        int rc = way == 0   ? tidemill_enqueue(client, r->task, r->args, &r->options, jobs, &err)
                 : way == 1 ? tidemill_enqueue_many(client, r->task, many, 2, &r->options, jobs, &err)
                            : tidemill_enqueue_tx(own, r->task, r->args, &r->options, jobs, &err);
        assert_string_equal(err.message, r->message);
        assert_string_equal(err.field, r->field);
        assert_string_equal(err.sqlstate, r->sqlstate);
        assert_int_equal(rc, TIDEMILL_EINVALID);
        assert_int_equal(err.code, TIDEMILL_EINVALID);
        assert_true(jobs[0].id == -7 && jobs[1].id == -7);
        if (way == 2) assert_int_equal(PQtransactionStatus(own) == PQTRANS_INTRANS, r->sqlstate[0] == '\0');
        run_sql(own, "rollback");
    }
    PQfinish(own);
    assert_string_equal(ask(STORED), before);
}

#define UNSET                                                                                                          \
    .schedule_in_ms = TIDEMILL_UNSET, .schedule_at_us = TIDEMILL_UNSET, .unique_for_ms = TIDEMILL_UNSET,               \
    .priority = TIDEMILL_UNSET_INT, .max_attempts = TIDEMILL_UNSET_INT
#define WITH(...)                                                                                                      \
    { UNSET, __VA_ARGS__ }

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"

static void options_that_are_not_allowed_are_refused(void **state) {
    (void)state;
    static const char *const one[] = { "" }, *const holed[] = { "a", NULL }, *const overlong[] = { HUNDRED "g" };
    static const char *const invalid[] = { "\xFF" };
    static const char *const many[21] = { "g", "g", "g", "g", "g", "g", "g", "g", "g", "g", "g",
                                          "g", "g", "g", "g", "g", "g", "g", "g", "g", "g" };
#define FAILS(option, message, ...)                                                                                    \
    { "t", "{}", WITH(__VA_ARGS__), option, option ": " message, "" }
    const refusal refusals[] = {
        FAILS("schedule_in", "-1 ms is not allowed; give 0 to 100 years", .schedule_in_ms = -1),
        FAILS("schedule_in", "3155760000001 ms is not allowed; give 0 to 100 years",
              .schedule_in_ms = 100 * YEAR_MS + 1),
        FAILS("schedule_at", "-62135596800000001 us is not allowed; give a time in the years 1 to 9999",
              .schedule_at_us = INT64_C(-62135596800000001)),
        FAILS("schedule_at", "9223372036854775807 us is not allowed; give a time in the years 1 to 9999",
              .schedule_at_us = INT64_MAX),
        FAILS("schedule_at", "not allowed together with schedule_in; give one of the two", .schedule_in_ms = 1,
              .schedule_at_us = 1),
        FAILS("queue", "an empty name is not allowed; give 1 to 100 bytes", .queue = ""),
        FAILS("queue", "a name of 101 bytes is not allowed; give 1 to 100 bytes", .queue = HUNDRED "g"),
        FAILS("queue", "the name is not valid UTF-8 without NUL; give such text", .queue = "\xC0\x80"),
        FAILS("max_attempts", "0 is not allowed; give a whole number from 1 to 1000", .max_attempts = 0),
        FAILS("max_attempts", "1001 is not allowed; give a whole number from 1 to 1000", .max_attempts = 1001),
        FAILS("unique_for", "0 ms is not allowed; give more than 0, to 10 years", .unique_for_ms = 0),
        FAILS("unique_for", "-1 ms is not allowed; give more than 0, to 10 years", .unique_for_ms = -1),
        FAILS("unique_for", "315576000001 ms is not allowed; give more than 0, to 10 years",
              .unique_for_ms = 10 * YEAR_MS + 1),
        FAILS("unique_key", "an empty key is not allowed; give 1 to 200 bytes", .unique_key = ""),
        FAILS("unique_key", "a key of 201 bytes is not allowed; give 1 to 200 bytes",
              .unique_key = HUNDRED HUNDRED "k"),
        FAILS("unique_key", "the key is not valid UTF-8 without NUL; give such text", .unique_key = "\xED\xA0\x80"),
        FAILS("priority", "-1 is not allowed; give a whole number from 0 to 100", .priority = -1),
        FAILS("priority", "101 is not allowed; give a whole number from 0 to 100", .priority = 101),
        FAILS("tags", "an empty tag is not allowed; give 1 to 100 bytes", .tags = one, .tags_count = 1),
        FAILS("tags", "tag 2 is NULL; give a text", .tags = holed, .tags_count = 2),
        FAILS("tags", "tag 1 is NULL; give a text", .tags_count = 1),
        FAILS("tags", "a tag of 101 bytes is not allowed; give 1 to 100 bytes", .tags = overlong, .tags_count = 1),
        FAILS("tags", "the tag is not valid UTF-8 without NUL; give such text", .tags = invalid, .tags_count = 1),
        FAILS("tags", "21 tags are not allowed; give at most 20", .tags = many, .tags_count = 21),
        { "t", "{}", WITH(.schedule_at_us = INT64_C(253402300799999999)), "schedule_at",
          "schedule_at: 9999-12-31 23:59:59.999999+00 is not allowed; give a time at most 100 years away", "22023" },
    };
    for (size_t i = 0; i < TD_COUNT(refusals); i++) assert_refused(&refusals[i]);
}

#pragma GCC diagnostic pop

static void a_task_that_is_none_is_refused(void **state) {
    (void)state;
    static const refusal refusals[] = {
        { NULL, "{}", WITH(.tags = NULL), "task", "task: NULL is not allowed; give the name of a task", "" },
        { "", "{}", WITH(.tags = NULL), "task", "task: an empty name is not allowed; give 1 to 100 bytes", "" },
        { HUNDRED "t", "{}", WITH(.tags = NULL), "task",
          "task: a name of 101 bytes is not allowed; give 1 to 100 bytes", "" },
        { "\xFF", "{}", WITH(.tags = NULL), "task", "task: the name is not valid UTF-8 without NUL; give such text",
          "" },
    };
    for (size_t i = 0; i < TD_COUNT(refusals); i++) assert_refused(&refusals[i]);
}

/* repeated returns head, text count times, and tail; freed by the caller. */
static char *repeated(const char *head, const char *text, int count, const char *tail) {
    td_buf b = { 0 };
    td_buf_puts(&b, head);
    for (int i = 0; i < count; i++) td_buf_puts(&b, text);
    td_buf_puts(&b, tail);
    return td_buf_take(&b);
}

static void arguments_that_are_not_allowed_are_refused(void **state) {
    (void)state;
    char *large = repeated("{\"v\": \"", "a", 65528, "\"}"), *deep = repeated("{\"v\": ", "{\"v\":", 100, "1");
    char *deepest = repeated("{\"v\": ", "[", 100000, "]"), *closed = repeated(deep, "}", 101, "");
    const struct {
        const char *args, *message, *sqlstate;
    } cases[] = {
        { "[]", "args: not a JSON object; give a JSON object such as {\"user_id\": 42}", "" },
        { "", "args: not a JSON object; give a JSON object such as {\"user_id\": 42}", "" },
        { " null", "args: not a JSON object; give a JSON object such as {\"user_id\": 42}", "" },
        { "{\"v\": \"\xFF\"}", "args: not valid UTF-8; give a JSON object in UTF-8", "" },
        { "{\"v\": }", "args: not valid JSON; give a JSON object such as {\"user_id\": 42}", "22P02" },
        { "{\"v\": NaN}", "args: not valid JSON; give a JSON object such as {\"user_id\": 42}", "22P02" },
        { "{\"v\": \"\\ud83d\"}", "args: not valid JSON; give a JSON object such as {\"user_id\": 42}", "22P02" },
        { "{\"v\": \"\\ude00\"}", "args: not valid JSON; give a JSON object such as {\"user_id\": 42}", "22P02" },
        { "{\"v\": \"\\u0000\"}", "args: \\u0000 is not allowed, PostgreSQL's text has no such character; leave it out",
          "22P05" },
        { "{\"v\": 1e400000}", "args: a number is beyond what PostgreSQL can hold; give it as a string", "22003" },
        { "{\"v\": 1e400}", "args: a number beyond the range of a double is not allowed; give it as a string",
          "22023" },
        { large, "args: an object of 65537 bytes is not allowed; give at most 65536 bytes", "22023" },
        { closed, "args: an object nested deeper than 100 levels is not allowed; give at most 100 levels", "22023" },
        { deepest, "args: nested too deeply; give at most 100 levels", "54001" },
    };
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        refusal r = { "t", cases[i].args, TIDEMILL_OPTIONS, "args", cases[i].message, cases[i].sqlstate };
        assert_refused(&r);
    }
    free(large);
    free(deep);
    free(deepest);
    free(closed);
}

static void an_error_that_nobody_wants_is_only_the_code(void **state) {
    (void)state;
    tidemill_job job;
    assert_int_equal(tidemill_enqueue(client, "", NULL, NULL, &job, NULL), TIDEMILL_EINVALID);
    assert_int_equal(tidemill_enqueue(client, "t", "{\"v\": }", NULL, &job, NULL), TIDEMILL_EINVALID);
    assert_int_equal(tidemill_enqueue(client, "t", "{\"v\": 1e400}", NULL, &job, NULL), TIDEMILL_EINVALID);
    assert_int_equal(tidemill_enqueue(client, "t", "{\"v\": 1e400000}", NULL, &job, NULL), TIDEMILL_EINVALID);
}

/* ---- What the compiler refuses ---- */

/* compiles says whether a program with a statement in it compiles without a warning. */
static bool compiles(const char *statement) {
    FILE *gcc = popen(
        "gcc -std=c11 -Wall -Wextra -Wfloat-conversion -Werror -Iruntime -c -o /dev/null -x c - 2>/dev/null", "w");
    assert_non_null(gcc);
    fprintf(gcc,
            "#include \"tidemill.h\"\n#include <math.h>\nvoid f(tidemill_client *c);\nvoid f(tidemill_client *c) {\n"
            "tidemill_options o = TIDEMILL_OPTIONS; tidemill_job job; tidemill_error error; double d = sqrt(-1);\n"
            "%s\n(void)d; if (tidemill_enqueue(c, \"t\", 0, &o, &job, &error) < 0) return; }\n",
            statement);
    return pclose(gcc) == 0;
}

static void what_has_another_type_does_not_compile(void **state) {
    (void)state;
    static const char *const refused[] = {
        "o.shedule_in_ms = 1;",
        "o.schedule_in_ms = \"60\";",
        "o.schedule_in_ms = d;",
        "o.schedule_at_us = d;",
        "o.schedule_at_us = \"soon\";",
        "o.queue = 1;",
        "o.max_attempts = d;",
        "o.priority = \"1\";",
        "o.unique_for_ms = d;",
        "o.unique_key = 1;",
        "o.tags = \"a\";",
        "o = 1;",
        "tidemill_enqueue(c, \"t\", 0, &o, &job, &error);", /* its result is to be looked at */
    };
    assert_true(compiles("o.schedule_in_ms = 60; o.queue = \"q\";"));
    for (size_t i = 0; i < TD_COUNT(refused); i++) {
        if (compiles(refused[i])) fail_msg("%s compiles", refused[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_initializer_is_what_the_header_says),
        cmocka_unit_test(nothing_given_is_the_defaults),
        cmocka_unit_test(every_option_is_stored),
        cmocka_unit_test(a_time_is_microseconds_since_1970),
        cmocka_unit_test(every_option_may_be_at_its_bounds),
        cmocka_unit_test(what_is_not_given_is_the_declarations),
        cmocka_unit_test(a_duplicate_is_the_job_that_stands),
        cmocka_unit_test(arguments_cross_unchanged),
        cmocka_unit_test(many_are_stored_in_their_order),
        cmocka_unit_test(options_that_are_not_allowed_are_refused),
        cmocka_unit_test(a_task_that_is_none_is_refused),
        cmocka_unit_test(arguments_that_are_not_allowed_are_refused),
        cmocka_unit_test(an_error_that_nobody_wants_is_only_the_code),
        cmocka_unit_test(what_has_another_type_does_not_compile),
    };
    return cmocka_run_group_tests(tests, suite_setup, suite_teardown);
}
