/* request.c: an enqueue as Lua asks for it. See request.h. */
#include "request.h"

#include "../store/enqueue.h"
#include "../vm/vm.h"

#include <stdio.h>

_Static_assert((int)TD_REQUEST_TAGS_MAX == (int)TD_ENQUEUE_TAGS_MAX, "a request has room for all tags");

#define ARGS_WANTED "a table with named fields"

int td_request_type(lua_State *L, int idx, const char *field, const char *wanted, tidemill_error *err) {
    int type = lua_type(L, idx);
    if (type == LUA_TNIL || type == LUA_TNONE) {
        return td_error_field(err, field, "%s: nothing was given; give %s", field, wanted);
    }
    return td_error_field(err, field, "%s: a %s is not allowed; give %s", field, lua_typename(L, type), wanted);
}

int td_request_task(lua_State *L, int idx, const char **task, tidemill_error *err) {
    if (lua_type(L, idx) != LUA_TSTRING) return td_request_type(L, idx, "task", "the name of a task", err);
    size_t len;
    *task = lua_tolstring(L, idx, &len);
    return td_enqueue_text("task", "name", *task, len, TD_ENQUEUE_TASK_MAX, err);
}

int td_request_args(lua_State *L, int idx, const char *path, td_buf *b, tidemill_error *err) {
    char message[256];
    if (!lua_istable(L, idx)) {
        int rc = td_request_type(L, idx, path, ARGS_WANTED, err);
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

int td_request_read(lua_State *L, int first, td_request *r, tidemill_error *err) {
    int args = first + 1, options = first + 2;
    *r = (td_request){ .options = TIDEMILL_OPTIONS };
    int rc = td_request_task(L, first, &r->task, err);
    if (rc == 0) rc = td_request_options(L, options, r, err);
    if (rc == 0 && !lua_isnoneornil(L, args)) rc = td_request_args(L, args, "args", &r->args, err);
    return rc;
}

void td_request_free(td_request *r) {
    td_buf_free(&r->args);
}
