/* json.h: JSON appended to a buffer, with the commas put where they belong. */
#ifndef TD_JSON_H
#define TD_JSON_H

#include "../base/base.h"

/* td_json_open and td_json_close append '{' or '[', '}' or ']'. */
void td_json_open(td_buf *b, char bracket);
void td_json_close(td_buf *b, char bracket);

/* td_json_key appends a member's name. */
void td_json_key(td_buf *b, const char *name);

/* The values: text (NULL: null), a number, a boolean, and what is JSON text already. */
void td_json_text(td_buf *b, const char *text);
void td_json_integer(td_buf *b, int64_t value);
void td_json_boolean(td_buf *b, bool value);
void td_json_raw(td_buf *b, const char *json);

#endif
