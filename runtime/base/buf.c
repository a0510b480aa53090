/* buf.c: a growing byte buffer. data[len] is NUL whenever data is not NULL, so cap is always above len. */
#include "utf8.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* reserve makes room for len more bytes and the NUL. Returns false, with b->failed set, without memory. */
static bool reserve(td_buf *b, size_t len) {
    if (b->failed) return false;
    if (b->cap > b->len && len < b->cap - b->len) return true;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    char *data = NULL;
    if (len < SIZE_MAX / 4 && b->len < SIZE_MAX / 4) {
        while (cap - b->len <= len) cap *= 2;
        data = realloc(b->data, cap);
    }
    b->failed = !data;
    if (!data) return false;
    data[b->len] = 0;
    b->data = data;
    b->cap = cap;
    return true;
}

void td_buf_add(td_buf *b, const void *data, size_t len) {
    if (!reserve(b, len)) return;
    if (len > 0) memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = 0;
}

void td_buf_puts(td_buf *b, const char *text) {
    td_buf_add(b, text, strlen(text));
}

void td_buf_putc(td_buf *b, char c) {
    td_buf_add(b, &c, 1);
}

void td_buf_vprintf(td_buf *b, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0) b->failed = true;
    if (n >= 0 && reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void td_buf_printf(td_buf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    td_buf_vprintf(b, format, args);
    va_end(args);
}

/* json_escape returns what stands for an ASCII character inside a JSON string, NULL for the character itself. */
static const char *json_escape(unsigned char c, char room[8]) {
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        if (c >= 0x20 && c != 0x7F) return NULL;
        snprintf(room, 8, "\\u%04x", c);
        return room;
    }
}

void td_buf_json(td_buf *b, const char *text, size_t len) {
    size_t plain = 0; /* text[plain..i) goes out as it is */
    td_buf_putc(b, '"');
    for (size_t i = 0; i < len;) {
        uint32_t point = 0;
        char room[8];
        size_t size = td_utf8_char(text + i, len - i, &point);
        const char *instead = size == 0 ? TD_UTF8_REPLACEMENT : NULL;
        if (size == 1) instead = json_escape((unsigned char)point, room);
        size_t step = size == 0 ? 1 : size;
        if (instead) {
            td_buf_add(b, text + plain, i - plain);
            td_buf_puts(b, instead);
            plain = i + step;
        }
        i += step;
    }
    td_buf_add(b, text + plain, len - plain);
    td_buf_putc(b, '"');
}

/* with_point puts a '.' where the thread's locale put its decimal point (of one or more bytes), in place. */
static void with_point(char *digits) {
    char *out = digits;
    bool inside = false;
    for (char *in = digits; *in; in++) {
        bool own = (*in >= '0' && *in <= '9') || *in == '-' || *in == '+' || *in == 'e';
        if (own) *out++ = *in;
        if (!own && !inside) *out++ = '.';
        inside = !own;
    }
    *out = 0;
}

/* Below this magnitude a double without a fraction is written out in digits and ".0". With an exponent, jsonb would
   store it as an integer: up to 64 bits that would come back as one. 1e20 is past every 64-bit integer, also when the
   shortest digits round down (2^63 is 9.2233720368547758e+18, which is less than 2^63). */
#define DIGITS_BELOW 1e20

/* has_fraction: from 2^53 on no double has one. */
static bool has_fraction(double value) {
    return fabs(value) < 0x1p53 && value != (double)(int64_t)value;
}

void td_buf_double(td_buf *b, double value) {
    char digits[64];
    if (!isfinite(value)) {
        td_buf_puts(b, "null"); /* never asked for; valid JSON all the same */
        return;
    }
    if (fabs(value) < DIGITS_BELOW && !has_fraction(value)) {
        snprintf(digits, sizeof digits, "%.0f", value);
        td_buf_printf(b, "%s.0", value == 0 ? "0" : digits);
        return;
    }
    /* Fewer than 15 digits only help subnormals: for the others %g drops the zeros that end the 15. */
    for (int precision = fabs(value) < DBL_MIN ? 1 : 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    with_point(digits);
    td_buf_puts(b, digits);
}

void td_buf_clear(td_buf *b) {
    b->len = 0;
    b->failed = false;
    if (b->data) b->data[0] = 0;
}

void td_buf_free(td_buf *b) {
    if (!b) return;
    free(b->data);
    *b = (td_buf){ 0 };
}

char *td_buf_take(td_buf *b) {
    char *data = NULL;
    if (reserve(b, 0)) {
        data = b->data;
        b->data = NULL;
    }
    td_buf_free(b);
    return data;
}
