/* jobs.c: enqueue and enqueue_many, of a client and of a transaction. */
#include "binding.h"

#include "../../runtime/vm/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TASK = 2, ARGS, OPTIONS }; /* stack indices */

#define ARGS_WANTED "a table with named fields"
#define LIST_WANTED "a list of such tables"

/* read_task checks the name of the task. */
static int read_task(lua_State *L, const char **task, tidemill_error *err) {
    if (lua_type(L, TASK) != LUA_TSTRING) return td_answer_type(L, TASK, "task", "the name of a task", err);
    size_t len;
    *task = lua_tolstring(L, TASK, &len);
    return td_enqueue_text("task", "name", *task, len, TD_ENQUEUE_TASK_MAX, err);
}

/* read_args appends one job's arguments, the value at idx, as JSON; path is what they are called in messages. */
static int read_args(lua_State *L, int idx, const char *path, td_buf *b, tidemill_error *err) {
    char message[256];
    if (!lua_istable(L, idx)) {
        int rc = td_answer_type(L, idx, path, ARGS_WANTED, err);
        snprintf(err->field, sizeof err->field, "args");
        return rc;
    }
    size_t start = b->len;
    const char *problem = td_value_encode(L, idx, b, path, message);
    if (b->failed) return td_error_memory(err);
    if (problem) return td_error_field(err, "args", "%s", problem);
    if (b->data[start] == '{') return 0;
    return td_error_field(err, "args", "%s: a list is not allowed; give " ARGS_WANTED, path);
}

int td_jobs_one(lua_State *L, td_jobs_connection_fn *connection, void *owner, tidemill_error *err) {
    td_lua_options options;
    td_buf args = { 0 };
    tidemill_job job = { 0 };
    struct pg_conn *conn = NULL;
    const char *task = NULL;
    int rc = read_task(L, &task, err);
    if (rc == 0) rc = td_lua_options_read(L, OPTIONS, &options, err);
    if (rc == 0 && !lua_isnoneornil(L, ARGS)) rc = read_args(L, ARGS, "args", &args, err);
    if (rc == 0) rc = connection(owner, &conn, err);
    if (rc == 0) rc = td_enqueue(conn, task, args.data, &options.given, &job, err);
    td_buf_free(&args);
    if (rc < 0) return rc;
    lua_pushinteger(L, job.id);
    lua_pushboolean(L, job.duplicate);
    return 2;
}

/* ---- Many ---- */

/* The arguments of many jobs: one text after the other, each ending in NUL, and where each begins. */
typedef struct many {
    td_buf text;
    const char **args;
    size_t count;
} many;

static void many_free(many *m) {
    td_buf_free(&m->text);
    free(m->args);
}

/* read_each reads every item of the list into m->text. */
static int read_each(lua_State *L, many *m, tidemill_error *err) {
    char path[40];
    for (size_t i = 0; i < m->count; i++) {
        snprintf(path, sizeof path, "args[%zu]", i + 1);
        lua_rawgeti(L, ARGS, (lua_Integer)i + 1);
        int rc = read_args(L, lua_gettop(L), path, &m->text, err);
        lua_pop(L, 1);
        if (rc < 0) return rc;
        td_buf_add(&m->text, "", 1);
    }
    return m->text.failed ? td_error_memory(err) : 0;
}

/* read_list reads the list of arguments, whose length is known. */
static int read_list(lua_State *L, many *m, tidemill_error *err) {
    size_t keys = 0;
    if (!lua_checkstack(L, 8)) return td_error_memory(err);
    for (lua_pushnil(L); lua_next(L, ARGS); keys++) lua_pop(L, 1);
    if (keys != m->count) {
        return td_error_field(err, "args", "args: a table with other keys than 1, 2, ... is not allowed; give " LIST_WANTED);
    }
    int rc = read_each(L, m, err);
    if (rc < 0) return rc;
    m->args = calloc(m->count + 1, sizeof *m->args);
    if (!m->args) return td_error_memory(err);
    const char *next = m->text.data;
    for (size_t i = 0; i < m->count; i++) {
        m->args[i] = next;
        next += strlen(next) + 1;
    }
    return 0;
}

/* push_jobs pushes the list of results [+1]. */
static void push_jobs(lua_State *L, const tidemill_job *jobs, size_t count) {
    lua_createtable(L, count < INT32_MAX ? (int)count : 0, 0);
    for (size_t i = 0; i < count; i++) {
        lua_createtable(L, 0, 2);
        lua_pushinteger(L, jobs[i].id);
        lua_setfield(L, -2, "id");
        lua_pushboolean(L, jobs[i].duplicate);
        lua_setfield(L, -2, "duplicate");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

int td_jobs_many(lua_State *L, td_jobs_connection_fn *connection, void *owner, tidemill_error *err) {
    td_lua_options options;
    many m = { 0 };
    struct pg_conn *conn = NULL;
    const char *task = NULL;
    lua_settop(L, OPTIONS);
    if (!lua_istable(L, ARGS)) return td_answer_type(L, ARGS, "args", LIST_WANTED, err);
    m.count = (size_t)lua_rawlen(L, ARGS);
    tidemill_job *jobs = lua_newuserdatauv(L, (m.count + 1) * sizeof *jobs, 0);
    int rc = read_task(L, &task, err);
    if (rc == 0) rc = td_lua_options_read(L, OPTIONS, &options, err);
    if (rc == 0) rc = read_list(L, &m, err);
    if (rc == 0) rc = connection(owner, &conn, err);
    if (rc == 0) rc = td_enqueue_many(conn, task, m.args, m.count, &options.given, jobs, err);
    many_free(&m);
    if (rc < 0) return rc;
    push_jobs(L, jobs, m.count);
    return 1;
}
