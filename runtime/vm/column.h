/* column.h: Lua values from what PostgreSQL sends. Also part of the Lua binding. */
#ifndef TD_COLUMN_H
#define TD_COLUMN_H

#include "vm.h"

/* td_column_push pushes a value of a row, not null, given as text of len bytes that end in NUL, by the type of its
   column (its pg_type oid) [-0, +1]: integers, floats, booleans and JSON as such, everything else as a string. May
   raise. */
void td_column_push(lua_State *L, unsigned type, const char *text, size_t len);

#endif
