/* letter.h: a mail as its sender describes it, in a table of Lua's: who it is from and for, and the text of its
 * message. */
#ifndef TD_LETTER_H
#define TD_LETTER_H

#include "mime.h"

/* The table of options is at this stack index wherever it is read. */
enum { TD_LETTER_OPTIONS = 2 };

typedef struct td_people {
    td_address *list;
    size_t count;
} td_people;

/* {0} is an empty one; td_letter_fini frees what it has. */
typedef struct td_letter {
    td_failure failure;
    td_address from;
    td_people recipients, reply; /* recipients: to, cc and bcc */
    const char **paths;          /* the addresses of recipients */
    td_buf message;
} td_letter;

/* td_letter_write fills in the letter from the options. May raise. Failures: invalid, limit, memory, in m->failure. */
int td_letter_write(lua_State *L, int options, td_letter *m) TD_MUST_CHECK;
void td_letter_fini(td_letter *m);

/* td_letter_option pushes an option, metamethods left aside: what it returns the table keeps alive. Returns its type.
 */
int td_letter_option(lua_State *L, int options, const char *name);

/* td_letter_text reads an option that is a string without NUL; *text is NULL if it is not given, else Lua's. Failure:
   invalid, in m->failure. */
int td_letter_text(lua_State *L, int options, td_letter *m, const char *name, const char **text,
                   size_t *len) TD_MUST_CHECK;

#endif
