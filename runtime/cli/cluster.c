/* cluster.c: a private PostgreSQL cluster. See cluster.h. */
#include "cluster.h"

#include "pgbin.h"
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define START_MS       60000 /* also a recovery after a crash must fit */
#define STOP_MS        30000
#define NAP_MS         20
#define LINE_MAX_BYTES 512 /* of the log, quoted in an error */

struct td_cluster {
    td_place place;
    char *bin;      /* the folder of the server programs */
    int major;      /* their version */
    char *data;     /* place.home/data */
    char *log_path; /* place.dir/postgres.log: in our folder, not in home, so that its owner cannot put a link there */
    int log_fd;
    off_t log_start; /* where this run's lines begin */
    char *url;
    td_launched server;
};

/* path_of is td_place_path with an error. */
static int path_of(const char *dir, const char *name, char **path, tidemill_error *err) {
    *path = td_place_path(dir, name);
    return *path ? 0 : td_error_memory(err);
}

/* open_log opens the file to which the programs print. */
static int open_log(td_cluster *c, tidemill_error *err) {
    int rc = path_of(c->place.dir, "postgres.log", &c->log_path, err);
    if (rc) return rc;
    c->log_fd = open(c->log_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (c->log_fd < 0)
        return td_error_set(err, TIDEMILL_EIO, "%s could not be opened: %s", c->log_path, strerror(errno));
    c->log_start = lseek(c->log_fd, 0, SEEK_END);
    return 0;
}

/* quote_log adds to an error the line of this run's log that says most: the last FATAL or error, else the last. */
static void quote_log(const td_cluster *c, tidemill_error *err) {
    char text[8192], best[LINE_MAX_BYTES] = "";
    ssize_t n = pread(c->log_fd, text, sizeof text - 1, c->log_start);
    if (n <= 0 || !err) return;
    text[n] = '\0';
    bool fatal = false;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        bool this_fatal = strstr(line, "FATAL:") || strstr(line, "error:");
        if (this_fatal || !fatal) snprintf(best, sizeof best, "%s", line);
        fatal = fatal || this_fatal;
    }
    char message[sizeof err->message + LINE_MAX_BYTES];
    snprintf(message, sizeof message, "%.400s: %s (all of it in %.300s)", err->message, best, c->log_path);
    td_error_set(err, err->code, "%s", message);
}

/* run_tool runs one of the server programs to its end. */
static int run_tool(td_cluster *c, const char *const *argv, const char *input, int stop_fd, tidemill_error *err) {
    const td_launch launch = { .argv = argv,
                               .account = &c->place.account,
                               .dir = c->place.home,
                               .input = input,
                               .output = c->log_fd,
                               .keep = c->place.lock_fd,
                               .death_signal = SIGTERM };
    int rc = td_launch_run(&launch, stop_fd, err);
    if (rc == TIDEMILL_EIO) quote_log(c, err);
    return rc;
}

/* make_data makes the cluster with its database `tidemill`, aside, so that what is called data is always whole. */
static int make_data(td_cluster *c, int stop_fd, tidemill_error *err) {
    char *initdb = NULL, *postgres = NULL, *fresh = NULL;
    int rc = path_of(c->bin, "initdb", &initdb, err);
    if (rc == 0) rc = path_of(c->bin, "postgres", &postgres, err);
    if (rc == 0) rc = path_of(c->place.home, "data.new", &fresh, err);
    if (rc) goto out;
    const char *const clear[] = { "/bin/rm", "-rf", fresh, NULL };
    /* Trust is safe: only who may enter the socket's folder can connect. Not syncing: a cluster that a power failure
       spoils before its first start is made again by removing it. */
    const char *const init[] = {
        initdb, "-D", fresh, "-U", "tidemill", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", NULL
    };
    const char *const create[] = { postgres, "--single", "-D", fresh, "postgres", NULL };
    rc = run_tool(c, clear, NULL, stop_fd, err);
    if (rc == 0) rc = run_tool(c, init, NULL, stop_fd, err);
    if (rc == 0) rc = run_tool(c, create, "create database tidemill;\n", stop_fd, err);
    if (rc == 0 && rename(fresh, c->data))
        rc = td_error_set(err, TIDEMILL_EIO, "%s could not be renamed: %s", fresh, strerror(errno));
out:
    free(initdb);
    free(postgres);
    free(fresh);
    return rc;
}

/* data_version reads which version made the cluster's data. Returns 0 if there is none. */
static int data_version(const td_cluster *c) {
    char text[16] = "";
    char *path = td_place_path(c->data, "PG_VERSION");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    free(path);
    return n > 0 ? atoi(text) : 0;
}

/* ready: whether the server says in its pid file that it takes connections. A file of an earlier server that crashed
   names another process. */
static bool ready(const td_cluster *c) {
    char text[1024] = "";
    char *path = td_place_path(c->data, "postmaster.pid");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    free(path);
    if (n <= 0 || atoi(text) != (int)c->server.pid) return false;
    const char *line = text;
    for (int i = 0; i < 7 && line; i++) {
        line = strchr(line, '\n');
        if (line) line++;
    }
    return line && strncmp(line, "ready", 5) == 0;
}

/* launch starts the server as our child. It ends when we do, however that happens. */
static int launch(td_cluster *c, tidemill_error *err) {
    char *postgres = NULL;
    int rc = path_of(c->bin, "postgres", &postgres, err);
    if (rc) return rc;
    const char *const argv[] = { postgres,
                                 "-D",
                                 c->data,
                                 "-p",
                                 "5432",
                                 "-k",
                                 c->place.socket_dir,
                                 "-c",
                                 "listen_addresses=",
                                 "-c",
                                 "unix_socket_permissions=0700",
                                 "-c",
                                 "logging_collector=off",
                                 "-c",
                                 "log_destination=stderr",
                                 NULL };
    const td_launch l = { .argv = argv,
                          .account = &c->place.account,
                          .dir = c->place.home,
                          .output = c->log_fd,
                          .keep = c->place.lock_fd,
                          .death_signal = SIGINT /* a fast shutdown */ };
    rc = td_launch_start(&l, &c->server, err);
    free(postgres);
    return rc;
}

/* wait_ready waits until the server takes connections. */
static int wait_ready(td_cluster *c, int stop_fd, tidemill_error *err) {
    uint64_t deadline = td_now_ns() + (uint64_t)START_MS * 1000000;
    int status;
    while (!ready(c)) {
        int rc = td_launch_wait(&c->server, stop_fd, NAP_MS, &status, err);
        if (rc == TIDEMILL_ECANCELLED) return rc;
        if (rc == 0) td_error_set(err, TIDEMILL_EIO, "PostgreSQL did not start");
        if (rc && td_now_ns() < deadline) continue;
        if (rc) td_error_set(err, TIDEMILL_ETIMEOUT, "PostgreSQL did not start within %d s", START_MS / 1000);
        quote_log(c, err);
        return err ? err->code : TIDEMILL_EIO;
    }
    return 0;
}

/* prepare finds the programs and makes the data if there is none. */
static int prepare(td_cluster *c, int stop_fd, const td_log *log, tidemill_error *err) {
    int rc = path_of(c->place.home, "data", &c->data, err);
    if (rc) return rc;
    int made_by = data_version(c);
    rc = td_pgbin_find(made_by, &c->bin, &c->major, err);
    if (rc || made_by) return rc;
    td_logf(log, TIDEMILL_INFO, "making a database with PostgreSQL %d in %s", c->major, c->place.dir);
    return make_data(c, stop_fd, err);
}

int td_cluster_start(const char *dir, int stop_fd, const td_log *log, td_cluster **cluster, tidemill_error *err) {
    tidemill_error ignored;
    td_cluster *c = calloc(1, sizeof *c);
    if (!c) return td_error_memory(err);
    if (!err) err = &ignored;
    c->log_fd = -1;
    c->server = (td_launched)TD_LAUNCHED_NONE;
    int rc = td_place_open(dir, stop_fd, log, &c->place, err);
    if (rc == 0) rc = open_log(c, err);
    if (rc == 0) rc = prepare(c, stop_fd, log, err);
    if (rc == 0) rc = launch(c, err);
    if (rc == 0) rc = wait_ready(c, stop_fd, err);
    if (rc == 0) {
        td_buf url = { 0 };
        td_buf_printf(&url, "postgresql://tidemill@:5432/tidemill?host=%s", c->place.socket_dir);
        c->url = td_buf_take(&url);
        if (!c->url) rc = td_error_memory(err);
    }
    if (rc) {
        td_cluster_stop(c);
        return rc;
    }
    td_logf(log, TIDEMILL_INFO, "PostgreSQL %d runs", c->major);
    *cluster = c;
    return 0;
}

const char *td_cluster_url(const td_cluster *c) {
    return c->url;
}

const char *td_cluster_dir(const td_cluster *c) {
    return c->place.dir;
}

const char *td_cluster_log(const td_cluster *c) {
    return c->log_path;
}

int td_cluster_fd(const td_cluster *c) {
    return c->server.fd;
}

void td_cluster_stop(td_cluster *c) {
    if (!c) return;
    td_launch_end(&c->server, SIGINT, STOP_MS);
    td_place_close(&c->place);
    if (c->log_fd >= 0) close(c->log_fd);
    free(c->bin);
    free(c->data);
    free(c->log_path);
    free(c->url);
    free(c);
}

void td_cluster_abandon(void *cluster) {
    td_cluster *c = cluster;
    if (c->server.pid > 0) kill(c->server.pid, SIGQUIT);
    td_place_unlink(&c->place);
}
