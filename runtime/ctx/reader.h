/* reader.h: what file:read and io.read return, by the formats given: "l", "L", "n", "a", and numbers of bytes. */
#ifndef TD_READER_H
#define TD_READER_H

#include "stream.h"

/* td_reader_read reads by the formats at stack indices first and above. The stack has those and one value more: the
   file, below or above them. Pushes what it read; after the first that found nothing, nil and no more; after an error
   nil, a message and the errno. Returns how many values. May raise. */
int td_reader_read(lua_State *L, td_stream *s, int first);

#endif
