/* value_test.c: JSON to Lua values and back, exactly. */
#include "../../runtime/vm/arena.h"
#include "../../runtime/vm/vm.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    td_arena arena;
    lua_State *L;
} fixture;

static int open_tidemill(lua_State *L) {
    luaL_openlibs(L);
    luaL_requiref(L, "tidemill", td_value_open, 1);
    return 0;
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    td_arena_init(&f->arena, 0);
    f->L = lua_newstate(td_arena_alloc, &f->arena);
    lua_pushcfunction(f->L, open_tidemill);
    if (lua_pcall(f->L, 0, 0, 0) != LUA_OK) return -1;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    lua_close(f->L);
    assert_int_equal(f->arena.used, 0);
    td_arena_destroy(&f->arena);
    free(f);
    return 0;
}

/* push(text) -> value */
static int push(lua_State *L) {
    size_t len;
    const char *json = luaL_checklstring(L, 1, &len);
    td_value_push(L, json, len);
    return 1;
}

/* decode leaves the value, or the error's text, on the stack. Returns whether it was decoded. */
static bool decode(lua_State *L, const char *json) {
    int top = lua_gettop(L);
    lua_pushcfunction(L, push);
    lua_pushstring(L, json);
    bool ok = lua_pcall(L, 1, 1, 0) == LUA_OK;
    assert_int_equal(lua_gettop(L), top + 1);
    return ok;
}

/* assert_encodes encodes the value on top and pops it. expected begins with '!' for an error's text. */
static void assert_encodes(lua_State *L, const char *expected) {
    td_buf b = { 0 };
    char message[256];
    int top = lua_gettop(L);
    const char *error = td_value_encode(L, -1, &b, "args", message);
    assert_int_equal(lua_gettop(L), top);
    if (expected[0] == '!') {
        assert_non_null(error);
        assert_string_equal(error, expected + 1);
    } else {
        if (error) fail_msg("%s", error);
        assert_string_equal(b.data, expected);
    }
    td_buf_free(&b);
    lua_pop(L, 1);
}

/* evaluate pushes the value of a Lua expression. */
static void evaluate(lua_State *L, const char *expression) {
    char chunk[4000];
    snprintf(chunk, sizeof chunk, "%s%s", strstr(expression, "return ") ? "" : "return ", expression);
    if (luaL_loadstring(L, chunk) != LUA_OK || lua_pcall(L, 0, 1, 0) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
}

static void assert_expression(lua_State *L, const char *expression, const char *expected) {
    evaluate(L, expression);
    assert_encodes(L, expected);
}

static void assert_refused(lua_State *L, const char *json, const char *expected) {
    if (decode(L, json)) fail_msg("%s was accepted", json);
    if (!strstr(lua_tostring(L, -1), expected)) fail_msg("%s does not contain %s", lua_tostring(L, -1), expected);
    lua_pop(L, 1);
}

/* repeated returns count times open, middle, count times close; to be freed. */
static char *repeated(int count, const char *open, const char *middle, const char *close) {
    size_t a = strlen(open), m = strlen(middle), z = strlen(close), n = (size_t)count;
    char *text = malloc(n * (a + z) + m + 1), *p = text;
    for (size_t i = 0; i < n; i++, p += a) memcpy(p, open, a);
    memcpy(p, middle, m);
    p += m;
    for (size_t i = 0; i < n; i++, p += z) memcpy(p, close, z);
    *p = '\0';
    return text;
}

/* ---- Both ways ---- */

static void values_come_back_unchanged(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    static const char *const same[] = {
        "9007199254740993",
        "-9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "0",
        "-1",
        "0.1",
        "1.0",
        "-2.5",
        "0.30000000000000004",
        "\"\"",
        "\"text\"",
        "[]",
        "{}",
        "null",
        "true",
        "false",
        "\"\xF0\x9F\x98\x80 \xC3\xA9\"",
        "[[],{},[{}]]",
        "[null,null]",
        "{\"a\":null}",
        "{\"list\":[1,2.0,\"3\",false]}",
        "\"\\u0001\\u001f\"",
    };
    for (size_t i = 0; i < TD_COUNT(same); i++) {
        if (!decode(L, same[i])) fail_msg("%s: %s", same[i], lua_tostring(L, -1));
        assert_encodes(L, same[i]);
    }
}

static void extreme_floats_come_back_unchanged(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    static const double values[] = { 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1e300,
                                     123456789012345.67 };
    for (size_t i = 0; i < TD_COUNT(values); i++) {
        td_buf b = { 0 };
        char message[256];
        lua_pushnumber(L, values[i]);
        assert_null(td_value_encode(L, -1, &b, "args", message));
        assert_true(decode(L, b.data));
        assert_true(lua_tonumber(L, -1) == values[i]);
        td_buf_free(&b);
        lua_pop(L, 2);
    }
}

static void integers_keep_their_subtype_and_floats_theirs(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    static const struct {
        const char *json;
        bool integer;
        double value;
    } table[] = {
        { "9223372036854775808", false, 9223372036854775808.0 },
        { "-9223372036854775809", false, -9223372036854775808.0 },
        { "18446744073709551616", false, 18446744073709551616.0 },
        { "1.0", false, 1.0 },
        { "1e15", false, 1e15 },
        { "1E+2", false, 100 },
        { "1000000000000000.0", false, 1e15 },
        { "-0", true, 0 },
        { "7", true, 7 },
    };
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        assert_true(decode(L, table[i].json));
        if (lua_isinteger(L, -1) != table[i].integer) fail_msg("%s has the other subtype", table[i].json);
        assert_true(lua_tonumber(L, -1) == table[i].value);
        lua_pop(L, 1);
    }
}

static void negative_zero_becomes_zero(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    assert_true(decode(L, "-0.0"));
    assert_false(lua_isinteger(L, -1));
    assert_false(__builtin_signbit(lua_tonumber(L, -1)));
    assert_encodes(L, "0.0");
    assert_expression(L, "-0.0", "0.0");
}

static void a_float_printed_in_full_is_the_same_float(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    char *digits = repeated(300, "", "1", "0"); /* how jsonb prints 1e300 */
    assert_int_equal(strlen(digits), 301);
    assert_true(decode(L, digits));
    assert_false(lua_isinteger(L, -1));
    assert_true(lua_tonumber(L, -1) == 1e300);
    lua_pop(L, 1);
    free(digits);
    digits = repeated(20000, "", "0.1", "0"); /* longer than any buffer on the stack */
    assert_true(decode(L, digits));
    assert_true(lua_tonumber(L, -1) == 0.1);
    lua_pop(L, 1);
    free(digits);
}

static void a_float_beyond_15_digits_is_written_as_jsonb_prints_it(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    evaluate(L, "1e15");
    td_buf b = { 0 };
    char message[256];
    assert_null(td_value_encode(L, -1, &b, "args", message));
    assert_true(strpbrk(b.data, ".e") != NULL);
    assert_true(decode(L, b.data));
    assert_true(lua_rawequal(L, -1, -2));
    assert_false(lua_isinteger(L, -1));
    td_buf_free(&b);
    lua_pop(L, 2);
}

static void a_number_beyond_a_double_is_refused(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    assert_refused(L, "1e400", "number 1e400 is beyond the range of a double");
    assert_refused(L, "[1, -1e999]", "number -1e999 is beyond the range of a double");
    char *digits = repeated(400, "", "1", "0");
    assert_refused(L, digits, "number 1000000000000000000000000000000000000... is beyond the range of a double");
    free(digits);
}

static void escapes_are_decoded(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    assert_true(decode(L, "\"a\\n\\t\\\"\\\\\\/\\u00e9\\ud83d\\ude00\""));
    assert_string_equal(lua_tostring(L, -1), "a\n\t\"\\/\xC3\xA9\xF0\x9F\x98\x80");
    lua_pop(L, 1);
    char *text = repeated(100000, "", "\"", "\\n"); /* the decoder's buffer outgrows the pool */
    char *quoted = malloc(strlen(text) + 2);
    strcpy(quoted, text);
    strcat(quoted, "\"");
    assert_true(decode(L, quoted));
    assert_int_equal(lua_rawlen(L, -1), 100000);
    lua_pop(L, 1);
    free(text);
    free(quoted);
}

static void nesting_of_100_is_allowed_and_101_refused(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    char *lists = repeated(100, "[", "", "]"), *objects = repeated(100, "{\"a\":", "1", "}");
    assert_true(decode(L, lists));
    assert_encodes(L, lists);
    assert_true(decode(L, objects));
    assert_encodes(L, objects);
    free(lists);
    free(objects);
    lists = repeated(101, "[", "", "]");
    objects = repeated(101, "{\"a\":", "1", "}");
    assert_refused(L, lists, "nested deeper than 100 levels");
    assert_refused(L, objects, "nested deeper than 100 levels");
    free(lists);
    free(objects);
    assert_expression(
        L, "local t = {} for i = 1, 99 do t = { t } end return t",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{"
        "}]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
    assert_expression(L, "local t = {} for i = 1, 100 do t = { t } end return t",
                      "!args: nested deeper than 100 levels, or contains itself");
    assert_expression(L, "local t = {} t.t = t return t", "!args: nested deeper than 100 levels, or contains itself");
}

static void bad_json_is_refused(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    static const char *const bad[] = { "",      "[",       "{",        "[1,]",   "{\"a\"}", "{a:1}",   "nul",
                                       "01",    "1.",      "+1",       "NaN",    "[1] 2",   "\"",      "'a'",
                                       "[1 2]", "\"\\x\"", "\"\xff\"", "\"\n\"", "-",       "Infinity" };
    for (size_t i = 0; i < TD_COUNT(bad); i++) assert_refused(L, bad[i], "");
    assert_refused(L, "[1,", "not valid JSON: ");
}

/* ---- Arrays ---- */

static void a_decoded_array_remembers_that_it_is_one(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    assert_true(decode(L, "[[],{}]"));
    lua_setglobal(L, "decoded");
    assert_expression(L, "{ tidemill.is_array(decoded), tidemill.is_array(decoded[1]), tidemill.is_array(decoded[2]) }",
                      "[true,true,false]");
    assert_expression(L, "table.remove(decoded) table.remove(decoded) return decoded", "[]");
}

static void a_table_is_an_object_unless_marked_or_a_list(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    assert_expression(L, "{}", "{}");
    assert_expression(L, "tidemill.array{}", "[]");
    assert_expression(L, "tidemill.array()", "[]");
    assert_expression(L, "tidemill.array(nil)", "[]");
    assert_expression(L, "tidemill.array(tidemill.array{1})", "[1]");
    assert_expression(L, "{1, 2, 3}", "[1,2,3]");
    assert_expression(L, "{x = 1}", "{\"x\":1}");
    assert_expression(L, "{ [1.0] = 'a', [2.0] = 'b' }", "[\"a\",\"b\"]");
    assert_expression(L, "{ tidemill.null }", "[null]");
    assert_expression(L, "setmetatable({x = 1}, { __index = error, __pairs = error, __len = error })", "{\"x\":1}");
}

static void marking_what_cannot_be_an_array_is_refused(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    assert_expression(L, "tidemill.array{ x = 1 }",
                      "!args: has both a list's items and named fields; JSON has no such form");
    assert_expression(L, "select(2, pcall(tidemill.array, 1))",
                      "\"bad argument #1 to 'tidemill.array' (table expected, got number)\"");
    assert_expression(L, "pcall(tidemill.array, setmetatable({}, {}))", "false");
    assert_expression(L, "tidemill.is_array('x')", "false");
}

static void null_is_the_null_of_cjson(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    assert_true(decode(L, "null"));
    lua_setglobal(L, "decoded");
    assert_expression(L, "decoded == tidemill.null and type(tidemill.null) == 'userdata'", "true");
    evaluate(L, "pcall(require, 'cjson') and require('cjson').null == tidemill.null");
    assert_true(lua_toboolean(L, -1));
    lua_pop(L, 1);
}

/* ---- What has no JSON form ---- */

static void what_json_cannot_hold_is_refused_with_its_path(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    static const struct {
        const char *expression, *message;
    } table[] = {
        { "0/0", "!args: NaN has no JSON form" },
        { "{ user = { score = -(0/0) } }", "!args.user.score: NaN has no JSON form" },
        { "{ items = { 1, 2, { price = 1/0 } } }", "!args.items[3].price: an infinite number has no JSON form" },
        { "{ -1/0 }", "!args[1]: an infinite number has no JSON form" },
        { "{ cb = print }", "!args.cb: a function has no JSON form" },
        { "{ f = io.stdout }", "!args.f: a userdata has no JSON form" },
        { "{ c = coroutine.create(print) }", "!args.c: a thread has no JSON form" },
        { "{ name = '\\xff\\xfe' }", "!args.name: a string that is not valid UTF-8 has no JSON form" },
        { "{ name = '\\xed\\xa0\\x80' }", "!args.name: a string that is not valid UTF-8 has no JSON form" },
        { "{ name = 'a\\0b' }", "!args.name: a string with a NUL byte cannot be stored" },
        { "{ ['\\xff'] = 1 }", "!args: a key that is not valid UTF-8 has no JSON form" },
        { "{ ['a\\0'] = 1 }", "!args: a key with a NUL byte cannot be stored" },
        { "{ ['two words'] = 0/0 }", "!args[\"two words\"]: NaN has no JSON form" },
        { "{ ['\\27[2J'] = 0/0 }", "!args[\"?[2J\"]: NaN has no JSON form" },
        { "{ 1, 2, x = 3 }", "!args: has both a list's items and named fields; JSON has no such form" },
        { "{ x = { 1, nil, 3 } }", "!args.x: is a list of 3 with nothing at 2; fill its holes with tidemill.null" },
        { "{ [1e15] = 1 }",
          "!args: is a list of 1000000000000000 with nothing at 1; fill its holes with tidemill.null" },
        { "{ [10] = 1 }", "!args: is a list of 10 with nothing at 1; fill its holes with tidemill.null" },
        { "{ [0] = 1 }", "!args: has a key that is neither a string nor a place in a list; JSON has no such form" },
        { "{ [1.5] = 1 }", "!args: has a key that is neither a string nor a place in a list; JSON has no such form" },
        { "{ x = 1, [10] = 2 }", "!args: has both a list's items and named fields; JSON has no such form" },
        { "{ x = 1, [false] = 2 }",
          "!args: has a key that is neither a string nor a place in a list; JSON has no such form" },
        { "{ [true] = 1 }", "!args: has a key that is neither a string nor a place in a list; JSON has no such form" },
    };
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        assert_expression(L, table[i].expression, table[i].message);
    }
}

static void a_long_path_is_cut_in_the_message(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    char message[256];
    td_buf b = { 0 };
    evaluate(L, "local t = { bad = 0/0 } for i = 1, 50 do t = { a_long_name = t } end return t");
    const char *error = td_value_encode(L, -1, &b, "args", message);
    assert_non_null(error);
    assert_true(strlen(error) < 200);
    assert_non_null(strstr(error, "a_long_name...: NaN has no JSON form"));
    evaluate(L, "{ [('k'):rep(1000)] = 0/0 }");
    error = td_value_encode(L, -1, &b, "args", message);
    assert_non_null(strstr(error, "kkk...\"]: NaN has no JSON form"));
    td_buf_free(&b);
    lua_pop(L, 2);
}

static void a_table_that_multiplies_itself_is_refused(void **state) {
    lua_State *L = ((fixture *)*state)->L;
    char message[256];
    td_buf b = { 0 };
    evaluate(L, "local t = { 1 } for i = 1, 90 do t = { t, t } end return t");
    const char *error = td_value_encode_max(L, -1, &b, "result", 65536, message);
    assert_string_equal(error, "result: is larger than 65536 bytes as JSON");
    assert_true(b.len < 66000);
    td_buf_free(&b);
    lua_pop(L, 1);
}

/* ---- Memory ---- */

static void running_out_of_memory_raises_and_leaks_nothing(void **state) {
    fixture *f = *state;
    td_buf json = { 0 };
    td_buf_puts(&json, "{\"long\":\"");
    for (int i = 0; i < 3000; i++) td_buf_puts(&json, "\\n\\u00e9");
    td_buf_puts(&json, "\",\"list\":[");
    for (int i = 0; i < 200; i++) td_buf_printf(&json, "[{\"key%d\":%d.5}],", i, i);
    td_buf_puts(&json, "null]}");
    assert_true(decode(f->L, json.data)); /* once, so that what stays (the table of strings) has its size */
    lua_pop(f->L, 1);
    lua_pushcfunction(f->L, push);
    lua_pushstring(f->L, json.data);
    lua_gc(f->L, LUA_GCCOLLECT);
    size_t before = f->arena.used;
    int failures = 0;
    for (long n = 0;; n++) {
        lua_pushvalue(f->L, -2);
        lua_pushvalue(f->L, -2);
        f->arena.fail_after = n;
        f->arena.fail_times = 2; /* Lua collects garbage and tries again */
        int status = lua_pcall(f->L, 1, 1, 0);
        f->arena.fail_after = -1;
        lua_pop(f->L, 1);
        if (status == LUA_OK && f->arena.fail_times == 2) break;
        if (status != LUA_OK) {
            assert_int_equal(status, LUA_ERRMEM);
            failures++;
        }
        f->arena.fail_times = 0;
    }
    assert_true(failures > 100);
    lua_gc(f->L, LUA_GCCOLLECT);
    assert_true(f->arena.used <= before);
    lua_pop(f->L, 2);
    td_buf_free(&json);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(values_come_back_unchanged),
        TEST(extreme_floats_come_back_unchanged),
        TEST(integers_keep_their_subtype_and_floats_theirs),
        TEST(negative_zero_becomes_zero),
        TEST(a_float_printed_in_full_is_the_same_float),
        TEST(a_float_beyond_15_digits_is_written_as_jsonb_prints_it),
        TEST(a_number_beyond_a_double_is_refused),
        TEST(escapes_are_decoded),
        TEST(nesting_of_100_is_allowed_and_101_refused),
        TEST(bad_json_is_refused),
        TEST(a_decoded_array_remembers_that_it_is_one),
        TEST(a_table_is_an_object_unless_marked_or_a_list),
        TEST(marking_what_cannot_be_an_array_is_refused),
        TEST(null_is_the_null_of_cjson),
        TEST(what_json_cannot_hold_is_refused_with_its_path),
        TEST(a_long_path_is_cut_in_the_message),
        TEST(a_table_that_multiplies_itself_is_refused),
        TEST(running_out_of_memory_raises_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
