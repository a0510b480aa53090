/* array.h: PostgreSQL's arrays as text, for parameters. */
#ifndef TD_ARRAY_H
#define TD_ARRAY_H

#include "../base/base.h"

/* td_array_open begins an array in b; td_array_text and td_array_int append an element (NULL is null); td_array_close
   ends it. A failed append shows in b->failed. */
void td_array_open(td_buf *b);
void td_array_text(td_buf *b, const char *text);
void td_array_int(td_buf *b, int64_t value);
void td_array_close(td_buf *b);

#endif
