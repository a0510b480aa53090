/* vm_fixture.h: for tests of vm: a folder of handler files, a set loaded from it, a state, and one call of a handler.
   ctx in these tests is a table with snooze, cancel and discard. */
#ifndef VM_FIXTURE_H
#define VM_FIXTURE_H

#include "../../runtime/vm/private.h"

#include <ftw.h>
#include <lauxlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct vm {
    char dir[64];
    size_t memory_limit;
    td_handlers *set;
    td_state *state;
    tidemill_error err;
    td_result result; /* of the last call */
} vm;

/* ---- What handlers see ---- */

static int l_snooze(lua_State *L) {
    return td_state_end(L, TD_SNOOZED, NULL, 0, luaL_checknumber(L, 2));
}

static int l_cancel(lua_State *L) {
    size_t len;
    const char *reason = luaL_optlstring(L, 2, NULL, &len);
    return td_state_end(L, TD_CANCELLED, reason, reason ? len : 0, -1);
}

static int l_discard(lua_State *L) {
    size_t len;
    const char *reason = luaL_optlstring(L, 2, NULL, &len);
    return td_state_end(L, TD_DISCARDED, reason, reason ? len : 0, -1);
}

static int push_ctx(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "snooze", l_snooze }, { "cancel", l_cancel }, { "discard", l_discard }, { NULL, NULL }
    };
    luaL_newlib(L, functions);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "object");
    return 1;
}

/* A module that counts what ran: trace(text) appends, and trace() returns all. */
static int l_trace(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, "trace");
    if (lua_isnoneornil(L, 1)) return 1;
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushliteral(L, "");
    }
    lua_pushfstring(L, "%s%s ", lua_tostring(L, -1), luaL_checkstring(L, 1));
    lua_setfield(L, LUA_REGISTRYINDEX, "trace");
    return 0;
}

static int open_trace(lua_State *L) {
    lua_pushcfunction(L, l_trace);
    return 1;
}

static const td_module vm_modules[] = { { "tidemill", td_value_open }, { "trace", open_trace } };

/* ---- Files ---- */

static inline void vm_bytes(vm *t, const char *path, const char *data, size_t len) {
    char full[600];
    snprintf(full, sizeof full, "%s/%s", t->dir, path);
    for (char *slash = full + strlen(t->dir) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static inline void vm_file(vm *t, const char *path, const char *text) {
    vm_bytes(t, path, text, strlen(text));
}

/* vm_handler writes a handler file x.lua of the task "x", with more fields and the body of handle. */
static inline void vm_handler(vm *t, const char *fields, const char *body) {
    td_buf b = { 0 };
    td_buf_puts(&b, "local trace = require 'trace'; local tidemill = require 'tidemill'; return { name = function() "
                    "return 'x' end, ");
    td_buf_puts(&b, fields);
    td_buf_puts(&b, " handle = function(ctx, args)\n");
    td_buf_puts(&b, body);
    td_buf_puts(&b, "\nend }");
    vm_file(t, "x.lua", b.data);
    td_buf_free(&b);
}

static inline void vm_unload(vm *t) {
    td_result_free(&t->result);
    td_state_free(t->state);
    td_handlers_unref(t->set);
    t->state = NULL;
    t->set = NULL;
}

/* vm_load loads the folder. Returns td_handlers_load's code. */
static inline int vm_load(vm *t) {
    vm_unload(t);
    return td_handlers_load(t->dir, vm_modules, TD_COUNT(vm_modules), &t->set, &t->err);
}

/* vm_start loads the folder and makes a state. */
static inline void vm_start(vm *t) {
    if (vm_load(t) < 0) fail_msg("%s", t->err.message);
    if (td_state_new(t->set, vm_modules, TD_COUNT(vm_modules), t->memory_limit, NULL, &t->state, &t->err) < 0) {
        fail_msg("%s", t->err.message);
    }
}

/* vm_call calls task x. */
static inline td_result *vm_call(vm *t, const char *args, int attempt) {
    int top = lua_gettop(t->state->L);
    td_result_free(&t->result);
    td_state_call(t->state, td_handlers_find(t->set, "x"), args, strlen(args), attempt, push_ctx, t, &t->result);
    assert_int_equal(lua_gettop(t->state->L), top);
    return &t->result;
}

/* vm_run makes a handler of the body and calls it. */
static inline td_result *vm_run(vm *t, const char *body) {
    vm_handler(t, "", body);
    vm_start(t);
    return vm_call(t, "{}", 1);
}

/* vm_trace returns what trace(...) noted in the state. */
static inline const char *vm_trace(vm *t) {
    lua_getfield(t->state->L, LUA_REGISTRYINDEX, "trace");
    const char *text = lua_tostring(t->state->L, -1);
    lua_pop(t->state->L, 1); /* still in the registry */
    return text ? text : "";
}

/* ---- Set-up ---- */

static inline int vm_setup(void **state) {
    vm *t = calloc(1, sizeof *t);
    const char *tmp = getenv("TMPDIR");
    snprintf(t->dir, sizeof t->dir, "%.40s/tmvmXXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(t->dir)) return -1;
    t->memory_limit = 8 << 20;
    *state = t;
    return 0;
}

static inline int vm_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline int vm_teardown(void **state) {
    vm *t = *state;
    vm_unload(t);
    nftw(t->dir, vm_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(t);
    return 0;
}

#define assert_contains(text, part)                                                                                    \
    do {                                                                                                               \
        const char *text_ = (text);                                                                                    \
        if (!text_ || !strstr(text_, (part)))                                                                          \
            fail_msg("\"%s\" does not contain \"%s\"", text_ ? text_ : "NULL", part);                                  \
    } while (0)

#endif
