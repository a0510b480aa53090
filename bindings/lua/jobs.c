/* jobs.c: enqueue and enqueue_many, of a client and of a transaction. */
#include "binding.h"

#include "../../runtime/ctx/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TASK = 2, ARGS, OPTIONS }; /* stack indices */

#define LIST_WANTED "a list of tables with named fields"

int td_jobs_one(lua_State *L, td_jobs_connection_fn *connection, void *owner, tidemill_error *err) {
    td_request request;
    tidemill_job job = { 0 };
    struct pg_conn *conn = NULL;
    int rc = td_request_read(L, TASK, &request, err);
    if (rc == 0) rc = connection(owner, &conn, err);
    if (rc == 0) rc = td_enqueue(conn, request.task, request.args.data, &request.options, &job, err);
    td_request_free(&request);
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
        int rc = td_request_args(L, lua_gettop(L), path, &m->text, err);
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
        return td_error_field(err, "args",
                              "args: a table with other keys than 1, 2, ... is not allowed; give " LIST_WANTED);
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
    td_request request;
    many m = { 0 };
    struct pg_conn *conn = NULL;
    lua_settop(L, OPTIONS);
    if (!lua_istable(L, ARGS)) return td_request_type(L, ARGS, "args", LIST_WANTED, err);
    m.count = (size_t)lua_rawlen(L, ARGS);
    tidemill_job *jobs = lua_newuserdatauv(L, (m.count + 1) * sizeof *jobs, 0);
    int rc = td_request_task(L, TASK, &request.task, err);
    if (rc == 0) rc = td_request_options(L, OPTIONS, &request, err);
    if (rc == 0) rc = read_list(L, &m, err);
    if (rc == 0) rc = connection(owner, &conn, err);
    if (rc == 0) rc = td_enqueue_many(conn, request.task, m.args, m.count, &request.options, jobs, err);
    many_free(&m);
    if (rc < 0) return rc;
    push_jobs(L, jobs, m.count);
    return 1;
}
