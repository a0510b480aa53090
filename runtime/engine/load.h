/* load.h: loading handlers with a bound on time. */
#ifndef TD_LOAD_H
#define TD_LOAD_H

#include "../vm/vm.h"

enum { TD_LOAD_MAX_MS = 10000 };

/* A load to come, or under way. */
typedef struct td_loader td_loader;

/* td_loader_new prepares one of the folder dir: a file of it that does not end within limit_ms is cut off. NULL without
   memory. */
td_loader *td_loader_new(const char *dir, td_watch *watch, int64_t limit_ms);

/* td_loader_run is td_handlers_load with ctx's modules, on a thread of its own that exists meanwhile. Blocks; not on a
   loop thread; once. Errors: as td_handlers_load; HANDLER, with the file, for one that took too long. */
int td_loader_run(td_loader *loader, td_handlers **set, tidemill_error *err) TD_MUST_CHECK;

/* td_loader_hurry has the time be over now. From any thread, before, during or after the run. */
void td_loader_hurry(td_loader *loader);

/* td_loader_free frees one that does not run. NULL is allowed. */
void td_loader_free(td_loader *loader);

/* td_load_handlers is all of them in one. */
int td_load_handlers(const char *dir, td_watch *watch, int64_t limit_ms, td_handlers **set,
                     tidemill_error *err) TD_MUST_CHECK;

#endif
