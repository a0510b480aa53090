/* enqueue.c: ctx:enqueue(task, args, options): stores a job, in a transaction of its own, or in the one of
   tidemill.pg that is open: then the job is there when that is committed, and else never was. Arguments, options and
   errors are those of client:enqueue in the Lua binding. Returns the job's id and false, or the id of the job that
   stands and true; or nil, message, code. */
#include "methods.h"

#include "failure.h"
#include "libs.h"
#include "request.h"

#include "../loop/loop.h"
#include "../store/submit.h"

#include <stdlib.h>

/* A request, owned by its fiber while that waits for the database. */
typedef struct call {
    td_hold hold;
    td_request request;
} call;

static void call_free(call *c) {
    td_request_free(&c->request);
    free(c);
}

static void release(td_hold *hold) {
    call_free(td_container(hold, call, hold));
}

int td_ctx_enqueue(lua_State *L) {
    td_ctx_running(L);
    td_failure_outside(L, "ctx:enqueue");
    tidemill_job job = { 0 };
    tidemill_error err;
    call *c = calloc(1, sizeof *c);
    if (!c) {
        td_failure failure;
        td_failure_memory(&failure);
        return td_failure_push(L, &failure);
    }
    td_hold_push(td_fiber_self(), &c->hold, release);
    int rc = td_request_read(L, 2, &c->request, &err);
    if (rc == 0)
        rc = td_submit(td_pg_session(L), c->request.task, c->request.args.data, &c->request.options, &job, &err);
    td_hold_take(&c->hold);
    call_free(c);
    if (rc < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        lua_pushstring(L, tidemill_error_name(err.code));
        return 3;
    }
    lua_pushinteger(L, job.id);
    lua_pushboolean(L, job.duplicate);
    return 2;
}
