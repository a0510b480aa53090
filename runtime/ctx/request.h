/* request.h: what a call of enqueue asks for in Lua: the task, its arguments, the options. Also part of the Lua
   binding, so that ctx:enqueue and client:enqueue take the same and refuse the same.

   Nothing here raises or allocates Lua memory, so a td_request may be an ordinary local. */
#ifndef TD_REQUEST_H
#define TD_REQUEST_H

#include "../base/base.h"

#include <lua.h>

enum { TD_REQUEST_TAGS_MAX = 20 };

typedef struct td_request {
    const char *task; /* Lua's, as are the texts of options and tags: they live as long as the values stay there */
    td_buf args;      /* JSON; data is NULL where no arguments were given */
    tidemill_options options;
    const char *tags[TD_REQUEST_TAGS_MAX];
} td_request;

/* td_request_read reads task, args and options from the stack indices first, first + 1 and first + 2. *r must not be
   moved afterwards, and is freed with td_request_free also after an error. Errors: INVALID, MEMORY. */
int td_request_read(lua_State *L, int first, td_request *r, tidemill_error *err) TD_MUST_CHECK;
void td_request_free(td_request *r);

/* ---- Its parts ---- */

/* td_request_task reads the name of the task at idx. */
int td_request_task(lua_State *L, int idx, const char **task, tidemill_error *err) TD_MUST_CHECK;

/* td_request_args appends one job's arguments, the value at idx, as JSON; path is what they are called in messages. */
int td_request_args(lua_State *L, int idx, const char *path, td_buf *b, tidemill_error *err) TD_MUST_CHECK;

/* td_request_options reads the table of options at idx (see options.c) into r->options; nil and none are no options. */
int td_request_options(lua_State *L, int idx, td_request *r, tidemill_error *err) TD_MUST_CHECK;

/* td_request_type is td_error_field for a value of a wrong type at idx. wanted completes "give ...". */
int td_request_type(lua_State *L, int idx, const char *field, const char *wanted, tidemill_error *err);

#endif
