/* utf8.h: stepping through text that may or may not be UTF-8. Private to base. */
#ifndef TD_UTF8_H
#define TD_UTF8_H

#include "base.h"

/* What stands for a byte that belongs to no character: U+FFFD. */
#define TD_UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* td_utf8_char returns how many bytes the character at text takes (1 to 4), and its code point in *point; 0 when
   no well-formed character begins there within len bytes: then the first byte is to be taken as one invalid byte. */
size_t td_utf8_char(const char *text, size_t len, uint32_t *point);

/* td_utf8_trim returns the largest length up to len at which text is not cut inside a character. */
size_t td_utf8_trim(const char *text, size_t len);

#endif
