/* params.h: the parameters of a SQL statement, from Lua values. Also part of the Lua binding. */
#ifndef TD_PARAMS_H
#define TD_PARAMS_H

#include "vm.h"

/* n parameters as text, in `values`; NULL is null. {0} is none. Strings of Lua are not copied: they live as long as
   they stay on the Lua stack. */
typedef struct td_params {
    const char **values;
    size_t *offsets; /* into text, plus 1; 0: values has Lua's own string, or NULL */
    td_buf text;
} td_params;

/* td_params_take takes the n values from the stack index first on: strings, numbers and booleans as they are, nil and
   tidemill.null as null, tables as JSON. It raises nothing and allocates no Lua memory. *p is freed with
   td_params_free, also after an error: INVALID (the parameter is named), MEMORY. */
int td_params_take(lua_State *L, int first, int n, td_params *p, tidemill_error *err) TD_MUST_CHECK;
void td_params_free(td_params *p);

#endif
