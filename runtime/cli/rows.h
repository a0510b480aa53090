/* rows.h: rows of a statement as what commands print. */
#ifndef TD_ROWS_H
#define TD_ROWS_H

#include "../store/read.h"
#include "cli.h"
#include "table.h"

/* How a column of a statement appears in a table. */
typedef enum td_show {
    TD_SHOW_TEXT,
    TD_SHOW_STATE, /* a job's state or an attempt's outcome, in its colour */
    TD_SHOW_AGE    /* a time: how long ago on a terminal, whole in a pipe */
} td_show;

typedef struct td_shown {
    const char *name; /* of the statement's column */
    td_show show;
} td_shown;

/* td_rows_list prints rows as a table, in which shown[i] is what stands under columns[i], or with --json all their
   columns. Where there are no rows, it says so (none) on stderr, and a pipe gets nothing. */
int td_rows_list(td_cli *cli, const td_read *read, const td_rows *rows, const td_column *columns, const td_shown *shown,
                 size_t count, const char *none, tidemill_error *err) TD_MUST_CHECK;

/* td_rows_json appends one row as a JSON object; it is left open for more members if open. */
void td_rows_json(td_buf *b, const td_rows *rows, size_t row, bool open);

/* td_rows_json_list appends all rows as a JSON array, a row a line. */
void td_rows_json_list(td_buf *b, const td_rows *rows);

/* td_rows_style returns the colour of a state or outcome. */
td_style td_rows_style(const char *state);

/* td_rows_value appends a cell for reading: a time as RFC 3339 in UTC, with how far from now in brackets when read is
   given. Nothing for null. */
void td_rows_value(td_buf *b, const td_rows *rows, size_t row, const char *column, const td_read *read);

#endif
