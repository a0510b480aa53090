/* lib_fixture.h: for tests of the modules that handlers require: a loop thread, and scripts that run on it, each on a
   fiber and in a Lua state of its own, as jobs do. A script's result is the text of what it returns. */
#ifndef LIB_FIXTURE_H
#define LIB_FIXTURE_H

#include "../../runtime/ctx/ctx.h"
#include "../../runtime/ctx/libs.h"
#include "../../runtime/loop/loop.h"
#include "../../runtime/vm/private.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { DEADLINE_S = 30 };

typedef struct lib {
    td_thread *thread;
    td_handlers *handlers; /* one that does nothing: the scripts stand for them */
    char dir[64];          /* a folder of the test's own */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int calls_done; /* under mutex, as job.done is */
} lib;

/* A script, from job_start to job_end. */
typedef struct job {
    lib *t;
    const char *script;
    char arg[512]; /* the script's `...`, with its number */
    int number;
    td_state *state;
    lua_State *L; /* the state's */
    td_fiber *fiber;
    bool done, raised;
    char *text;
} job;

/* ---- Time and files ---- */

static inline struct timespec deadline(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += DEADLINE_S;
    return t;
}

/* EVENTUALLY waits until something becomes true that can only be asked for. */
#define EVENTUALLY(condition)                                                                                          \
    do {                                                                                                               \
        uint64_t until_ = td_now_ns() + DEADLINE_S * UINT64_C(1000000000);                                             \
        while (!(condition)) {                                                                                         \
            if (td_now_ns() > until_) fail_msg("it did not happen: %s", #condition);                                   \
            usleep(2000);                                                                                              \
        }                                                                                                              \
    } while (0)

/* file_text returns the contents of dir/name (freed by the caller), or NULL. */
static inline char *file_text(lib *t, const char *name) {
    char path[200], chunk[4096];
    td_buf b = { 0 };
    snprintf(path, sizeof path, "%s/%s", t->dir, name);
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;) td_buf_add(&b, chunk, n);
    fclose(f);
    td_buf_putc(&b, '\0');
    return td_buf_take(&b);
}

/* file_lines counts the whole lines of dir/name. */
static inline int file_lines(lib *t, const char *name) {
    int n = 0;
    char *text = file_text(t, name);
    for (char *p = text; p && (p = strchr(p, '\n')); p++) n++;
    free(text);
    return n;
}

/* open_files counts this process's descriptors. */
static inline int open_files(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* ---- Jobs ---- */

/* job_text takes what a script returned or raised. */
static inline void job_text(job *j) {
    size_t len;
    const char *text = luaL_tolstring(j->L, -1, &len);
    j->text = td_memdup(text, len);
    lua_pop(j->L, 1);
}

/* fail_after(n): the state's n-th allocation from now fails; n below 0: none does. */
static inline int l_fail_after(lua_State *L) {
    void *arena;
    lua_Integer n = luaL_checkinteger(L, 1);
    (void)lua_getallocf(L, &arena);
    ((td_arena *)arena)->fail_after = (long)n;
    ((td_arena *)arena)->fail_times = 2; /* Lua collects garbage and tries again */
    return 0;
}

static inline void job_entry(void *arg) {
    job *j = arg;
    lua_register(j->L, "fail_after", l_fail_after);
    int status = luaL_loadstring(j->L, j->script);
    if (status == LUA_OK) {
        lua_pushstring(j->L, j->arg);
        lua_pushinteger(j->L, j->number);
        status = lua_pcall(j->L, 2, 1, 0);
    }
    job_text(j);
    pthread_mutex_lock(&j->t->mutex);
    j->raised = status != LUA_OK;
    j->done = true;
    pthread_cond_broadcast(&j->t->changed);
    pthread_mutex_unlock(&j->t->mutex);
}

static inline void job_begin(void *arg) {
    job *j = arg;
    j->fiber = td_fiber_new(job_entry, j, 0);
    td_fiber_wake(j->fiber);
}

/* job_start starts a script. memory is the state's limit in bytes (0: none). */
static inline job *job_start_limited(lib *t, const char *script, const char *arg, int number, size_t memory) {
    job *j = calloc(1, sizeof *j);
    assert_non_null(j);
    j->t = t;
    j->script = script;
    j->number = number;
    snprintf(j->arg, sizeof j->arg, "%s", arg);
    tidemill_error err;
    assert_int_equal(td_state_new(t->handlers, td_ctx_modules, td_ctx_modules_count, memory, NULL, &j->state, &err), 0);
    j->L = j->state->L;
    assert_int_equal(td_thread_post(t->thread, job_begin, j), 0);
    return j;
}

static inline job *job_start(lib *t, const char *script, const char *arg, int number) {
    return job_start_limited(t, script, arg, number, 0);
}

/* job_wait waits until a job has ended. */
static inline void job_wait(job *j) {
    struct timespec until = deadline();
    int rc = 0;
    pthread_mutex_lock(&j->t->mutex);
    while (!j->done && rc == 0) rc = pthread_cond_timedwait(&j->t->changed, &j->t->mutex, &until);
    pthread_mutex_unlock(&j->t->mutex);
    if (rc) fail_msg("the job did not end: %s", j->script);
}

/* ---- Calls on the thread ---- */

typedef struct lib_call {
    lib *t;
    td_call_fn *fn;
    void *arg;
    bool done;
} lib_call;

static inline void lib_do(void *arg) {
    lib_call *c = arg;
    c->fn(c->arg);
    pthread_mutex_lock(&c->t->mutex);
    c->done = true;
    pthread_cond_broadcast(&c->t->changed);
    pthread_mutex_unlock(&c->t->mutex);
}

/* lib_on_thread runs fn(arg) on the loop and waits for it. */
static inline void lib_on_thread(lib *t, td_call_fn *fn, void *arg) {
    lib_call c = { t, fn, arg, false };
    assert_int_equal(td_thread_post(t->thread, lib_do, &c), 0);
    pthread_mutex_lock(&t->mutex);
    while (!c.done) pthread_cond_wait(&t->changed, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
}

static inline void job_drop_state(void *arg) {
    td_state_drop(arg);
}

/* job_free frees a job that has ended, as it would be freed if it had been cut off: no finalizer runs. */
static inline void job_free(job *j) {
    if (j->t->thread)
        lib_on_thread(j->t, job_drop_state, j->state);
    else
        td_state_drop(j->state);
    free(j->text);
    free(j);
}

static inline void job_drop_fiber(void *arg) {
    job *j = arg;
    td_fiber_drop(j->fiber);
}

/* job_drop stops a job that waits, as the engine does, and frees it. */
static inline void job_drop(job *j) {
    lib_on_thread(j->t, job_drop_fiber, j);
    assert_false(j->done);
    job_free(j);
}

/* lib_run runs one script to its end. Returns its text, freed by the caller. */
static inline char *lib_run(lib *t, const char *script, const char *arg) {
    job *j = job_start(t, script, arg, 0);
    job_wait(j);
    char *text = j->text;
    j->text = NULL;
    job_free(j);
    return text;
}

/* ASSERT_RUN runs a script and compares its text. */
#define ASSERT_RUN(t, script, arg, expected)                                                                           \
    do {                                                                                                               \
        char *text_ = lib_run(t, script, arg);                                                                         \
        assert_string_equal(text_, expected);                                                                          \
        free(text_);                                                                                                   \
    } while (0)

/* lib_fail_each_allocation runs a script, whose argument is for fail_after, until no allocation of it fails any more,
   and compares its last text. Before that, at least `least` runs must have raised for want of memory. */
static inline void lib_fail_each_allocation(lib *t, const char *script, const char *expected, int least) {
    char number[16];
    for (int i = 0;; i++) {
        snprintf(number, sizeof number, "%d", i);
        job *j = job_start(t, script, number, 0);
        job_wait(j);
        bool raised = j->raised;
        if (raised)
            assert_string_equal(j->text, "not enough memory");
        else
            assert_string_equal(j->text, expected);
        job_free(j);
        if (raised) continue;
        if (i < least) fail_msg("only %d allocations were made to fail", i);
        return;
    }
}

/* ---- Set-up ---- */

/* lib_handlers loads a set with one task, which is never run. */
static inline int lib_handlers(lib *t) {
    char dir[100], path[120];
    tidemill_error err;
    snprintf(dir, sizeof dir, "%s/handlers", t->dir);
    snprintf(path, sizeof path, "%s/idle.lua", dir);
    if (mkdir(dir, 0700) < 0) return -1;
    FILE *f = fopen(path, "w");
    if (!f) return -1;
    fputs("return { name = function() return 'idle' end, handle = function() end }\n", f);
    fclose(f);
    return td_handlers_load(dir, NULL, 0, &t->handlers, &err);
}

static inline int lib_setup(void **state) {
    lib *t = calloc(1, sizeof *t);
    tidemill_error err;
    const char *tmp = getenv("TMPDIR");
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->changed, NULL);
    snprintf(t->dir, sizeof t->dir, "%.40s/tmlibXXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(t->dir) || td_thread_start(&t->thread, "test", &err) < 0) return -1;
    if (lib_handlers(t) < 0) return -1;
    *state = t;
    return 0;
}

static inline int lib_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline int lib_teardown(void **state) {
    lib *t = *state;
    td_thread_stop(t->thread);
    nftw(t->dir, lib_remove, 8, FTW_DEPTH | FTW_PHYS);
    td_handlers_unref(t->handlers);
    pthread_mutex_destroy(&t->mutex);
    pthread_cond_destroy(&t->changed);
    free(t);
    return 0;
}

#define LIB_TEST(function) cmocka_unit_test_setup_teardown(function, lib_setup, lib_teardown)

#endif
