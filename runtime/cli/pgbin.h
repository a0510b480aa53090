/* pgbin.h: where PostgreSQL's server programs are on this machine. */
#ifndef TD_PGBIN_H
#define TD_PGBIN_H

#include "../base/base.h"

/* td_pgbin_find finds a folder that has initdb and postgres: under /usr/lib/postgresql/N/bin and the other usual
   places, what `pg_config --bindir` says, and PATH. It takes version major, or the newest if major is 0, and sets
   *found to that version. *dir is malloc'd. Errors: NOT_FOUND, which says what to install; MEMORY. */
int td_pgbin_find(int major, char **dir, int *found, tidemill_error *err) TD_MUST_CHECK;

#endif
