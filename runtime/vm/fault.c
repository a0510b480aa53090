/* fault.c: what went wrong in Lua, as text that can be stored and shown. */
#include "private.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Values as text ---- */

/* say(object) returns what an error object says about itself: its __tostring, or its field `message`; else nil. */
static int say(lua_State *L) {
    if (luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL) {
        luaL_tolstring(L, 1, NULL);
        return 1;
    }
    if (!lua_istable(L, 1)) return 0;
    lua_pushliteral(L, "message");
    return lua_rawget(L, 1) == LUA_TSTRING ? 1 : 0;
}

/* add_number appends a number as Lua's tostring does. */
static void add_number(lua_State *L, int idx, td_buf *b) {
    if (lua_isinteger(L, idx)) {
        td_buf_printf(b, "%lld", (long long)lua_tointeger(L, idx));
        return;
    }
    char text[40];
    snprintf(text, sizeof text, "%.14g", lua_tonumber(L, idx));
    td_buf_printf(b, "%s%s", text, text[strspn(text, "-0123456789")] ? "" : ".0");
}

/* add_string appends a string, and only that: nothing that could be cut off is under way with it. */
static void add_string(lua_State *L, int idx, td_buf *b, size_t max) {
    size_t len;
    const char *text = lua_tolstring(L, idx, &len);
    td_text_clean(b, text, len, max);
}

void td_fault_text(lua_State *L, int idx, td_buf *b) {
    int type = lua_type(L, idx);
    if (type == LUA_TSTRING) {
        add_string(L, idx, b, TD_ERROR_MAX);
    } else if (type == LUA_TNUMBER) {
        add_number(L, idx, b);
    } else if (type == LUA_TBOOLEAN) {
        td_buf_puts(b, lua_toboolean(L, idx) ? "true" : "false");
    } else {
        idx = lua_absindex(L, idx);
        int top = lua_gettop(L);
        if (lua_checkstack(L, 4)) {
            lua_pushcfunction(L, say);
            lua_pushvalue(L, idx);
            if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING)
                add_string(L, -1, b, TD_ERROR_MAX);
            else
                td_buf_printf(b, "(error object is a %s value)", lua_typename(L, type));
        } else {
            td_buf_printf(b, "(error object is a %s value)", lua_typename(L, type));
        }
        lua_settop(L, top);
    }
}

void td_fault_value(lua_State *L, int idx, char out[TD_FAULT_VALUE]) {
    td_buf b = { 0 };
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
        td_buf_puts(&b, "nil");
        break;
    case LUA_TBOOLEAN:
        td_buf_puts(&b, lua_toboolean(L, idx) ? "true" : "false");
        break;
    case LUA_TNUMBER:
        add_number(L, idx, &b);
        break;
    case LUA_TSTRING:
        td_buf_putc(&b, '"');
        add_string(L, idx, &b, 60);
        td_buf_putc(&b, '"');
        break;
    default:
        td_buf_printf(&b, "a %s", luaL_typename(L, idx));
    }
    snprintf(out, TD_FAULT_VALUE, "%s", b.data ? b.data : "?");
    td_buf_free(&b);
}

void td_fault_bytes(td_buf *b, size_t bytes) {
    if (bytes && bytes % (1 << 20) == 0)
        td_buf_printf(b, "%zu MiB", bytes >> 20);
    else if (bytes && bytes % (1 << 10) == 0)
        td_buf_printf(b, "%zu KiB", bytes >> 10);
    else
        td_buf_printf(b, "%zu bytes", bytes);
}

/* ---- While a handler runs ---- */

int td_fault_handler(lua_State *L) {
    td_state *state = td_state_of(L);
    td_buf text = { 0 };
    if (state->ends > state->base) return 1;
    state->capturing = true;
    td_fault_text(L, 1, &text);
    free(state->error);
    state->error = td_buf_take(&text);
    free(state->traceback);
    state->traceback = NULL;
    td_nopreempt_enter();
    td_trace_add(L, 1, &text);
    state->traceback = td_buf_take(&text);
    td_nopreempt_leave();
    state->capturing = false;
    lua_settop(L, 1);
    return 1;
}

/* ---- While modules load ---- */

/* find_place fills ar with the innermost running function that comes from a file of the set. */
static bool find_place(lua_State *L, const td_handlers *set, lua_Debug *ar) {
    for (int level = 1; lua_getstack(L, level, ar); level++) {
        lua_getinfo(L, "Sl", ar);
        if (ar->currentline > 0 && ar->source[0] == '@' && td_files_find(&set->files, ar->source + 1)) return true;
    }
    return false;
}

int td_fault_place(lua_State *L) {
    td_buf b = { 0 };
    char text[900];
    lua_Debug ar;
    td_fault_text(L, 1, &b);
    snprintf(text, sizeof text, "%s", b.data ? b.data : "");
    td_buf_free(&b);
    bool known = find_place(L, td_state_of(L)->set, &ar);
    if (known && strncmp(text, ar.short_src, strlen(ar.short_src)) != 0) {
        lua_pushfstring(L, "%s:%d: %s", ar.short_src, ar.currentline, text);
    } else {
        lua_pushstring(L, text);
    }
    return 1;
}

/* begins_with_file says whether a message begins with the path of a file of the set. */
static bool begins_with_file(const td_handlers *set, const char *message) {
    for (size_t i = 0; i < set->files.count; i++) {
        size_t len = strlen(set->files.list[i].path);
        if (strncmp(message, set->files.list[i].path, len) == 0 && message[len] == ':') return true;
    }
    return false;
}

int td_fault_load(lua_State *L, int status, const td_handlers *set, const td_file *file, tidemill_error *err) {
    if (status == LUA_ERRMEM) {
        if (!file) return td_error_memory(err);
        return td_error_set(err, TIDEMILL_EMEMORY, "%s/%s: ran out of memory while it was loaded", set->dir,
                            file->path);
    }
    const char *message = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "failed while it was loaded";
    char line[900]; /* in one line: `require` lists where it looked, one place a line */
    size_t n = 0;
    for (const char *p = message; *p && n + 3 < sizeof line; p++) {
        if (p[0] == '\n' && p[1] == '\t') {
            line[n++] = ';';
            line[n++] = ' ';
            p++;
        } else {
            line[n++] = *p;
        }
    }
    line[n] = '\0';
    if (!file) return td_error_set(err, TIDEMILL_EHANDLER, "%s", line);
    if (begins_with_file(set, line)) return td_error_set(err, TIDEMILL_EHANDLER, "%s/%s", set->dir, line);
    return td_error_set(err, TIDEMILL_EHANDLER, "%s/%s: %s", set->dir, file->path, line);
}
