/* failure.h: how a module's function says that what was asked for did not work: it returns nil, message, code.
   Misuse (a wrong type, a misspelt option) raises instead. */
#ifndef TD_FAILURE_H
#define TD_FAILURE_H

#include "../base/base.h"

#include <lua.h>

typedef struct td_failure {
    char code[16];
    char message[1024];
} td_failure;

/* td_failure_set fills *failure. code is one word of at most 15 bytes. Returns -1, so that callers can return it. */
int td_failure_set(td_failure *failure, const char *code, const char *format, ...) TD_PRINTF(3, 4);

/* td_failure_memory is td_failure_set for a failed allocation. Returns -1. */
int td_failure_memory(td_failure *failure);

/* td_failure_error fills *failure from err: its code is the SQLSTATE where there is one, else the error's name.
   Returns -1. */
int td_failure_error(td_failure *failure, const tidemill_error *err);

/* td_failure_push pushes nil, message, code [-0, +3]. May raise. Returns 3. */
int td_failure_push(lua_State *L, const td_failure *failure);

/* td_failure_unknown returns a key of the table of options at idx that is none of names (NULL-terminated): its text, or
   the name of its type. NULL when there is none. The text lives while the table does. */
const char *td_failure_unknown(lua_State *L, int idx, const char *const *names);

/* td_failure_outside raises unless a fiber runs; function is the caller's name as a handler's author knows it. */
void td_failure_outside(lua_State *L, const char *function);

#endif
