/* ctx.c: the ctx object. A table with the job's facts; its methods come from one metatable a state.

     ctx:snooze(seconds)   run again later, counting no attempt; 0 s to 1 year. Does not return.
     ctx:cancel(reason)    end as cancelled; ctx:discard(reason): end in the dead-letter queue. Do not return.
     ctx:sleep(seconds)    wait without holding the thread
     ctx:cancelled()       whether the job is being stopped
     ctx:enqueue(task, args, options) -> id, duplicate; or nil, message, code   (enqueue.c)
     ctx.log:info(message, fields), warn, error, debug   (ctxlog.c) */
#include "ctx.h"

#include "../loop/loop.h"
#include "failure.h"
#include "libs.h"
#include "methods.h"

#include <lauxlib.h>
#include <math.h>
#include <string.h>

#define METATABLE "tidemill.ctx"

td_ctx *td_ctx_running(lua_State *L) {
    td_state *state = td_state_of(L);
    td_ctx *ctx = state ? td_state_user(state) : NULL;
    if (!ctx) luaL_error(L, "ctx can only be used while its job runs");
    return ctx;
}

static double seconds_arg(lua_State *L, const char *method, double max, const char *allowed) {
    double seconds = luaL_checknumber(L, 2);
    if (!(seconds >= 0 && seconds <= max)) {
        luaL_error(L, "ctx:%s: seconds: %f is not allowed; give %s", method, seconds, allowed);
    }
    return seconds;
}

static int ctx_snooze(lua_State *L) {
    td_ctx_running(L);
    double seconds = seconds_arg(L, "snooze", 31557600, "0 to 31557600 (a year)");
    return td_state_end(L, TD_SNOOZED, NULL, 0, seconds);
}

static int end_with_reason(lua_State *L, td_outcome outcome) {
    size_t len = 0;
    td_ctx_running(L);
    const char *reason = luaL_optlstring(L, 2, NULL, &len);
    return td_state_end(L, outcome, reason, len, -1);
}

static int ctx_cancel(lua_State *L) {
    return end_with_reason(L, TD_CANCELLED);
}

static int ctx_discard(lua_State *L) {
    return end_with_reason(L, TD_DISCARDED);
}

static int ctx_sleep(lua_State *L) {
    tidemill_error err;
    td_ctx_running(L);
    double seconds = seconds_arg(L, "sleep", 31557600, "0 to 31557600 (a year)");
    td_failure_outside(L, "ctx:sleep");
    const char *before = td_fiber_doing("ctx:sleep");
    int rc = td_wait_until(td_now_ns() + (uint64_t)(seconds * 1e9), &err);
    td_fiber_doing(before);
    if (rc < 0) {
        td_state_check(L);
        lua_pushstring(L, err.message);
        return lua_error(L);
    }
    return 0;
}

/* ctx:cancelled() says whether the job is being stopped: cancelled from outside, past its deadline, or with its
   process. It ends at its next step anyway; what asks is a <close> variable that has to know why. */
static int ctx_cancelled(lua_State *L) {
    td_ctx_running(L);
    lua_pushboolean(L, td_fiber_interrupted());
    return 1;
}

static const luaL_Reg methods[] = {
    { "snooze", ctx_snooze }, { "cancel", ctx_cancel },      { "discard", ctx_discard },
    { "sleep", ctx_sleep },   { "enqueue", td_ctx_enqueue }, { "cancelled", ctx_cancelled },
    { NULL, NULL },
};

static void set_integer(lua_State *L, const char *name, int64_t value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static void set_time(lua_State *L, const char *name, int64_t us) {
    lua_pushnumber(L, (double)us / 1e6);
    lua_setfield(L, -2, name);
}

int td_ctx_push(lua_State *L) {
    const td_ctx *c = lua_touserdata(L, 1);
    lua_createtable(L, 0, 12);
    set_integer(L, "id", c->id);
    set_integer(L, "run", c->run);
    set_integer(L, "attempt", c->attempt);
    set_integer(L, "max_attempts", c->max_attempts);
    set_integer(L, "priority", c->priority);
    set_time(L, "enqueued_at", c->enqueued_us);
    set_time(L, "scheduled_at", c->scheduled_us);
    set_time(L, "deadline", c->deadline_us);
    lua_pushstring(L, c->task);
    lua_setfield(L, -2, "task");
    lua_pushstring(L, c->queue);
    lua_setfield(L, -2, "queue");
    td_value_push(L, c->tags, strlen(c->tags));
    lua_setfield(L, -2, "tags");
    td_ctxlog_push(L);
    lua_setfield(L, -2, "log");
    if (luaL_newmetatable(L, METATABLE)) {
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
        lua_pushliteral(L, "ctx");
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
    return 1;
}

const td_module td_ctx_modules[] = {
    { NULL, td_io_open },
    { NULL, td_os_open },
    { "tidemill", td_tidemill_open },
    { "tidemill.http", td_http_open },
    { "tidemill.mail", td_mail_open },
    { "tidemill.process", td_process_open },
    { "tidemill.pg", td_pg_open },
};
const size_t td_ctx_modules_count = TD_COUNT(td_ctx_modules);
