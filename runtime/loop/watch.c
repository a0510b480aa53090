/* watch.c: the watcher: a thread that sees which fibers run for too long, and signals their threads. See preempt.h.

   It looks every half quantum while any of its threads runs a fiber. When none has run one for a while it sleeps, until
   td_watch_awake: the flag `asleep` is checked at each switch to a fiber, and only the first one after a sleep pays for
   waking it. */
#include "private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_NS    (TD_QUANTUM_MS * 1000000 / 2)
#define IDLE_LOOKS 40 /* so many looks at nothing, and it sleeps */
#define NS_PER_MS  UINT64_C(1000000)

typedef struct watched {
    struct watched *next;
    td_thread *thread;
    td_stuck_fn *stuck; /* NULL: nobody is told */
    void *arg;
    uint64_t quantum_ns, stuck_ms;
    uint64_t looked_ns, look_cpu_ns; /* when it was last looked at, and the thread's processor time then */
    uint64_t spell_ns;               /* which run was looked at last, by its beginning */
    uint64_t told_ms;                /* of the spell: how long it had been when stuck was last called */
    uint64_t cpu_ns;                 /* of the thread, when the spell was first seen to be long */
} watched;

struct td_watch {
    pthread_t os;
    pthread_mutex_t mutex; /* of all below but asleep, which is also read without */
    pthread_cond_t awake;
    watched *first;
    bool stopping;
    _Atomic bool asleep;
    atomic_uint refs; /* the owner's, and one for each thread, which looks at it until its own end */
};

/* cpu_of returns how much processor time a thread has had. */
static uint64_t cpu_of(const td_thread *thread) {
    clockid_t clock;
    struct timespec t;
    if (pthread_getcpuclockid(thread->os, &clock) != 0 || clock_gettime(clock, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* sleeps says whether a thread is in a system call that does not return. */
static bool sleeps(const td_thread *thread) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread->os_id);
    FILE *file = fopen(path, "r");
    size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) fclose(file);
    text[n] = '\0';
    const char *end = strrchr(text, ')');
    return end && (end[2] == 'S' || end[2] == 'D');
}

/* computes says whether a thread has used its processor since it was last looked at: cheap, where sleeps is not. */
static bool computes(watched *w, uint64_t now_ns) {
    uint64_t cpu_ns = cpu_of(w->thread), used_ns = cpu_ns - w->look_cpu_ns, past_ns = now_ns - w->looked_ns;
    w->look_cpu_ns = cpu_ns;
    w->looked_ns = now_ns;
    return used_ns >= past_ns / 2;
}

/* kept_ms returns for how long a thread was kept from its loop since a time: by computing, which counts as it has had a
   processor for it, or in a system call. */
static uint64_t kept_ms(const watched *w, uint64_t since_ns, uint64_t now_ns) {
    uint64_t computed_ms = (w->look_cpu_ns - w->cpu_ns + w->quantum_ns) / NS_PER_MS;
    uint64_t past_ms = (now_ns - since_ns) / NS_PER_MS;
    if (computed_ms >= w->told_ms + w->stuck_ms || past_ms < w->told_ms + w->stuck_ms) return computed_ms;
    return sleeps(w->thread) ? past_ms : computed_ms;
}

/* tell calls stuck when it is time to. */
static void tell(watched *w, uint64_t since_ns, uint64_t now_ns) {
    if (since_ns != w->spell_ns) {
        w->spell_ns = since_ns;
        w->told_ms = 0;
        w->cpu_ns = w->look_cpu_ns;
    }
    uint64_t ms = kept_ms(w, since_ns, now_ns);
    if (ms < w->told_ms + w->stuck_ms) return;
    w->told_ms = ms;
    w->stuck(w->arg, atomic_load_explicit(&w->thread->run_tag, memory_order_relaxed), ms);
}

/* look_at signals a thread whose fiber has run for a quantum. Returns whether it runs one. A thread that sleeps in a
   system call runs no Lua: to interrupt it would only make that call fail. */
static bool look_at(watched *w, uint64_t now_ns) {
    uint64_t since_ns = atomic_load_explicit(&w->thread->run_since_ns, memory_order_acquire);
    if (since_ns == 0) return false;
    bool busy = computes(w, now_ns);
    if (now_ns < since_ns + w->quantum_ns) return true;
    if (busy || !sleeps(w->thread)) pthread_kill(w->thread->os, SIGURG);
    if (w->stuck) tell(w, since_ns, now_ns);
    return true;
}

static void nap(void) {
    nanosleep(&(struct timespec){ .tv_nsec = LOOK_NS }, NULL);
}

/* sleep_until_awake waits for td_watch_awake, or the end. Under the mutex. */
static void sleep_until_awake(td_watch *watch) {
    atomic_store(&watch->asleep, true);
    /* Who switched just before that did not see it. */
    for (watched *w = watch->first; w; w = w->next)
        if (atomic_load(&w->thread->run_since_ns) != 0) atomic_store(&watch->asleep, false);
    while (atomic_load(&watch->asleep) && !watch->stopping) pthread_cond_wait(&watch->awake, &watch->mutex);
    atomic_store(&watch->asleep, false);
}

static void *watch_main(void *arg) {
    td_watch *watch = arg;
    int idle = 0;
    pthread_setname_np(pthread_self(), "td-watch");
    pthread_mutex_lock(&watch->mutex);
    while (!watch->stopping) {
        uint64_t now_ns = td_now_ns();
        bool busy = false;
        for (watched *w = watch->first; w; w = w->next) busy |= look_at(w, now_ns);
        idle = busy ? 0 : idle + 1;
        if (idle >= IDLE_LOOKS) {
            sleep_until_awake(watch);
            idle = 0;
            continue;
        }
        pthread_mutex_unlock(&watch->mutex);
        nap();
        pthread_mutex_lock(&watch->mutex);
    }
    pthread_mutex_unlock(&watch->mutex);
    return NULL;
}

/* wake_up is the rare part of td_watch_awake. */
static void wake_up(td_watch *watch) {
    pthread_mutex_lock(&watch->mutex);
    atomic_store(&watch->asleep, false);
    pthread_cond_signal(&watch->awake);
    pthread_mutex_unlock(&watch->mutex);
}

void td_watch_awake(td_watch *watch) {
    if (atomic_load(&watch->asleep)) wake_up(watch);
}

void td_watch_unref(td_watch *watch) {
    if (!watch || atomic_fetch_sub(&watch->refs, 1) != 1) return;
    pthread_cond_destroy(&watch->awake);
    pthread_mutex_destroy(&watch->mutex);
    free(watch);
}

int td_watch_start(td_watch **out, tidemill_error *err) {
    sigset_t all, old;
    td_watch *watch = calloc(1, sizeof *watch);
    if (!watch) return td_error_memory(err);
    pthread_mutex_init(&watch->mutex, NULL);
    pthread_cond_init(&watch->awake, NULL);
    atomic_init(&watch->refs, 1);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&watch->os, NULL, watch_main, watch);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0) {
        *out = watch;
        return 0;
    }
    td_watch_unref(watch);
    return td_error_set(err, TIDEMILL_EIO, "a thread could not be started: %s",
                        uv_strerror(uv_translate_sys_error(rc)));
}

int td_watch_add(td_watch *watch, td_thread *thread, uint64_t quantum_ms, uint64_t stuck_ms, td_stuck_fn *stuck,
                 void *arg) {
    watched *w = calloc(1, sizeof *w);
    if (!w) return TIDEMILL_EMEMORY;
    *w = (watched){
        .thread = thread, .quantum_ns = quantum_ms * NS_PER_MS, .stuck_ms = stuck_ms, .stuck = stuck, .arg = arg
    };
    pthread_mutex_lock(&watch->mutex);
    w->next = watch->first;
    watch->first = w;
    pthread_mutex_unlock(&watch->mutex);
    if (atomic_exchange(&thread->watch, watch) != watch) atomic_fetch_add(&watch->refs, 1);
    wake_up(watch);
    return 0;
}

void td_watch_remove(td_watch *watch, td_thread *thread) {
    pthread_mutex_lock(&watch->mutex);
    for (watched **at = &watch->first; *at; at = &(*at)->next) {
        watched *w = *at;
        if (w->thread != thread) continue;
        *at = w->next;
        free(w);
        break;
    }
    pthread_mutex_unlock(&watch->mutex);
}

void td_watch_stop(td_watch *watch) {
    if (!watch) return;
    pthread_mutex_lock(&watch->mutex);
    watch->stopping = true;
    pthread_cond_signal(&watch->awake);
    pthread_mutex_unlock(&watch->mutex);
    pthread_join(watch->os, NULL);
    while (watch->first) {
        watched *w = watch->first;
        watch->first = w->next;
        free(w);
    }
    td_watch_unref(watch);
}
