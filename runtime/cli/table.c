/* table.c: rows of text in aligned columns. See table.h. */
#include "table.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define GAP       2 /* spaces between columns */
#define CUT_LEAST 8 /* columns that a shortened cell keeps */

typedef struct cell {
    char *text; /* cleaned, one line */
    td_style style;
} cell;

struct td_table {
    const td_column *columns;
    size_t columns_count;
    cell *cells;
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
        cell *cells = realloc(table->cells, room * sizeof *cells);
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
    if (taken) table->cells[table->count++] = (cell){ taken, style };
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

/* measure finds each column's width, and takes from the widest that may be cut until a row fits the terminal. */
static void measure(const td_table *table, int *widths, int terminal) {
    int total = GAP * ((int)table->columns_count - 1);
    for (size_t c = 0; c < table->columns_count; c++) {
        widths[c] = text_width(table->columns[c].title);
        for (size_t i = c; i < table->count; i += table->columns_count) {
            int width = text_width(table->cells[i].text);
            if (width > widths[c]) widths[c] = width;
        }
        total += widths[c];
    }
    for (; terminal && total > terminal; total--) {
        size_t widest = table->columns_count;
        for (size_t c = 0; c < table->columns_count; c++)
            if (table->columns[c].cut && widths[c] > CUT_LEAST &&
                (widest == table->columns_count || widths[c] > widths[widest]))
                widest = c;
        if (widest == table->columns_count) return; /* nothing more can be cut: the terminal will wrap */
        widths[widest]--;
    }
}

/* print_cell appends one cell, cut or padded to its width; a row's last is not padded. */
static void print_cell(td_output *out, const td_column *column, td_style style, const char *text, int width,
                       bool last) {
    int used;
    size_t bytes = fit(text, width, &used);
    char *cut = NULL;
    if (text[bytes]) {
        bytes = fit(text, width - 1, &used);
        td_buf b = { 0 };
        td_buf_add(&b, text, bytes);
        td_buf_puts(&b, "…");
        cut = td_buf_take(&b);
        if (!cut) out->text.failed = true;
        used++;
    }
    int padding = width - used;
    if (column->right) td_buf_printf(&out->text, "%*s", padding, "");
    td_output_style(out, style, cut ? cut : text);
    if (!last) td_buf_printf(&out->text, "%*s", (column->right ? 0 : padding) + GAP, "");
    free(cut);
}

int td_table_print(const td_table *table, td_output *out, tidemill_error *err) {
    size_t columns = table->columns_count;
    int *widths = calloc(columns, sizeof *widths);
    if (!widths || table->failed) {
        free(widths);
        return td_error_memory(err);
    }
    locale_t before = out->locale ? uselocale(out->locale) : (locale_t)0;
    measure(table, widths, out->width);
    for (size_t c = 0; c < columns; c++)
        print_cell(out, &table->columns[c], TD_BOLD, table->columns[c].title, widths[c], c + 1 == columns);
    td_output_puts(out, "\n");
    for (size_t i = 0; i < table->count; i++) {
        bool last = i % columns + 1 == columns;
        print_cell(out, &table->columns[i % columns], table->cells[i].style, table->cells[i].text, widths[i % columns],
                   last);
        if (last) td_output_puts(out, "\n");
    }
    if (before) uselocale(before);
    free(widths);
    return 0;
}
