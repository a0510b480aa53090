/* sql.h: the files of sql/, embedded by the build. */
#ifndef TD_SQL_H
#define TD_SQL_H

#include <stddef.h>

/* One file. name is its path below sql/ ("functions/enqueue.sql"). Static memory, as is all below. */
typedef struct td_sql_file {
    const char *name;
    const char *text;
} td_sql_file;

/* All files, sorted by name (bytewise). Generated: build/gen/sql.c. */
extern const td_sql_file td_sql_files[];
extern const size_t td_sql_files_count;

/* td_sql_text returns the text of a file ("statements/enqueue.sql"), NULL if there is none of that name. */
const char *td_sql_text(const char *name);

/* td_sql_number returns the number of a migration's file ("migrations/0012_lanes.up.sql", with suffix ".up.sql", is
   12), or 0 when the file is no such migration. */
int td_sql_number(const td_sql_file *file, const char *suffix);

/* td_sql_version returns the schema version that this library needs: the highest number of an up migration. */
int td_sql_version(void);

#endif
