/* handlers_test.c: loading a folder of handlers, and what is wrong with it. */
#include "vm_fixture.h"

#define GOOD "return { name = function() return 'good' end, handle = function() end }"

/* assert_broken loads the folder and expects an error of this code with this text; "DIR" stands for the folder. */
static void assert_broken(vm *t, int code, const char *expected) {
    td_buf b = { 0 };
    const char *dir = strstr(expected, "DIR");
    if (vm_load(t) == 0) fail_msg("loaded, but should fail with: %s", expected);
    td_buf_add(&b, expected, dir ? (size_t)(dir - expected) : 0);
    if (dir) td_buf_puts(&b, t->dir);
    td_buf_puts(&b, dir ? dir + 3 : expected);
    assert_contains(t->err.message, b.data);
    assert_int_equal(t->err.code, code);
    td_buf_free(&b);
}

/* assert_declared loads one handler with these fields and expects the error after "DIR/x.lua: ". */
static void assert_declared(vm *t, const char *fields, const char *field, const char *expected) {
    char text[600];
    vm_handler(t, fields, "");
    snprintf(text, sizeof text, "DIR/x.lua: %s: %s", field, expected);
    assert_broken(t, TIDEMILL_EHANDLER, text);
    assert_string_equal(t->err.field, field);
}

/* ---- What loads ---- */

static void handlers_are_found_by_the_name_they_give(void **state) {
    vm *t = *state;
    vm_file(t, "b_file.lua", "return { name = function() return 'alpha' end, handle = print }");
    vm_file(t, "a_file.lua", "return { name = function() return 'beta' end, handle = print }");
    assert_int_equal(vm_load(t), 0);
    assert_int_equal(td_handlers_count(t->set), 2);
    assert_string_equal(td_handlers_task(t->set, 0)->name, "alpha");
    assert_string_equal(td_handlers_task(t->set, 0)->file, "b_file.lua");
    assert_int_equal(td_handlers_find(t->set, "beta"), 1);
    assert_int_equal(td_handlers_find(t->set, "gamma"), -1);
}

static void declarations_are_read(void **state) {
    vm *t = *state;
    vm_handler(
        t,
        "queue = 'critical', priority = 0, max_attempts = 1000, timeout = 0.5, tags = { 'a', 'b' }, unique_for = 60,"
        "args = { user_id = 'string', width = 'integer?', f = 'number', b = 'boolean', o = 'object', l = 'array?' },"
        "secret = { 'user_id' }, backoff = function() return 1 end, helper = function() end, limits = { 1 },",
        "");
    if (vm_load(t) < 0) fail_msg("%s", t->err.message);
    const td_task *x = td_handlers_task(t->set, 0);
    assert_string_equal(x->queue, "critical");
    assert_int_equal(x->priority, 0);
    assert_int_equal(x->max_attempts, 1000);
    assert_int_equal(x->timeout_ms, 500);
    assert_int_equal(x->unique_for_ms, 60000);
    assert_true(x->tags_declared && x->args_declared && x->has_backoff);
    assert_int_equal(x->tags_count, 2);
    assert_string_equal(x->tags[1], "b");
    assert_int_equal(x->secret_count, 1);
    assert_string_equal(x->secret[0], "user_id");
    static const td_arg args[] = { { "b", TD_ARG_BOOLEAN, false },      { "f", TD_ARG_NUMBER, false },
                                   { "l", TD_ARG_ARRAY, true },         { "o", TD_ARG_OBJECT, false },
                                   { "user_id", TD_ARG_STRING, false }, { "width", TD_ARG_INTEGER, true } };
    assert_int_equal(x->args_count, TD_COUNT(args));
    for (size_t i = 0; i < TD_COUNT(args); i++) {
        assert_string_equal(x->args[i].name, args[i].name);
        assert_int_equal(x->args[i].type, args[i].type);
        assert_int_equal(x->args[i].optional, args[i].optional);
    }
}

static void what_is_not_declared_is_unset(void **state) {
    vm *t = *state;
    vm_handler(t, "", "");
    assert_int_equal(vm_load(t), 0);
    const td_task *x = td_handlers_task(t->set, 0);
    assert_null(x->queue);
    assert_int_equal(x->priority, TIDEMILL_UNSET_INT);
    assert_int_equal(x->max_attempts, TIDEMILL_UNSET_INT);
    assert_true(x->timeout_ms == TIDEMILL_UNSET && x->unique_for_ms == TIDEMILL_UNSET);
    assert_false(x->tags_declared || x->args_declared || x->has_backoff);
}

static void modules_in_folders_are_required_by_their_path(void **state) {
    vm *t = *state;
    vm_file(t, "lib/deep/inner.lua", "return 'inner'");
    vm_file(t, "lib/mailer.lua", "return { inner = require 'lib.deep.inner', path = (select(2, ...)) }");
    vm_file(t, "lib/pack/init.lua", "return 'pack'");
    vm_handler(t, "",
               "local m = require 'lib.mailer' return table.concat({ m.inner, m.path, (require 'lib.pack') }, ' ')");
    vm_start(t);
    assert_string_equal(vm_call(t, "{}", 1)->result, "\"inner lib/mailer.lua pack\"");
}

static void a_file_of_the_set_is_found_before_the_package_path(void **state) {
    vm *t = *state;
    vm_file(t, "lib/cjson.lua", "return 'ours'");
    vm_handler(t, "", "package.path = 'never/?.lua' return require 'lib.cjson'");
    vm_start(t);
    assert_string_equal(vm_call(t, "{}", 1)->result, "\"ours\"");
}

static void rocks_are_found_on_the_package_path(void **state) {
    vm *t = *state;
    td_result *r = vm_run(t, "local cjson = require 'cjson' return cjson.null == tidemill.null");
    if (!r->result) fail_msg("%s", r->error);
    assert_string_equal(r->result, "true");
}

static void dot_files_and_other_files_are_ignored(void **state) {
    vm *t = *state;
    vm_file(t, "good.lua", GOOD);
    vm_file(t, ".hidden.lua", "syntax error");
    vm_file(t, ".git/x.lua", "syntax error");
    vm_file(t, "README.md", "not Lua");
    vm_file(t, "lib/template.html", "<p>");
    assert_int_equal(vm_load(t), 0);
    assert_int_equal(td_handlers_count(t->set), 1);
}

static void symbolic_links_are_followed(void **state) {
    vm *t = *state;
    char link[200], target[200];
    vm_file(t, "lib/real.lua", GOOD);
    snprintf(link, sizeof link, "%s/linked.lua", t->dir);
    assert_int_equal(symlink("lib/real.lua", link), 0);
    assert_int_equal(vm_load(t), 0);
    snprintf(link, sizeof link, "%s/loop", t->dir);
    snprintf(target, sizeof target, "%s", t->dir);
    assert_int_equal(symlink(target, link), 0);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/loop: is a symbolic link that leads back to a folder it lies in");
}

static void a_shell_line_and_a_byte_order_mark_are_skipped(void **state) {
    vm *t = *state;
    vm_file(t, "good.lua", "\xEF\xBB\xBF#!/usr/bin/lua5.4\n" GOOD);
    assert_int_equal(vm_load(t), 0);
    vm_file(t, "good.lua", "#!/usr/bin/lua5.4\n\nlocal x = = 1");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/good.lua:3: unexpected symbol near '='");
}

static void the_hash_changes_with_any_byte_and_any_name(void **state) {
    vm *t = *state;
    char first[32], second[32];
    vm_file(t, "good.lua", GOOD);
    vm_file(t, "lib/a.lua", "return 1");
    assert_int_equal(vm_load(t), 0);
    snprintf(first, sizeof first, "%s", td_handlers_hash(t->set));
    assert_int_equal(vm_load(t), 0);
    assert_string_equal(td_handlers_hash(t->set), first);
    vm_file(t, "lib/a.lua", "return 2");
    assert_int_equal(vm_load(t), 0);
    snprintf(second, sizeof second, "%s", td_handlers_hash(t->set));
    assert_string_not_equal(first, second);
    char from[200], to[200];
    snprintf(from, sizeof from, "%s/lib/a.lua", t->dir);
    snprintf(to, sizeof to, "%s/lib/b.lua", t->dir);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(vm_load(t), 0);
    assert_string_not_equal(td_handlers_hash(t->set), second);
}

static void a_state_runs_the_bytes_that_were_loaded(void **state) {
    vm *t = *state;
    vm_file(t, "lib/value.lua", "return 'old'");
    vm_handler(t, "", "return require 'lib.value'");
    assert_int_equal(vm_load(t), 0);
    vm_file(t, "lib/value.lua", "return 'new'");
    vm_handler(t, "", "syntax error");
    assert_int_equal(td_state_new(t->set, vm_modules, TD_COUNT(vm_modules), 0, NULL, &t->state, &t->err), 0);
    assert_string_equal(vm_call(t, "{}", 1)->result, "\"old\"");
}

/* ---- What does not ---- */

static void a_missing_or_empty_folder_is_an_error(void **state) {
    vm *t = *state;
    td_handlers *set = NULL;
    assert_int_equal(td_handlers_load("/nonexistent/handlers", NULL, 0, &set, &t->err), TIDEMILL_EIO);
    assert_contains(t->err.message, "/nonexistent/handlers: there is no such directory");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR: there is no handler in it");
    vm_file(t, "lib/only.lua", "return 1");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR: there is no handler in it");
}

static void the_path_is_given_as_the_user_gave_it(void **state) {
    vm *t = *state;
    td_handlers *set = NULL;
    char dir[100], expected[200];
    vm_file(t, "x.lua", "oops");
    snprintf(dir, sizeof dir, "%s///", t->dir);
    assert_int_equal(td_handlers_load(dir, NULL, 0, &set, &t->err), TIDEMILL_EHANDLER);
    snprintf(expected, sizeof expected, "%s/x.lua:1: ", t->dir);
    assert_int_equal(strncmp(t->err.message, expected, strlen(expected)), 0);
}

static void a_syntax_error_names_file_and_line(void **state) {
    vm *t = *state;
    vm_file(t, "good.lua", GOOD);
    vm_file(t, "x.lua", "local a = 1\n\nif a then");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:3: 'end' expected near <eof>");
    vm_file(t, "x.lua", GOOD "\n");
    vm_file(t, "lib/unused.lua", "\n)");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/lib/unused.lua:2: unexpected symbol near ')'");
}

static void an_error_at_load_names_file_and_line(void **state) {
    vm *t = *state;
    vm_file(t, "x.lua", "\nerror('boom')");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:2: boom");
    vm_file(t, "x.lua", "\n\nerror('boom', 0)");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:3: boom");
    vm_file(t, "x.lua", "\nerror({ code = 7 })");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:2: (error object is a table value)");
    vm_file(t, "x.lua", "error(nil)");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:1: (error object is a nil value)");
    vm_file(t, "x.lua", "return setmetatable({}, { __index = function(t, k) error('no ' .. k) end })");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:1: no handle");
    vm_file(t, "x.lua", "return { handle = print, name = function()\nlocal n = nil + 1 end }");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:2: attempt to perform arithmetic on a nil value");
    vm_file(t, "lib/inner.lua", "\n\n\nerror('inner')");
    vm_file(t, "x.lua", "require 'lib.inner'");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/lib/inner.lua:4: inner");
}

static void a_require_of_nothing_names_the_module_and_the_line(void **state) {
    vm *t = *state;
    vm_file(t, "x.lua", "\nlocal m = require 'lib.nothing'");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua:2: module 'lib.nothing' not found:");
    assert_contains(t->err.message, "no file for 'lib.nothing' among the handlers");
    assert_null(strchr(t->err.message, '\n'));
}

static void precompiled_code_is_refused(void **state) {
    vm *t = *state;
    vm_file(t, "good.lua", GOOD);
    assert_int_equal(vm_load(t), 0);
    const td_file *file = td_files_find(&t->set->files, "good.lua");
    vm_bytes(t, "x.lua", file->code, file->code_len);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua: is precompiled Lua; give the source text");
}

static void a_file_above_1_mib_is_refused(void **state) {
    vm *t = *state;
    size_t size = 1 << 20;
    char *text = malloc(size + 1);
    memset(text, ' ', size + 1);
    memcpy(text, GOOD, strlen(GOOD));
    vm_bytes(t, "x.lua", text, size);
    assert_int_equal(vm_load(t), 0);
    vm_bytes(t, "x.lua", text, size + 1);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua: is larger than 1 MiB");
    free(text);
}

static void what_is_no_file_is_refused(void **state) {
    vm *t = *state;
    char path[200];
    vm_file(t, "good.lua", GOOD);
    snprintf(path, sizeof path, "%s/pipe.lua", t->dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/pipe.lua: is not an ordinary file");
    unlink(path);
    snprintf(path, sizeof path, "%s/gone.lua", t->dir);
    assert_int_equal(symlink("nowhere.lua", path), 0);
    assert_broken(t, TIDEMILL_EIO, "DIR/gone.lua: cannot be read: No such file or directory");
}

static void a_handler_must_return_a_table_with_its_two_functions(void **state) {
    vm *t = *state;
    vm_file(t, "x.lua", "local x = 1");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua: does not return a table");
    vm_file(t, "x.lua", "return 'x'");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua: does not return a table");
    vm_file(t, "x.lua", "return { name = function() return 'x' end }");
    assert_broken(t, TIDEMILL_EHANDLER,
                  "DIR/x.lua: handle: nil is not allowed; a handler's module has a function handle(ctx, args)");
    vm_file(t, "x.lua", "return { name = 'x', handle = print }");
    assert_broken(t, TIDEMILL_EHANDLER,
                  "DIR/x.lua: name: \"x\" is not allowed; a handler's module has a function name()");
}

static void a_task_name_must_be_a_short_clean_text(void **state) {
    vm *t = *state;
    static const char *const bad[][2] = {
        { "nil", "nil" },
        { "''", "\"\"" },
        { "42", "42" },
        { "{}", "a table" },
        { "'a\\nb'", "\"a\nb\"" },
        { "'\\xff'", "\"\xEF\xBF\xBD\"" },
        { "('n'):rep(101)", "\"n" },
        { "'a\\0'", "\"a\\x00\"" },
    };
    for (size_t i = 0; i < TD_COUNT(bad); i++) {
        char text[200], expected[200];
        snprintf(text, sizeof text, "return { handle = print, name = function() return %s end }", bad[i][0]);
        snprintf(expected, sizeof expected, "DIR/x.lua: name(): %s", bad[i][1]);
        vm_file(t, "x.lua", text);
        assert_broken(t, TIDEMILL_EHANDLER, expected);
        assert_contains(t->err.message, "is not allowed; return a name of 1 to 100 bytes");
    }
    vm_file(t, "x.lua", "return { handle = print, name = function() return ('n'):rep(100) end }");
    assert_int_equal(vm_load(t), 0);
}

static void two_handlers_of_one_name_are_named_both(void **state) {
    vm *t = *state;
    vm_file(t, "first.lua", GOOD);
    vm_file(t, "second.lua", GOOD);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/second.lua: name(): \"good\" is also the name of the task in ");
    assert_contains(t->err.message, "/first.lua; give each its own");
}

static void a_file_named_like_a_module_of_lua_is_refused(void **state) {
    vm *t = *state;
    vm_file(t, "good.lua", GOOD);
    vm_file(t, "string.lua", GOOD);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/string.lua: require \"string\" already means a module of Lua or Tidemill");
    vm_file(t, "string.lua", "");
    char path[200];
    snprintf(path, sizeof path, "%s/string.lua", t->dir);
    unlink(path);
    vm_file(t, "tidemill.lua", GOOD);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/tidemill.lua: require \"tidemill\" already means");
    snprintf(path, sizeof path, "%s/tidemill.lua", t->dir);
    unlink(path);
    vm_file(t, "a.b.lua", GOOD);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/a.b.lua: has a dot in its name");
}

static void each_declaration_is_checked(void **state) {
    vm *t = *state;
    static const struct {
        const char *fields, *field, *expected;
    } table[] = {
        { "priority = 101,", "priority", "101 is not allowed; declare a whole number from 0 to 100" },
        { "priority = -1,", "priority", "-1 is not allowed; declare a whole number from 0 to 100" },
        { "priority = 1.5,", "priority", "1.5 is not allowed" },
        { "priority = '1',", "priority", "\"1\" is not allowed" },
        { "priority = 0/0,", "priority", "" },
        { "max_attempts = 0,", "max_attempts", "0 is not allowed; declare a whole number from 1 to 1000" },
        { "max_attempts = 1001,", "max_attempts", "1001 is not allowed" },
        { "timeout = 0,", "timeout", "0 is not allowed; declare a number of seconds above 0, up to 604800 (a week)" },
        { "timeout = 604801,", "timeout", "604801 is not allowed" },
        { "timeout = 1/0,", "timeout", "inf is not allowed" },
        { "timeout = '60',", "timeout", "\"60\" is not allowed" },
        { "unique_for = -5,", "unique_for", "-5 is not allowed; declare a number of seconds above 0, up to 315576000" },
        { "unique_for = 1e10,", "unique_for", "10000000000.0 is not allowed" },
        { "queue = '',", "queue", "\"\" is not allowed; declare a name of 1 to 100 bytes" },
        { "queue = ('q'):rep(101),", "queue", "\"qqq" },
        { "queue = false,", "queue", "false is not allowed" },
        { "backoff = 5,", "backoff", "5 is not allowed; declare a function" },
        { "tags = 'a',", "tags", "\"a\" is not allowed; declare a list of up to 20 strings of 1 to 100 bytes" },
        { "tags = { '' },", "tags", "\"\" is not allowed" },
        { "tags = { 1 },", "tags", "1 is not allowed" },
        { "tags = { a = 'b' },", "tags", "a table with keys other than 1 to 0 is not allowed" },
        { "tags = table.pack(('x '):rep(21):byte(1, 21)),", "tags", "a table with keys other than" },
        { "tags = { ('x'):rep(101) },", "tags", "\"xxx" },
        { "tags = (function() local t = {} for i = 1, 21 do t[i] = 'x' end return t end)(),", "tags",
          "21 of them are not allowed; declare a list of up to 20" },
        { "args = 'string',", "args", "\"string\" is not allowed; declare a table of names and types" },
        { "args = { 'string' },", "args", "1 is not allowed; declare fields by name" },
        { "args = { id = 'int' },", "args.id", "\"int\" is not allowed; declare one of string, number, integer" },
        { "args = { id = 'string?!' },", "args.id", "\"string?!\" is not allowed" },
        { "args = { id = '' },", "args.id", "\"\" is not allowed" },
        { "args = { id = true },", "args.id", "true is not allowed" },
        { "secret = 'password',", "secret", "\"password\" is not allowed; declare a list of names of arguments" },
        { "args = { user = 'string' }, secret = { 'password' },", "secret",
          "\"password\" is not allowed; name an argument that args declares" },
    };
    for (size_t i = 0; i < TD_COUNT(table); i++) assert_declared(t, table[i].fields, table[i].field, table[i].expected);
    vm_handler(t, "secret = { 'anything' },", ""); /* nothing is declared about args, so it may be there */
    assert_int_equal(vm_load(t), 0);
}

static void a_slip_in_a_declaration_is_found(void **state) {
    vm *t = *state;
    static const char *const slips[][2] = {
        { "max_attempt = 3,", "max_attempts" },
        { "prioritty = 3,", "priority" },
        { "timout = 3,", "timeout" },
        { "tag = { 'a' },", "tags" },
        { "queu = 'x',", "queue" },
        { "uniqe_for = 5,", "unique_for" },
        { "arg = {},", "args" },
        { "secrets = {},", "secret" },
        { "back_off = function() end,", "backoff" },
    };
    for (size_t i = 0; i < TD_COUNT(slips); i++) {
        char field[40], expected[100];
        snprintf(field, sizeof field, "%.*s", (int)strcspn(slips[i][0], " "), slips[i][0]);
        snprintf(expected, sizeof expected, "is nothing that a handler declares; did you mean %s?", slips[i][1]);
        assert_declared(t, slips[i][0], field, expected);
    }
    vm_file(t, "x.lua", "return { name = function() return 'x' end, handel = print }");
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua: handel: is nothing that a handler declares; did you mean handle?");
    vm_handler(t, "new = function() end, deps = {}, VERSION = 1, template = 'x', tagged = function() end, size = 4,",
               "");
    if (vm_load(t) < 0) fail_msg("%s", t->err.message);
}

/* fickle writes a module that is fine so many times, however often it has run before. */
static void fickle(vm *t, int times) {
    char text[400];
    snprintf(text, sizeof text,
             "io.open(os.getenv('TMVM') .. '/ran%d', 'a'):write('x'):close()\n"
             "local f = io.open(os.getenv('TMVM') .. '/ran%d') local n = #f:read('a') f:close()\n"
             "return { name = function() return 'x' end, handle = n <= %d and print or 5 }",
             times, times, times);
    vm_file(t, "x.lua", text);
}

static void a_module_that_changes_its_mind_is_an_error(void **state) {
    vm *t = *state;
    setenv("TMVM", t->dir, 1);
    fickle(t, 1);
    assert_broken(t, TIDEMILL_EHANDLER, "DIR/x.lua: handle is not a function this time");
    fickle(t, 2); /* then only a worker's state sees it */
    assert_int_equal(vm_load(t), 0);
    assert_int_equal(td_state_new(t->set, vm_modules, 2, 0, NULL, &t->state, &t->err), TIDEMILL_EHANDLER);
    assert_contains(t->err.message, "/x.lua: handle is not a function this time");
    unsetenv("TMVM");
}

static void a_huge_table_at_load_is_an_error(void **state) {
    vm *t = *state;
    vm_file(t, "x.lua", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end");
    assert_broken(t, TIDEMILL_EMEMORY, "DIR/x.lua: ran out of memory while it was loaded");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, vm_setup, vm_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(handlers_are_found_by_the_name_they_give),
        TEST(declarations_are_read),
        TEST(what_is_not_declared_is_unset),
        TEST(modules_in_folders_are_required_by_their_path),
        TEST(a_file_of_the_set_is_found_before_the_package_path),
        TEST(rocks_are_found_on_the_package_path),
        TEST(dot_files_and_other_files_are_ignored),
        TEST(symbolic_links_are_followed),
        TEST(a_shell_line_and_a_byte_order_mark_are_skipped),
        TEST(the_hash_changes_with_any_byte_and_any_name),
        TEST(a_state_runs_the_bytes_that_were_loaded),
        TEST(a_missing_or_empty_folder_is_an_error),
        TEST(the_path_is_given_as_the_user_gave_it),
        TEST(a_syntax_error_names_file_and_line),
        TEST(an_error_at_load_names_file_and_line),
        TEST(a_require_of_nothing_names_the_module_and_the_line),
        TEST(precompiled_code_is_refused),
        TEST(a_file_above_1_mib_is_refused),
        TEST(what_is_no_file_is_refused),
        TEST(a_handler_must_return_a_table_with_its_two_functions),
        TEST(a_task_name_must_be_a_short_clean_text),
        TEST(two_handlers_of_one_name_are_named_both),
        TEST(a_file_named_like_a_module_of_lua_is_refused),
        TEST(each_declaration_is_checked),
        TEST(a_slip_in_a_declaration_is_found),
        TEST(a_module_that_changes_its_mind_is_an_error),
        TEST(a_huge_table_at_load_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
