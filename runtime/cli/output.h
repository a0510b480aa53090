/* output.h: what a command prints on stdout: cleaned text with styles, aligned tables, and JSON.

   Output gathers in a buffer and is written by td_output_flush. On a terminal tables fit its width, and there is colour
   unless NO_COLOR is set; in a pipe cells are whole and plain. Nothing that comes out of a job reaches the terminal
   raw: control characters, which could move the cursor or forge a line, become visible. */
#ifndef TD_OUTPUT_H
#define TD_OUTPUT_H

#include "../base/base.h"

#include <locale.h>

typedef enum td_style { TD_PLAIN, TD_BOLD, TD_DIM, TD_RED, TD_GREEN, TD_YELLOW, TD_CYAN } td_style;

typedef struct td_output {
    td_buf text;     /* what is not written yet */
    bool json;       /* --json was given */
    bool colour;     /* styles are shown */
    int width;       /* columns of the terminal; 0: no terminal, nothing is cut */
    locale_t locale; /* UTF-8, for the width of characters; 0 if there is none */
} td_output;

void td_output_init(td_output *out, bool json);
/* td_output_flush writes what gathered to stdout. Errors: IO, MEMORY. */
int td_output_flush(td_output *out, tidemill_error *err) TD_MUST_CHECK;
void td_output_fini(td_output *out);

/* td_output_colour: whether a descriptor is a terminal on which colour is wanted (NO_COLOR, TERM). */
bool td_output_colour(int fd);

/* td_output_clean appends text for a terminal: what td_text_clean makes of it, with the characters that would change
   the direction of what follows made visible too. With one_line, newlines and tabs become spaces. */
void td_output_clean(td_buf *b, const char *text, bool one_line);

/* td_output_hidden returns the code point of the character at text, of *len bytes, if it acts without being seen and so
   must not reach a terminal: DEL, a C1 control, a line end that only some programs know, a mark that turns the
   direction of what follows. Else 0, and *len is 1. (C0 controls are escaped by td_text_clean and by JSON.) */
unsigned td_output_hidden(const char *text, size_t *len);

/* td_output_puts appends text as it is; td_output_style cleaned text in a style. */
void td_output_puts(td_output *out, const char *text);
void td_output_style(td_output *out, td_style style, const char *text);

/* td_output_block appends text with each of its lines indented. */
void td_output_block(td_output *out, const char *text, int indent);

/* td_output_wrap appends words so that no line is longer than width columns; lines after the first begin at column
   indent; column is where the first one begins. Ends with a newline. ASCII text (help) is counted right. */
void td_output_wrap(td_buf *b, const char *text, int column, int indent, int width);

/* td_output_field appends "  name   value", aligned over several calls. NULL values are left out. */
void td_output_field(td_output *out, const char *name, td_style style, const char *value);

/* td_output_time appends a time, microseconds since 1970, as RFC 3339 in UTC with the fraction that it has. */
void td_output_time(td_buf *b, int64_t us);

/* td_output_age appends how far a time is from now: "3m ago", "in 2h", "now". */
void td_output_age(td_buf *b, int64_t us, int64_t now_us);

#endif
