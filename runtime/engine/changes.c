/* changes.c: sees that the handlers' files have changed, and has them loaded anew.

   inotify tells of every change below the folder, and next to it, since the folder itself may be a link that is
   switched to another release, or vanish and come back. An editor or an rsync makes many changes: the load begins when
   there was none for a moment. Where inotify does not work (a network file system), what the files look like is
   compared from time to time. Whether what was loaded differs from what runs is told by its hash, so a look too many
   does no harm. */
#include "private.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    QUIET_MS = 50,      /* no change for so long, and the load begins; */
    QUIET_MAX_MS = 500, /* at the latest so long after the first */
    LOOK_MS = 5000,     /* how often files are looked at without being told */
    DEPTH_MAX = 16,
    FOLDERS_MAX = 1000,
};

#define EVENTS                                                                                                         \
    (IN_CREATE | IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF |   \
     IN_MOVE_SELF)

/* What a look at the files gives. */
typedef struct look {
    int fd; /* inotify's, -1: do not watch */
    int folders;
    uint64_t sum; /* of the names, sizes, times and numbers of all files: differs when they do */
} look;

static void mix(look *l, const void *data, size_t len) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++) l->sum = (l->sum ^ bytes[i]) * UINT64_C(1099511628211); /* FNV-1a */
}

static void look_below(look *l, const char *dir, int depth);

static void look_at(look *l, const char *dir, const char *name, int depth) {
    char path[PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path || stat(path, &st) != 0) return;
    mix(l, name, strlen(name));
    if (S_ISDIR(st.st_mode)) {
        look_below(l, path, depth + 1);
        return;
    }
    mix(l, &st.st_size, sizeof st.st_size);
    mix(l, &st.st_mtim, sizeof st.st_mtim);
    mix(l, &st.st_ino, sizeof st.st_ino);
}

static void look_below(look *l, const char *dir, int depth) {
    if (depth > DEPTH_MAX || l->folders++ > FOLDERS_MAX) return;
    if (l->fd >= 0) inotify_add_watch(l->fd, dir, EVENTS);
    DIR *d = opendir(dir);
    if (!d) return;
    for (const struct dirent *entry; (entry = readdir(d)) != NULL;)
        if (entry->d_name[0] != '.') look_at(l, dir, entry->d_name, depth);
    closedir(d);
}

/* look_around looks at all there is, and watches it and the folder above. */
static uint64_t look_around(const char *dir, int fd) {
    look l = { .fd = fd, .sum = UINT64_C(14695981039346656037) };
    char above[PATH_MAX];
    snprintf(above, sizeof above, "%s", dir);
    char *slash = strrchr(above, '/');
    if (slash) *slash = '\0';
    if (fd >= 0) inotify_add_watch(fd, !slash ? "." : *above ? above : "/", EVENTS);
    look_below(&l, dir, 0);
    return l.sum;
}

/* wait_for_change waits so long for inotify to tell of something, and reads what it tells. */
static bool wait_for_change(int fd, int64_t ms) {
    char events[16384];
    int ready = 0;
    uint64_t until = td_now_ns() + (uint64_t)ms * 1000000;
    if (fd < 0) {
        (void)td_wait_until(until, NULL);
        return false;
    }
    if (td_wait_fd(fd, UV_READABLE, until, &ready, NULL) < 0) return false;
    while (read(fd, events, sizeof events) > 0) continue;
    return true;
}

/* The descriptor, owned by the fiber. */
typedef struct eye {
    td_hold hold;
    int fd;
} eye;

static void close_eye(td_hold *hold) {
    eye *e = td_container(hold, eye, hold);
    if (e->fd >= 0) close(e->fd);
    free(e);
}

void td_changes_fiber(void *arg) {
    td_keeper *k = arg;
    eye *e = calloc(1, sizeof *e);
    if (!e) return;
    e->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    td_hold_push(td_fiber_self(), &e->hold, close_eye);
    uint64_t sum = look_around(k->config.dir, e->fd);
    for (;;) {
        bool told = wait_for_change(e->fd, LOOK_MS);
        uint64_t first_ns = td_now_ns();
        while (told && td_now_ns() - first_ns < QUIET_MAX_MS * UINT64_C(1000000) && wait_for_change(e->fd, QUIET_MS))
            continue;
        uint64_t now = look_around(k->config.dir, e->fd);
        if (now == sum) continue;
        sum = now;
        td_reload_ask(k, 0);
    }
}
