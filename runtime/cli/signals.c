/* signals.c: SIGTERM and SIGINT of a program that works until it is stopped. See signals.h. */
#include "signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* A second signal this soon is the first one again: Ctrl-C reaches the whole process group, and a parent such as
   timeout or npm then passes it on as well. */
#define SAME_NS 250000000u

struct td_signals {
    int fd;     /* the signals that came */
    int asked;  /* an event: a stop was asked for */
    int quit;   /* an event: the thread is to end */
    int reload; /* an event: a reload was asked for */
    bool hangup_stops;
    uint64_t asked_ns; /* when the first one came; 0: not yet */
    td_log log;
    pthread_t thread;
    pthread_mutex_t lock; /* guards call and arg */
    void (*call)(void *arg);
    void *arg;
};

/* end_at_once is the second signal's work. Does not return. */
static void end_at_once(td_signals *s) {
    pthread_mutex_lock(&s->lock);
    if (s->call) s->call(s->arg);
    td_logf(&s->log, TIDEMILL_WARN, "ended at once: jobs that were running are given to other workers");
    _exit(1);
}

/* take handles one signal that came. */
static void take(td_signals *s, int signal) {
    if (signal == SIGHUP && !s->hangup_stops) {
        eventfd_write(s->reload, 1);
        return;
    }
    if (s->asked_ns && td_now_ns() - s->asked_ns < SAME_NS) return;
    if (s->asked_ns) end_at_once(s);
    s->asked_ns = td_now_ns();
    td_logf(&s->log, TIDEMILL_INFO, "asked to stop; a second signal ends the process at once");
    eventfd_write(s->asked, 1);
}

/* watch is the thread: it takes signals until it is to quit. */
static void *watch(void *arg) {
    td_signals *s = arg;
    struct signalfd_siginfo info;
    for (;;) {
        struct pollfd fds[] = { { .fd = s->fd, .events = POLLIN }, { .fd = s->quit, .events = POLLIN } };
        if (poll(fds, 2, -1) < 0) continue;
        if (fds[1].revents) return NULL;
        if (read(s->fd, &info, sizeof info) == sizeof info) take(s, (int)info.ssi_signo);
    }
}

/* open_all makes the descriptors and the thread. Returns false with errno set. */
static bool open_all(td_signals *s, const sigset_t *set) {
    s->fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    s->asked = eventfd(0, EFD_CLOEXEC);
    s->quit = eventfd(0, EFD_CLOEXEC);
    s->reload = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->fd < 0 || s->asked < 0 || s->quit < 0 || s->reload < 0) return false;
    errno = pthread_create(&s->thread, NULL, watch, s);
    return errno == 0;
}

/* free_all closes and frees what open_all made. */
static void free_all(td_signals *s) {
    if (s->fd >= 0) close(s->fd);
    if (s->asked >= 0) close(s->asked);
    if (s->quit >= 0) close(s->quit);
    if (s->reload >= 0) close(s->reload);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int td_signals_start(bool hangup_stops, const td_log *log, td_signals **signals, tidemill_error *err) {
    td_signals *s = calloc(1, sizeof *s);
    if (!s) return td_error_memory(err);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    /* A reader of the log that went away must not end the worker. */
    signal(SIGPIPE, SIG_IGN);
    s->fd = s->asked = s->quit = s->reload = -1;
    s->hangup_stops = hangup_stops;
    s->log = *log;
    pthread_mutex_init(&s->lock, NULL);
    if (!open_all(s, &set)) {
        td_error_set(err, TIDEMILL_EIO, "the program could not get ready for signals: %s", strerror(errno));
        free_all(s);
        return TIDEMILL_EIO;
    }
    *signals = s;
    return 0;
}

void td_signals_at_once(td_signals *s, void (*call)(void *arg), void *arg) {
    pthread_mutex_lock(&s->lock);
    s->call = call;
    s->arg = arg;
    pthread_mutex_unlock(&s->lock);
}

int td_signals_fd(const td_signals *s) {
    return s->asked;
}

int td_signals_reload_fd(const td_signals *s) {
    return s->reload;
}

void td_signals_reload_taken(td_signals *s) {
    eventfd_t count;
    (void)!eventfd_read(s->reload, &count);
}

bool td_signals_asked(const td_signals *s) {
    struct pollfd fd = { .fd = s->asked, .events = POLLIN };
    return poll(&fd, 1, 0) > 0;
}

void td_signals_stop(td_signals *s) {
    if (!s) return;
    eventfd_write(s->quit, 1);
    pthread_join(s->thread, NULL);
    free_all(s);
}
