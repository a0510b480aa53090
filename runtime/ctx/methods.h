/* methods.h: what the files of the ctx object share. */
#ifndef TD_METHODS_H
#define TD_METHODS_H

#include "ctx.h"

/* td_ctx_running returns the job that L's state runs; raises when it runs none. */
td_ctx *td_ctx_running(lua_State *L);

/* td_ctx_enqueue: ctx:enqueue(task, args, options). */
int td_ctx_enqueue(lua_State *L);

/* td_ctxlog_push pushes the log object [-0, +1]. */
void td_ctxlog_push(lua_State *L);

#endif
