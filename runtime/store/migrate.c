/* migrate.c: the schema of a database, up and down. See migrate.h. */
#include "migrate.h"

#include "conn.h"
#include "sql.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Statements ---- */

/* script runs a text of several statements. */
static int script(PGconn *conn, const char *sql, tidemill_error *err) {
    PGresult *result = PQexec(conn, sql);
    int rc = PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK
                 ? 0
                 : td_conn_error(conn, result, err);
    PQclear(result);
    return rc;
}

/* script_file runs one of the embedded files, which has to leave the transaction open. */
static int script_file(PGconn *conn, const td_sql_file *file, tidemill_error *err) {
    int rc = script(conn, file->text, err);
    if (rc < 0) {
        td_error_prefix(err, "sql/%s", file->name);
        return rc;
    }
    if (PQtransactionStatus(conn) == PQTRANS_INTRANS) return 0;
    return td_error_set(err, TIDEMILL_EDATABASE, "sql/%s: ends the transaction; a migration must not", file->name);
}

/* number runs a statement that returns one number or boolean. */
static int number(PGconn *conn, const char *name, int *value, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = td_conn_run(conn, name, 0, NULL, &result, err);
    if (rc == 0) *value = PQgetvalue(result, 0, 0)[0] == 't' ? 1 : atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    return rc;
}

/* current_version asks for the schema's version, 0 where there is none. */
static int current_version(PGconn *conn, int *version, tidemill_error *err) {
    int exists = 0, rc = number(conn, "statements/migrate_exists.sql", &exists, err);
    *version = 0;
    return rc == 0 && exists ? number(conn, "statements/migrate_version.sql", version, err) : rc;
}

/* note records, or forgets, a migration. */
static int note(PGconn *conn, const char *statement, const td_sql_file *file, int version, tidemill_error *err) {
    char digits[12], name[100];
    const char *base = strrchr(file->name, '/') + 1;
    snprintf(digits, sizeof digits, "%d", version);
    snprintf(name, sizeof name, "%.*s", (int)strcspn(base, "."), base);
    const char *const params[] = { digits, name };
    int n = strcmp(statement, "statements/migrate_record.sql") == 0 ? 2 : 1;
    PGresult *result = NULL;
    int rc = td_conn_run(conn, statement, n, params, &result, err);
    PQclear(result);
    return rc;
}

/* ---- The transaction ---- */

/* begin opens it, waits for others that migrate, and only then looks at the version. A newer one is refused. */
static int begin(PGconn *conn, int *version, tidemill_error *err) {
    int rc = script(conn, td_sql_text("statements/migrate_begin.sql"), err);
    if (rc == 0) rc = script(conn, td_sql_text("statements/migrate_lock.sql"), err);
    if (rc == 0) rc = current_version(conn, version, err);
    if (rc == 0 && *version > td_sql_version()) rc = td_conn_check_version(*version, err);
    return rc;
}

/* end commits when rc is 0, and rolls back otherwise. Returns rc, or how the commit failed. */
static int end(PGconn *conn, int rc, tidemill_error *err) {
    if (rc < 0) {
        PQclear(PQexec(conn, "rollback"));
        return rc;
    }
    rc = script(conn, "commit", err);
    if (rc != TIDEMILL_ECONNECT) return rc;
    return td_error_set(err, TIDEMILL_EOUTCOME,
                        "the connection was lost during the commit; see tidemill migrate status for what came of it");
}

/* ---- Up and down ---- */

/* find returns the file of a migration, up or down, or NULL. */
static const td_sql_file *find(int version, const char *suffix) {
    for (size_t i = 0; i < td_sql_files_count; i++) {
        if (td_sql_number(&td_sql_files[i], suffix) == version) return &td_sql_files[i];
    }
    return NULL;
}

static int missing(int version, const char *suffix, tidemill_error *err) {
    return td_error_set(err, TIDEMILL_ESCHEMA, "this library has no migration %04d%s", version, suffix);
}

/* run_folder runs every file of a folder ("functions/"), in the order of their names. */
static int run_folder(PGconn *conn, const char *folder, tidemill_error *err) {
    int rc = 0;
    for (size_t i = 0; i < td_sql_files_count && rc == 0; i++) {
        const td_sql_file *file = &td_sql_files[i];
        if (strncmp(file->name, folder, strlen(folder)) == 0) rc = script_file(conn, file, err);
    }
    return rc;
}

static int go_up(PGconn *conn, int version, int *applied, tidemill_error *err) {
    for (int next = version + 1; next <= td_sql_version(); next++) {
        const td_sql_file *file = find(next, ".up.sql");
        int rc = file ? script_file(conn, file, err) : missing(next, ".up.sql", err);
        if (rc == 0) rc = note(conn, "statements/migrate_record.sql", file, next, err);
        if (rc < 0) return rc;
        ++*applied;
    }
    int rc = run_folder(conn, "functions/", err);
    return rc < 0 ? rc : run_folder(conn, "views/", err);
}

static int go_down(PGconn *conn, int version, int target, int *reverted, tidemill_error *err) {
    for (; version > target; version--) {
        const td_sql_file *file = find(version, ".down.sql");
        int rc = file ? script_file(conn, file, err) : missing(version, ".down.sql", err);
        if (rc == 0 && version > 1) rc = note(conn, "statements/migrate_forget.sql", file, version, err);
        if (rc < 0) return rc;
        ++*reverted;
    }
    return 0;
}

int td_migrate_up(PGconn *conn, int *applied, tidemill_error *err) {
    int version = 0, count = 0;
    int rc = begin(conn, &version, err);
    if (rc == 0) rc = go_up(conn, version, &count, err);
    rc = end(conn, rc, err);
    if (rc == 0 && applied) *applied = count;
    return rc;
}

int td_migrate_down(PGconn *conn, int target, int *reverted, tidemill_error *err) {
    int version = 0, count = 0;
    int rc = begin(conn, &version, err);
    if (rc == 0 && (target < 0 || target > version)) {
        rc = td_error_field(err, "version", "version: %d is not allowed; give 0 to %d, the current version", target,
                            version);
    }
    if (rc == 0) rc = go_down(conn, version, target, &count, err);
    rc = end(conn, rc, err);
    if (rc == 0 && reverted) *reverted = count;
    return rc;
}

int td_migrate_status(PGconn *conn, int *current, int *needed, tidemill_error *err) {
    int version = 0, rc = current_version(conn, &version, err);
    if (rc < 0) return rc;
    if (current) *current = version;
    if (needed) *needed = td_sql_version();
    return 0;
}
