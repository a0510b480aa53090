/* io_test.c: the io and os of a worker's state: the same as plain lua5.4's, waiting without holding the thread, and
   nothing left open when a job is cut off. */
#include "lib_fixture.h"

#include <fcntl.h>
#include <signal.h>

enum { MANY = 100 };

/* The scripts' argument is a folder. show makes one text of values, without what differs from run to run, and without
   the name of a function that C called, which is not known in a worker. */
#define SHOW                                                                                                           \
    "local dir, number = ...; local function p(name) return dir .. '/' .. name end "                                   \
    "local function clean(v) return (tostring(v):gsub(dir:gsub('%p', '%%%0'), 'DIR'):gsub('0x%x+', 'ADDRESS'):gsub("   \
    "'^.-:%d+: ', ''):gsub(\"(argument #%d+ to )'.-'\", '%1it')) end "                                                 \
    "local function show(...) local out = {} for i = 1, select('#', ...) do out[i] = clean((select(i, ...))) end "     \
    "return table.concat(out, '|') end "                                                                               \
    "local function try(f, ...) return show(pcall(f, ...)) end "                                                       \
    "local function put(name, text) local f = assert(io.open(p(name), 'wb')) f:write(text) f:close() end "             \
    "local function text(name) local f = assert(io.open(p(name), 'rb')) local t = f:read('a') f:close() return t end " \
    "local out = {} local function add(...) out[#out + 1] = show(...) end "

/* ---- The same as plain Lua's ---- */

/* Each is run by lua5.4 and in a worker's state; what it added must be the same. */
static const char *const scripts[] = {
    /* open and its errors */
    "add(io.open(p'none')) add(io.open(p'none', 'r+')) add(io.open(dir .. '/no/such', 'w')) add(try(io.open, p'x', "
    "'q')) "
    "add(try(io.open, p'x', 'rw')) add(try(io.open, p'x', 'r+b+')) add(try(io.open)) add(try(io.open, {})) "
    "for _, m in ipairs{ 'r', 'w', 'a', 'r+', 'w+', 'a+', 'rb', 'r+b', 'wb', 'w+b', 'ab' } do put('m', 'abc') "
    "local f = io.open(p'm', m) add(m, io.type(f), f:seek(), f:read('a')) f:seek('set', 0) add(f:write('Z')) "
    "add(f:close()) add(text'm') end",
    /* reading lines */
    "put('l', 'one\\ntwo\\r\\n\\n\\0zero\\nlast') for l in io.lines(p'l') do add(l) end "
    "for l in io.lines(p'l', 'L') do add(l) end local f = io.open(p'l') add(f:read('l', 'L', '*l', 'l', 'l', 'l')) "
    "add(f:read('l')) add(f:read('a')) add(f:read(0)) f:close() put('e', '') for l in io.lines(p'e') do add('never') "
    "end "
    "f = io.open(p'e') add(f:read()) add(f:read('a')) add(f:read('L')) add(f:read(0)) f:close()",
    /* lines as a loop's values, with formats */
    "put('n', '1 2 3\\n4 5 6\\n') for a, b, c in io.lines(p'n', 'n', 'n', 'n') do add(a, b, c) end "
    "for c in io.lines(p'n', 4) do add(c) end for a, b in io.lines(p'n', 1, 'l') do add(a, b) end "
    "add(try(io.lines, p'none')) add(try(io.lines(p'n', 'x'))) add(select('#', io.lines(p'n'))) "
    "add(try(function() for l in io.lines(p'n', {}) do end end)) "
    "local i = io.lines(p'n') add(i()) add(i()) add(i()) add(try(i)) "
    "local f = io.open(p'n') for l in f:lines() do add(l) end add(io.type(f)) add(f:read()) f:close() add(try(f.lines, "
    "f)) "
    "f = io.open(p'n') local g = f:lines() f:close() add(try(g))",
    /* counts */
    "put('c', ('abc'):rep(5000)) local f = io.open(p'c') add(f:read(0)) add(#f:read(10)) add(#f:read(4095)) "
    "add(#f:read(8000)) "
    "add(f:read(3, 0, 1)) add(#f:read(100000)) add(f:read(1)) add(f:read(0)) add(f:read(1, 2)) add(f:close())",
    /* numbers */
    "for _, t in ipairs{ '12', ' \\n\\t-3.5e2x', '0x1F', '0x.8p1', '+7', '1e+', '1e', '.', '.5', '5.', '0x', 'nan', "
    "'inf', '- 1', "
    "'1,5', '00012', '1..2', '0xep1', '9223372036854775807', '9223372036854775808', ('1'):rep(199), ('1'):rep(201), "
    "'1e400', "
    "'--1', '1-2', '' } do put('x', t .. ' tail') local f = io.open(p'x') local n = f:read('n') "
    "add(t:sub(1, 30), n, math.type(n)) add(f:read('a')) f:close() end "
    "put('x', '1 2 x 3') local f = io.open(p'x') add(f:read('n', 'n', 'n', 'n')) f:close()",
    /* formats */
    "put('f', 'x') local f = io.open(p'f') add(try(f.read, f, 'x')) add(try(f.read, f, '')) add(try(f.read, f, 1.5)) "
    "add(try(f.read, f, {})) add(try(f.read)) add(try(f.read, 1)) add(try(f.read, f, '*x')) add(f:read('*a')) "
    "f:close()",
    /* writing */
    "local f = io.open(p'w', 'w') add(f == f:write('a', 1, 2.5, 1e100, -0.0, 3.0, 2^53, math.mininteger, '\\0')) "
    "add(f:write()) "
    "add(try(f.write, f, {})) add(try(f.write, f, nil)) add(f:close()) add(text'w') f = io.open(p'w', 'w') "
    "for i = 1, 5000 do f:write(i, ' ') end f:write(('z'):rep(10000)) f:write('end') f:close() local t = text'w' "
    "add(#t, t:sub(-20)) local s = 0 for n in t:gmatch('%d+') do s = s + n end add(s)",
    /* what a mode forbids */
    "put('r', 'abc') local f = io.open(p'r') add(f:write('x')) add(f:read('a')) add(f:close()) f = io.open(p'r', 'w') "
    "add(f:read()) "
    "add(f:read('a')) add(f:read(1)) f:close() f = io.open(dir) add(io.type(f)) add(f:read()) add(f:read('a')) "
    "add(f:read(1)) "
    "add(f:close()) add(io.open(dir, 'w')) add(try(io.lines, dir)) add(try(io.lines(dir)))",
    /* seeking, and turning between reading and writing */
    "put('s', '0123456789') local f = io.open(p's', 'r+') add(f:seek()) add(f:read(3)) add(f:seek()) add(f:seek('cur', "
    "2)) "
    "add(f:read(1)) add(f:seek('end')) add(f:read(1)) add(f:seek('end', -2)) add(f:read('a')) add(f:seek('set', 4)) "
    "add(f:write('XY')) add(f:seek()) f:seek('cur', 0) add(f:read(2)) add(f:seek('set', -1)) add(f:seek('cur', -1)) "
    "add(f:seek('cur', -100)) "
    "add(try(f.seek, f, 'bad')) add(try(f.seek, f, 'set', 1.5)) add(f:seek('set', 20)) f:write('far') f:close() "
    "add(text's') "
    "f = io.open(p's', 'a+') f:write('app') add(f:seek()) f:seek('set', 0) add(f:read('a')) f:close()",
    /* buffers */
    "for _, m in ipairs{ 'no', 'full', 'line' } do local f = io.open(p'b', 'w') add(f:setvbuf(m)) f:write('a') add(m, "
    "text'b') "
    "f:write('b\\n') add(text'b') f:write('c\\nd') add(text'b') add(f:flush() and true) add(text'b') f:close() end "
    "local f = io.open(p'b', 'w') add(f:setvbuf('full', 10)) f:write('12345') add(text'b') f:write('6789012345') "
    "f:close() add(text'b') add(try(f.setvbuf, f, 'full')) f = io.open(p'b') add(try(f.setvbuf, f)) add(try(f.setvbuf, "
    "f, 'x')) f:close()",
    /* errors that come with writing */
    "local f = io.open('/dev/full', 'w') add(f:setvbuf('no')) add(f:write('x')) add(f:close()) f = "
    "io.open('/dev/full', 'w') "
    "f:write('x') add(f:flush()) f:close() f = io.open('/dev/full', 'w') f:write('x') add(f:close()) f = "
    "io.open('/dev/null', 'r+') "
    "add(f:write('x')) add(f:read('a')) add(f:close()) f = io.open('/dev/zero') add(#f:read(10000)) f:close()",
    /* closed files, types, names */
    "local f = io.open(p't', 'w') add(f) add(io.type(f)) f:close() add(f) add(io.type(f)) add(io.type(1)) "
    "add(try(io.type)) add(try(f.write, f, 'x')) add(try(f.read, f)) add(try(f.close, f)) add(try(f.flush, f)) "
    "add(try(f.seek, f)) "
    "add(io.stdin, io.stdout, io.stderr) add(io.stdout:close()) add(io.type(io.stdout)) add(try(io.close, 1)) "
    "add(try(io.close, io.stderr)) add(getmetatable(f).__name) add(try(getmetatable(f).__index.read, nil)) "
    "local names = {} for k in pairs(io) do names[#names + 1] = k end table.sort(names) add(table.unpack(names)) "
    "names = {} for k in pairs(getmetatable(f).__index) do names[#names + 1] = k end table.sort(names) "
    "add(table.unpack(names)) "
    "names = {} for k in pairs(os) do names[#names + 1] = k end table.sort(names) add(table.unpack(names)) "
    "add(package.loaded.io == io)",
    /* default files */
    "put('i', 'one\\ntwo\\n3 4 rest') add(io.input() == io.stdin, io.output() == io.stdout) local f = io.input(p'i') "
    "add(f == io.input()) "
    "add(io.read()) add(io.read('L')) add(io.read('n', 'n')) add(io.read(2, 'a')) add(io.read()) add(io.read(0)) "
    "add(io.close(f)) add(try(io.read)) add(try(io.input, p'none')) io.input(io.stdin) io.output(p'o') "
    "add(io.write('a', 1) == io.output()) "
    "add(io.flush() and true) add(text'o') add(io.close()) add(try(io.write, 'x')) add(try(io.close)) "
    "add(try(io.flush)) "
    "add(try(io.output, p'no/such')) add(try(io.output, {})) io.output(io.stdout) io.input(p'i') for l in io.lines() "
    "do add(l) end "
    "add(io.type(io.input())) io.close(io.input()) add(try(io.lines)) io.input(io.stdin) add(try(io.read, 'x')) "
    "add(try(io.read, {}))",
    /* <close>, collection */
    "local g do local f <close> = io.open(p'd', 'w') f:write('kept') g = f end add(io.type(g)) add(text'd') "
    "for i = 1, 2000 do io.open(p'd', 'a'):write('x') if i % 100 == 0 then collectgarbage() end end collectgarbage() "
    "add(#text'd') "
    "do local f <close> = io.open(p'd') f:close() end for l in io.lines(p'd') do break end",
    /* temporary files, remove, rename */
    "local f = io.tmpfile() add(io.type(f)) f:write('abc') f:seek('set') add(f:read('a')) add(f:close()) local n = "
    "os.tmpname() "
    "add(n:match('^/tmp/lua_......$') ~= nil, io.open(n) ~= nil) add(os.remove(n)) add(select(2, os.remove(p'none'))) "
    "put('a', 'x') add(os.rename(p'a', p'b')) add(text'b') add(os.rename(p'a', p'c')) add(os.rename(p'none', p'c')) "
    "add(os.remove(p'b')) add(os.remove(dir .. '/no/such')) os.execute('mkdir ' .. p'sub') add(os.remove(p'sub')) "
    "add(try(os.remove)) add(try(os.rename, 'x'))",
    /* os.execute */
    "add(os.execute()) add(os.execute('true')) add(os.execute('exit 3')) add(os.execute('kill -9 $$')) "
    "add(os.execute('echo text > ' .. p'x')) add(text'x') add(os.execute('no-such-program-at-all 2>/dev/null')) "
    "add(try(os.execute, {}))",
    /* io.popen */
    "local f = io.popen('echo one; echo two; exit 5') add(io.type(f)) add(f:read()) add(f:read('a')) add(f:close()) "
    "add(io.type(f)) "
    "f = io.popen('cat > ' .. p'x', 'w') f:write('through ', 7) add(f:close()) add(text'x') for l in io.popen('seq "
    "3'):lines() do add(l) end "
    "f = io.popen('kill -15 $$') add(f:read('a')) add(f:close()) f = io.popen('seq 1 20000') local t = f:read('a') "
    "add(#t) add(f:close()) "
    "f = io.popen('cat', 'w') add(f:read()) f:close() f = io.popen('echo x') add(f:seek()) add(f:write('x')) f:close() "
    "add(try(io.popen, 'true', 'rw')) add(try(io.popen)) f = io.popen('true') f:read('a') f:close() add(try(f.close, "
    "f)) "
    "do local f <close> = io.popen('echo y') end f = io.popen('no-such-program-at-all 2>/dev/null') add(f:read('a')) "
    "add(f:close())",
};

/* show_difference prints two texts from the line on in which they differ. */
static void show_difference(size_t i, const char *expected, const char *got) {
    size_t from = 0;
    for (size_t k = 0; expected[k] && expected[k] == got[k]; k++) {
        if (expected[k] == '\n') from = k + 1;
    }
    print_error("script %zu: plain Lua: %.300s\n--- here: %.300s\n", i, expected + from, got + from);
}

/* plain_lua runs a script by lua5.4. Returns what it printed. */
static char *plain_lua(lib *t, const char *script, const char *folder) {
    char path[200], command[500], chunk[4096];
    td_buf b = { 0 };
    snprintf(path, sizeof path, "%s/script.lua", t->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "io.stdout:write((function(...) %s return table.concat(out, '\\n') end)(...))\n", script);
    fclose(f);
    snprintf(command, sizeof command, "lua5.4 %s %s 2>&1", path, folder);
    FILE *p = popen(command, "r");
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, p)) > 0;) td_buf_add(&b, chunk, n);
    pclose(p);
    td_buf_putc(&b, '\0');
    return td_buf_take(&b);
}

static void scripts_see_the_same_as_in_plain_lua(void **state) {
    lib *t = *state;
    int failures = 0;
    for (size_t i = 0; i < TD_COUNT(scripts); i++) {
        char folder[2][100], *script, *got, *expected;
        td_buf b = { 0 };
        for (int k = 0; k < 2; k++) {
            snprintf(folder[k], sizeof folder[k], "%s/%s%zu", t->dir, k ? "ours" : "lua", i);
            assert_int_equal(mkdir(folder[k], 0700), 0);
        }
        td_buf_printf(&b, "%s%s", SHOW, scripts[i]);
        expected = plain_lua(t, b.data, folder[0]);
        td_buf_puts(&b, " return table.concat(out, '\\n')");
        script = td_buf_take(&b);
        got = lib_run(t, script, folder[1]);
        if (strcmp(got, expected) != 0) {
            show_difference(i, expected, got);
            failures++;
        }
        free(script);
        free(got);
        free(expected);
    }
    assert_int_equal(failures, 0);
}

/* ---- Waiting ---- */

static void nothing(void *arg) {
    (void)arg;
}

/* A fifo's reader waits for a writer, and for what it writes; meanwhile others run. */
static void fifos_are_waited_for(void **state) {
    lib *t = *state;
    char path[100];
    snprintf(path, sizeof path, "%s/fifo", t->dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    job *reader = job_start(
        t, SHOW "local f = io.open(p'fifo') local a = f:read() local b = f:read('a') return a .. '|' .. b", t->dir, 0);
    lib_on_thread(t, nothing, NULL);
    ASSERT_RUN(t, "return 'others run'", "", "others run");
    assert_false(reader->done);
    int fd = open(path, O_WRONLY);
    assert_int_equal(write(fd, "first\nsec", 9), 9);
    ASSERT_RUN(t, "return 'others run'", "", "others run");
    assert_false(reader->done);
    assert_int_equal(write(fd, "ond", 3), 3);
    close(fd);
    job_wait(reader);
    assert_string_equal(reader->text, "first|second");
    job_free(reader);

    job *writer = job_start(
        t, SHOW "local f = io.open(p'fifo', 'w') f:write(('x'):rep(1000000)) return show(f:close())", t->dir, 0);
    lib_on_thread(t, nothing, NULL);
    assert_false(writer->done);
    fd = open(path, O_RDONLY);
    ASSERT_RUN(t, "return 'others run'", "", "others run");
    char chunk[4096];
    ssize_t n, total = 0;
    while ((n = read(fd, chunk, sizeof chunk)) > 0) total += n;
    assert_int_equal(total, 1000000);
    close(fd);
    job_wait(writer);
    assert_string_equal(writer->text, "true");
    job_free(writer);
}

static void programs_run_side_by_side(void **state) {
    lib *t = *state;
    enum { TOGETHER = 8 };
    job *jobs[2 * TOGETHER];
    char path[100];
    for (int i = 0; i < TOGETHER; i++) {
        jobs[i] =
            job_start(t,
                      SHOW "return show(os.execute('echo x >> ' .. p'here; while [ ! -e ' .. p'go ]; do sleep 0.02; "
                           "done; exit ' .. number))",
                      t->dir, i);
        jobs[TOGETHER + i] = job_start(
            t,
            SHOW "local f = io.popen('echo x >> ' .. p'here; while [ ! -e ' .. p'go ]; do sleep 0.02; done; echo '"
                 " .. number) return f:read('a') .. show(f:close())",
            t->dir, i);
    }
    EVENTUALLY(file_lines(t, "here") == 2 * TOGETHER);
    snprintf(path, sizeof path, "%s/go", t->dir);
    fclose(fopen(path, "w"));
    for (int i = 0; i < TOGETHER; i++) {
        char expected[40];
        job_wait(jobs[i]);
        snprintf(expected, sizeof expected, i ? "nil|exit|%d" : "true|exit|%d", i);
        assert_string_equal(jobs[i]->text, expected);
        job_free(jobs[i]);
        job_wait(jobs[TOGETHER + i]);
        snprintf(expected, sizeof expected, "%d\ntrue|exit|0", i);
        assert_string_equal(jobs[TOGETHER + i]->text, expected);
        job_free(jobs[TOGETHER + i]);
    }
}

/* The standard files are not ours: nothing about them is changed by waiting for them. */
static void standard_output_is_waited_for_and_left_as_it_is(void **state) {
    lib *t = *state;
    int ends[2], saved = dup(1);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(stdout);
    dup2(ends[1], 1);
    close(ends[1]);
    job *a = job_start(t, "return io.write(('a'):rep(300000)) == io.stdout", "", 0);
    job *b = job_start(t, "return io.write(('b'):rep(300000)) == io.stdout", "", 0);
    lib_on_thread(t, nothing, NULL);
    lib_on_thread(t, nothing, NULL);
    char chunk[4096];
    ssize_t count[2] = { 0 };
    while (count[0] + count[1] < 600000) {
        ssize_t n = read(ends[0], chunk, sizeof chunk);
        assert_true(n > 0);
        for (ssize_t i = 0; i < n; i++) count[chunk[i] - 'a']++;
    }
    job_wait(a);
    job_wait(b);
    int flags = fcntl(1, F_GETFL);
    dup2(saved, 1);
    close(saved);
    close(ends[0]);
    assert_int_equal(count[0], 300000);
    assert_string_equal(a->text, "true");
    assert_string_equal(b->text, "true");
    assert_false(flags & O_NONBLOCK);
    job_free(a);
    job_free(b);
}

/* ---- Jobs that are stopped ---- */

/* running says whether there is a process whose pid is in dir/name. */
static bool running(lib *t, const char *name) {
    char *text = file_text(t, name);
    bool found = text && kill(atoi(text), 0) == 0;
    free(text);
    return found;
}

static void a_dropped_job_leaves_nothing(void **state) {
    static const char *const stuck[] = {
        "f = io.open(p'fifo') f:read()",
        "f = io.open(p'fifo', 'w')",
        "f = io.popen('echo $$ > ' .. p'pid; sleep 1000') f:read()",
        "f = io.popen('echo $$ > ' .. p'pid; sleep 1000', 'w') f:close()",
        "f = io.popen('echo $$ > ' .. p'pid; sleep 1000', 'w') f:write(('x'):rep(1000000))",
        "os.execute('echo $$ > ' .. p'pid; sleep 1000')",
        "for l in io.popen('echo $$ > ' .. p'pid; sleep 1000'):lines() do end",
    };
    lib *t = *state;
    char path[100], script[2000];
    snprintf(path, sizeof path, "%s/fifo", t->dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    for (size_t i = 0; i < TD_COUNT(stuck); i++) {
        int before = open_files();
        snprintf(script, sizeof script, "%s put('there', 'x') local a, b = io.open(p'there'), io.tmpfile() local f %s",
                 SHOW, stuck[i]);
        job *j = job_start(t, script, t->dir, 0);
        snprintf(path, sizeof path, "%s/there", t->dir);
        EVENTUALLY(file_lines(t, "pid") == (strstr(stuck[i], "pid") != NULL) && access(path, F_OK) == 0);
        for (int k = 0; k < 20; k++) lib_on_thread(t, nothing, NULL);
        job_drop(j);
        EVENTUALLY(open_files() <= before);
        EVENTUALLY(!running(t, "pid"));
        snprintf(path, sizeof path, "%s/pid", t->dir);
        unlink(path);
        snprintf(path, sizeof path, "%s/there", t->dir);
        unlink(path);
    }
}

static void a_file_outlives_its_job_in_its_worker(void **state) {
    lib *t = *state;
    int before = open_files();
    job *j = job_start(
        t, SHOW "kept = io.open(p'kept', 'w') kept:write('x') popen = io.popen('sleep 1000') return 'done'", t->dir, 0);
    job_wait(j);
    assert_string_equal(j->text, "done");
    assert_true(open_files() >= before + 2);
    job_free(j);
    EVENTUALLY(open_files() <= before);
}

static void jobs_are_dropped_at_every_moment(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, "return os.execute('true')", "", "true");
    int before = open_files();
    for (int i = 0; i < MANY; i++) {
        job *j =
            job_start(t,
                      SHOW "while true do local f = io.popen('echo x', 'r') f:read('a') f:close() os.execute('true') "
                           "f = io.popen('cat >/dev/null', 'w') f:write('x') f:close() end",
                      t->dir, 0);
        for (int k = 0; k < i; k++) lib_on_thread(t, nothing, NULL);
        if (i % 4 == 0) usleep((unsigned)i * 100);
        job_drop(j);
    }
    ASSERT_RUN(t, "return os.execute('true')", "", "true");
    EVENTUALLY(open_files() <= before + 1);
}

/* ---- Memory, and where no job runs ---- */

static void each_lua_allocation_may_fail(void **state) {
    lib *t = *state;
    char script[3000];
    int before = open_files();
    snprintf(
        script, sizeof script,
        "local path = '%s/m' fail_after((...)) local f = assert(io.open(path, 'w')) f:write('a\\n', 2, "
        "('x'):rep(10000)) "
        "f:close() local r = {} for l in io.lines(path) do r[#r + 1] = l end f = io.tmpfile() f:write('t') f:close() "
        "f = io.popen('echo x') local x = f:read('a') f:close() os.execute('true') "
        "fail_after(-1) return r[1] .. #r[2] .. x",
        t->dir);
    lib_fail_each_allocation(t, script, "a10001x\n", 10);
    EVENTUALLY(open_files() <= before + 1);
}

static void a_large_file_counts_against_the_jobs_memory(void **state) {
    lib *t = *state;
    job *j = job_start_limited(t, "return #io.open('/dev/zero'):read('a')", "", 0, 4 << 20);
    job_wait(j);
    assert_true(j->raised);
    assert_string_equal(j->text, "not enough memory");
    job_free(j);
}

static void where_no_job_runs_programs_are_not_started_and_files_are(void **state) {
    lib *t = *state;
    td_state *s;
    tidemill_error err;
    assert_int_equal(td_state_new(t->handlers, td_ctx_modules, td_ctx_modules_count, 0, NULL, &s, &err), 0);
    assert_int_equal(luaL_dostring(s->L, "local f = io.tmpfile() f:write('a') f:seek('set') return f:read('a') .. "
                                         "tostring(select(2, pcall(os.execute, 'true'))) .. "
                                         "tostring(select(2, pcall(io.popen, 'true')))"),
                     LUA_OK);
    assert_string_equal(lua_tostring(s->L, -1), "aos.execute: can only be called while a job runs"
                                                "io.popen: can only be called while a job runs");
    td_state_free(s);
}

/* A state that is closed, rather than dropped, writes what its files have. */
static void a_closed_state_writes_what_is_left(void **state) {
    lib *t = *state;
    td_state *s;
    tidemill_error err;
    char script[300];
    int before = open_files();
    assert_int_equal(td_state_new(t->handlers, td_ctx_modules, td_ctx_modules_count, 0, NULL, &s, &err), 0);
    snprintf(script, sizeof script, "kept = io.open('%s/left', 'w') kept:write('text')", t->dir);
    assert_int_equal(luaL_dostring(s->L, script), LUA_OK);
    td_state_free(s);
    char *text = file_text(t, "left");
    assert_string_equal(text, "text");
    free(text);
    assert_int_equal(open_files(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LIB_TEST(scripts_see_the_same_as_in_plain_lua),
        LIB_TEST(fifos_are_waited_for),
        LIB_TEST(programs_run_side_by_side),
        LIB_TEST(standard_output_is_waited_for_and_left_as_it_is),
        LIB_TEST(a_dropped_job_leaves_nothing),
        LIB_TEST(a_file_outlives_its_job_in_its_worker),
        LIB_TEST(jobs_are_dropped_at_every_moment),
        LIB_TEST(each_lua_allocation_may_fail),
        LIB_TEST(a_large_file_counts_against_the_jobs_memory),
        LIB_TEST(where_no_job_runs_programs_are_not_started_and_files_are),
        LIB_TEST(a_closed_state_writes_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
