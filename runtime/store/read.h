/* read.h: runs the statements behind the commands that look at jobs or change single ones: a statement of
   sql/statements by its name, with text parameters, to rows of text. For programs, not for the engine: it blocks. */
#ifndef TD_READ_H
#define TD_READ_H

#include "../base/base.h"

typedef struct td_read td_read;
typedef struct td_rows td_rows;

/* What the text of a column is. Times are RFC 3339 in UTC but for the separator: "2030-01-31 08:00:00.5+00". */
typedef enum td_cell { TD_CELL_TEXT, TD_CELL_NUMBER, TD_CELL_BOOLEAN, TD_CELL_JSON, TD_CELL_TIME } td_cell;

/* td_read_open connects to the database at url (NULL: libpq's own variables) and checks its schema's version.
 *read is the caller's. Errors: INVALID (url), CONNECT, SCHEMA, DATABASE, MEMORY. */
int td_read_open(const char *url, td_read **read, tidemill_error *err) TD_MUST_CHECK;
void td_read_close(td_read *read);

/* td_read_now_us returns what time it is by the database's clock. */
int64_t td_read_now_us(const td_read *read);

/* td_read_rows runs the statement sql/statements/<name>.sql with count parameters, each text or NULL. *rows is the
   caller's. Errors: NOT_FOUND, STATE, CONFLICT, INVALID, DATABASE as the statement raises them; CONNECT, MEMORY. */
int td_read_rows(td_read *read, const char *name, const char *const *parameters, int count, td_rows **rows,
                 tidemill_error *err) TD_MUST_CHECK;
void td_read_free(td_rows *rows);

size_t td_read_count(const td_rows *rows);
size_t td_read_columns(const td_rows *rows);
const char *td_read_name(const td_rows *rows, size_t column);
td_cell td_read_type(const td_rows *rows, size_t column);
/* td_read_cell returns a cell's text, NULL for null; td_read_get the one of the column named so, NULL if there is none.
   Both live as long as the rows. */
const char *td_read_cell(const td_rows *rows, size_t row, size_t column);
const char *td_read_get(const td_rows *rows, size_t row, const char *column);

#endif
