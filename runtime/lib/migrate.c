/* migrate.c: the schema, by the database's URL. */
#include "../store/migrate.h"

#include "../store/conn.h"

int tidemill_migrate_up(const char *url, int *applied, tidemill_error *err) {
    struct pg_conn *conn = NULL;
    int rc = td_conn_open_any(url, &conn, err);
    if (rc == 0) rc = td_migrate_up(conn, applied, err);
    td_conn_close(conn);
    return rc;
}

int tidemill_migrate_down(const char *url, int version, int *reverted, tidemill_error *err) {
    struct pg_conn *conn = NULL;
    int rc = td_conn_open_any(url, &conn, err);
    if (rc == 0) rc = td_migrate_down(conn, version, reverted, err);
    td_conn_close(conn);
    return rc;
}

int tidemill_migrate_status(const char *url, int *current, int *needed, tidemill_error *err) {
    struct pg_conn *conn = NULL;
    int rc = td_conn_open_any(url, &conn, err);
    if (rc == 0) rc = td_migrate_status(conn, current, needed, err);
    td_conn_close(conn);
    return rc;
}
