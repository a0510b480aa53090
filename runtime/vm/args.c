/* args.c: a job's arguments against its task's declaration. */
#include "private.h"

#include <string.h>

static const char *const type_names[] = {
    [TD_ARG_STRING] = "a string",   [TD_ARG_NUMBER] = "a number",  [TD_ARG_INTEGER] = "an integer",
    [TD_ARG_BOOLEAN] = "a boolean", [TD_ARG_OBJECT] = "an object", [TD_ARG_ARRAY] = "an array",
};

static bool is_null(lua_State *L, int idx) {
    return lua_islightuserdata(L, idx) && !lua_touserdata(L, idx);
}

/* fits says whether the value on top of the stack is of the declared type. */
static bool fits(lua_State *L, const td_arg *arg) {
    switch (arg->type) {
    case TD_ARG_STRING:
        return lua_type(L, -1) == LUA_TSTRING;
    case TD_ARG_NUMBER:
        return lua_type(L, -1) == LUA_TNUMBER;
    case TD_ARG_INTEGER:
        return lua_isinteger(L, -1);
    case TD_ARG_BOOLEAN:
        return lua_isboolean(L, -1);
    case TD_ARG_OBJECT:
        return lua_istable(L, -1) && !td_value_is_array(L, -1);
    case TD_ARG_ARRAY:
        return td_value_is_array(L, -1);
    default:
        return false;
    }
}

/* json_kind names the kind of a decoded value. */
static const char *json_kind(lua_State *L, int idx) {
    switch (lua_type(L, idx)) {
    case LUA_TSTRING:
        return "a string";
    case LUA_TNUMBER:
        return lua_isinteger(L, idx) ? "an integer" : "a number with a fraction or an exponent";
    case LUA_TBOOLEAN:
        return "a boolean";
    case LUA_TTABLE:
        return td_value_is_array(L, idx) ? "an array" : "an object";
    default:
        return "null";
    }
}

static bool is_secret(const td_task *task, const char *name) {
    for (size_t i = 0; i < task->secret_count; i++) {
        if (strcmp(task->secret[i], name) == 0) return true;
    }
    return false;
}

/* complain describes the value on top of the stack, which does not fit. */
static void complain(lua_State *L, const td_task *task, const td_arg *arg, td_buf *b) {
    char shown[TD_FAULT_VALUE];
    td_buf_printf(b, "args.%s: ", arg->name);
    bool plain = lua_type(L, -1) == LUA_TSTRING || lua_type(L, -1) == LUA_TNUMBER || lua_isboolean(L, -1);
    if (lua_isnil(L, -1)) {
        td_buf_puts(b, "is missing");
    } else if (plain && !is_secret(task, arg->name)) {
        td_fault_value(L, -1, shown);
        td_buf_printf(b, "%s is not allowed", shown);
    } else {
        td_buf_printf(b, "%s is not allowed", json_kind(L, -1));
    }
    td_buf_printf(b, "; the task declares %s", type_names[arg->type]);
}

bool td_args_check(lua_State *L, int idx, const td_task *task, td_buf *b) {
    idx = lua_absindex(L, idx);
    if (!lua_istable(L, idx) || td_value_is_array(L, idx)) {
        td_buf_printf(b, "args: %s is not allowed; the arguments of a job are an object", json_kind(L, idx));
        return false;
    }
    for (size_t i = 0; i < task->args_count; i++) {
        const td_arg *arg = &task->args[i];
        lua_pushstring(L, arg->name);
        lua_rawget(L, idx);
        bool absent = lua_isnil(L, -1) || is_null(L, -1);
        bool ok = absent ? arg->optional : fits(L, arg);
        if (!ok) complain(L, task, arg, b);
        lua_pop(L, 1);
        if (!ok) return false;
    }
    return true;
}
