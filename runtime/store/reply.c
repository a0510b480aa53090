/* reply.c: libpq's results. See reply.h. */
#include "reply.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

void td_reply_free(PGresult *result) {
    PQclear(result);
}

int td_reply_rows(const PGresult *result) {
    return PQntuples(result);
}

int td_reply_columns(const PGresult *result) {
    return PQnfields(result);
}

const char *td_reply_name(const PGresult *result, int column) {
    return PQfname(result, column);
}

unsigned td_reply_type(const PGresult *result, int column) {
    return PQftype(result, column);
}

const char *td_reply_text(const PGresult *result, int row, int column, size_t *len) {
    if (PQgetisnull(result, row, column)) return NULL;
    if (len) *len = (size_t)PQgetlength(result, row, column);
    return PQgetvalue(result, row, column);
}

int64_t td_reply_count(const PGresult *result, int64_t returned) {
    const char *text = PQcmdTuples((PGresult *)result);
    return text[0] ? (int64_t)strtoll(text, NULL, 10) : returned;
}

bool td_reply_ends(const PGresult *result) {
    const char *tag = PQcmdStatus((PGresult *)result);
    return strcmp(tag, "COMMIT") == 0 || strcmp(tag, "ROLLBACK") == 0;
}
