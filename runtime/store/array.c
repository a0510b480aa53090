/* array.c: PostgreSQL's arrays as text: {1,2,NULL,"a \"quoted\" text"}. */
#include "array.h"

#include <inttypes.h>
#include <string.h>

void td_array_open(td_buf *b) {
    td_buf_clear(b);
    td_buf_putc(b, '{');
}

static void separate(td_buf *b) {
    if (b->len > 1) td_buf_putc(b, ',');
}

void td_array_text(td_buf *b, const char *text) {
    separate(b);
    if (!text) {
        td_buf_puts(b, "NULL");
        return;
    }
    td_buf_putc(b, '"');
    while (*text) {
        size_t plain = strcspn(text, "\"\\");
        td_buf_add(b, text, plain);
        text += plain;
        if (!*text) break;
        td_buf_putc(b, '\\');
        td_buf_putc(b, *text++);
    }
    td_buf_putc(b, '"');
}

void td_array_int(td_buf *b, int64_t value) {
    separate(b);
    td_buf_printf(b, "%" PRId64, value);
}

void td_array_close(td_buf *b) {
    td_buf_putc(b, '}');
}
