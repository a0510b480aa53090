/* reply.h: what a statement returned, for the layers above, which do not use libpq themselves. */
#ifndef TD_REPLY_H
#define TD_REPLY_H

#include "../base/base.h"

struct pg_result;

/* td_reply_free frees a result. NULL is allowed. */
void td_reply_free(struct pg_result *result);

int td_reply_rows(const struct pg_result *result);
int td_reply_columns(const struct pg_result *result);

/* td_reply_name and td_reply_type return a column's name and the oid of its type. */
const char *td_reply_name(const struct pg_result *result, int column);
unsigned td_reply_type(const struct pg_result *result, int column);

/* td_reply_text returns a value's text, with its length in *len (may be NULL); NULL for null. It lives as long as the
   result. */
const char *td_reply_text(const struct pg_result *result, int row, int column, size_t *len);

/* td_reply_count returns how many rows were changed, or returned; returned where that was counted already (rows that
   came one by one), since the result has none then. */
int64_t td_reply_count(const struct pg_result *result, int64_t returned);

/* td_reply_ends says whether the statement was one that ends a transaction. */
bool td_reply_ends(const struct pg_result *result);

#endif
