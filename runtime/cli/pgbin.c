/* pgbin.c: where PostgreSQL's server programs are on this machine. See pgbin.h. */
#include "pgbin.h"

#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is best so far. */
typedef struct best {
    int wanted; /* a version, or 0 */
    int major;  /* of dir; 0: none yet */
    char dir[PATH_MAX];
    td_buf seen; /* the versions met, for the message */
} best;

/* runnable: whether a folder has a program of that name that we may run. */
static bool runnable(const char *dir, const char *name) {
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && (size_t)n < sizeof path && access(path, X_OK) == 0;
}

/* output reads the first line that a shell command prints. Returns false when it fails. */
static bool output(const char *command, char *line, size_t size) {
    FILE *pipe = popen(command, "re");
    if (!pipe) return false;
    bool ok = fgets(line, (int)size, pipe) != NULL;
    if (pclose(pipe) != 0) ok = false;
    if (ok) line[strcspn(line, "\n")] = '\0';
    return ok;
}

/* version asks the server program in a folder for its major version. Returns 0 if it does not tell. */
static int version(const char *dir) {
    char command[PATH_MAX + 64], line[128];
    int major;
    if (strpbrk(dir, "'\n")) return 0; /* no name that a shell would take apart */
    int n = snprintf(command, sizeof command, "'%s/postgres' --version 2>/dev/null", dir);
    if (n < 0 || (size_t)n >= sizeof command || !output(command, line, sizeof line)) return 0;
    return sscanf(line, "postgres (PostgreSQL) %d", &major) == 1 ? major : 0;
}

/* consider takes a folder if it is better than what was found before. */
static void consider(best *b, const char *dir) {
    if (strlen(dir) >= sizeof b->dir || !runnable(dir, "postgres") || !runnable(dir, "initdb")) return;
    int major = version(dir);
    if (major == 0) return;
    td_buf_printf(&b->seen, "%s%d", b->seen.len ? ", " : "", major);
    if (major <= b->major || (b->wanted && major != b->wanted)) return;
    b->major = major;
    memcpy(b->dir, dir, strlen(dir) + 1);
}

/* consider_usual takes what distributions have. */
static void consider_usual(best *b) {
    static const char *const patterns[] = { "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
                                            "/opt/homebrew/opt/postgresql*/bin" };
    for (size_t i = 0; i < TD_COUNT(patterns); i++) {
        glob_t found;
        if (glob(patterns[i], 0, NULL, &found)) continue;
        for (size_t j = 0; j < found.gl_pathc; j++) consider(b, found.gl_pathv[j]);
        globfree(&found);
    }
}

/* consider_path takes what is in the folders of PATH. */
static void consider_path(best *b) {
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t len = strcspn(path, ":");
        char dir[PATH_MAX];
        /* Relative entries would change their meaning once we change folder. */
        if (len > 0 && len < sizeof dir && path[0] == '/') {
            memcpy(dir, path, len);
            dir[len] = '\0';
            consider(b, dir);
        }
        path += len + (path[len] == ':');
    }
}

/* not_found says what is missing. */
static int not_found(const best *b, tidemill_error *err) {
    if (b->wanted && b->seen.len && !b->seen.failed)
        return td_error_set(
            err, TIDEMILL_ENOT_FOUND,
            "the database was made by PostgreSQL %d, and only %s was found; install version %d, or give "
            "--dir another folder",
            b->wanted, b->seen.data, b->wanted);
    return td_error_set(
        err, TIDEMILL_ENOT_FOUND,
        "PostgreSQL's server programs were not found; install them (on Debian: apt install postgresql), "
        "or give --database URL");
}

int td_pgbin_find(int major, char **dir, int *found, tidemill_error *err) {
    best b = { .wanted = major };
    char line[PATH_MAX];
    consider_usual(&b);
    if (output("pg_config --bindir 2>/dev/null", line, sizeof line)) consider(&b, line);
    consider_path(&b);
    int rc = 0;
    if (b.major == 0) {
        rc = not_found(&b, err);
    } else if (!(*dir = td_strdup(b.dir))) {
        rc = td_error_memory(err);
    } else {
        *found = b.major;
    }
    td_buf_free(&b.seen);
    return rc;
}
