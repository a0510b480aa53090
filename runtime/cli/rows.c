/* rows.c: rows of a statement as what commands print. See rows.h. */
#include "rows.h"

#include "json.h"
#include "parse.h"

#include <stdio.h>
#include <string.h>

td_style td_rows_style(const char *state) {
    static const struct {
        const char *state;
        td_style style;
    } styles[] = { { "completed", TD_GREEN }, { "running", TD_CYAN },     { "dead", TD_RED },
                   { "failed", TD_RED },      { "timeout", TD_RED },      { "memory", TD_RED },
                   { "discarded", TD_RED },   { "scheduled", TD_YELLOW }, { "snoozed", TD_YELLOW },
                   { "lost", TD_YELLOW },     { "returned", TD_YELLOW },  { "cancelled", TD_DIM } };
    for (size_t i = 0; state && i < TD_COUNT(styles); i++)
        if (strcmp(styles[i].state, state) == 0) return styles[i].style;
    return TD_PLAIN;
}

/* time_text appends a time of the database as RFC 3339, or as it is where it is no such time (infinity). */
static void time_text(td_buf *b, const char *text) {
    int64_t us;
    if (td_parse_time(text, &us, NULL))
        td_buf_puts(b, text);
    else
        td_output_time(b, us);
}

/* age_text appends how far a time of the database is from now. */
static void age_text(td_buf *b, const char *text, const td_read *read) {
    int64_t us;
    if (td_parse_time(text, &us, NULL))
        td_buf_puts(b, text);
    else
        td_output_age(b, us, td_read_now_us(read));
}

/* add_cell adds a statement's cell to a table. */
static void add_cell(td_table *table, const td_cli *cli, const td_read *read, const char *text, td_show show) {
    td_buf b = { 0 };
    if (!text || show != TD_SHOW_AGE) {
        td_table_add(table, show == TD_SHOW_STATE ? td_rows_style(text) : TD_PLAIN, text);
        return;
    }
    if (cli->out.width)
        age_text(&b, text, read);
    else
        time_text(&b, text);
    td_table_add(table, TD_PLAIN, b.failed ? text : b.data);
    td_buf_free(&b);
}

/* table prints rows as a table. */
static int table(td_cli *cli, const td_read *read, const td_rows *rows, const td_column *columns, const td_shown *shown,
                 size_t count, tidemill_error *err) {
    td_table *t = td_table_new(columns, count);
    if (!t) return td_error_memory(err);
    for (size_t row = 0; row < td_read_count(rows); row++)
        for (size_t i = 0; i < count; i++) add_cell(t, cli, read, td_read_get(rows, row, shown[i].name), shown[i].show);
    int rc = td_table_print(t, &cli->out, err);
    td_table_free(t);
    return rc;
}

int td_rows_list(td_cli *cli, const td_read *read, const td_rows *rows, const td_column *columns, const td_shown *shown,
                 size_t count, const char *none, tidemill_error *err) {
    if (cli->out.json) {
        td_rows_json_list(&cli->out.text, rows);
        td_output_puts(&cli->out, "\n");
        return 0;
    }
    if (td_read_count(rows)) return table(cli, read, rows, columns, shown, count, err);
    fprintf(stderr, "%s\n", none);
    return 0;
}

/* json_value appends a cell as JSON of its type. */
static void json_value(td_buf *b, td_cell type, const char *text) {
    td_buf time = { 0 };
    bool number = text && (type != TD_CELL_NUMBER || strspn(text, "0123456789+-.eE") == strlen(text));
    if (text && type == TD_CELL_TIME) {
        time_text(&time, text);
        if (time.failed) b->failed = true;
        td_json_text(b, time.data);
        td_buf_free(&time);
    } else if (text && type == TD_CELL_BOOLEAN) {
        td_json_boolean(b, *text == 't');
    } else if (text && number && (type == TD_CELL_NUMBER || type == TD_CELL_JSON)) {
        td_json_raw(b, text);
    } else {
        td_json_text(b, text); /* also NaN and infinity, which JSON does not have */
    }
}

void td_rows_json(td_buf *b, const td_rows *rows, size_t row, bool open) {
    td_json_open(b, '{');
    for (size_t c = 0; c < td_read_columns(rows); c++) {
        td_json_key(b, td_read_name(rows, c));
        json_value(b, td_read_type(rows, c), td_read_cell(rows, row, c));
    }
    if (!open) td_json_close(b, '}');
}

void td_rows_json_list(td_buf *b, const td_rows *rows) {
    td_json_open(b, '[');
    for (size_t row = 0; row < td_read_count(rows); row++) {
        td_buf_puts(b, row ? ",\n" : "\n");
        td_rows_json(b, rows, row, false);
    }
    td_buf_puts(b, td_read_count(rows) ? "\n" : "");
    td_json_close(b, ']');
}

void td_rows_value(td_buf *b, const td_rows *rows, size_t row, const char *column, const td_read *read) {
    const char *text = td_read_get(rows, row, column);
    if (!text) return;
    if (!read) {
        td_buf_puts(b, text);
        return;
    }
    time_text(b, text);
    td_buf_puts(b, " (");
    age_text(b, text, read);
    td_buf_putc(b, ')');
}
