/* base_test.c: errors, buffers, numbers and text. */
#include "../../runtime/base/base.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* What a buffer has, against what it should have; empties it. */
static void assert_buf(td_buf *b, const char *expected) {
    assert_false(b->failed);
    assert_string_equal(b->data, expected);
    assert_int_equal(b->len, strlen(expected));
    td_buf_free(b);
}

/* ---- Errors ---- */

static void setting_an_error_clears_what_an_earlier_one_left(void **state) {
    (void)state;
    tidemill_error err;
    memset(&err, 'x', sizeof err);
    assert_int_equal(td_error_set(&err, TIDEMILL_EIO, "file %d is gone", 7), TIDEMILL_EIO);
    assert_int_equal(err.code, TIDEMILL_EIO);
    assert_string_equal(err.message, "file 7 is gone");
    assert_string_equal(err.field, "");
    assert_string_equal(err.sqlstate, "");
}

static void a_field_error_is_invalid_and_names_the_field(void **state) {
    (void)state;
    tidemill_error err;
    assert_int_equal(td_error_field(&err, "priority", "priority: %d is not allowed", 101), TIDEMILL_EINVALID);
    assert_string_equal(err.field, "priority");
    assert_string_equal(err.message, "priority: 101 is not allowed");
}

static void a_prefix_goes_before_and_keeps_the_rest(void **state) {
    (void)state;
    tidemill_error err;
    td_error_field(&err, "queue", "queue is empty");
    strcpy(err.sqlstate, "22023");
    assert_int_equal(td_error_prefix(&err, "claim %d", 3), TIDEMILL_EINVALID);
    assert_string_equal(err.message, "claim 3: queue is empty");
    assert_string_equal(err.field, "queue");
    assert_string_equal(err.sqlstate, "22023");
}

static void a_message_too_long_is_cut_between_characters(void **state) {
    (void)state;
    char text[2000];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'a', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4) memcpy(text + i, "\xF0\x9F\x8C\x99", 5);
        tidemill_error err;
        td_error_set(&err, TIDEMILL_EIO, "%s", text);
        assert_true(td_utf8_valid(err.message, strlen(err.message)));
        assert_in_range(strlen(err.message), sizeof err.message - 4, sizeof err.message - 1);
        td_error_prefix(&err, "x");
        assert_true(td_utf8_valid(err.message, strlen(err.message)));
        assert_memory_equal(err.message, "x: ", 3);
    }
}

static void nobody_needs_to_want_the_error(void **state) {
    (void)state;
    assert_int_equal(td_error_set(NULL, TIDEMILL_EIO, "x"), TIDEMILL_EIO);
    assert_int_equal(td_error_field(NULL, "f", "x"), TIDEMILL_EINVALID);
    assert_int_equal(td_error_memory(NULL), TIDEMILL_EMEMORY);
    assert_true(td_error_prefix(NULL, "x") < 0);
}

static void each_code_has_its_name(void **state) {
    (void)state;
    assert_string_equal(tidemill_error_name(TIDEMILL_EINVALID), "invalid");
    assert_string_equal(tidemill_error_name(TIDEMILL_ENOT_FOUND), "not_found");
    assert_string_equal(tidemill_error_name(TIDEMILL_EHANDLER), "handler");
    assert_string_equal(tidemill_error_name(0), "unknown");
    assert_string_equal(tidemill_error_name(-99), "unknown");
}

/* ---- Buffers ---- */

static void a_buffer_grows_by_any_steps(void **state) {
    (void)state;
    td_buf b = { 0 };
    char expected[3 * 1000 + 1] = "";
    for (int i = 0; i < 1000; i++) {
        td_buf_printf(&b, "%d", i % 10);
        td_buf_putc(&b, '-');
        td_buf_puts(&b, "x");
        memcpy(expected + 3 * i, (char[]){ (char)('0' + i % 10), '-', 'x', 0 }, 4);
        assert_int_equal(b.data[b.len], 0);
    }
    assert_buf(&b, expected);
}

static void an_empty_buffer_gives_an_empty_string(void **state) {
    (void)state;
    td_buf b = { 0 };
    char *data = td_buf_take(&b);
    assert_string_equal(data, "");
    free(data);
    td_buf_puts(&b, "");
    assert_non_null(b.data);
    assert_buf(&b, "");
}

static void taking_and_clearing_leave_an_empty_buffer(void **state) {
    (void)state;
    td_buf b = { 0 };
    td_buf_puts(&b, "one");
    char *data = td_buf_take(&b);
    assert_string_equal(data, "one");
    free(data);
    assert_null(b.data);
    td_buf_puts(&b, "two");
    td_buf_clear(&b);
    assert_string_equal(b.data, "");
    td_buf_puts(&b, "three");
    assert_buf(&b, "three");
}

static void a_failed_append_fails_the_chain(void **state) {
    (void)state;
    td_buf b = { 0 };
    td_buf_puts(&b, "before");
    td_buf_add(&b, "", SIZE_MAX / 2);
    td_buf_puts(&b, "after");
    td_buf_printf(&b, "%d", 1);
    assert_true(b.failed);
    assert_string_equal(b.data, "before");
    assert_null(td_buf_take(&b));
    assert_null(b.data);
}

static void text_becomes_a_json_string(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t len;
        const char *json;
    } cases[] = {
        { "", 0, "\"\"" },
        { "plain", 5, "\"plain\"" },
        { "a\"b\\c/", 6, "\"a\\\"b\\\\c/\"" },
        { "\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\"" },
        { "\0\x1F\x7F", 3, "\"\\u0000\\u001f\\u007f\"" },
        { "\xC3\xA9\xF0\x9F\x8C\x99", 6, "\"\xC3\xA9\xF0\x9F\x8C\x99\"" },
        { "a\xFFz", 3, "\"a\xEF\xBF\xBDz\"" },
        { "\xC3", 1, "\"\xEF\xBF\xBD\"" },
        { "\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"" },
    };
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        td_buf b = { 0 };
        td_buf_json(&b, cases[i].text, cases[i].len);
        assert_buf(&b, cases[i].json);
    }
}

/* ---- Numbers ---- */

static void a_double_has_its_shortest_form(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        { 0.0, "0.0" },
        { -0.0, "0.0" },
        { 1.0, "1.0" },
        { -7.0, "-7.0" },
        { 0.1, "0.1" },
        { 0.1 + 0.2, "0.30000000000000004" },
        { 1.5, "1.5" },
        { -2.25e-7, "-2.25e-07" },
        { 1234567890123456.5, "1234567890123456.5" },
        { 1e15, "1000000000000000.0" },
        { 1e17, "100000000000000000.0" },
        { 0x1p53, "9007199254740992.0" },
        { 0x1p63, "9223372036854775808.0" },
        { -0x1p63, "-9223372036854775808.0" },
        { 1e20, "1e+20" },
        { 1e300, "1e+300" },
        { DBL_MAX, "1.7976931348623157e+308" },
        { DBL_MIN, "2.2250738585072014e-308" },
        { 5e-324, "5e-324" },
        { (double)INFINITY, "null" },
    };
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        td_buf b = { 0 };
        td_buf_double(&b, cases[i].value);
        assert_buf(&b, cases[i].text);
    }
}

/* As jsonb does: the number without an exponent, all its digits written out. Returns whether it has a point then. */
static bool jsonb_keeps_point(const char *text) {
    const char *point = strchr(text, '.'), *e = strchr(text, 'e');
    long exponent = e ? strtol(e + 1, NULL, 10) : 0;
    long decimals = !point ? 0 : (long)((e ? (size_t)(e - point) : strlen(point)) - 1);
    return decimals > exponent;
}

/* A form that jsonb prints as an integer of up to 64 bits would come back as an integer. */
static void a_double_never_comes_back_as_an_integer(void **state) {
    (void)state;
    uint64_t bits = 1;
    for (int i = 0; i < 200000; i++) {
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        double value;
        if (i % 3 == 0)
            memcpy(&value, &bits, sizeof value);
        else if (i % 3 == 1)
            value = (double)(int64_t)bits;
        else
            value = (double)(bits >> 11) / (double)(UINT64_C(1) << bits % 50);
        if (!isfinite(value)) continue;
        td_buf b = { 0 };
        td_buf_double(&b, value);
        assert_true(strtod(b.data, NULL) == value);
        assert_true(jsonb_keeps_point(b.data) || fabs(value) > 0x1p64);
        td_buf_free(&b);
    }
}

/* Makes a locale with a decimal comma in a folder, and sets it: few systems have one installed, or what localedef needs
   to make one. This is glibc's format: a magic number, how many fields, where each is, and the fields. */
static bool set_comma_locale(const char *folder) {
    static const struct {
        uint32_t magic, count, offsets[6];
        char point[2], separator[1], grouping[1];
        uint32_t wide_point, wide_separator;
        char codeset[16];
    } numeric = { 0x20031114, 6, { 32, 34, 35, 36, 40, 44 }, ",", { 0 }, { 0 }, ',', 0, "ANSI_X3.4-1968" };
    char path[100];
    snprintf(path, sizeof path, "%s/comma", folder);
    if (mkdir(path, 0700) != 0) return false;
    snprintf(path, sizeof path, "%s/comma/LC_NUMERIC", folder);
    FILE *file = fopen(path, "w");
    if (!file) return false;
    fwrite(&numeric, sizeof numeric, 1, file);
    fclose(file);
    setenv("LOCPATH", folder, 1);
    return setlocale(LC_NUMERIC, "comma") != NULL;
}

static void a_locale_with_a_comma_changes_nothing(void **state) {
    (void)state;
    char folder[] = "/tmp/base_test.XXXXXX", command[100], before[16];
    assert_non_null(mkdtemp(folder));
    bool set = set_comma_locale(folder);
    td_buf b = { 0 };
    snprintf(before, sizeof before, "%.1f", 0.5);
    td_buf_double(&b, 0.1);
    td_buf_putc(&b, ' ');
    td_buf_double(&b, -1.25e-9);
    td_buf_putc(&b, ' ');
    td_buf_double(&b, 3);
    setlocale(LC_NUMERIC, "C");
    unsetenv("LOCPATH");
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    assert_true(set);
    assert_string_equal(before, "0,5");
    assert_buf(&b, "0.1 -1.25e-09 3.0");
}

/* ---- Clocks and random numbers ---- */

static void clocks_run(void **state) {
    (void)state;
    uint64_t first = td_now_ns();
    assert_true(td_now_ns() >= first);
    assert_true(td_wall_us() > INT64_C(1577836800) * 1000000); /* 2020 */
}

static void random_ids_are_positive_and_differ(void **state) {
    (void)state;
    uint64_t any = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t a = td_random_id(), b = td_random_id();
        assert_true(a > 0 && b > 0 && a != b);
        any |= td_random64();
    }
    assert_true(any == UINT64_MAX);
}

/* ---- Text ---- */

static void only_strict_utf8_is_valid(void **state) {
    (void)state;
    static const char *const good[] = {
        "",
        "abc",
        "\x7F",
        "\xC2\x80",
        "\xDF\xBF",
        "\xE0\xA0\x80",
        "\xED\x9F\xBF",
        "\xEE\x80\x80",
        "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80",
        "\xF4\x8F\xBF\xBF",
    };
    static const char *const bad[] = {
        "\x80",
        "\xBF",
        "\xC0\x80",
        "\xC1\xBF",
        "\xC2",
        "\xC2z",
        "\xE0\x9F\xBF",
        "\xE2\x82",
        "\xED\xA0\x80",
        "\xED\xBF\xBF",
        "\xF0\x8F\xBF\xBF",
        "\xF0\x9F\x8C",
        "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80",
        "\xFF",
        "\xFE",
        "ok\xC3",
    };
    for (size_t i = 0; i < TD_COUNT(good); i++) assert_true(td_utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < TD_COUNT(bad); i++) assert_false(td_utf8_valid(bad[i], strlen(bad[i])));
    assert_false(td_utf8_valid("a\0b", 3));
}

static void text_is_cleaned(void **state) {
    (void)state;
    static const char dirty[] = "a\tb\nc\r\x1B[31m\0\x7F\xC2\x9B\xFF\xC3\xA9\xE2\x82";
    td_buf b = { 0 };
    td_text_clean(&b, dirty, sizeof dirty - 1, 1000);
    assert_true(td_utf8_valid(b.data, b.len));
    assert_buf(&b, "a\tb\nc\\x0D\\x1B[31m\\x00\\x7F\\x9B\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD");
}

static void long_text_is_cut_at_a_character_within_the_limit(void **state) {
    (void)state;
    char text[900];
    for (size_t i = 0; i < sizeof text; i += 3) memcpy(text + i, "\xE2\x82\xAC", 3);
    for (size_t max = 64; max < 200; max++) {
        td_buf b = { 0 };
        td_buf_puts(&b, "kept: ");
        td_text_clean(&b, text, sizeof text, max);
        assert_true(b.len - 6 <= max && b.len - 6 > max - 40);
        assert_true(td_utf8_valid(b.data, b.len));
        const char *note = strstr(b.data, "... (");
        size_t cut = strtoul(note + 5, NULL, 10);
        assert_int_equal((size_t)(note - b.data) - 6 + cut, sizeof text);
        assert_string_equal(b.data + b.len - 11, " bytes cut)");
        td_buf_free(&b);
    }
}

static void text_of_just_the_limit_is_not_cut(void **state) {
    (void)state;
    char text[101];
    memset(text, 'x', 100);
    text[100] = 0;
    td_buf b = { 0 };
    td_text_clean(&b, text, 100, 100);
    assert_buf(&b, text);
}

static void copies_end_in_nul(void **state) {
    (void)state;
    char *a = td_memdup("abcdef", 3), *b = td_strdup("xyz"), *c = td_memdup("", 0);
    assert_string_equal(a, "abc");
    assert_string_equal(b, "xyz");
    assert_string_equal(c, "");
    assert_null(td_strdup(NULL));
    free(a);
    free(b);
    free(c);
}

static void the_nearest_word_is_a_likely_slip(void **state) {
    (void)state;
    static const char *const words[] = { "queue", "queues", "priority", "max_attempts", "tags", "up", NULL };
    assert_int_equal(td_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(td_edit_distance("", "abc"), 3);
    assert_int_equal(td_edit_distance("same", "same"), 0);
    assert_string_equal(td_nearest("queu", words), "queue");
    assert_string_equal(td_nearest("queues", words), "queues");
    assert_string_equal(td_nearest("prioirty", words), "priority");
    assert_string_equal(td_nearest("maxattempts", words), "max_attempts");
    assert_string_equal(td_nearest("tag", words), "tags");
    assert_null(td_nearest("colour", words));
    assert_null(td_nearest("x", words));
    assert_null(td_nearest("", words));
}

/* ---- Lists ---- */

typedef struct item {
    int number;
    td_list link;
} item;

static void a_list_keeps_its_order_and_lets_go(void **state) {
    (void)state;
    td_list head;
    item a = { .number = 1 }, b = { .number = 2 }, c = { .number = 3 };
    td_list_init(&head);
    assert_true(td_list_empty(&head));
    assert_null(td_list_shift(&head));
    td_list_push(&head, &b.link);
    td_list_push(&head, &c.link);
    td_list_unshift(&head, &a.link);
    td_list_remove(&b.link);
    td_list_remove(&b.link);
    assert_int_equal(td_container(td_list_shift(&head), item, link)->number, 1);
    assert_int_equal(td_container(td_list_shift(&head), item, link)->number, 3);
    assert_true(td_list_empty(&head));
}

/* ---- Logging ---- */

typedef struct seen {
    int count;
    tidemill_level level;
    char message[600];
    size_t fields;
} seen;

static void see(void *userdata, const tidemill_record *record) {
    seen *s = userdata;
    s->count++;
    s->level = record->level;
    snprintf(s->message, sizeof s->message, "%s", record->message);
    s->fields = record->fields_count;
    assert_true(record->time_us > 0);
}

static void records_below_the_level_are_not_made(void **state) {
    (void)state;
    seen s = { 0 };
    td_log log = { see, &s, TIDEMILL_WARN };
    td_logf(&log, TIDEMILL_INFO, "quiet");
    assert_int_equal(s.count, 0);
    assert_false(td_log_on(&log, TIDEMILL_INFO));
    assert_true(td_log_on(&log, TIDEMILL_WARN));
    td_logf(&log, TIDEMILL_ERROR, "%d is %s", 1, "loud");
    assert_int_equal(s.count, 1);
    assert_int_equal(s.level, TIDEMILL_ERROR);
    assert_string_equal(s.message, "1 is loud");
    tidemill_field field = { "job", "7", true };
    td_log_write(&log, TIDEMILL_WARN, "with a field", &field, 1);
    assert_int_equal(s.fields, 1);
    td_log nobody = { NULL, NULL, TIDEMILL_DEBUG };
    assert_false(td_log_on(&nobody, TIDEMILL_ERROR));
    td_logf(&nobody, TIDEMILL_ERROR, "unheard");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(setting_an_error_clears_what_an_earlier_one_left),
        cmocka_unit_test(a_field_error_is_invalid_and_names_the_field),
        cmocka_unit_test(a_prefix_goes_before_and_keeps_the_rest),
        cmocka_unit_test(a_message_too_long_is_cut_between_characters),
        cmocka_unit_test(nobody_needs_to_want_the_error),
        cmocka_unit_test(each_code_has_its_name),
        cmocka_unit_test(a_buffer_grows_by_any_steps),
        cmocka_unit_test(an_empty_buffer_gives_an_empty_string),
        cmocka_unit_test(taking_and_clearing_leave_an_empty_buffer),
        cmocka_unit_test(a_failed_append_fails_the_chain),
        cmocka_unit_test(text_becomes_a_json_string),
        cmocka_unit_test(a_double_has_its_shortest_form),
        cmocka_unit_test(a_double_never_comes_back_as_an_integer),
        cmocka_unit_test(a_locale_with_a_comma_changes_nothing),
        cmocka_unit_test(clocks_run),
        cmocka_unit_test(random_ids_are_positive_and_differ),
        cmocka_unit_test(only_strict_utf8_is_valid),
        cmocka_unit_test(text_is_cleaned),
        cmocka_unit_test(long_text_is_cut_at_a_character_within_the_limit),
        cmocka_unit_test(text_of_just_the_limit_is_not_cut),
        cmocka_unit_test(copies_end_in_nul),
        cmocka_unit_test(the_nearest_word_is_a_likely_slip),
        cmocka_unit_test(a_list_keeps_its_order_and_lets_go),
        cmocka_unit_test(records_below_the_level_are_not_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
