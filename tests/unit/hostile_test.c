/* hostile_test.c: every allocation of a state fails in turn, while it is made and while it runs a job. */
#include "vm_fixture.h"

static const char body[] =
    "local co = coroutine.wrap(function(...) local c <close> = setmetatable({}, { __close = function() end })"
    "  coroutine.yield(select('#', ...)) error({ message = 'in a coroutine' }) end)\n"
    "local n = co(1, 2)\n"
    "local ok, e = pcall(co)\n"
    "local _, text = xpcall(function() local x = nil; x() end, debug.traceback)\n"
    "local f = load('return ...', 'chunk')\n"
    "local lib = require 'lib.late'\n"
    "local words = {} for w in ('some words to split'):gmatch('%a+') do words[#words + 1] = w:upper() end\n"
    "table.sort(words, function(a, b) return a > b end)\n"
    "if args.fail then error(('%s %d'):format(e.message, f(n)) .. lib.value) end\n"
    "if args.cancel then pcall(function() ctx:cancel(table.concat(words, ' ')) end) end\n"
    "return { words = words, list = args.list, text = #text }";

static void write_files(vm *t) {
    vm_file(t, "lib/late.lua", "return { value = 'late' }");
    vm_file(t, "lib/early.lua", "return { greet = function(n) return 'hello ' .. n end }");
    vm_file(t, "y.lua",
            "local early = require 'lib.early' return { name = function() return 'y' end, handle = function() return "
            "early.greet('y') end }");
    vm_handler(
        t,
        "backoff = function(n) local t = {} for i = 1, n do t[i] = { i } end return #t end, args = { list = 'array' },",
        body);
}

/* close_state closes a state and checks that it held nothing but what Lua knew of. */
static void close_state(td_state *state, bool drop) {
    if (!drop && state->L) {
        lua_close(state->L);
        assert_int_equal(state->arena.used, 0);
        state->L = NULL;
    }
    if (drop)
        td_state_drop(state);
    else
        td_state_free(state);
}

/* open_with makes a state in which the n-th request and the `times` - 1 after it are refused. */
static bool open_with(vm *t, long n, long times) {
    td_state *state = td_state_make(t->set, 0, NULL);
    assert_non_null(state);
    state->arena.fail_after = n;
    state->arena.fail_times = times;
    int rc = td_state_open(state, vm_modules, TD_COUNT(vm_modules), &t->err);
    if (rc < 0) {
        assert_int_equal(rc, TIDEMILL_EMEMORY);
        assert_true(t->err.message[0]);
    }
    bool reached = state->arena.refused > 0;
    if (rc == 0) {
        state->arena.fail_after = -1;
        t->state = state;
        assert_int_equal(vm_call(t, "{\"list\":[1]}", 1)->outcome, TD_COMPLETED);
        t->state = NULL;
    }
    close_state(state, n % 2);
    return reached;
}

static void a_state_that_cannot_be_made_leaves_nothing_behind(void **state) {
    vm *t = *state;
    write_files(t);
    if (vm_load(t) < 0) fail_msg("%s", t->err.message);
    long n = 0;
    while (open_with(t, n, 1L << 40)) n++; /* from there on, all */
    assert_true(n > 300);
    for (n = 0; open_with(t, n, 1); n++) continue; /* once: Lua collects garbage and tries again */
    for (n = 0; open_with(t, n, 2); n++) continue; /* also the second try */
}

/* call_with calls with the n-th request refused, and expects an end that can come of it. */
static bool call_with(vm *t, const char *args, long n, long times, td_outcome usual) {
    td_arena *a = &t->state->arena;
    size_t before = a->refused;
    a->fail_after = n;
    a->fail_times = times;
    td_result *r = vm_call(t, args, 3);
    a->fail_after = -1;
    /* The handler's own pcall may have caught it: then it went on with less, and failed by itself or got through. */
    bool possible =
        r->outcome == usual || r->outcome == TD_MEMORY || r->outcome == TD_FAILED || r->outcome == TD_COMPLETED;
    if (!possible) fail_msg("%s", td_outcome_name(r->outcome));
    if (r->outcome != TD_COMPLETED) assert_non_null(r->error);
    return a->refused > before;
}

static void a_job_that_runs_out_of_memory_leaves_its_state_usable(void **state) {
    static const struct {
        const char *args;
        td_outcome usual;
    } table[] = { { "{\"list\":[1,[\"\\n\"],{\"a\":0.5}]}", TD_COMPLETED },
                  { "{\"list\":[],\"fail\":true}", TD_FAILED },
                  { "{\"list\":[],\"cancel\":true}", TD_CANCELLED } };
    vm *t = *state;
    write_files(t);
    for (size_t i = 0; i < TD_COUNT(table); i++) {
        static const long times[] = { 1, 2, 1L << 40 };
        for (size_t k = 0; k < TD_COUNT(times); k++) {
            vm_start(t);
            long n = 0;
            while (call_with(t, table[i].args, n, times[k], table[i].usual)) n++;
            assert_true(n > 20);
            assert_int_equal(vm_call(t, table[i].args, 3)->outcome, table[i].usual);
            if (table[i].usual == TD_FAILED) assert_true(t->result.delay_s == 3 && t->result.traceback);
            close_state(t->state, false);
            t->state = NULL;
        }
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, vm_setup, vm_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_state_that_cannot_be_made_leaves_nothing_behind),
        TEST(a_job_that_runs_out_of_memory_leaves_its_state_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
