/* tidemill_test.c: the module tidemill in a worker's state: tidemill.wait. */
#include "lib_fixture.h"

#include <fcntl.h>
#include <sys/socket.h>

enum { MANY = 100 };

/* arg is a descriptor. */
#define WAIT                                                                                                           \
    "local tidemill = require 'tidemill'; local fd, number = ...; fd = tonumber(fd) "                                  \
    "local function show(ok, a, code) if ok then return tostring(ok) .. ' ' .. a end return code .. ': ' .. a end "

typedef struct pair {
    int ours, theirs;
    char arg[16];
} pair;

static pair pair_open(void) {
    int fds[2];
    pair p;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    p.ours = fds[0];
    p.theirs = fds[1];
    snprintf(p.arg, sizeof p.arg, "%d", p.theirs);
    return p;
}

static void pair_close(pair *p) {
    close(p->ours);
    close(p->theirs);
}

static void nothing(void *arg) {
    (void)arg;
}

static void a_descriptor_is_waited_for(void **state) {
    lib *t = *state;
    pair p = pair_open();
    int before = open_files();
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd, 'w'))", p.arg, "true w");
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd, 'rw'))", p.arg, "true w");
    job *a = job_start(t, WAIT "return show(tidemill.wait(fd))", p.arg, 0);
    job *b = job_start(t, WAIT "return show(tidemill.wait(fd, 'r', 1000))", p.arg, 0); /* the same one */
    job *c = job_start(t, WAIT "return show(tidemill.wait({ getfd = function() return fd end }))", p.arg, 0);
    lib_on_thread(t, nothing, NULL);
    assert_false(a->done || b->done || c->done);
    assert_int_equal(write(p.ours, "x", 1), 1);
    job *jobs[] = { a, b, c };
    for (size_t i = 0; i < TD_COUNT(jobs); i++) {
        job_wait(jobs[i]);
        assert_string_equal(jobs[i]->text, "true r");
        job_free(jobs[i]);
    }
    assert_false(fcntl(p.theirs, F_GETFL) & O_NONBLOCK);
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd, 'rw'))", p.arg, "true rw");
    char c1;
    assert_int_equal(read(p.theirs, &c1, 1), 1);
    job *ended = job_start(t, WAIT "return show(tidemill.wait(fd))", p.arg, 0);
    lib_on_thread(t, nothing, NULL);
    shutdown(p.ours, SHUT_RDWR);
    job_wait(ended);
    assert_string_equal(ended->text, "true r");
    job_free(ended);
    assert_int_equal(open_files(), before);
    pair_close(&p);
}

static void a_wait_has_a_timeout(void **state) {
    lib *t = *state;
    char expected[100];
    pair p = pair_open();
    snprintf(expected, sizeof expected, "timeout: descriptor %d was not ready in time", p.theirs);
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd, 'r', 0.02))", p.arg, expected);
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd, 'r', 0))", p.arg, expected);
    pair_close(&p);
}

static void what_cannot_be_waited_for(void **state) {
    lib *t = *state;
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd))", "-1",
               "io: descriptor -1 cannot be waited for: Bad file descriptor");
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd))", "99999",
               "io: descriptor 99999 cannot be waited for: Bad file descriptor");
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    char arg[16];
    snprintf(arg, sizeof arg, "%d", fd);
    ASSERT_RUN(t, WAIT "return show(tidemill.wait(fd))", arg, "true r"); /* a file never waits */
    close(fd);
    static const char *const cases[] = { "'x'", "1.5", "{}", "1, 'q'", "1, 'r', -1", "1, 'r', 'x'", "" };
    char script[500];
    for (size_t i = 0; i < TD_COUNT(cases); i++) {
        snprintf(script, sizeof script, WAIT "return (select(2, pcall(tidemill.wait, %s)):match('^bad argument'))",
                 *cases[i] ? cases[i] : "nil");
        ASSERT_RUN(t, script, "", "bad argument");
    }
}

static void jobs_are_dropped_while_they_wait(void **state) {
    lib *t = *state;
    pair p = pair_open();
    int before = open_files();
    for (int i = 0; i < MANY; i++) {
        job *j = job_start(t, WAIT "while true do tidemill.wait(fd, 'w') tidemill.wait(fd, 'r') end", p.arg, 0);
        for (int k = 0; k < i % 5; k++) lib_on_thread(t, nothing, NULL);
        job_drop(j);
    }
    assert_int_equal(open_files(), before);
    pair_close(&p);
}

static void the_modules_other_parts_are_there(void **state) {
    ASSERT_RUN(*state, WAIT "return tostring(tidemill.is_array(tidemill.array{})) .. tostring(tidemill.null)", "",
               "trueuserdata: (nil)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LIB_TEST(a_descriptor_is_waited_for),        LIB_TEST(a_wait_has_a_timeout),
        LIB_TEST(what_cannot_be_waited_for),         LIB_TEST(jobs_are_dropped_while_they_wait),
        LIB_TEST(the_modules_other_parts_are_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
