/* call_test.c: how an attempt ends, by what its handler does. */
#include "vm_fixture.h"

#include <lualib.h>

static void assert_completed(td_result *r, const char *result) {
    if (r->outcome != TD_COMPLETED) fail_msg("%s: %s", td_outcome_name(r->outcome), r->error ? r->error : "NULL");
    if (result)
        assert_string_equal(r->result, result);
    else
        assert_null(r->result);
    assert_null(r->error);
    assert_null(r->traceback);
}

static void assert_failed(td_result *r, const char *error) {
    if (r->outcome != TD_FAILED) fail_msg("%s: %s", td_outcome_name(r->outcome), r->error ? r->error : "NULL");
    assert_string_equal(r->error, error);
    assert_null(r->result);
}

/* ---- Returning ---- */

static void nothing_or_nil_completes(void **state) {
    static const char *const bodies[] = { "", "return", "return nil", "return nil, nil", "return nil, nil, 1" };
    for (size_t i = 0; i < TD_COUNT(bodies); i++) {
        td_result *r = vm_run(*state, bodies[i]);
        assert_completed(r, NULL);
        assert_null(r->warning);
        assert_true(r->delay_s < 0);
    }
}

static void one_value_completes_and_is_the_result(void **state) {
    static const char *const table[][2] = {
        { "return 42", "42" },
        { "return 'done'", "\"done\"" },
        { "return true", "true" },
        { "return 0", "0" },
        { "return ''", "\"\"" },
        { "return 9007199254740993", "9007199254740993" },
        { "return 0.1, nil", "0.1" },
        { "return {}", "{}" },
        { "return tidemill.array{}", "[]" },
        { "return tidemill.null", "null" },
        { "return { path = 'a/b.png', sizes = { 1, 2 } }", NULL },
    };
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        td_result *r = vm_run(*state, table[i][0]);
        if (table[i][1]) assert_completed(r, table[i][1]);
        assert_non_null(r->result);
        assert_null(r->warning);
    }
}

static void a_second_value_after_a_true_one_is_ignored_with_a_warning(void **state) {
    td_result *r = vm_run(*state, "return 1, 'more'");
    assert_completed(r, "1");
    assert_string_equal(r->warning, "the handler returned a second value after a true first one, which is ignored");
    r = vm_run(*state, "return 1, false");
    assert_completed(r, "1");
    assert_non_null(r->warning);
}

static void a_result_that_cannot_be_kept_completes_with_a_warning(void **state) {
    td_result *r = vm_run(*state, "return { score = 0/0 }");
    assert_completed(r, NULL);
    assert_string_equal(r->warning, "result.score: NaN has no JSON form; the result was not kept");
    r = vm_run(*state, "return ('x'):rep(65534)");
    assert_int_equal(strlen(r->result), 65536);
    assert_null(r->warning);
    r = vm_run(*state, "return ('x'):rep(65535)");
    assert_completed(r, NULL);
    assert_string_equal(r->warning, "result: is larger than 65536 bytes as JSON; the result was not kept");
    r = vm_run(*state, "return print, 2");
    assert_completed(r, NULL);
    assert_contains(r->warning, "a function has no JSON form; the result was not kept; the handler returned a second");
}

static void false_alone_fails(void **state) {
    assert_failed(vm_run(*state, "return false"), "the handler returned false");
    assert_failed(vm_run(*state, "return false, nil"), "the handler returned false");
}

static void nil_or_false_with_an_error_fails(void **state) {
    assert_failed(vm_run(*state, "return nil, 'no such user'"), "no such user");
    assert_failed(vm_run(*state, "return false, 'no such user', 'code'"), "no such user");
    assert_failed(vm_run(*state, "return nil, false"), "false");
    assert_failed(vm_run(*state, "return nil, 42"), "42");
    assert_failed(vm_run(*state, "return nil, { message = 'in a table' }"), "in a table");
    td_result *r = vm_run(*state, "return nil, {}");
    assert_failed(r, "(error object is a table value)");
    assert_null(r->traceback);
}

/* ---- Raising ---- */

static void raising_a_string_fails_with_place_and_traceback(void **state) {
    td_result *r = vm_run(*state, "local function inner() error('boom') end\ninner()");
    assert_failed(r, "x.lua:2: boom");
    assert_contains(r->traceback, "stack traceback:\n\t[C]: in function 'error'\n\tx.lua:2: in local 'inner'");
    assert_contains(r->traceback, "x.lua:3: in function <x.lua:1>");
    assert_null(strstr(r->traceback, "[C]: in ?"));
}

static void raising_anything_fails_with_a_text(void **state) {
    static const char *const table[][2] = {
        { "error()", "(error object is a nil value)" },
        { "error(nil)", "(error object is a nil value)" },
        { "error({})", "(error object is a table value)" },
        { "error({ message = 'from the table', code = 3 })", "from the table" },
        { "error({ message = 3 })", "(error object is a table value)" },
        { "error(setmetatable({ message = 'm' }, { __tostring = function() return 'as text' end }))", "as text" },
        { "error(setmetatable({}, { __tostring = function() error('x') end }))", "(error object is a table value)" },
        { "error(setmetatable({}, { __tostring = function() return {} end }))", "(error object is a table value)" },
        { "error(setmetatable({}, { __tostring = 5 }))", "(error object is a table value)" },
        { "error(setmetatable({}, { __index = error }))", "(error object is a table value)" },
        { "error(42)", "42" },
        { "error(1.5)", "1.5" },
        { "error(true)", "true" },
        { "error(print)", "(error object is a function value)" },
        { "error(coroutine.create(print))", "(error object is a thread value)" },
        { "error('no place', 0)", "no place" },
        { "error('', 0)", "" },
        { "error('bad \\xff\\0\\27[31m bytes', 0)", "bad \xEF\xBF\xBD\\x00\\x1B[31m bytes" },
        { "local x = nil; x.y = 1", "x.lua:2: attempt to index a nil value (local 'x')" },
        { "string.rep()", "x.lua:2: bad argument #1 to 'rep' (string expected, got no value)" },
        { "os.exit(0)", "x.lua:2: os.exit is not allowed here; a handler ends by returning or raising an error" },
        { "error('not enough memory', 0)", "not enough memory" },
    };
    for (size_t i = 0; i < TD_COUNT(table); i++) assert_failed(vm_run(*state, table[i][0]), table[i][1]);
}

static void long_errors_and_tracebacks_are_cut(void **state) {
    td_result *r = vm_run(*state, "error(('long '):rep(100000), 0)");
    assert_int_equal(r->outcome, TD_FAILED);
    assert_true(strlen(r->error) <= TD_ERROR_MAX + 40);
    assert_contains(r->error, "bytes cut)");
    r = vm_run(*state, "return nil, ('long '):rep(100000)");
    assert_true(strlen(r->error) <= TD_ERROR_MAX + 40);
    r = vm_run(*state, "ctx:cancel(('long '):rep(100000))");
    assert_true(strlen(r->error) <= TD_ERROR_MAX + 40);
    assert_contains(r->error, "bytes cut)");
}

static void endless_recursion_fails(void **state) {
    vm *t = *state;
    t->memory_limit = 256 << 20; /* the interpreter's limit on its stack is to be met first */
    td_result *r = vm_run(*state, "local function f() return 1 + f() end f()");
    assert_int_equal(r->outcome, TD_FAILED);
    assert_contains(r->error, "stack overflow");
    r = vm_run(*state,
               "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k] end return t.x");
    assert_int_equal(r->outcome, TD_FAILED);
    assert_contains(r->error, "stack overflow");
    r = vm_run(
        *state,
        "local t = setmetatable({}, {}) getmetatable(t).__tostring = function() return tostring(t) end error(t)");
    assert_int_equal(r->outcome, TD_FAILED);
}

/* ---- Arguments ---- */

static void arguments_arrive_exactly(void **state) {
    vm *t = *state;
    vm_handler(t, "",
               "return { args.id, math.type(args.id), args.f, args.list, args.o, args.null == tidemill.null, args.s }");
    vm_start(t);
    td_result *r = vm_call(
        t,
        "{\"id\": 9007199254740993, \"f\": 0.1, \"list\": [], \"o\": {}, \"null\": null, \"s\": \"\xF0\x9F\x98\x80\"}",
        1);
    assert_completed(r, "[9007199254740993,\"integer\",0.1,[],{},true,\"\xF0\x9F\x98\x80\"]");
}

static void arguments_that_do_not_fit_are_discarded_for_good(void **state) {
    vm *t = *state;
    static const char *const table[][2] = {
        { "{\"user_id\":42}", "args.user_id: 42 is not allowed; the task declares a string" },
        { "{}", "args.user_id: is missing; the task declares a string" },
        { "{\"user_id\":null}", "args.user_id: null is not allowed; the task declares a string" },
        { "{\"user_id\":[]}", "args.user_id: an array is not allowed; the task declares a string" },
        { "{\"user_id\":\"1\",\"width\":1.0}", "args.width: 1.0 is not allowed; the task declares an integer" },
        { "{\"user_id\":\"1\",\"width\":9223372036854775808}",
          "args.width: 9.2233720368548e+18 is not allowed; the task declares an integer" },
        { "{\"user_id\":\"1\",\"width\":\"7\"}", "args.width: \"7\" is not allowed; the task declares an integer" },
        { "{\"user_id\":\"1\",\"ratio\":true}", "args.ratio: true is not allowed; the task declares a number" },
        { "{\"user_id\":\"1\",\"on\":0}", "args.on: 0 is not allowed; the task declares a boolean" },
        { "{\"user_id\":\"1\",\"o\":[]}", "args.o: an array is not allowed; the task declares an object" },
        { "{\"user_id\":\"1\",\"l\":{}}", "args.l: an object is not allowed; the task declares an array" },
        { "{\"user_id\":\"1\",\"token\":12345}", "args.token: an integer is not allowed; the task declares a string" },
        { "[]", "args: an array is not allowed; the arguments of a job are an object" },
        { "\"x\"", "args: a string is not allowed; the arguments of a job are an object" },
        { "{\"user_id\":1e400}", "args: number 1e400 is beyond the range of a double" },
        { "{", "args: not valid JSON: " },
        { "", "args: not valid JSON: " },
    };
    vm_handler(t,
               "args = { user_id = 'string', width = 'integer?', ratio = 'number?', on = 'boolean?', o = 'object?', l "
               "= 'array?',"
               "token = 'string?' }, secret = { 'token' }, backoff = function() return 5 end,",
               "trace('ran')");
    vm_start(t);
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        td_result *r = vm_call(t, table[i][0], 1);
        if (r->outcome != TD_DISCARDED) fail_msg("%s: %s", table[i][0], td_outcome_name(r->outcome));
        assert_contains(r->error, table[i][1]);
        assert_true(r->permanent);
        assert_null(r->traceback);
        assert_true(r->delay_s < 0);
    }
    assert_string_equal(vm_trace(t), "");
    assert_completed(vm_call(t, "{\"user_id\":\"1\",\"width\":null,\"ratio\":3,\"extra\":[1]}", 1), NULL);
    assert_string_equal(vm_trace(t), "ran ");
}

static int raising_ctx(lua_State *L) {
    return luaL_error(L, "no ctx today");
}

static void an_error_while_ctx_is_made_fails_the_attempt(void **state) {
    vm *t = *state;
    td_result result;
    vm_run(t, "trace('ran')");
    td_state_call(t->state, 0, "{}", 2, 1, raising_ctx, NULL, &result);
    assert_int_equal(result.outcome, TD_FAILED);
    assert_string_equal(result.error, "no ctx today");
    td_result_free(&result);
}

/* ---- Ending from within ---- */

static void snooze_cancel_and_discard_end_the_attempt(void **state) {
    td_result *r = vm_run(*state, "ctx:snooze(1.5) trace('on')");
    assert_int_equal(r->outcome, TD_SNOOZED);
    assert_true(r->delay_s == 1.5);
    assert_null(r->error);
    r = vm_run(*state, "ctx:cancel('not needed\\27') trace('on')");
    assert_int_equal(r->outcome, TD_CANCELLED);
    assert_string_equal(r->error, "not needed\\x1B");
    r = vm_run(*state, "ctx:discard('hopeless') trace('on')");
    assert_int_equal(r->outcome, TD_DISCARDED);
    assert_string_equal(r->error, "hopeless");
    assert_false(r->permanent);
    assert_null(r->traceback);
    r = vm_run(*state, "ctx:discard() trace('on')");
    assert_int_equal(r->outcome, TD_DISCARDED);
    assert_null(r->error);
    assert_string_equal(vm_trace(*state), "");
}

/* Each body must end by ctx:snooze(7), whatever it puts around it; trace must then be as given. */
static void nothing_in_lua_stops_an_end(void **state) {
    static const char *const table[][2] = {
        { "pcall(ctx.snooze, ctx, 7) trace('on')", "" },
        { "pcall(function() ctx:snooze(7) end) trace('on')", "" },
        { "pcall(pcall, pcall, function() ctx:snooze(7) end) trace('on')", "" },
        { "xpcall(function() ctx:snooze(7) end, print) trace('on')", "" },
        { "xpcall(function() ctx:snooze(7) end, function(e) trace(type(e)) return 'x' end) trace('on')", "userdata " },
        { "xpcall(error, function() ctx:snooze(7) end) trace('on')", "" },
        { "xpcall(function() ctx:snooze(7) end, function(e) error(e) end) trace('on')", "" },
        { "coroutine.resume(coroutine.create(function() ctx:snooze(7) end)) trace('on')", "" },
        { "coroutine.wrap(function() ctx:snooze(7) end)() trace('on')", "" },
        { "for x in coroutine.wrap(function() coroutine.yield(1) ctx:snooze(7) end) do trace('turn') end trace('on')",
          "turn " },
        { "local co = coroutine.create(function() pcall(function() coroutine.yield() ctx:snooze(7) end) trace('on') "
          "end)"
          "coroutine.resume(co) coroutine.resume(co) trace('on')",
          "" },
        { "local co = coroutine.create(function() xpcall(function() coroutine.yield() ctx:snooze(7) end, print) "
          "trace('on') end)"
          "coroutine.resume(co) pcall(coroutine.resume, co) trace('on')",
          "" },
        { "coroutine.wrap(function() coroutine.wrap(function() pcall(ctx.snooze, ctx, 7) end)() end)() trace('on')",
          "" },
        { "load(function() ctx:snooze(7) end) trace('on')", "" },
        { "pcall(string.gsub, 'x', 'x', function() ctx:snooze(7) end) trace('on')", "" },
        { "pcall(table.sort, { 3, 2, 1 }, function() ctx:snooze(7) end) trace('on')", "" },
        { "pcall(tostring, setmetatable({}, { __tostring = function() ctx:snooze(7) end })) trace('on')", "" },
        { "local t = setmetatable({}, { __index = function() ctx:snooze(7) end }) pcall(function() return t.x end) "
          "trace('on')",
          "" },
        { "local co = coroutine.create(function() local c <close> = setmetatable({}, { __close = function() "
          "ctx:snooze(7) end })"
          "coroutine.yield() end) coroutine.resume(co) coroutine.close(co) trace('on')",
          "" },
        { "local f = coroutine.wrap(function() local c <close> = setmetatable({}, { __close = function() ctx:snooze(7) "
          "end })"
          "error('x') end) pcall(f) trace('on')",
          "" },
        { "error(setmetatable({}, { __tostring = function() ctx:snooze(7) end }))", "" },
        { "while true do pcall(ctx.snooze, ctx, 7) end", "" },
    };
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        td_result *r = vm_run(*state, table[i][0]);
        if (r->outcome != TD_SNOOZED) fail_msg("%s: %s", table[i][0], td_outcome_name(r->outcome));
        assert_true(r->delay_s == 7);
        if (strcmp(vm_trace(*state), table[i][1]) != 0) fail_msg("%s: traced %s", table[i][0], vm_trace(*state));
    }
}

static void close_variables_run_while_an_attempt_is_ended(void **state) {
    static const char closing[] = "local function closing(name, f) return setmetatable({}, { __close = function(_, e) "
                                  "trace(name .. ':' .. type(e)) if f then f() end end }) end ";
    static const char *const table[][2] = {
        { "local a <close> = closing('a') pcall(function() local b <close> = closing('b') ctx:cancel() end)",
          "b:userdata a:userdata " },
        { "local a <close> = closing('a') coroutine.wrap(function() local b <close> = closing('b') ctx:cancel() end)()",
          "b:userdata a:userdata " },
        { "local a <close> = closing('a') local co = coroutine.create(function() local b <close> = closing('b') "
          "coroutine.yield() ctx:cancel() end)"
          "coroutine.resume(co) coroutine.resume(co)",
          "b:userdata a:userdata " },
        /* what is caught in a <close> variable stays caught, and the variable runs to its end */
        { "local a <close> = closing('a', function() trace(tostring(pcall(error, 'x'))) trace('end') end) "
          "pcall(function() ctx:cancel() end)",
          "a:userdata false end " },
        { "local a <close> = closing('a', function() trace(tostring(coroutine.resume(coroutine.create(error)))) end) "
          "ctx:cancel()",
          "a:userdata false " },
        /* an error in one of them does not hinder the others, nor the end */
        { "local a <close> = closing('a') local b <close> = closing('b', function() error('x') end) pcall(ctx.cancel, "
          "ctx) trace('on')",
          "b:userdata a:string " },
        { "local a <close> = closing('a', function() ctx:snooze(3) end) ctx:cancel('first')", "a:userdata " },
        { "local a <close> = closing('a', function() pcall(ctx.snooze, ctx, 3) trace('after') end) ctx:cancel('first')",
          "a:userdata " },
    };
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        char body[1000];
        snprintf(body, sizeof body, "%s%s", closing, table[i][0]);
        td_result *r = vm_run(*state, body);
        if (r->outcome != TD_CANCELLED) fail_msg("%s: %s %s", table[i][0], td_outcome_name(r->outcome), r->error);
        if (strcmp(vm_trace(*state), table[i][1]) != 0) fail_msg("%s: traced %s", table[i][0], vm_trace(*state));
    }
}

static void an_end_leaves_the_state_as_good_as_new(void **state) {
    vm *t = *state;
    vm_handler(t, "",
               "kept = kept or coroutine.wrap(function() while true do coroutine.yield(pcall(coroutine.yield, 'in')) "
               "end end)\n"
               "if args.first then kept() ctx:snooze(1) end\n"
               "local ok = pcall(error, 'caught')\n"
               "local co = coroutine.create(function() error('caught') end)\n"
               "return { ok, coroutine.resume(co), kept() }");
    vm_start(t);
    assert_int_equal(vm_call(t, "{\"first\":true}", 1)->outcome, TD_SNOOZED);
    assert_completed(vm_call(t, "{}", 1), "[false,false,true]");
}

static void a_protected_call_left_over_from_an_ended_attempt_still_catches(void **state) {
    vm *t = *state;
    vm_handler(t, "",
               "if args.first then kept = coroutine.create(function() local ok, e = pcall(function() coroutine.yield() "
               "error('late', 0) end)"
               "return ok, e end) coroutine.resume(kept) ctx:snooze(1) end\n"
               "local _, ok, e = coroutine.resume(kept) return { ok, e }");
    vm_start(t);
    assert_int_equal(vm_call(t, "{\"first\":true}", 1)->outcome, TD_SNOOZED);
    assert_completed(vm_call(t, "{}", 1), "[false,\"late\"]");
}

static void an_end_outside_of_an_attempt_is_an_ordinary_error(void **state) {
    vm *t = *state;
    vm_handler(t, "backoff = function() kept:snooze(1) end,", "kept = ctx error('x', 0)");
    vm_start(t);
    td_result *r = vm_call(t, "{}", 1);
    assert_failed(r, "x");
    assert_contains(r->warning, "no attempt is running here that could be ended");
}

/* ---- Backoff ---- */

static void backoff_is_asked_when_an_attempt_failed(void **state) {
    vm *t = *state;
    vm_handler(t, "backoff = function(attempt) return attempt * 10 + 0.5 end,", "if args.fail then error('x', 0) end");
    vm_start(t);
    td_result *r = vm_call(t, "{\"fail\":true}", 4);
    assert_failed(r, "x");
    assert_true(r->delay_s == 40.5);
    assert_null(r->warning);
    assert_true(vm_call(t, "{}", 4)->delay_s < 0);
}

static void a_bad_backoff_warns_and_is_not_used(void **state) {
    static const char *const table[][2] = {
        { "error('broken', 0)", "backoff: broken; the usual delay is used" },
        { "return -1", "backoff: -1 is not allowed; return a number of seconds from 0 to one year" },
        { "return 0/0", "is not allowed" },
        { "return 1/0", "backoff: inf is not allowed" },
        { "return 1e9", "backoff: 1000000000.0 is not allowed" },
        { "return '5'", "backoff: \"5\" is not allowed" },
        { "return", "backoff: nil is not allowed" },
        { "error()", "backoff: (error object is a nil value)" },
    };
    vm *t = *state;
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        char fields[200];
        snprintf(fields, sizeof fields, "backoff = function() %s end,", table[i][0]);
        vm_handler(t, fields, "return false");
        vm_start(t);
        td_result *r = vm_call(t, "{}", 1);
        assert_int_equal(r->outcome, TD_FAILED);
        assert_true(r->delay_s < 0);
        assert_contains(r->warning, table[i][1]);
    }
}

/* ---- Memory ---- */

static void a_job_above_its_memory_limit_fails_with_the_figure(void **state) {
    vm *t = *state;
    t->memory_limit = 4 << 20;
    td_result *r = vm_run(t, "local all = {} for i = 1, 1e9 do all[i] = ('x'):rep(1000) .. i end");
    assert_int_equal(r->outcome, TD_MEMORY);
    assert_string_equal(r->error, "the job needed more memory than its limit of 4 MiB");
    assert_true(t->state->arena.peak <= 4 << 20);
    assert_true(td_state_memory(t->state) < 1 << 20); /* and the state can be used again */
    r = vm_run(t, "local s = ('x'):rep(1 << 30)");
    assert_int_equal(r->outcome, TD_MEMORY);
    r = vm_run(t, "local all = {} for i = 1, 1e9 do all[i] = i end");
    assert_int_equal(r->outcome, TD_MEMORY);
    r = vm_run(t, "local s, more = '', ('x'):rep(5000) while true do s = s .. more end");
    assert_int_equal(r->outcome, TD_MEMORY);
    r = vm_run(t, "return pcall(string.rep, 'x', 1 << 30)");
    assert_int_equal(r->outcome, TD_FAILED); /* caught by the handler, who returned false and the message */
    assert_string_equal(r->error, "not enough memory");
    assert_completed(vm_run(t, "return 1"), "1");
}

static void arguments_above_the_memory_limit_are_a_matter_of_memory(void **state) {
    vm *t = *state;
    td_buf json = { 0 };
    td_buf_puts(&json, "{\"l\":[");
    for (int i = 0; i < 100000; i++) td_buf_puts(&json, "{\"a\":1},");
    td_buf_puts(&json, "1]}");
    t->memory_limit = 1 << 20;
    vm_handler(t, "", "");
    vm_start(t);
    td_result *r = vm_call(t, json.data, 1);
    assert_int_equal(r->outcome, TD_MEMORY);
    assert_string_equal(r->error, "the job needed more memory than its limit of 1 MiB");
    td_buf_free(&json);
}

static void an_error_near_the_memory_limit_keeps_its_message(void **state) {
    vm *t = *state;
    t->memory_limit = 1 << 20;
    int kept = 0;
    vm_run(t, "error('the reason', 0)");
    for (size_t left = 0; left < 8000; left += 16) {
        lua_gc(t->state->L, LUA_GCCOLLECT);
        t->state->arena.limit = td_state_memory(t->state) + left;
        td_result *r = vm_call(t, "{}", 1);
        t->state->arena.limit = t->memory_limit;
        assert_true(r->outcome == TD_MEMORY || r->outcome == TD_FAILED);
        if (r->outcome == TD_FAILED) assert_string_equal(r->error, "the reason");
        kept += r->outcome == TD_FAILED && strstr(r->traceback, "x.lua:") != NULL; /* it needs no memory of Lua's */
    }
    assert_true(kept > 0);
}

/* ---- The environment ---- */

static void a_plain_lua_state_is_not_ours(void **state) {
    (void)state;
    lua_State *L = luaL_newstate();
    assert_null(td_state_of(L));
    lua_close(L);
}

static void a_state_knows_itself_and_its_user(void **state) {
    vm *t = *state;
    int object;
    vm_run(t, "");
    assert_ptr_equal(td_state_of(t->state->L), t->state);
    assert_ptr_equal(td_state_handlers(t->state), t->set);
    assert_null(td_state_user(t->state));
    td_state_set_user(t->state, &object);
    assert_ptr_equal(td_state_user(t->state), &object);
    assert_completed(vm_run(t, "return type(ctx.object)"), "\"userdata\"");
}

static void precompiled_code_cannot_be_loaded(void **state) {
    static const char dump[] = "local code = string.dump(function() return 1 end) ";
    static const char *const bodies[] = {
        "local f, e = load(code) return f == nil and e",
        "local f, e = load(code, 'c', 'b') return f == nil and e",
        "local f, e = load(code, 'c', 'bt', {}) return f == nil and e",
        "local f, e = load(coroutine.wrap(function() coroutine.yield(code) end)) return f == nil and e",
        "local n = os.tmpname() local h = io.open(n, 'w') h:write(code) h:close() local f, e = loadfile(n) "
        "os.remove(n) return f == nil and e",
        "local n = os.tmpname() local h = io.open(n, 'w') h:write(code) h:close() local ok, e = pcall(dofile, n) "
        "os.remove(n) return not ok and e",
        "local n = os.tmpname() local h = io.open(n, 'w') h:write(code) h:close() package.path = n local ok, e = "
        "pcall(require, 'zz') os.remove(n) return not ok and e",
    };
    for (size_t i = 0; i < TD_COUNT(bodies); i++) {
        char body[500];
        snprintf(body, sizeof body, "%s%s", dump, bodies[i]);
        td_result *r = vm_run(*state, body);
        if (!r->result) fail_msg("%s: %s", bodies[i], r->error);
        assert_contains(r->result, "attempt to load a binary chunk");
    }
}

static void the_locale_cannot_be_changed_and_print_is_silent(void **state) {
    assert_completed(
        vm_run(*state,
               "print('not to be seen') return { os.setlocale(), os.setlocale('C'), os.setlocale('de_DE') == nil }"),
        "[\"C\",\"C\",true]");
}

static int open_print(lua_State *L) {
    lua_pushliteral(L, "replaced");
    lua_setglobal(L, "print");
    return 0;
}

static void a_nameless_module_changes_the_globals(void **state) {
    vm *t = *state;
    static const td_module modules[] = { { NULL, open_print } };
    vm_file(t, "x.lua",
            "local p = print return { name = function() return 'x' end, handle = function() return p end }");
    assert_int_equal(td_handlers_load(t->dir, modules, 1, &t->set, &t->err), 0);
    assert_int_equal(td_state_new(t->set, modules, 1, 0, NULL, &t->state, &t->err), 0);
    assert_completed(vm_call(t, "{}", 1), "\"replaced\"");
}

static void states_of_a_set_share_nothing(void **state) {
    vm *t = *state;
    td_state *other = NULL;
    vm_handler(t, "", "count = (count or 0) + 1 string.mine = true return { count, string.mine }");
    vm_start(t);
    assert_int_equal(td_state_new(t->set, vm_modules, TD_COUNT(vm_modules), 0, NULL, &other, &t->err), 0);
    vm_call(t, "{}", 1);
    assert_completed(vm_call(t, "{}", 1), "[2,true]");
    td_state *first = t->state;
    t->state = other;
    assert_completed(vm_call(t, "{}", 1), "[1,true]");
    td_state_drop(other);
    t->state = first;
}

static void a_state_outlives_its_set(void **state) {
    vm *t = *state;
    vm_run(t, "return require('lib.late')");
    vm_file(t, "lib/late.lua", "return 'late'");
    vm_start(t);
    td_handlers_unref(t->set);
    td_handlers *set = t->set;
    t->set = NULL;
    td_result *r = &t->result;
    td_state_call(t->state, 0, "{}", 2, 1, NULL, NULL, r);
    assert_completed(r, "\"late\"");
    (void)set;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, vm_setup, vm_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(nothing_or_nil_completes),
        TEST(one_value_completes_and_is_the_result),
        TEST(a_second_value_after_a_true_one_is_ignored_with_a_warning),
        TEST(a_result_that_cannot_be_kept_completes_with_a_warning),
        TEST(false_alone_fails),
        TEST(nil_or_false_with_an_error_fails),
        TEST(raising_a_string_fails_with_place_and_traceback),
        TEST(raising_anything_fails_with_a_text),
        TEST(long_errors_and_tracebacks_are_cut),
        TEST(endless_recursion_fails),
        TEST(arguments_arrive_exactly),
        TEST(arguments_that_do_not_fit_are_discarded_for_good),
        TEST(an_error_while_ctx_is_made_fails_the_attempt),
        TEST(snooze_cancel_and_discard_end_the_attempt),
        TEST(nothing_in_lua_stops_an_end),
        TEST(close_variables_run_while_an_attempt_is_ended),
        TEST(an_end_leaves_the_state_as_good_as_new),
        TEST(a_protected_call_left_over_from_an_ended_attempt_still_catches),
        TEST(an_end_outside_of_an_attempt_is_an_ordinary_error),
        TEST(backoff_is_asked_when_an_attempt_failed),
        TEST(a_bad_backoff_warns_and_is_not_used),
        TEST(a_job_above_its_memory_limit_fails_with_the_figure),
        TEST(arguments_above_the_memory_limit_are_a_matter_of_memory),
        TEST(an_error_near_the_memory_limit_keeps_its_message),
        TEST(a_plain_lua_state_is_not_ours),
        TEST(a_state_knows_itself_and_its_user),
        TEST(precompiled_code_cannot_be_loaded),
        TEST(the_locale_cannot_be_changed_and_print_is_silent),
        TEST(a_nameless_module_changes_the_globals),
        TEST(states_of_a_set_share_nothing),
        TEST(a_state_outlives_its_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
