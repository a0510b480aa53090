/* place.c: the folder of a private cluster. See place.h. */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_WAIT_MS   10000 /* for the PostgreSQL of a `dev` that was killed to end */
#define LOCK_NAP_MS    50
#define SHARED_DIR     "/var/lib/tidemill" /* for homes that would be out of reach elsewhere */
#define SOCKET_PATTERN "/tmp/tidemill-XXXXXX"

char *td_place_path(const char *dir, const char *name) {
    td_buf b = { 0 };
    td_buf_printf(&b, "%s/%s", dir, name);
    return td_buf_take(&b);
}

/* failed fills err for a file that a system call failed on. */
static int failed(tidemill_error *err, const char *what, const char *path) {
    return td_error_set(err, TIDEMILL_EIO, "%s could not be %s: %s", path, what, strerror(errno));
}

/* read_file reads a short file's first line into text. Returns false if there is none. */
static bool read_file(const char *dir, const char *name, char *text, size_t size) {
    char *path = td_place_path(dir, name);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    free(path);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return false;
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return true;
}

/* write_file replaces a short file's text. */
static int write_file(const char *dir, const char *name, const char *text, tidemill_error *err) {
    char *path = td_place_path(dir, name);
    if (!path) return td_error_memory(err);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    size_t len = strlen(text);
    int rc = fd < 0 || write(fd, text, len) != (ssize_t)len ? failed(err, "written", path) : 0;
    if (fd >= 0) close(fd);
    free(path);
    return rc;
}

/* make_dir makes the folder and finds its absolute path. */
static int make_dir(const char *dir, td_place *place, tidemill_error *err) {
    bool made = mkdir(dir, 0755) == 0;
    if (!made && errno != EEXIST) return failed(err, "made", dir);
    place->dir = realpath(dir, NULL);
    if (!place->dir) return failed(err, "found", dir);
    /* It is nobody's source code. */
    return made ? write_file(place->dir, ".gitignore", "*\n", err) : 0;
}

/* in_use says who holds the lock. */
static int in_use(const td_place *place, pid_t holder, tidemill_error *err) {
    char who[64] = "";
    if (holder > 0) snprintf(who, sizeof who, " (process %d)", (int)holder);
    return td_error_set(err, TIDEMILL_ESTATE,
                        "%s is in use by another `tidemill dev`%s; stop that one, or give --dir another folder",
                        place->dir, who);
}

/* take_lock locks the folder. A PostgreSQL whose `dev` was killed holds the lock for the moment that it takes to end.
 */
static int take_lock(td_place *place, int stop_fd, tidemill_error *err) {
    char *path = td_place_path(place->dir, "lock"), text[32];
    if (!path) return td_error_memory(err);
    place->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    int rc = place->lock_fd < 0 ? failed(err, "opened", path) : 0;
    free(path);
    if (rc) return rc;
    uint64_t deadline = td_now_ns() + (uint64_t)LOCK_WAIT_MS * 1000000;
    while (flock(place->lock_fd, LOCK_EX | LOCK_NB)) {
        pid_t holder = read_file(place->dir, "lock", text, sizeof text) ? (pid_t)atoi(text) : 0;
        bool lives = holder > 0 && (kill(holder, 0) == 0 || errno == EPERM);
        if (lives || td_now_ns() > deadline) return in_use(place, lives ? holder : 0, err);
        struct pollfd stop = { .fd = stop_fd, .events = POLLIN };
        if (poll(&stop, 1, LOCK_NAP_MS) > 0) return td_error_set(err, TIDEMILL_ECANCELLED, "it was stopped");
    }
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    return write_file(place->dir, "lock", text, err);
}

/* account_of fills an account from the password file. Returns false if there is no such user. */
static bool account_of(const struct passwd *user, td_account *account) {
    if (!user) return false;
    *account = (td_account){ .uid = user->pw_uid, .gid = user->pw_gid };
    snprintf(account->name, sizeof account->name, "%s", user->pw_name);
    return true;
}

/* account_of_id is account_of for a number, which need not be in the password file. */
static void account_of_id(uid_t uid, gid_t gid, td_account *account) {
    if (account_of(getpwuid(uid), account)) return;
    *account = (td_account){ .uid = uid, .gid = gid };
    snprintf(account->name, sizeof account->name, "user %u", (unsigned)uid);
}

/* choose_account decides who is to run a new cluster: we ourselves, or for root a user without rights. */
static int choose_account(td_account *account, tidemill_error *err) {
    if (geteuid() != 0) {
        account_of_id(geteuid(), getegid(), account);
        return 0;
    }
    if (account_of(getpwnam("postgres"), account) || account_of(getpwnam("nobody"), account)) return 0;
    return td_error_set(err, TIDEMILL_EIO,
                        "PostgreSQL does not run as root, and there is no user postgres or nobody; run this as another "
                        "user, or give --database URL");
}

/* reachable: whether the account can enter a folder: it tries. */
static bool reachable(const char *dir, const td_account *account) {
    const char *const argv[] = { "/bin/true", NULL };
    const td_launch launch = { .argv = argv, .account = account, .dir = dir, .output = STDERR_FILENO, .keep = -1 };
    return td_launch_run(&launch, -1, NULL) == 0;
}

/* make_home makes the cluster's home at path for the account; elsewhere, with a link, if it could not reach it. */
static int make_home(const char *path, const td_place *place, const td_log *log, tidemill_error *err) {
    char elsewhere[] = SHARED_DIR "/dev-XXXXXX";
    const char *home = path;
    if (reachable(place->dir, &place->account)) {
        if (mkdir(path, 0700)) return failed(err, "made", path);
    } else {
        if (mkdir(SHARED_DIR, 0755) && errno != EEXIST) return failed(err, "made", SHARED_DIR);
        if (!mkdtemp(elsewhere)) return failed(err, "made", elsewhere);
        if (symlink(elsewhere, path)) return failed(err, "made", path);
        home = elsewhere;
        td_logf(log, TIDEMILL_WARN, "the user %s cannot reach %s: the database is kept in %s", place->account.name,
                place->dir, elsewhere);
    }
    if (geteuid() == 0 && chown(home, place->account.uid, place->account.gid)) return failed(err, "given away", home);
    return 0;
}

/* find_home finds the cluster's home and whose it is, making it where there is none. */
static int find_home(td_place *place, const td_log *log, tidemill_error *err) {
    struct stat st;
    char *path = td_place_path(place->dir, "postgres");
    if (!path) return td_error_memory(err);
    int rc = 0;
    if (lstat(path, &st)) {
        rc = choose_account(&place->account, err);
        if (rc == 0) rc = make_home(path, place, log, err);
    }
    if (rc == 0) {
        place->home = realpath(path, NULL);
        if (!place->home || stat(place->home, &st)) rc = failed(err, "found", path);
    }
    free(path);
    if (rc) return rc;
    account_of_id(st.st_uid, st.st_gid, &place->account);
    if (geteuid() == 0 && st.st_uid == 0)
        return td_error_set(err, TIDEMILL_ESTATE, "%s belongs to root, as which PostgreSQL does not run; remove it",
                            place->home);
    if (geteuid() != 0 && st.st_uid != geteuid())
        return td_error_set(err, TIDEMILL_ESTATE, "%s belongs to %s; run this as root, or give --dir another folder",
                            place->home, place->account.name);
    return 0;
}

/* reuse takes the socket's folder of an earlier run again, if nobody else has taken the name. */
static bool reuse(const td_place *place, char *path, size_t size) {
    struct stat st;
    if (!read_file(place->dir, "socket", path, size)) return false;
    const char *name = path + strlen("/tmp/");
    if (strlen(path) != strlen(SOCKET_PATTERN) || strncmp(path, SOCKET_PATTERN, strlen("/tmp/tidemill-")) != 0 ||
        strchr(name, '/'))
        return false;
    if (mkdir(path, 0700) == 0) return true;
    if (errno != EEXIST || lstat(path, &st)) return false;
    return S_ISDIR(st.st_mode) && st.st_uid == place->account.uid && (st.st_mode & 0777) == 0700;
}

/* make_socket_dir makes the folder of the socket. */
static int make_socket_dir(td_place *place, tidemill_error *err) {
    char path[64];
    if (!reuse(place, path, sizeof path)) {
        memcpy(path, SOCKET_PATTERN, sizeof SOCKET_PATTERN);
        if (!mkdtemp(path)) return failed(err, "made", path);
    }
    place->socket_dir = td_strdup(path);
    if (!place->socket_dir) {
        rmdir(path);
        return td_error_memory(err);
    }
    if (geteuid() == 0 && lchown(path, place->account.uid, place->account.gid)) return failed(err, "given away", path);
    td_buf line = { 0 };
    td_buf_printf(&line, "%s\n", path);
    int rc = line.failed ? td_error_memory(err) : write_file(place->dir, "socket", line.data, err);
    td_buf_free(&line);
    return rc;
}

int td_place_open(const char *dir, int stop_fd, const td_log *log, td_place *place, tidemill_error *err) {
    *place = (td_place){ .lock_fd = -1 };
    int rc = make_dir(dir, place, err);
    if (rc == 0) rc = take_lock(place, stop_fd, err);
    if (rc == 0) rc = find_home(place, log, err);
    if (rc == 0) rc = make_socket_dir(place, err);
    return rc;
}

void td_place_unlink(const td_place *place) {
    static const char *const leftovers[] = { ".s.PGSQL.5432", ".s.PGSQL.5432.lock" };
    for (size_t i = 0; place->socket_dir && i < TD_COUNT(leftovers); i++) {
        char *path = td_place_path(place->socket_dir, leftovers[i]);
        if (path) unlink(path);
        free(path);
    }
    if (place->socket_dir) rmdir(place->socket_dir);
}

void td_place_close(td_place *place) {
    td_place_unlink(place);
    if (place->lock_fd >= 0) close(place->lock_fd);
    free(place->dir);
    free(place->home);
    free(place->socket_dir);
    *place = (td_place){ .lock_fd = -1 };
}
