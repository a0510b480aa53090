/* migrate.h: the schema of a database, taken up and down by the embedded files of sql/. Each call is one transaction,
   and several at once wait for each other. The connection is one of td_conn_open_any. */
#ifndef TD_MIGRATE_H
#define TD_MIGRATE_H

#include "../base/base.h"

struct pg_conn;

/* td_migrate_up runs the migrations that the database lacks, then every file of sql/functions and sql/views, which can
   be repeated. *applied is the number of migrations. Errors: SCHEMA (the database is newer), CONNECT, OUTCOME, DATABASE
   with the file named, MEMORY. */
int td_migrate_up(struct pg_conn *conn, int *applied, tidemill_error *err) TD_MUST_CHECK;

/* td_migrate_down takes the schema back to version, 0 for none. *reverted is the number of migrations taken back.
   Errors: INVALID (version), and as td_migrate_up. */
int td_migrate_down(struct pg_conn *conn, int version, int *reverted, tidemill_error *err) TD_MUST_CHECK;

/* td_migrate_status tells the version of the database's schema (0: none), and the one this library needs. */
int td_migrate_status(struct pg_conn *conn, int *current, int *needed, tidemill_error *err) TD_MUST_CHECK;

#endif
