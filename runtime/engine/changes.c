/* changes.c: sees that the handlers' files have changed, and has them loaded anew.

   inotify tells of every change in the folder and below it; and of those links and folders on the way to it that may be
   switched to another release, vanish or come back: for these the folder that each lies in is watched, for its name
   only. An editor or an rsync makes many changes: the load begins when there was none for a moment. Where inotify does
   not work (a network file system), what the files look like is compared from time to time. Whether what was loaded
   differs from what runs is told by its hash, so a look too many does no harm. */
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
    STEPS_MAX = 64, /* links on the way to the folder */
};

#define EVENTS                                                                                                         \
    (IN_CREATE | IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF |   \
     IN_MOVE_SELF)
#define STEP_EVENTS (IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE)

/* A name in a folder, by which the handlers' folder is reached. */
typedef struct step {
    int watch;
    char name[NAME_MAX + 1];
} step;

/* What watches, owned by the fiber. */
typedef struct eye {
    td_hold hold;
    int fd;                   /* inotify's, -1: there is none */
    bool writing;             /* a file was written to and is not closed yet: what it holds may be half of it */
    int watches[FOLDERS_MAX]; /* of the handlers' folder and those below */
    int watches_count;
    step steps[STEPS_MAX];
    int steps_count;
} eye;

/* What a look at the files gives. */
typedef struct look {
    eye *eye;
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
    if (depth > DEPTH_MAX || l->folders++ >= FOLDERS_MAX) return;
    int watch = l->eye->fd < 0 ? -1 : inotify_add_watch(l->eye->fd, dir, EVENTS);
    if (watch >= 0) l->eye->watches[l->eye->watches_count++] = watch;
    DIR *d = opendir(dir);
    if (!d) return;
    for (const struct dirent *entry; (entry = readdir(d)) != NULL;)
        if (entry->d_name[0] != '.') look_at(l, dir, entry->d_name, depth);
    closedir(d);
}

/* is_watched says whether a watch is among the folders'. */
static bool is_watched(const eye *e, int watch) {
    for (int i = 0; i < e->watches_count; i++)
        if (e->watches[i] == watch) return true;
    return false;
}

/* add_step watches the folder in which a name of the path lies. path is cut there for the moment; name begins in it. */
static void add_step(eye *e, char *path, char *name) {
    step *s = &e->steps[e->steps_count];
    char first = *name;
    if (e->fd < 0 || e->steps_count == STEPS_MAX || strlen(name) > NAME_MAX) return;
    strcpy(s->name, name);
    *name = '\0';
    s->watch = inotify_add_watch(e->fd, *path ? path : ".", STEP_EVENTS | IN_MASK_ADD);
    *name = first;
    if (s->watch >= 0) e->steps_count++;
}

/* add_steps watches for each link on the way to the folder, and for the folder itself. */
static void add_steps(eye *e, const char *dir) {
    char path[PATH_MAX];
    struct stat st;
    size_t len = strlen(dir);
    if (len >= sizeof path) return;
    memcpy(path, dir, len + 1);
    while (len > 1 && path[len - 1] == '/') path[--len] = '\0';
    for (char *name = path, *end; *name; name = end) {
        name += strspn(name, "/");
        end = name + strcspn(name, "/");
        char after = *end;
        *end = '\0';
        if (*name && (!after || (lstat(path, &st) == 0 && S_ISLNK(st.st_mode)))) add_step(e, path, name);
        *end = after;
    }
}

/* forget ends the watches that are not needed any more. */
static void forget(const eye *e, const int *watches, int count) {
    for (int i = 0; i < count; i++) {
        bool needed = is_watched(e, watches[i]);
        for (int j = 0; j < e->steps_count; j++) needed = needed || e->steps[j].watch == watches[i];
        if (!needed) inotify_rm_watch(e->fd, watches[i]);
    }
}

/* look_around looks at all there is, and watches it and the way to it. */
static uint64_t look_around(eye *e, const char *dir) {
    look l = { .eye = e, .sum = UINT64_C(14695981039346656037) };
    int former[FOLDERS_MAX + STEPS_MAX], count = 0;
    for (int i = 0; i < e->watches_count; i++) former[count++] = e->watches[i];
    for (int i = 0; i < e->steps_count; i++) former[count++] = e->steps[i].watch;
    e->watches_count = e->steps_count = 0;
    look_below(&l, dir, 0);
    add_steps(e, dir);
    forget(e, former, count);
    return l.sum;
}

/* concerns says whether an event is about the handlers. */
static bool concerns(const eye *e, const struct inotify_event *event) {
    if (event->mask & IN_Q_OVERFLOW || is_watched(e, event->wd)) return true;
    for (int i = 0; i < e->steps_count; i++)
        if (e->steps[i].watch == event->wd && event->len > 0 && strcmp(e->steps[i].name, event->name) == 0) return true;
    return false;
}

/* note_writing notes whether somebody is in the middle of writing. */
static void note_writing(eye *e, const struct inotify_event *event) {
    if (event->mask & IN_MODIFY) e->writing = true;
    if (event->mask & (IN_CLOSE_WRITE | IN_DELETE | IN_MOVED_FROM)) e->writing = false;
}

/* read_events reads what inotify tells. Returns whether any of it concerns the handlers. */
static bool read_events(eye *e) {
    char events[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool any = false;
    for (ssize_t n; (n = read(e->fd, events, sizeof events)) > 0;) {
        for (const char *at = events; at < events + n;) {
            const struct inotify_event *event = (const void *)at;
            at += sizeof *event + event->len;
            if (!concerns(e, event)) continue;
            note_writing(e, event);
            any = true;
        }
    }
    return any;
}

/* wait_for_change waits so long for inotify to tell of something. */
static bool wait_for_change(eye *e, int64_t ms) {
    int ready = 0;
    uint64_t until = td_now_ns() + (uint64_t)ms * 1000000;
    if (e->fd < 0) {
        (void)td_wait_until(until, NULL);
        return false;
    }
    while (td_wait_fd(e->fd, UV_READABLE, until, &ready, NULL) == 0)
        if (read_events(e)) return true;
    return false;
}

/* wait_for_quiet waits until there was no change for a moment, and nobody writes. Returns false when that took too
   long. */
static bool wait_for_quiet(eye *e) {
    uint64_t now = td_now_ns(), end_ns = now + QUIET_MAX_MS * UINT64_C(1000000);
    for (; now < end_ns; now = td_now_ns()) {
        int64_t left_ms = (int64_t)((end_ns - now) / 1000000) + 1;
        if (!wait_for_change(e, e->writing ? left_ms : QUIET_MS)) break;
    }
    bool quiet = now < end_ns && !e->writing;
    e->writing = false;
    return quiet;
}

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
    uint64_t sum = look_around(e, k->config.dir);
    td_reload_changed(k); /* for what changed since the files were read first */
    for (;;) {
        bool quiet = !wait_for_change(e, LOOK_MS) || wait_for_quiet(e);
        uint64_t now = look_around(e, k->config.dir);
        if (now == sum) continue;
        /* Two changes in one tick of the file system's clock can look the same. */
        sum = quiet ? now : 0;
        td_reload_changed(k);
    }
}
