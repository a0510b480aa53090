/* process.c: tidemill.process: run(command, options) runs a program and returns what it wrote and how it ended.

   All descriptors of a child are in one epoll set, so that the fiber waits for one descriptor. What a call holds is a
   run, which the fiber owns: if the job is stopped, the child's group is killed and everything given back. */
#include "child.h"
#include "libs.h"

#include "../loop/loop.h"

#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

extern char **environ;

enum {
    OUTPUT_DEFAULT = 1 << 20,
    OUTPUT_MAX = 1 << 30,
    CHUNK = 16 << 10,
    TURN = 64, /* chunks read before others have their turn; more than a pipe holds */
};
#define TIMEOUT_MAX_S 1e9
#define RUN           "tidemill.process.run"

/* ---- Arguments ---- */

typedef struct options {
    const char *input, *cwd; /* NULL: not given. Lua's, alive while the options' table is. */
    size_t input_len;
    size_t max_output;
    double timeout_s; /* 0: none */
} options;

/* plain_string returns the string at idx, or raises for another type or a NUL byte in it [-0, +0]. */
static const char *plain_string(lua_State *L, int idx, const char *what) {
    size_t len;
    if (lua_type(L, idx) != LUA_TSTRING)
        luaL_error(L, RUN ": %s: %s is not allowed; give a string", what, luaL_typename(L, idx));
    const char *text = lua_tolstring(L, idx, &len);
    if (strlen(text) != len) luaL_error(L, RUN ": %s: a NUL byte is not allowed", what);
    return text;
}

/* read_argv pushes a block with the program and its arguments, from the list at index 1 [-0, +1]. */
static char **read_argv(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Unsigned count = lua_rawlen(L, 1);
    if (count == 0) luaL_error(L, RUN ": the command is an empty list; give the program and its arguments");
    if (count > 100000) luaL_error(L, RUN ": a command of %d words is too long; 100000 are allowed", (int)count);
    char **argv = lua_newuserdatauv(L, (count + 1) * sizeof *argv, 0);
    for (lua_Unsigned i = 0; i < count; i++) {
        char what[32];
        snprintf(what, sizeof what, "word %u of the command", (unsigned)(i + 1));
        lua_rawgeti(L, 1, (lua_Integer)(i + 1));
        argv[i] = (char *)plain_string(L, -1, what);
        lua_pop(L, 1);
    }
    argv[count] = NULL;
    if (!argv[0][0]) luaL_error(L, RUN ": the program's name is empty; give the program and its arguments");
    return argv;
}

/* inherited says whether a variable of ours ("NAME=value") is passed on: not when the table at idx has its name. */
static bool inherited(lua_State *L, int idx, const char *variable) {
    lua_pushlstring(L, variable, strcspn(variable, "="));
    bool named = lua_rawget(L, idx) != LUA_TNIL;
    lua_pop(L, 1);
    return !named;
}

/* push_variables pushes "NAME=value" for each pair of the table at idx, but not for those that are false [-0, +n]. */
static int push_variables(lua_State *L, int idx) {
    int n = 0;
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        luaL_checkstack(L, 4, RUN);
        const char *name = lua_type(L, -2) == LUA_TSTRING ? plain_string(L, -2, "a name in env") : NULL;
        if (!name || !name[0] || strchr(name, '=')) luaL_error(L, RUN ": env: give a table of names and values");
        if (lua_isboolean(L, -1) && !lua_toboolean(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        lua_pushfstring(L, "%s=%s", name, plain_string(L, -1, "a value in env"));
        lua_replace(L, -2);
        lua_insert(L, -2);
        n++;
    }
    return n;
}

/* read_env returns the child's environment: ours, changed by the table at idx (none there: ours as it is). What it
   made stays on the stack. */
static char **read_env(lua_State *L, int idx) {
    if (lua_isnil(L, idx)) return environ;
    if (!lua_istable(L, idx)) luaL_error(L, RUN ": env: %s is not allowed; give a table", luaL_typename(L, idx));
    size_t ours = 0, n = 0;
    while (environ && environ[ours]) ours++;
    int first = lua_gettop(L) + 1;
    int added = push_variables(L, idx);
    char **env = lua_newuserdatauv(L, (ours + (size_t)added + 1) * sizeof *env, 0);
    luaL_checkstack(L, 2, RUN);
    for (size_t i = 0; i < ours; i++) {
        if (inherited(L, idx, environ[i])) env[n++] = environ[i];
    }
    for (int i = 0; i < added; i++) env[n++] = (char *)lua_tostring(L, first + i);
    env[n] = NULL;
    return env;
}

/* push_option pushes an option of the table at idx, metamethods left aside: what it returns the table keeps alive. */
static int push_option(lua_State *L, int idx, const char *name) {
    lua_pushstring(L, name);
    return lua_rawget(L, idx);
}

/* check_names raises for an option that does not exist. */
static void check_names(lua_State *L, int idx) {
    static const char *const names[] = { "stdin", "cwd", "env", "max_output", "timeout", NULL };
    const char *name = td_failure_unknown(L, idx, names);
    if (name) luaL_error(L, RUN ": there is no option %s; stdin, cwd, env, max_output and timeout are allowed", name);
}

/* read_numbers reads max_output and timeout from the table at idx. */
static void read_numbers(lua_State *L, int idx, options *o) {
    if (push_option(L, idx, "max_output") != LUA_TNIL) {
        lua_Integer max = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
        if (max < 0 || max > OUTPUT_MAX) {
            luaL_error(L, RUN ": max_output: %s is not allowed; give a whole number of bytes, at most 1 GiB",
                       luaL_tolstring(L, -1, NULL));
        }
        o->max_output = (size_t)max;
    }
    if (push_option(L, idx, "timeout") != LUA_TNIL) {
        o->timeout_s = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
        if (!(o->timeout_s > 0 && o->timeout_s <= TIMEOUT_MAX_S)) {
            luaL_error(L, RUN ": timeout: %s is not allowed; give a number of seconds above 0",
                       luaL_tolstring(L, -1, NULL));
        }
    }
    lua_pop(L, 2);
}

/* read_options reads the table at index 2, and leaves the value of env on the stack [-0, +1]. */
static options read_options(lua_State *L) {
    options o = { NULL, NULL, 0, OUTPUT_DEFAULT, 0 };
    if (lua_isnil(L, 2)) {
        lua_pushnil(L);
        return o;
    }
    luaL_checktype(L, 2, LUA_TTABLE);
    check_names(L, 2);
    read_numbers(L, 2, &o);
    if (push_option(L, 2, "stdin") != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TSTRING) {
            luaL_error(L, RUN ": stdin: %s is not allowed; give a string", luaL_typename(L, -1));
        }
        o.input = lua_tolstring(L, -1, &o.input_len);
    }
    if (push_option(L, 2, "cwd") != LUA_TNIL) o.cwd = plain_string(L, -1, "cwd");
    lua_pop(L, 2);
    push_option(L, 2, "env");
    return o;
}

/* ---- Running ---- */

typedef struct run {
    td_hold hold;
    td_child child;
    int epoll;
    td_buf out, err;
    const options *options;
    size_t input_done;
    int status, signal;
    td_failure failure;
} run;

static void run_free(run *r) {
    td_child_end(&r->child);
    if (r->epoll >= 0) close(r->epoll);
    td_buf_free(&r->out);
    td_buf_free(&r->err);
    free(r);
}

static void release(td_hold *hold) {
    run_free(td_container(hold, run, hold));
}

/* watch adds a descriptor to what is waited for; -1 is passed over. */
static int watch(run *r, int fd, uint32_t events) {
    struct epoll_event event = { .events = events };
    if (fd < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &event) == 0) return 0;
    return td_failure_set(&r->failure, "io", "the program could not be watched: %s", strerror(errno));
}

/* finish closes one of our ends. It leaves the epoll set first: a copy of it may live on in a process that somebody
   else is just forking. */
static void finish(run *r, int *fd) {
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, *fd, NULL);
    close(*fd);
    *fd = -1;
}

static int begin(run *r, const td_command *command) {
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (r->epoll < 0) return td_failure_set(&r->failure, "io", "a program cannot be watched: %s", strerror(errno));
    int rc = td_child_start(&r->child, command, &r->failure);
    if (rc == 0) rc = watch(r, r->child.in, EPOLLOUT);
    if (rc == 0) rc = watch(r, r->child.out, EPOLLIN);
    if (rc == 0) rc = watch(r, r->child.err, EPOLLIN);
    if (rc == 0) rc = watch(r, r->child.pidfd, EPOLLIN);
    return rc;
}

/* feed writes what the child will take of its input. A child that closes its input has had enough, which is no error
   (and no SIGPIPE either: a loop thread blocks that). */
static void feed(run *r) {
    const options *o = r->options;
    while (r->child.in >= 0) {
        size_t left = o->input_len - r->input_done;
        ssize_t n = left ? write(r->child.in, o->input + r->input_done, left) : 0;
        if (n > 0)
            r->input_done += (size_t)n;
        else if (n < 0 && errno == EAGAIN)
            return;
        else if (n < 0 && errno == EINTR)
            continue;
        else
            finish(r, &r->child.in);
    }
}

/* drain reads what there is of one of the child's outputs, up to a turn's worth. */
static int drain(run *r, int *fd, td_buf *b) {
    char chunk[CHUNK];
    for (int i = 0; *fd >= 0 && i < TURN; i++) {
        ssize_t n = read(*fd, chunk, sizeof chunk);
        if (n < 0 && errno == EAGAIN) return 0;
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            finish(r, fd);
            return 0;
        }
        if (r->out.len + r->err.len + (size_t)n > r->options->max_output) {
            return td_failure_set(
                &r->failure, "limit",
                "the program wrote more than max_output, %zu bytes, and was ended; give a larger max_output",
                r->options->max_output);
        }
        td_buf_add(b, chunk, (size_t)n);
        if (b->failed) return td_failure_memory(&r->failure);
    }
    return 0;
}

static int drain_both(run *r) {
    int rc = drain(r, &r->child.out, &r->out);
    return rc < 0 ? rc : drain(r, &r->child.err, &r->err);
}

/* attend keeps the pipes moving until the child has ended. What the child left running in the background does not
   count: it is killed, and what it had written until then is taken. */
static int attend(run *r) {
    tidemill_error err;
    double timeout_s = r->options->timeout_s;
    uint64_t deadline = timeout_s > 0 ? td_now_ns() + (uint64_t)(timeout_s * 1e9) : UINT64_MAX;
    for (;;) {
        bool ended = td_child_ended(&r->child);
        feed(r);
        if (drain_both(r) < 0) return -1;
        if (ended) break;
        int rc = td_wait_fd(r->epoll, UV_READABLE, deadline, NULL, &err);
        if (rc == TIDEMILL_ETIMEOUT) {
            return td_failure_set(&r->failure, "timeout", "the program did not end within %g s, and was killed",
                                  timeout_s);
        }
        if (rc < 0) return td_failure_error(&r->failure, &err);
    }
    int rc = td_child_reap(&r->child, &r->status, &r->signal, &r->failure);
    return rc < 0 ? rc : drain_both(r);
}

/* ---- The module ---- */

/* push_outcome(run) returns the table that run returns. */
static int push_outcome(lua_State *L) {
    const run *r = lua_touserdata(L, 1);
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, r->status);
    if (!r->signal)
        lua_setfield(L, -2, "status");
    else
        lua_pop(L, 1);
    lua_pushinteger(L, r->signal);
    if (r->signal)
        lua_setfield(L, -2, "signal");
    else
        lua_pop(L, 1);
    lua_pushlstring(L, r->out.data ? r->out.data : "", r->out.len);
    lua_setfield(L, -2, "stdout");
    lua_pushlstring(L, r->err.data ? r->err.data : "", r->err.len);
    lua_setfield(L, -2, "stderr");
    return 1;
}

/* perform runs a command, and pushes what run returns [-0, +n]. Returns n. */
static int perform(lua_State *L, const td_command *command, const options *o) {
    td_failure failure;
    run *r = calloc(1, sizeof *r);
    if (!r) {
        td_failure_memory(&failure);
        return td_failure_push(L, &failure);
    }
    r->epoll = -1;
    r->options = o;
    td_hold_push(td_fiber_self(), &r->hold, release);
    int rc = begin(r, command);
    if (rc == 0) rc = attend(r);
    failure = r->failure;
    int status = LUA_OK;
    if (rc == 0) {
        lua_pushcfunction(L, push_outcome);
        lua_pushlightuserdata(L, r);
        status = lua_pcall(L, 1, 1, 0);
    }
    td_hold_take(&r->hold);
    run_free(r);
    if (status != LUA_OK) return lua_error(L);
    return rc == 0 ? 1 : td_failure_push(L, &failure);
}

/* run(command, {stdin, cwd, env, max_output, timeout}): {status, signal, stdout, stderr}, or nil, message, code.
   command is a list: the program, found by the worker's PATH, and its arguments; there is no shell in between. stdin is
   a string (none: no input); env changes our environment (name = value, name = false takes it away); max_output is of
   both outputs together, 1 MiB unless given; timeout seconds, none unless given. status is nil after a signal, signal
   is nil without one. run ends when the program has ended; what that left in its process group is killed. Codes:
   not_found, io, limit, timeout, memory. */
static int l_run(lua_State *L) {
    td_failure_outside(L, RUN);
    lua_settop(L, 2);
    luaL_checkstack(L, 10, RUN);
    options o = read_options(L);
    td_command command = {
        .argv = read_argv(L),
        .cwd = o.cwd,
        .in = o.input ? TD_CHILD_PIPE : TD_CHILD_NULL,
        .out = TD_CHILD_PIPE,
        .err = TD_CHILD_PIPE,
    };
    command.envp = read_env(L, 3);
    luaL_checkstack(L, 10, RUN);
    return perform(L, &command, &o);
}

int td_process_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "run", l_run }, { NULL, NULL } };
    luaL_newlib(L, functions);
    return 1;
}
