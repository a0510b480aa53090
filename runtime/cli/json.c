/* json.c: JSON appended to a buffer. See json.h. */
#include "json.h"

#include "output.h"

#include <string.h>

/* comma separates what comes from what is there: one is due unless something was just opened or named. Outside of
   strings, which end in a quote, no value ends in one of these characters. */
static void comma(td_buf *b) {
    if (b->len > 0 && !strchr("{[:\n", b->data[b->len - 1])) td_buf_putc(b, ',');
}

void td_json_open(td_buf *b, char bracket) {
    comma(b);
    td_buf_putc(b, bracket);
}

void td_json_close(td_buf *b, char bracket) {
    td_buf_putc(b, bracket);
}

void td_json_key(td_buf *b, const char *name) {
    td_json_text(b, name);
    td_buf_putc(b, ':');
}

/* add_json appends JSON text, with what must not reach a terminal as an escape that means the same: outside of ASCII,
   JSON has characters in strings only. */
static void add_json(td_buf *b, const char *json) {
    while (*json) {
        size_t len;
        unsigned code = td_output_hidden(json, &len);
        if (code)
            td_buf_printf(b, "\\u%04x", code);
        else
            td_buf_putc(b, *json);
        json += len;
    }
}

void td_json_text(td_buf *b, const char *text) {
    td_buf quoted = { 0 };
    comma(b);
    if (text) td_buf_json(&quoted, text, strlen(text));
    if (quoted.failed) b->failed = true;
    add_json(b, quoted.data ? quoted.data : "null");
    td_buf_free(&quoted);
}

void td_json_integer(td_buf *b, int64_t value) {
    comma(b);
    td_buf_printf(b, "%lld", (long long)value);
}

void td_json_boolean(td_buf *b, bool value) {
    comma(b);
    td_buf_puts(b, value ? "true" : "false");
}

void td_json_raw(td_buf *b, const char *json) {
    comma(b);
    add_json(b, json);
}
