/* conn.c: connections that block. See conn.h. */
#include "conn.h"

#include "sql.h"

#include <ctype.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_S "10"

/* ---- URLs ---- */

#define URL_EXAMPLE "give a URL such as postgresql://user@host/name"

/* shown_part finds how much of libpq's message about a bad URL can be shown: not what it quotes, which may be part of a
   password, but for the name of a setting that it does not know. */
static size_t shown_part(const char *message) {
    static const char *const naming[] = { "invalid connection option \"", "invalid URI query parameter: \"" };
    for (size_t i = 0; i < TD_COUNT(naming); i++) {
        size_t len = strlen(naming[i]);
        if (strncmp(message, naming[i], len) != 0) continue;
        size_t name = strspn(message + len, "abcdefghijklmnopqrstuvwxyz_");
        if (name > 0 && message[len + name] == '"') return len + name + 1;
    }
    size_t len = strcspn(message, "\"\n");
    while (len > 0 && (message[len - 1] == ' ' || message[len - 1] == ':')) len--;
    return memchr(message, ' ', len) ? len : 0; /* a single word tells nothing */
}

/* refuse_url makes the error from libpq's message, which it frees. */
static int refuse_url(char *message, tidemill_error *err) {
    size_t len = message ? shown_part(message) : 0;
    td_error_field(err, "database", "database: not a valid URL or connection string%s%.*s; " URL_EXAMPLE,
                   len ? ": " : "", (int)len, len ? message : "");
    PQfreemem(message);
    return TIDEMILL_EINVALID;
}

/* path_has_at: whether a URL's path has an "@" in it that is not encoded. */
static bool path_has_at(const char *url) {
    const char *authority = strstr(url, "://"), *path = authority ? strchr(authority + 3, '/') : NULL;
    return path && memchr(path, '@', strcspn(path, "?"));
}

/* check_parts refuses what libpq accepts, but quotes later in its messages: most often the rest of a password with an
   "@" or a "/" in it. */
static int check_parts(const char *url, const PQconninfoOption *options, tidemill_error *err) {
    const char *bad = path_has_at(url) ? "path" : NULL;
    for (const PQconninfoOption *o = options; o->keyword; o++) {
        if (!o->val) continue;
        if (strcmp(o->keyword, "host") == 0 && o->val[0] != '@' && strchr(o->val, '@')) bad = "host";
        if (strcmp(o->keyword, "port") == 0 && o->val[strspn(o->val, "0123456789,")]) bad = "port";
    }
    if (!bad) return 0;
    return td_error_field(
        err, "database", "database: the URL's %s is not valid; write an @ or / inside a password as %%40 or %%2F", bad);
}

int td_conn_check_url(const char *url, tidemill_error *err) {
    char *message = NULL;
    if (!url || !*url) return 0;
    if (!td_utf8_valid(url, strlen(url))) return refuse_url(NULL, err);
    PQconninfoOption *options = PQconninfoParse(url, &message);
    if (!options) return message ? refuse_url(message, err) : td_error_memory(err);
    int rc = check_parts(url, options, err);
    PQconninfoFree(options);
    return rc;
}

/* ---- Connecting ---- */

static void drop_notice(void *arg, const PGresult *result) {
    (void)arg;
    (void)result;
}

/* one_line appends libpq's or the server's text as one clean line. */
static void one_line(char out[800], const char *text) {
    td_buf b = { 0 };
    td_text_clean(&b, text, strlen(text), 700);
    size_t n = 0;
    for (const char *p = b.failed || !b.data ? "" : b.data; *p; p++) {
        char c = isspace((unsigned char)*p) ? ' ' : *p;
        if (c != ' ' || (n > 0 && out[n - 1] != ' ')) out[n++] = c;
    }
    while (n > 0 && out[n - 1] == ' ') n--;
    out[n] = '\0';
    td_buf_free(&b);
}

int td_conn_open_any(const char *url, PGconn **conn, tidemill_error *err) {
    /* Settings before dbname are defaults, those after it hold whatever the url says. */
    const char *timeout = getenv("PGCONNECT_TIMEOUT");
    const char *const names[] = { "connect_timeout", "fallback_application_name", "dbname", "client_encoding", NULL };
    const char *const values[] = { timeout && *timeout ? timeout : TIMEOUT_S, "tidemill", url ? url : "", "UTF8",
                                   NULL };
    char text[800];
    int rc = td_conn_check_url(url, err);
    if (rc < 0) return rc;
    PGconn *c = PQconnectdbParams(names, values, 1);
    if (!c) return td_error_memory(err);
    if (PQstatus(c) != CONNECTION_OK) {
        one_line(text, PQerrorMessage(c));
        PQfinish(c);
        return td_error_set(err, TIDEMILL_ECONNECT, "the database cannot be reached: %s", text);
    }
    PQsetNoticeReceiver(c, drop_notice, NULL);
    *conn = c;
    return 0;
}

int td_conn_check_version(int version, tidemill_error *err) {
    int needed = td_sql_version();
    if (version == needed) return 0;
    if (version == 0) {
        return td_error_set(err, TIDEMILL_ESCHEMA, "the database is not migrated; run tidemill migrate up");
    }
    if (version < needed) {
        return td_error_set(err, TIDEMILL_ESCHEMA,
                            "the database's schema is older (%d, this needs %d); run tidemill migrate up", version,
                            needed);
    }
    return td_error_set(err, TIDEMILL_ESCHEMA,
                        "the database was migrated by a newer version (%d, this is %d); install a newer tidemill",
                        version, needed);
}

int td_conn_check_schema(PGconn *conn, tidemill_error *err) {
    PGresult *result = NULL;
    int rc = td_conn_run(conn, "statements/schema_version.sql", 0, NULL, &result, err);
    if (rc == 0) rc = td_conn_check_version(atoi(PQgetvalue(result, 0, 0)), err);
    PQclear(result);
    return rc;
}

int td_conn_open(const char *url, PGconn **conn, tidemill_error *err) {
    PGconn *c = NULL;
    int rc = td_conn_open_any(url, &c, err);
    if (rc == 0) rc = td_conn_check_schema(c, err);
    if (rc == 0) {
        *conn = c;
        c = NULL;
    }
    PQfinish(c);
    return rc;
}

bool td_conn_alive(PGconn *conn) {
    /* Not by reading on until the stream ends: that comes later than the farewell. */
    struct pollfd socket = { PQsocket(conn), POLLIN, 0 };
    return PQstatus(conn) == CONNECTION_OK && poll(&socket, 1, 0) == 0;
}

void td_conn_close(PGconn *conn) {
    PQfinish(conn);
}

int td_conn_check_caller(PGconn *conn, tidemill_error *err) {
    PGTransactionStatusType status = PQtransactionStatus(conn);
    const char *encoding = PQparameterStatus(conn, "client_encoding");
    if (PQstatus(conn) != CONNECTION_OK) {
        return td_error_set(err, TIDEMILL_ECONNECT, "the connection is not open; nothing was done");
    }
    if (status == PQTRANS_ACTIVE || PQpipelineStatus(conn) != PQ_PIPELINE_OFF) {
        return td_error_set(err, TIDEMILL_ESTATE,
                            "another statement is in progress on this connection; enqueue when it has ended");
    }
    if (status == PQTRANS_IDLE) {
        return td_error_set(err, TIDEMILL_ESTATE,
                            "no transaction is open on this connection; send begin first, or use tidemill_enqueue");
    }
    if (encoding && strcmp(encoding, "UTF8") != 0 && strcmp(encoding, "SQL_ASCII") != 0) {
        return td_error_set(err, TIDEMILL_ESTATE,
                            "this connection's client_encoding is %s; set it to UTF8, which the arguments are in",
                            encoding);
    }
    return 0;
}

/* ---- Statements ---- */

int td_conn_query(PGconn *conn, const char *sql, int n, const char *const *params, PGresult **result,
                  tidemill_error *err) {
    PGresult *r = PQexecParams(conn, sql, n, NULL, params, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
        *result = r;
        return 0;
    }
    int rc = td_conn_error(conn, r, err);
    PQclear(r);
    return rc;
}

int td_conn_run(PGconn *conn, const char *name, int n, const char *const *params, PGresult **result,
                tidemill_error *err) {
    const char *sql = td_sql_text(name);
    if (!sql) return td_error_set(err, TIDEMILL_ESCHEMA, "sql/%s is not part of this library", name);
    return td_conn_query(conn, sql, n, params, result, err);
}

/* ---- Errors ---- */

/* diagnostic returns a field of the server's error, "" if it has none. */
static const char *diagnostic(const PGresult *result, int field) {
    const char *text = result ? PQresultErrorField(result, field) : NULL;
    return text ? text : "";
}

/* connection_gone: also where the server says so, and libpq has not seen the end of the stream yet. 08P01 is not such a
   case: it is what a statement with the wrong number of parameters gets. */
static bool connection_gone(const PGconn *conn, const char *sqlstate) {
    static const char *const ends[] = { "57P01", "57P02", "57P03", "57P05", "25P03" };
    if (PQstatus(conn) != CONNECTION_OK) return true;
    if (strncmp(sqlstate, "08", 2) == 0) return strcmp(sqlstate, "08P01") != 0;
    for (size_t i = 0; i < TD_COUNT(ends); i++) {
        if (strcmp(sqlstate, ends[i]) == 0) return true;
    }
    return false;
}

/* ours: whether one of Tidemill's functions raised it, which give their schema. A table's own errors name the table. */
static bool ours(const PGresult *result) {
    return strcmp(diagnostic(result, PG_DIAG_SCHEMA_NAME), "tidemill") == 0 && !*diagnostic(result, PG_DIAG_TABLE_NAME);
}

/* code_of returns what a SQLSTATE means here. */
static int code_of(const PGresult *result, const char *sqlstate) {
    static const struct {
        char sqlstate[6];
        int code;
        enum { ANY, OURS, NAMED } when; /* NAMED: the message names schema tidemill */
    } codes[] = {
        { "22023", TIDEMILL_EINVALID, ANY },    { "22P02", TIDEMILL_EINVALID, ANY },
        { "22P05", TIDEMILL_EINVALID, ANY },    { "22021", TIDEMILL_EINVALID, ANY },
        { "P0002", TIDEMILL_ENOT_FOUND, OURS }, { "55000", TIDEMILL_ESTATE, OURS },
        { "23505", TIDEMILL_ECONFLICT, OURS },  { "3F000", TIDEMILL_ESCHEMA, NAMED },
        { "42883", TIDEMILL_ESCHEMA, NAMED },   { "42P01", TIDEMILL_ESCHEMA, NAMED },
        { "53200", TIDEMILL_EMEMORY, ANY },
    };
    for (size_t i = 0; i < TD_COUNT(codes); i++) {
        if (strcmp(codes[i].sqlstate, sqlstate) != 0) continue;
        if (codes[i].when == OURS && !ours(result)) continue;
        if (codes[i].when == NAMED && !strstr(diagnostic(result, PG_DIAG_MESSAGE_PRIMARY), "tidemill")) continue;
        return codes[i].code;
    }
    return TIDEMILL_EDATABASE;
}

/* describe writes a statement's error in one line: the message and the hint; the detail may hold a row's values. */
static void describe(const PGconn *conn, const PGresult *result, char out[800]) {
    const char *primary = diagnostic(result, PG_DIAG_MESSAGE_PRIMARY), *hint = diagnostic(result, PG_DIAG_MESSAGE_HINT);
    td_buf b = { 0 };
    td_buf_puts(&b, *primary ? primary : PQerrorMessage(conn));
    if (*hint) td_buf_printf(&b, "; %s", hint);
    one_line(out, b.failed ? "there was not enough memory" : b.data);
    td_buf_free(&b);
}

int td_conn_error(const PGconn *conn, const PGresult *result, tidemill_error *err) {
    const char *sqlstate = diagnostic(result, PG_DIAG_SQLSTATE);
    char text[800];
    int code = code_of(result, sqlstate);
    describe(conn, result, text);
    if (connection_gone(conn, sqlstate)) {
        code = td_error_set(err, TIDEMILL_ECONNECT, "the connection to the database was lost: %s", text);
    } else if (code == TIDEMILL_ESCHEMA) {
        bool none = strcmp(sqlstate, "3F000") == 0;
        td_error_set(err, code, "%s; %srun tidemill migrate up", none ? "the database is not migrated" : text,
                     none ? "" : "if the database is not migrated, ");
    } else if (PQresultStatus(result) == PGRES_COPY_IN || PQresultStatus(result) == PGRES_COPY_OUT) {
        code = td_error_set(err, TIDEMILL_EINVALID, "copy to or from the client is not possible here");
    } else {
        td_error_set(err, code, "%s", *text ? text : "the database refused the statement without saying why");
    }
    if (!err) return code;
    snprintf(err->sqlstate, sizeof err->sqlstate, "%s", sqlstate);
    snprintf(err->field, sizeof err->field, "%s", diagnostic(result, PG_DIAG_COLUMN_NAME));
    return code;
}
