/* ctx.h: what a handler is given as ctx, and the modules it can require. */
#ifndef TD_CTX_H
#define TD_CTX_H

#include "../vm/vm.h"

/* The running job, as ctx shows it. Borrowed; set as the state's user (td_state_set_user) while the handler runs. */
typedef struct td_ctx {
    const td_log *log;
    int64_t id;
    const char *task, *queue, *tags; /* tags: a JSON array */
    int run, attempt, max_attempts, priority;
    int64_t enqueued_us, scheduled_us, deadline_us;
    td_buf kept; /* the end of what was logged, of at most twice TD_LOG_MAX bytes */
} td_ctx;

enum { TD_LOG_MAX = 16 << 10 };

/* td_ctx_take_log returns the last TD_LOG_MAX bytes of what the job logged, in whole lines, malloc'd; NULL when there
   is nothing. td_ctx_forget frees what was not taken. */
char *td_ctx_take_log(td_ctx *ctx);
void td_ctx_forget(td_ctx *ctx);

/* td_ctx_push is td_state_call's push_ctx: argument 1 is the td_ctx as a light userdata. Returns ctx. */
int td_ctx_push(lua_State *L);

/* The modules of every worker's state: its io and os, tidemill, tidemill.http, tidemill.mail, tidemill.process,
 * tidemill.pg. Static memory. */
extern const td_module td_ctx_modules[];
extern const size_t td_ctx_modules_count;

#endif
