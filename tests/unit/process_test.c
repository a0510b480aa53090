/* process_test.c: tidemill.process, with real programs. */
#include "lib_fixture.h"

#include <fcntl.h>
#include <signal.h>

enum { MANY = 100 };

#define RUN                                                                                                            \
    "local process = require 'tidemill.process'; local arg = ...; local function show(r, message, code) "              \
    "if not r then return code .. ': ' .. message end return ('%s %s [%s] [%s]'):format(r.status, r.signal, "          \
    "r.stdout, r.stderr) end "

/* ---- What comes back ---- */

static void output_and_status_come_back(void **state) {
    ASSERT_RUN(*state, RUN "return show(process.run{'sh', '-c', 'echo out; echo err >&2; exit 3'})", "",
               "3 nil [out\n] [err\n]");
    ASSERT_RUN(*state, RUN "return show(process.run{'true'})", "", "0 nil [] []");
    ASSERT_RUN(*state, RUN "return show(process.run{'printf', '%s|', 'a b', '', '$HOME'})", "",
               "0 nil [a b||$HOME|] []");
}

static void a_signal_comes_back(void **state) {
    ASSERT_RUN(*state, RUN "return show(process.run{'sh', '-c', 'echo before; kill -9 $$'})", "",
               "nil 9 [before\n] []");
}

static void input_of_any_bytes_and_size_goes_in(void **state) {
    ASSERT_RUN(*state,
               RUN "local bytes = ('\\0\\255\\r\\n' .. ('x'):rep(1021)):rep(3000) "
                   "local r = assert(process.run({'cat'}, { stdin = bytes, max_output = #bytes })) "
                   "return #r.stdout .. tostring(r.stdout == bytes)",
               "", "3075000true");
    ASSERT_RUN(*state, RUN "return show(process.run({'cat'}, { stdin = '' }))", "", "0 nil [] []");
    ASSERT_RUN(*state, RUN "return show(process.run{'cat'})", "", "0 nil [] []");
}

static void a_program_that_does_not_read_its_input_is_no_error(void **state) {
    ASSERT_RUN(*state, RUN "return show(process.run({'true'}, { stdin = ('x'):rep(1 << 22) }))", "", "0 nil [] []");
}

static void cwd_and_env_are_as_given(void **state) {
    lib *t = *state;
    char expected[200];
    setenv("TIDEMILL_A", "inherited", 1);
    setenv("TIDEMILL_B", "inherited", 1);
    setenv("TIDEMILL_C", "inherited", 1);
    snprintf(expected, sizeof expected, "0 nil [%s inherited changed none new=1\n] []", t->dir);
    ASSERT_RUN(t,
               RUN "return show(process.run({'sh', '-c', "
                   "'echo $(pwd) $TIDEMILL_A $TIDEMILL_B ${TIDEMILL_C-none} $TIDEMILL_D'}, "
                   "{ cwd = arg, env = { TIDEMILL_B = 'changed', TIDEMILL_C = false, TIDEMILL_D = 'new=1' } }))",
               t->dir, expected);
}

/* ---- What goes wrong ---- */

static void a_program_that_cannot_be_started_is_said_so(void **state) {
    lib *t = *state;
    char expected[300];
    ASSERT_RUN(
        t, RUN "return show(process.run{'no-such-program'})", "",
        "not_found: no program no-such-program was found in the folders of PATH; install it, or give its whole path");
    ASSERT_RUN(t, RUN "return show(process.run{'/no/such'})", "", "not_found: no program /no/such was found");
    snprintf(expected, sizeof expected, "io: %s could not be started: Permission denied", t->dir);
    ASSERT_RUN(t, RUN "return show(process.run{arg})", t->dir, expected);
    ASSERT_RUN(t, RUN "return show(process.run({'true'}, { cwd = '/no/such' }))", "",
               "io: cwd: the folder /no/such cannot be entered: No such file or directory");
}

static void too_much_output_ends_the_program(void **state) {
    static const char script[] = RUN "local r, message, code = process.run({'sh', '-c', arg}, { max_output = 100000 }) "
                                     "return r and #r.stdout + #r.stderr or code .. ': ' .. message";
    static const char expected[] = "limit: the program wrote more than max_output, 100000 bytes, and was ended; give a "
                                   "larger max_output";
    ASSERT_RUN(*state, script, "yes", expected);
    ASSERT_RUN(*state, script, "yes >&2", expected);
    ASSERT_RUN(*state, script, "head -c 50000 /dev/zero; head -c 50001 /dev/zero >&2", expected);
    ASSERT_RUN(*state, script, "head -c 50000 /dev/zero; head -c 50000 /dev/zero >&2", "100000");
    ASSERT_RUN(*state, RUN "local r, _, code = process.run{'head', '-c', '1048577', '/dev/zero'} return code", "",
               "limit");
}

/* gone says whether the process whose number is in a file has ended and was reaped. */
static bool gone(lib *t, const char *name) {
    char *text = file_text(t, name);
    int pid = text ? atoi(text) : 0;
    free(text);
    return pid > 0 && kill(pid, 0) < 0 && errno == ESRCH;
}

/* ended says the same, but content with a process that nobody has reaped: a grandchild is not ours to reap. */
static bool ended(lib *t, const char *name) {
    char *text = file_text(t, name), path[64], state = 0;
    if (!text || atoi(text) <= 0) {
        free(text);
        return false;
    }
    snprintf(path, sizeof path, "/proc/%d/stat", atoi(text));
    free(text);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = 0;
    if (f) fclose(f);
    return !f || state == 'Z';
}

/* A shell that leaves its number, and that of a child in its group, in files, and waits. */
#define FAMILY "cd \"$0\"; sleep 1000 & echo $! > child; echo $$ > parent; echo > ready; wait"

static void a_timeout_kills_the_group(void **state) {
    lib *t = *state;
    ASSERT_RUN(t,
               RUN "return show(process.run({'sh', '-c', \""
                   "cd '\" .. arg .. \"'; sleep 1000 & echo $! > child; "
                   "echo $$ > parent; wait\"}, { timeout = 0.3 }))",
               t->dir, "timeout: the program did not end within 0.3 s, and was killed");
    EVENTUALLY(gone(t, "parent"));
    EVENTUALLY(ended(t, "child"));
}

static void a_dropped_job_kills_the_group(void **state) {
    lib *t = *state;
    int before = open_files();
    job *j =
        job_start(t, RUN "process.run({'sh', '-c', [[" FAMILY "]], arg}, { stdin = ('x'):rep(1 << 20) })", t->dir, 0);
    EVENTUALLY(file_lines(t, "ready") == 1);
    assert_false(gone(t, "parent"));
    job_drop(j);
    EVENTUALLY(gone(t, "parent"));
    EVENTUALLY(ended(t, "child"));
    EVENTUALLY(open_files() == before);
}

static void a_thread_that_stops_reaps_what_ran(void **state) {
    lib *t = *state;
    job *j = job_start(t, RUN "process.run{'sh', '-c', [[" FAMILY "]], arg}", t->dir, 0);
    EVENTUALLY(file_lines(t, "ready") == 1);
    td_thread_stop(t->thread);
    t->thread = NULL;
    assert_true(gone(t, "parent"));
    job_free(j);
}

static void what_a_program_leaves_behind_is_killed(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, RUN "return show(process.run{'sh', '-c', 'cd \"$0\"; sleep 1000 & echo $! > child; echo done', arg})",
               t->dir, "0 nil [done\n] []");
    EVENTUALLY(ended(t, "child"));
}

static void misuse_raises(void **state) {
    static const char script[] = RUN "local f = load('local process = ...; return process.run(' .. arg .. ')') "
                                     "local _, message = pcall(f, process) return (message:gsub('^.-:%d+: ', ''))";
    static const char *const cases[][2] = {
        { "", "bad argument #1 to 'run' (table expected, got nil)" },
        { "'ls'", "bad argument #1 to 'run' (table expected, got string)" },
        { "{}", "tidemill.process.run: the command is an empty list; give the program and its arguments" },
        { "{''}", "tidemill.process.run: the program's name is empty; give the program and its arguments" },
        { "{'a', 1}", "tidemill.process.run: word 2 of the command: number is not allowed; give a string" },
        { "{'a', 'b\\0c'}", "tidemill.process.run: word 2 of the command: a NUL byte is not allowed" },
        { "{'a'}, 1", "bad argument #2 to 'run' (table expected, got number)" },
        { "{'a'}, { timout = 1 }", "tidemill.process.run: there is no option timout; stdin, cwd, env, max_output and "
                                   "timeout are allowed" },
        { "{'a'}, { timeout = 0 }",
          "tidemill.process.run: timeout: 0 is not allowed; give a number of seconds above 0" },
        { "{'a'}, { timeout = 0/0 }", NULL },
        { "{'a'}, { timeout = '1' }",
          "tidemill.process.run: timeout: 1 is not allowed; give a number of seconds above 0" },
        { "{'a'}, { max_output = -1 }", "tidemill.process.run: max_output: -1 is not allowed; give a whole number of "
                                        "bytes, at most 1 GiB" },
        { "{'a'}, { max_output = 1.5 }", NULL },
        { "{'a'}, { stdin = 1 }", "tidemill.process.run: stdin: number is not allowed; give a string" },
        { "{'a'}, { cwd = 'a\\0' }", "tidemill.process.run: cwd: a NUL byte is not allowed" },
        { "{'a'}, { env = 'A=1' }", "tidemill.process.run: env: string is not allowed; give a table" },
        { "{'a'}, { env = { 'A=1' } }", "tidemill.process.run: env: give a table of names and values" },
        { "{'a'}, { env = { ['A=B'] = '1' } }", "tidemill.process.run: env: give a table of names and values" },
        { "{'a'}, { env = { A = 1 } }", "tidemill.process.run: a value in env: number is not allowed; give a string" },
    };
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        char *text = lib_run(*state, script, cases[i][0]);
        if (cases[i][1])
            assert_string_equal(text, cases[i][1]);
        else
            assert_non_null(strstr(text, "is not allowed; give a"));
        free(text);
    }
}

static void outside_a_job_it_raises(void **state) {
    (void)state;
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_requiref(L, "tidemill.process", td_process_open, 1);
    lua_getfield(L, -1, "run");
    lua_newtable(L);
    assert_int_equal(lua_pcall(L, 1, 1, 0), LUA_ERRRUN);
    assert_string_equal(lua_tostring(L, -1), "tidemill.process.run: can only be called while a job runs");
    lua_close(L);
}

/* ---- What a child sees, and what we keep ---- */

static void a_child_begins_with_a_clean_slate(void **state) {
    lib *t = *state;
    int leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as a careless host would */
    ASSERT_RUN(t, RUN "return show(process.run{'ls', '/proc/self/fd'})", "",
               "0 nil [0\n1\n2\n3\n] []"); /* 3: ls's own */
    close(leak);
    signal(SIGUSR1, SIG_IGN);
    ASSERT_RUN(t,
               RUN "local r = process.run{'grep', '-E', 'Sig(Blk|Ign)', '/proc/self/status'} "
                   "return (r.stdout:gsub('\t%x*(%x%x%x%x%x%x%x%x)', function(set) " /* 32 and 33 are the C library's */
                   "return ('%x '):format(tonumber(set, 16) & 0x7fffffff) end):gsub('\\n', ''))",
               "", "SigBlk:0 SigIgn:0 ");
    signal(SIGUSR1, SIG_DFL);
    ASSERT_RUN(t, RUN "return show(process.run{'sh', '-c', 'read a b c d e rest < /proc/$$/stat; test $e = $$'})", "",
               "0 nil [] []");
}

static void on_child(int signal) {
    (void)signal;
}

static void the_programs_signal_handler_is_left_alone(void **state) {
    struct sigaction ours = { .sa_handler = on_child }, before, after;
    sigaction(SIGCHLD, &ours, &before);
    ASSERT_RUN(*state, RUN "return show(process.run{'sh', '-c', 'exit 5'})", "", "5 nil [] []");
    sigaction(SIGCHLD, &before, &after);
    assert_ptr_equal(after.sa_handler, on_child);
}

static void a_program_that_ignores_sigchld_is_told_that_ends_are_lost(void **state) {
    signal(SIGCHLD, SIG_IGN);
    char *text = lib_run(*state, RUN "return show(process.run{'sh', '-c', 'exit 5'})", "");
    signal(SIGCHLD, SIG_DFL);
    assert_string_equal(text,
                        "io: how the program ended is not known: this process ignores SIGCHLD, or waits for all its "
                        "children elsewhere");
    free(text);
}

static void running_out_of_lua_memory_loses_nothing(void **state) {
    static const char script[] =
        RUN "local r = process.run({'head', '-c', '2000000', '/dev/zero'}, { max_output = 4000000 }) "
            "return #r.stdout";
    lib *t = *state;
    int before = open_files();
    job *j = job_start_limited(t, script, "", 0, 1 << 20);
    job_wait(j);
    assert_true(j->raised);
    assert_string_equal(j->text, "not enough memory");
    job_free(j);
    ASSERT_RUN(t, script, "", "2000000");
    EVENTUALLY(open_files() == before);
}

static void each_lua_allocation_may_fail(void **state) {
    static const char script[] = RUN "fail_after(arg) local r = process.run({'cat'}, { stdin = 'x', env = { A = 'b' }, "
                                     "timeout = 20 }) fail_after(-1) return show(r)";
    lib *t = *state;
    int before = open_files();
    lib_fail_each_allocation(t, script, "0 nil [x] []", 5);
    EVENTUALLY(open_files() == before);
}

/* ---- Many ---- */

/* Every child waits for a byte from the gate, which is opened when all are there: so all of them ran at the same time.
 */
static void many_run_at_the_same_time_on_one_thread(void **state) {
    static const char script[] = "local process = require 'tidemill.process'; local dir, number = ... "
                                 "local r = assert(process.run({'sh', '-c', 'echo >> here; head -c 1 < gate; echo $0', "
                                 "tostring(number)}, { cwd = dir })) return r.stdout";
    lib *t = *state;
    job *jobs[MANY];
    char path[200], gates[MANY], expected[20];
    int before = open_files();
    snprintf(path, sizeof path, "%s/gate", t->dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    int gate = open(path, O_RDWR | O_CLOEXEC);
    for (int i = 0; i < MANY; i++) jobs[i] = job_start(t, script, t->dir, i);
    EVENTUALLY(file_lines(t, "here") == MANY);
    memset(gates, 'x', sizeof gates);
    assert_int_equal(write(gate, gates, sizeof gates), MANY);
    for (int i = 0; i < MANY; i++) {
        job_wait(jobs[i]);
        snprintf(expected, sizeof expected, "x%d\n", i);
        assert_string_equal(jobs[i]->text, expected);
        job_free(jobs[i]);
    }
    close(gate);
    EVENTUALLY(open_files() == before);
}

static void nothing(void *arg) {
    (void)arg;
}

static void many_are_dropped_at_every_moment(void **state) {
    lib *t = *state;
    int before = open_files();
    for (int i = 0; i < MANY; i++) {
        job *j = job_start(t,
                           RUN "process.run({'sh', '-c', 'echo >> \"$0\"/begun; cat; sleep 1000', arg}, "
                               "{ stdin = ('x'):rep(100000) })",
                           t->dir, 0);
        if (i % 3 == 0)
            EVENTUALLY(file_lines(t, "begun") > i / 3);
        else if (i % 3 == 1)
            lib_on_thread(t, nothing, NULL);
        job_drop(j);
    }
    EVENTUALLY(open_files() == before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LIB_TEST(output_and_status_come_back),
        LIB_TEST(a_signal_comes_back),
        LIB_TEST(input_of_any_bytes_and_size_goes_in),
        LIB_TEST(a_program_that_does_not_read_its_input_is_no_error),
        LIB_TEST(cwd_and_env_are_as_given),
        LIB_TEST(a_program_that_cannot_be_started_is_said_so),
        LIB_TEST(too_much_output_ends_the_program),
        LIB_TEST(a_timeout_kills_the_group),
        LIB_TEST(a_dropped_job_kills_the_group),
        LIB_TEST(a_thread_that_stops_reaps_what_ran),
        LIB_TEST(what_a_program_leaves_behind_is_killed),
        LIB_TEST(misuse_raises),
        LIB_TEST(outside_a_job_it_raises),
        LIB_TEST(a_child_begins_with_a_clean_slate),
        LIB_TEST(the_programs_signal_handler_is_left_alone),
        LIB_TEST(a_program_that_ignores_sigchld_is_told_that_ends_are_lost),
        LIB_TEST(running_out_of_lua_memory_loses_nothing),
        LIB_TEST(each_lua_allocation_may_fail),
        LIB_TEST(many_run_at_the_same_time_on_one_thread),
        LIB_TEST(many_are_dropped_at_every_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
