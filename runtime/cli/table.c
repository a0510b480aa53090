/* table.c: rows of text in aligned columns. See table.h. */
#include "table.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define GAP       2 /* spaces between columns */
#define CUT_LEAST 8 /* columns that a shortened cell keeps */

typedef struct table_cell {
    char *text; /* cleaned, one line */
    td_style style;
} table_cell;

struct td_table {
    const td_column *columns;
    size_t columns_count;
    table_cell *cells;
    size_t count, room;
    bool failed;
};

td_table *td_table_new(const td_column *columns, size_t count) {
    td_table *table = calloc(1, sizeof *table);
    if (!table) return NULL;
    table->columns = columns;
    table->columns_count = count;
    return table;
}

void td_table_free(td_table *table) {
    if (!table) return;
    for (size_t i = 0; i < table->count; i++) free(table->cells[i].text);
    free(table->cells);
    free(table);
}

void td_table_add(td_table *table, td_style style, const char *text) {
    if (table->count == table->room) {
        size_t room = table->room ? table->room * 2 : 64;
        table_cell *cells = realloc(table->cells, room * sizeof *cells);
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->room = room;
    }
    td_buf clean = { 0 };
    td_buf_puts(&clean, "");
    td_output_clean(&clean, text ? text : "", true);
    char *taken = td_buf_take(&clean);
    if (!taken) table->failed = true;
    if (taken) table->cells[table->count++] = (table_cell){ taken, style };
}

/* next returns the bytes of the character at text and its columns. The thread's locale must be the output's. */
static size_t next(const char *text, int *columns) {
    wchar_t wide;
    mbstate_t state = { 0 };
    size_t len = mbrtowc(&wide, text, MB_LEN_MAX, &state);
    if (len == 0 || len == (size_t)-1 || len == (size_t)-2) {
        *columns = 1;
        return 1;
    }
    int width = wcwidth(wide);
    *columns = width < 0 ? 1 : width;
    return len;
}

/* text_width returns how many columns text takes. */
static int text_width(const char *text) {
    int width = 0, columns;
    while (*text) {
        text += next(text, &columns);
        width += columns;
    }
    return width;
}

/* fit returns how many bytes of text fit into a number of columns, and in *used how many columns those take. */
static size_t fit(const char *text, int room, int *used) {
    size_t bytes = 0;
    int columns;
    *used = 0;
    while (text[bytes]) {
        size_t len = next(text + bytes, &columns);
        if (*used + columns > room) break;
        bytes += len;
        *used += columns;
    }
    return bytes;
}

/* natural finds each column's width uncut. Returns their sum; *slack is how much of it could be cut. */
static int natural(const td_table *table, int *widths, int *slack) {
    int total = 0;
    *slack = 0;
    for (size_t c = 0; c < table->columns_count; c++) {
        widths[c] = text_width(table->columns[c].title);
        for (size_t i = c; i < table->count; i += table->columns_count) {
            int width = text_width(table->cells[i].text);
            if (width > widths[c]) widths[c] = width;
        }
        total += widths[c];
        if (table->columns[c].cut && widths[c] > CUT_LEAST) *slack += widths[c] - CUT_LEAST;
    }
    return total;
}

/* measure finds each column's width so that a row fits the terminal (0: none): it takes from the widest columns that
   may be cut. Returns the gap between columns, which becomes smaller if that is not enough; then the terminal may wrap.
 */
static int measure(const td_table *table, int *widths, int terminal) {
    int slack, gaps = (int)table->columns_count - 1, gap = GAP;
    int total = natural(table, widths, &slack);
    if (terminal == 0) return gap;
    if (total - slack + GAP * gaps > terminal) gap = 1;
    for (total += gap * gaps; total > terminal && slack > 0; total--, slack--) {
        size_t widest = table->columns_count;
        for (size_t c = 0; c < table->columns_count; c++)
            if (table->columns[c].cut && (widest == table->columns_count || widths[c] > widths[widest])) widest = c;
        widths[widest]--;
    }
    return gap;
}

/* print_cell appends one cell, cut or padded to its width. */
static void print_cell(td_output *out, const td_column *column, const table_cell *cell, int width) {
    int used;
    size_t bytes = fit(cell->text, width, &used);
    char *cut = NULL;
    if (cell->text[bytes]) {
        bytes = fit(cell->text, width - 1, &used);
        td_buf b = { 0 };
        td_buf_add(&b, cell->text, bytes);
        td_buf_puts(&b, "…");
        cut = td_buf_take(&b);
        if (!cut) out->text.failed = true;
        used++;
    }
    if (column->right) td_buf_printf(&out->text, "%*s", width - used, "");
    td_output_style(out, cell->style, cut ? cut : cell->text);
    if (!column->right) td_buf_printf(&out->text, "%*s", width - used, "");
    free(cut);
}

/* print_row appends one row of cells, without spaces at its end. */
static void print_row(const td_table *table, td_output *out, const table_cell *cells, const int *widths, int gap) {
    td_buf *b = &out->text;
    for (size_t c = 0; c < table->columns_count; c++) {
        if (c > 0) td_buf_printf(b, "%*s", gap, "");
        print_cell(out, &table->columns[c], &cells[c], widths[c]);
    }
    while (b->len > 0 && b->data[b->len - 1] == ' ') b->len--;
    td_buf_putc(b, '\n');
}

/* print_titles appends the row of titles. */
static void print_titles(const td_table *table, td_output *out, const int *widths, int gap) {
    table_cell *titles = calloc(table->columns_count, sizeof *titles);
    if (!titles) {
        out->text.failed = true;
        return;
    }
    for (size_t c = 0; c < table->columns_count; c++)
        titles[c] = (table_cell){ .text = (char *)table->columns[c].title, .style = TD_BOLD };
    print_row(table, out, titles, widths, gap);
    free(titles);
}

int td_table_print(const td_table *table, td_output *out, tidemill_error *err) {
    int *widths = calloc(table->columns_count, sizeof *widths);
    if (!widths || table->failed) {
        free(widths);
        return td_error_memory(err);
    }
    locale_t before = out->locale ? uselocale(out->locale) : (locale_t)0;
    int gap = measure(table, widths, out->width);
    print_titles(table, out, widths, gap);
    for (size_t i = 0; i + table->columns_count <= table->count; i += table->columns_count)
        print_row(table, out, &table->cells[i], widths, gap);
    if (before) uselocale(before);
    free(widths);
    return 0;
}
