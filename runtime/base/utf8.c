/* utf8.c: UTF-8 as the standard has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#include "utf8.h"

/* continuation: whether text[i] exists and is a byte that continues a character. */
static bool continuation(const char *text, size_t len, size_t i) {
    return i < len && ((unsigned char)text[i] & 0xC0) == 0x80;
}

size_t td_utf8_char(const char *text, size_t len, uint32_t *point) {
    if (len == 0) return 0;
    unsigned char lead = (unsigned char)text[0];
    if (lead < 0x80) {
        *point = lead;
        return 1;
    }
    size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    uint32_t value = lead & (0xFFu >> (size + 1));
    for (size_t i = 1; i < size; i++) {
        if (!continuation(text, len, i)) return 0;
        value = value << 6 | ((unsigned char)text[i] & 0x3F);
    }
    static const uint32_t smallest[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (value < smallest[size] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
    *point = value;
    return size;
}

size_t td_utf8_trim(const char *text, size_t len) {
    size_t start = len;
    while (start > 0 && len - start < 3 && continuation(text, len, start - 1)) start--;
    if (start == 0) return len;
    start--; /* now at the byte that should lead the last character */
    uint32_t point;
    return (unsigned char)text[start] >= 0xC2 && td_utf8_char(text + start, len - start, &point) == 0 ? start : len;
}

bool td_utf8_valid(const char *text, size_t len) {
    for (size_t i = 0; i < len;) {
        uint32_t point = 0;
        size_t size = td_utf8_char(text + i, len - i, &point);
        if (size == 0 || point == 0) return false;
        i += size;
    }
    return true;
}
