/* load.h: loading handlers with a bound on time. */
#ifndef TD_LOAD_H
#define TD_LOAD_H

#include "../vm/vm.h"

enum { TD_LOAD_MAX_MS = 10000 };

/* td_load_handlers is td_handlers_load with ctx's modules, on a thread of its own that exists meanwhile: a file that
   does not end within limit_ms is cut off. Blocks; not on a loop thread. Errors: as td_handlers_load; HANDLER, with the
   file, for one that took too long. */
int td_load_handlers(const char *dir, td_watch *watch, int64_t limit_ms, td_handlers **set,
                     tidemill_error *err) TD_MUST_CHECK;

#endif
