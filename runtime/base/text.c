/* text.c: copies of text, text made fit to store and show, and the nearest word to a mistyped one. */
#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *td_strdup(const char *text) {
    return text ? td_memdup(text, strlen(text)) : NULL;
}

char *td_memdup(const void *data, size_t len) {
    char *copy = data && len < SIZE_MAX ? malloc(len + 1) : NULL;
    if (!copy) return NULL;
    memcpy(copy, data, len);
    copy[len] = 0;
    return copy;
}

/* clean_char appends the character or invalid byte at text in its clean form, and returns how many bytes it took.
   Controls are C0 but newline and tab, DEL, and C1 (U+009B begins an escape sequence on some terminals). */
static size_t clean_char(td_buf *b, const char *text, size_t len) {
    uint32_t point = 0;
    size_t size = td_utf8_char(text, len, &point);
    bool control = (point < 0x20 && point != '\n' && point != '\t') || (point >= 0x7F && point < 0xA0);
    if (size == 0)
        td_buf_puts(b, TD_UTF8_REPLACEMENT);
    else if (control)
        td_buf_printf(b, "\\x%02X", (unsigned)point);
    else
        td_buf_add(b, text, size);
    return size == 0 ? 1 : size;
}

/* The longest note that says how much was cut. */
#define CUT_NOTE "... (18446744073709551615 bytes cut)"

void td_text_clean(td_buf *b, const char *text, size_t len, size_t max) {
    size_t start = b->len;
    size_t room = max > sizeof CUT_NOTE ? max - sizeof CUT_NOTE : 0; /* up to here there is room for the note */
    size_t cut_at = start, cut_from = 0;
    for (size_t i = 0; i < len && !b->failed;) {
        i += clean_char(b, text + i, len - i);
        if (b->len - start <= room) {
            cut_at = b->len;
            cut_from = i;
        }
        if (b->len - start <= max) continue;
        b->len = cut_at;
        td_buf_printf(b, "... (%zu bytes cut)", len - cut_from);
        return;
    }
}

/* Words longer than this are too long to be mistyped options. */
#define WORD_MAX 64

size_t td_edit_distance(const char *a, const char *b) {
    size_t a_len = strlen(a), b_len = strlen(b), row[WORD_MAX + 1];
    if (a_len > WORD_MAX || b_len > WORD_MAX) return a_len > b_len ? a_len : b_len;
    for (size_t j = 0; j <= b_len; j++) row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0]; /* the row above, one to the left */
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

const char *td_nearest(const char *word, const char *const *words) {
    const char *nearest = NULL;
    size_t len = strlen(word), limit = (len + 2) / 3 < 3 ? (len + 2) / 3 : 3; /* slips: one in three letters, to 3 */
    for (; *words; words++) {
        size_t other = strlen(*words), distance = td_edit_distance(word, *words);
        if (distance > limit || distance >= (len > other ? len : other)) continue;
        nearest = *words;
        if (distance == 0) break;
        limit = distance - 1; /* the first of equals stands */
    }
    return nearest;
}
