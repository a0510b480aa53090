/* client.c: enqueueing from C. */
#include "client.h"

#include "../store/conn.h"
#include "../store/enqueue.h"

#include <stdlib.h>

struct tidemill_client {
    char *url;
    struct pg_conn *conn; /* NULL, or lost: the next call makes a new one */
};

int tidemill_connect(const char *url, tidemill_client **client, tidemill_error *err) {
    tidemill_client *c = calloc(1, sizeof *c);
    if (!c) return td_error_memory(err);
    c->url = td_strdup(url ? url : "");
    int rc = c->url ? td_conn_open(c->url, &c->conn, err) : td_error_memory(err);
    if (rc == 0) {
        *client = c;
        return 0;
    }
    tidemill_close(c);
    return rc;
}

void tidemill_close(tidemill_client *client) {
    if (!client) return;
    td_conn_close(client->conn);
    free(client->url);
    free(client);
}

void td_client_hang_up(tidemill_client *client) {
    td_conn_close(client->conn);
    client->conn = NULL;
}

int td_client_connection(tidemill_client *client, struct pg_conn **conn, tidemill_error *err) {
    int rc = 0;
    if (client->conn && !td_conn_alive(client->conn)) td_client_hang_up(client);
    if (!client->conn) rc = td_conn_open(client->url, &client->conn, err);
    *conn = client->conn;
    return rc;
}

int tidemill_enqueue(tidemill_client *client, const char *task, const char *args_json, const tidemill_options *options,
                     tidemill_job *job, tidemill_error *err) {
    struct pg_conn *conn = NULL;
    int rc = td_client_connection(client, &conn, err);
    return rc < 0 ? rc : td_enqueue(conn, task, args_json, options, job, err);
}

int tidemill_enqueue_many(tidemill_client *client, const char *task, const char *const *args_json, size_t count,
                          const tidemill_options *options, tidemill_job *jobs, tidemill_error *err) {
    struct pg_conn *conn = NULL;
    int rc = td_client_connection(client, &conn, err);
    return rc < 0 ? rc : td_enqueue_many(conn, task, args_json, count, options, jobs, err);
}

int tidemill_enqueue_tx(struct pg_conn *conn, const char *task, const char *args_json, const tidemill_options *options,
                        tidemill_job *job, tidemill_error *err) {
    int rc = td_conn_check_caller(conn, err);
    return rc < 0 ? rc : td_enqueue(conn, task, args_json, options, job, err);
}
