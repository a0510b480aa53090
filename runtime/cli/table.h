/* table.h: rows of text in aligned columns. Cells are given row by row, each row in the order of the columns. */
#ifndef TD_TABLE_H
#define TD_TABLE_H

#include "output.h"

typedef struct td_column {
    const char *title;
    bool right; /* numbers */
    bool cut;   /* may be shortened, with an ellipsis, so that the row fits the terminal */
} td_column;

typedef struct td_table td_table;

/* td_table_new makes an empty table. columns must outlive it. NULL without memory. */
td_table *td_table_new(const td_column *columns, size_t count) TD_MUST_CHECK;

/* td_table_add appends the next cell; NULL text is an empty one. A failed allocation is told by td_table_print. */
void td_table_add(td_table *table, td_style style, const char *text);

/* td_table_print appends the table with its titles to out. Errors: MEMORY. */
int td_table_print(const td_table *table, td_output *out, tidemill_error *err) TD_MUST_CHECK;
void td_table_free(td_table *table);

#endif
