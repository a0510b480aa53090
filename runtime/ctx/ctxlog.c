/* ctxlog.c: ctx.log. log:info("mail sent", {to = "a@b"}) makes a record with the fields job, task, attempt, then the
   handler's own. A field that has no JSON form is shown as text; texts are bounded and clean. */
#include "methods.h"

#include "../loop/loop.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METATABLE "tidemill.log"

enum { FIELDS_MAX = 32, VALUE_MAX = 4096, MESSAGE_MAX = 4096, OWN_FIELDS = 3 };

typedef struct record {
    tidemill_field fields[FIELDS_MAX];
    td_buf texts[2 * FIELDS_MAX];
    size_t count;
} record;

/* add_field takes the pair at the top of the stack [-0, +0]. It raises nothing: keys are strings, and values are only
   read. */
static void add_field(lua_State *L, record *r) {
    char why[256];
    size_t len;
    if (lua_type(L, -2) != LUA_TSTRING || r->count == FIELDS_MAX) return;
    td_buf *name = &r->texts[2 * r->count], *value = &r->texts[2 * r->count + 1];
    const char *key = lua_tolstring(L, -2, &len);
    td_text_clean(name, key, len, 100);
    bool json = lua_type(L, -1) != LUA_TSTRING;
    if (!json) {
        const char *text = lua_tolstring(L, -1, &len);
        td_text_clean(value, text, len, VALUE_MAX);
    } else if (td_value_encode_max(L, -1, value, "field", VALUE_MAX, why)) {
        td_buf_clear(value);
        td_buf_puts(value, why);
        json = false;
    }
    if (name->failed || value->failed || !name->data) return;
    r->fields[r->count++] = (tidemill_field){ name->data, value->data ? value->data : "", json };
}

static void add_fields(lua_State *L, int idx, record *r) {
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        add_field(L, r);
        lua_pop(L, 1);
    }
}

/* keep appends a line to the job's log: "info  message name=value ...". What is older than the last TD_LOG_MAX bytes is
   let go of from time to time. */
static void keep(td_ctx *ctx, tidemill_level level, const char *message, const record *r) {
    static const char *const levels[] = { "debug", "info ", "warn ", "error" };
    td_buf *b = &ctx->kept;
    td_buf_printf(b, "%s %s", levels[level], message);
    for (size_t i = OWN_FIELDS; i < r->count; i++) td_buf_printf(b, " %s=%s", r->fields[i].name, r->fields[i].value);
    td_buf_putc(b, '\n');
    if (b->failed || b->len <= 2 * TD_LOG_MAX) return;
    memmove(b->data, b->data + b->len - TD_LOG_MAX, TD_LOG_MAX + 1);
    b->len = TD_LOG_MAX;
}

char *td_ctx_take_log(td_ctx *ctx) {
    td_buf *b = &ctx->kept;
    if (b->failed || b->len == 0) {
        td_ctx_forget(ctx);
        return NULL;
    }
    if (b->len > TD_LOG_MAX) {
        const char *from = b->data + b->len - TD_LOG_MAX, *line = strchr(from, '\n');
        if (line && line[1]) from = line + 1;
        b->len -= (size_t)(from - b->data);
        memmove(b->data, from, b->len + 1);
    }
    td_buf clean = { 0 };
    td_text_clean(&clean, b->data, b->len, TD_LOG_MAX + 64); /* what was cut may begin inside a character */
    td_ctx_forget(ctx);
    return td_buf_take(&clean);
}

void td_ctx_forget(td_ctx *ctx) {
    td_buf_free(&ctx->kept);
}

/* write_clean makes a record of the call's arguments, keeps it, and passes it on. It raises nothing. */
static void write_clean(lua_State *L, td_ctx *ctx, tidemill_level level, const char *text, size_t len) {
    record *r = calloc(1, sizeof *r);
    if (!r) return;
    td_buf message = { 0 };
    char id[24], attempt[16];
    snprintf(id, sizeof id, "%" PRId64, ctx->id);
    snprintf(attempt, sizeof attempt, "%d", ctx->attempt);
    r->fields[0] = (tidemill_field){ "job", id, true };
    r->fields[1] = (tidemill_field){ "task", ctx->task, false };
    r->fields[2] = (tidemill_field){ "attempt", attempt, true };
    r->count = OWN_FIELDS;
    if (lua_type(L, 3) == LUA_TTABLE) add_fields(L, 3, r);
    td_text_clean(&message, text, len, MESSAGE_MAX);
    const char *shown = message.data ? message.data : "";
    keep(ctx, level, shown, r);
    td_log_write(ctx->log, level, shown, r->fields, r->count);
    td_buf_free(&message);
    for (size_t i = 0; i < TD_COUNT(r->texts); i++) td_buf_free(&r->texts[i]);
    free(r);
}

static int write_record(lua_State *L, tidemill_level level) {
    td_ctx *ctx = td_ctx_running(L);
    size_t len;
    const char *text = luaL_checklstring(L, 2, &len);
    if (!lua_isnoneornil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checkstack(L, 8, "ctx.log");
    td_nopreempt_enter();
    write_clean(L, ctx, level, text, len);
    td_nopreempt_leave();
    return 0;
}

static int log_debug(lua_State *L) {
    return write_record(L, TIDEMILL_DEBUG);
}

static int log_info(lua_State *L) {
    return write_record(L, TIDEMILL_INFO);
}

static int log_warn(lua_State *L) {
    return write_record(L, TIDEMILL_WARN);
}

static int log_error(lua_State *L) {
    return write_record(L, TIDEMILL_ERROR);
}

static const luaL_Reg methods[] = {
    { "debug", log_debug }, { "info", log_info }, { "warn", log_warn }, { "error", log_error }, { NULL, NULL },
};

void td_ctxlog_push(lua_State *L) {
    lua_createtable(L, 0, 0);
    if (luaL_newmetatable(L, METATABLE)) {
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
}
