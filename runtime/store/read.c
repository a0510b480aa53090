/* read.c: the statements behind the commands that look at jobs. See read.h. */
#include "read.h"

#include "conn.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Types by their numbers in pg_type, which never change; libpq's headers do not have them. */
enum {
    OID_BOOL = 16,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_JSON = 114,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_TIMESTAMPTZ = 1184,
    OID_NUMERIC = 1700,
    OID_JSONB = 3802
};

struct td_read {
    PGconn *conn;
    int64_t base_us;  /* the database's time ... */
    uint64_t base_ns; /* ... when our monotonic clock said this */
};

struct td_rows {
    PGresult *result;
};

/* begin sets the session up, so that times come in UTC, and learns what time it is there. */
static int begin(td_read *read, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = td_conn_run(read->conn, "statements/cli_session.sql", 0, NULL, &result, err);
    if (rc == 0) {
        read->base_us = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
        read->base_ns = td_now_ns();
    }
    PQclear(result);
    return rc;
}

int td_read_open(const char *url, td_read **read, tidemill_error *err) {
    td_read *r = calloc(1, sizeof *r);
    if (!r) return td_error_memory(err);
    int rc = td_conn_open(url, &r->conn, err);
    if (rc == 0) rc = begin(r, err);
    if (rc) {
        td_read_close(r);
        return rc;
    }
    *read = r;
    return 0;
}

void td_read_close(td_read *read) {
    if (!read) return;
    PQfinish(read->conn);
    free(read);
}

int64_t td_read_now_us(const td_read *read) {
    return read->base_us + (int64_t)((td_now_ns() - read->base_ns) / 1000);
}

int td_read_rows(td_read *read, const char *name, const char *const *parameters, int count, td_rows **rows,
                 tidemill_error *err) {
    char path[128];
    snprintf(path, sizeof path, "statements/%s.sql", name);
    td_rows *r = calloc(1, sizeof *r);
    if (!r) return td_error_memory(err);
    int rc = td_conn_run(read->conn, path, count, parameters, &r->result, err);
    if (rc) {
        free(r);
        return rc;
    }
    *rows = r;
    return 0;
}

void td_read_free(td_rows *rows) {
    if (!rows) return;
    PQclear(rows->result);
    free(rows);
}

size_t td_read_count(const td_rows *rows) {
    return (size_t)PQntuples(rows->result);
}

size_t td_read_columns(const td_rows *rows) {
    return (size_t)PQnfields(rows->result);
}

const char *td_read_name(const td_rows *rows, size_t column) {
    return PQfname(rows->result, (int)column);
}

td_cell td_read_type(const td_rows *rows, size_t column) {
    switch (PQftype(rows->result, (int)column)) {
    case OID_BOOL:
        return TD_CELL_BOOLEAN;
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
    case OID_FLOAT4:
    case OID_FLOAT8:
    case OID_NUMERIC:
        return TD_CELL_NUMBER;
    case OID_JSON:
    case OID_JSONB:
        return TD_CELL_JSON;
    case OID_TIMESTAMPTZ:
        return TD_CELL_TIME;
    default:
        return TD_CELL_TEXT;
    }
}

const char *td_read_cell(const td_rows *rows, size_t row, size_t column) {
    if (PQgetisnull(rows->result, (int)row, (int)column)) return NULL;
    return PQgetvalue(rows->result, (int)row, (int)column);
}

const char *td_read_get(const td_rows *rows, size_t row, const char *column) {
    for (size_t c = 0; c < td_read_columns(rows); c++)
        if (strcmp(td_read_name(rows, c), column) == 0) return td_read_cell(rows, row, c);
    return NULL;
}
