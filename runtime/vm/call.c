/* call.c: one attempt: a handler's call from its arguments' text to its outcome. */
#include "private.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RESULT_MAX = 64 << 10 };
static const double BACKOFF_MAX_S = 366 * 86400.0;

const char *td_outcome_name(td_outcome outcome) {
    static const char *const names[] = { "completed", "failed",  "timeout", "memory",  "cancelled",
                                         "discarded", "snoozed", "lost",    "returned" };
    return names[outcome];
}

void td_result_free(td_result *result) {
    free(result->error);
    free(result->traceback);
    free(result->result);
    free(result->warning);
    *result = (td_result){ .delay_s = -1 };
}

/* warn adds a sentence to the result's warning. */
static void warn(td_result *result, const char *text) {
    td_buf b = { 0 };
    if (result->warning) td_buf_printf(&b, "%s; ", result->warning);
    td_buf_puts(&b, text);
    free(result->warning);
    result->warning = td_buf_take(&b);
}

/* ---- Before the handler ---- */

typedef struct call {
    td_state *state;
    const td_task *task;
    int handle;
    const char *json;
    size_t json_len;
    lua_CFunction push_ctx;
    void *push_arg;
    enum { DECODING, REFUSED, PUSHING } stage;
    td_buf refusal;
} call;

/* prepare(call) returns the handler and its two arguments, or nothing when the arguments do not fit. */
static int prepare(lua_State *L) {
    call *c = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->handle);
    td_value_push(L, c->json, c->json_len);
    if (!td_args_check(L, -1, c->task, &c->refusal)) {
        c->stage = REFUSED;
        return 0;
    }
    c->stage = PUSHING;
    if (c->push_ctx) {
        lua_pushcfunction(L, c->push_ctx);
        lua_pushlightuserdata(L, c->push_arg);
        lua_call(L, 1, 1);
    } else {
        lua_pushnil(L);
    }
    lua_insert(L, -2);
    return 3;
}

/* ---- After it ---- */

/* take_end moves what td_state_end noted into the result. */
static void take_end(td_state *state, td_result *result) {
    result->outcome = state->outcome;
    result->error = state->reason;
    result->traceback = state->traceback;
    state->reason = state->traceback = NULL;
    if (state->outcome == TD_SNOOZED) result->delay_s = state->delay_s;
}

static void fail_memory(td_state *state, td_result *result) {
    td_buf text = { 0 };
    result->outcome = TD_MEMORY;
    if (state->arena.limit) {
        td_buf_puts(&text, "the job needed more memory than its limit of ");
        td_fault_bytes(&text, state->arena.limit);
    } else {
        td_buf_puts(&text, "the system had no more memory for the job");
    }
    result->error = td_buf_take(&text);
}

static bool ends_in(const char *text, const char *end) {
    size_t len = text ? strlen(text) : 0, end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* fail takes over an error: what the message handler captured, else the error object on top of the stack. */
static void fail(td_state *state, int status, size_t refused_before, td_result *result) {
    /* Lua takes any error with the text of its own memory error for one; the arena knows better. And one that was
       caught and raised again, as assert(load(...)) does, is one still. */
    bool refused = state->arena.refused != refused_before;
    bool memory = refused && (status == LUA_ERRMEM || ends_in(state->error, "not enough memory"));
    if (memory && !state->capturing) {
        fail_memory(state, result);
        return;
    }
    result->outcome = TD_FAILED;
    if (state->error && status != LUA_ERRMEM) {
        result->error = state->error;
        result->traceback = state->traceback;
        state->error = state->traceback = NULL;
    } else if (state->error && state->capturing) { /* the traceback found no room; the message is there */
        result->error = state->error;
        state->error = NULL;
    } else {
        td_buf text = { 0 };
        td_fault_text(state->L, -1, &text);
        result->error = td_buf_take(&text);
    }
}

/* keep_result encodes a handler's value at idx. */
static void keep_result(lua_State *L, int idx, td_result *result) {
    td_buf json = { 0 };
    char message[256];
    td_nopreempt_enter();
    const char *problem = td_value_encode_max(L, idx, &json, "result", RESULT_MAX, message);
    td_nopreempt_leave();
    if (!problem) {
        result->result = td_buf_take(&json);
        return;
    }
    td_buf text = { 0 };
    td_buf_printf(&text, "%s; the result was not kept", message);
    if (text.data) warn(result, text.data);
    td_buf_free(&text);
    td_buf_free(&json);
}

/* judge decides by what the handler returned: n values from index first on. */
static void judge(lua_State *L, int first, int n, td_result *result) {
    bool value = n > 0 && lua_toboolean(L, first);
    bool second = n > 1 && !lua_isnil(L, first + 1);
    result->outcome = TD_COMPLETED;
    if (value) {
        keep_result(L, first, result);
        if (second) warn(result, "the handler returned a second value after a true first one, which is ignored");
    } else if (second) {
        td_buf text = { 0 };
        td_fault_text(L, first + 1, &text);
        result->outcome = TD_FAILED;
        result->error = td_buf_take(&text);
    } else if (n > 0 && lua_isboolean(L, first)) {
        result->outcome = TD_FAILED;
        result->error = td_strdup("the handler returned false");
    }
}

/* ask_backoff asks the task's backoff(attempt) how long the next attempt should wait. */
static void ask_backoff(lua_State *L, int backoff, int attempt, td_result *result) {
    td_buf text = { 0 };
    lua_rawgeti(L, LUA_REGISTRYINDEX, backoff);
    lua_pushinteger(L, attempt);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        td_buf_puts(&text, "backoff: ");
        td_fault_text(L, -1, &text);
    } else {
        double delay = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
        if (delay >= 0 && delay <= BACKOFF_MAX_S) {
            result->delay_s = delay;
        } else {
            char shown[TD_FAULT_VALUE];
            td_fault_value(L, -1, shown);
            td_buf_printf(&text, "backoff: %s is not allowed; return a number of seconds from 0 to one year", shown);
        }
    }
    lua_pop(L, 1);
    if (text.len) {
        td_buf_puts(&text, "; the usual delay is used");
        if (text.data) warn(result, text.data);
    }
    td_buf_free(&text);
}

/* refuse ends an attempt whose arguments can never fit. */
static void refuse(call *c, td_result *result) {
    if (c->stage == DECODING) {
        td_buf_puts(&c->refusal, "args: ");
        td_fault_text(c->state->L, -1, &c->refusal);
    }
    result->outcome = TD_DISCARDED;
    result->permanent = true;
    result->error = td_buf_take(&c->refusal);
}

/* begin and end a call: the state's notes about it. */
static void begin(td_state *state) {
    state->base = state->ends;
    state->capturing = false;
    state->calling = true;
}

static void end(td_state *state) {
    state->calling = false;
    state->stopping = false;
    state->base = state->ends;
    free(state->reason);
    free(state->error);
    free(state->traceback);
    state->reason = state->error = state->traceback = NULL;
}

/* run makes the call with the message handler at index `top + 1`. Returns Lua's status; results are above it. */
static int run(call *c, int top) {
    lua_State *L = c->state->L;
    lua_pushcfunction(L, prepare);
    lua_pushlightuserdata(L, c);
    int status = lua_pcall(L, 1, LUA_MULTRET, top + 1);
    if (status != LUA_OK || c->stage == REFUSED) return status;
    return lua_pcall(L, 2, LUA_MULTRET, top + 1);
}

void td_state_call(td_state *state, int task, const char *args_json, size_t args_len, int attempt,
                   lua_CFunction push_ctx, void *push_arg, td_result *result) {
    lua_State *L = state->L;
    call c = {
        state, &state->set->tasks[task], state->tasks[task].handle, args_json, args_len, push_ctx, push_arg, DECODING,
        { 0 }
    };
    size_t refused = state->arena.refused;
    int top = lua_gettop(L);
    *result = (td_result){ .delay_s = -1 };
    begin(state);
    lua_pushcfunction(L, td_fault_handler);
    int status = run(&c, top);
    bool misfit = c.stage == REFUSED || (c.stage == DECODING && status == LUA_ERRRUN);
    if (state->ends > state->base)
        take_end(state, result);
    else if (misfit)
        refuse(&c, result);
    else if (status != LUA_OK)
        fail(state, status, refused, result);
    else
        judge(L, top + 2, lua_gettop(L) - top - 1, result);
    result->decided = true;
    end(state);
    lua_settop(L, top);
    if (state->arena.refused != refused) td_state_trim(state);
    bool failed = result->outcome == TD_FAILED || result->outcome == TD_MEMORY;
    if (failed && c.task->has_backoff) ask_backoff(L, state->tasks[task].backoff, attempt, result);
    td_buf_free(&c.refusal);
}
