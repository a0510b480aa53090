/* thread.c: an OS thread with a libuv loop, its mailbox, and objects of the layers above. */
#include "private.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An object that a layer above keeps with the thread. */
struct td_local {
    struct td_local *next;
    const void *key;
    void *object;
    td_call_fn *free_fn;
};

/* Initial-exec: a signal handler may ask for it, where the general model could allocate. */
static _Thread_local td_thread *self_thread __attribute__((tls_model("initial-exec")));

/* Not inlined, so that no caller keeps the variable's address across a switch. */
__attribute__((noinline)) td_thread *td_thread_self(void) {
    __asm__ volatile("");
    return self_thread;
}

uv_loop_t *td_thread_loop(td_thread *thread) {
    return &thread->loop;
}

/* ---- The mailbox ---- */

int td_thread_post(td_thread *thread, td_call_fn *fn, void *arg) {
    td_mailbox *box = &thread->mailbox;
    int rc = TIDEMILL_EMEMORY;
    td_nopreempt_enter();
    td_post *post = malloc(sizeof *post);
    if (!post) goto out;
    *post = (td_post){ .fn = fn, .arg = arg };
    pthread_mutex_lock(&box->mutex);
    rc = box->closed ? TIDEMILL_ESTATE : 0;
    if (rc == 0) {
        *box->tail = post;
        box->tail = &post->next;
        uv_async_send(&thread->mail); /* inside the lock: the handle is closed only once the box is */
    }
    pthread_mutex_unlock(&box->mutex);
    if (rc) free(post);
out:
    td_nopreempt_leave();
    return rc;
}

/* take_posts empties the mailbox and returns what was in it. *stopping tells whether the thread is to end. */
static td_post *take_posts(td_mailbox *box, bool *stopping) {
    pthread_mutex_lock(&box->mutex);
    td_post *posts = box->first;
    box->first = NULL;
    box->tail = &box->first;
    *stopping = box->stopping;
    pthread_mutex_unlock(&box->mutex);
    return posts;
}

/* run_posts runs what was posted, and what that posts. Returns whether the thread is to end. */
static bool run_posts(td_thread *thread, bool again) {
    bool stopping;
    td_post *post = take_posts(&thread->mailbox, &stopping);
    if (post) td_switch_clock(thread);
    while (post) {
        td_post *next = post->next;
        post->fn(post->arg);
        free(post);
        post = next;
        if (!post && again) post = take_posts(&thread->mailbox, &stopping);
    }
    return stopping;
}

/* on_mail runs one batch of posts: those posted meanwhile ring again, after a turn of I/O and fibers. */
static void on_mail(uv_async_t *async) {
    td_thread *thread = async->data;
    if (run_posts(thread, false)) uv_stop(&thread->loop);
}

/* ---- Locals ---- */

/* find_local returns where the pointer to the key's slot is, or where the list ends. */
static td_local **find_local(td_thread *thread, const void *key) {
    td_local **at = &thread->locals;
    while (*at && (*at)->key != key) at = &(*at)->next;
    return at;
}

void *td_thread_local(td_thread *thread, const void *key) {
    td_local *local = *find_local(thread, key);
    return local ? local->object : NULL;
}

int td_thread_set_local(td_thread *thread, const void *key, void *object, td_call_fn *free_fn) {
    td_local **at = find_local(thread, key), *local = *at;
    td_nopreempt_enter();
    if (local) *at = local->next;
    if (!local && object) local = malloc(sizeof *local);
    int rc = object && !local ? TIDEMILL_EMEMORY : 0;
    if (object && local) {
        *local = (td_local){ .next = thread->locals, .key = key, .object = object, .free_fn = free_fn };
        thread->locals = local;
    } else {
        free(local);
    }
    td_nopreempt_leave();
    return rc;
}

/* free_locals frees the objects, the last set first. */
static void free_locals(td_thread *thread) {
    for (td_local *local; (local = thread->locals);) {
        thread->locals = local->next;
        if (local->free_fn) local->free_fn(local->object);
        free(local);
    }
}

/* ---- The end ---- */

/* close_handle closes a handle that nobody has closed. */
static void close_handle(uv_handle_t *handle, void *arg) {
    (void)arg;
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

/* close_loop closes every handle, lets their close functions run, and closes the loop. */
static void close_loop(uv_loop_t *loop) {
    uv_walk(loop, close_handle, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(loop);
    assert(rc == 0);
    (void)rc;
}

/* close_mailbox refuses posts from now on. Returns false, and does nothing, when there are some still. */
static bool close_mailbox(td_mailbox *box) {
    pthread_mutex_lock(&box->mutex);
    box->closed = !box->first;
    pthread_mutex_unlock(&box->mutex);
    return box->closed;
}

/* wind_up runs the last posts, drops the fibers and frees the locals, until none of that brings forth more. */
static void wind_up(td_thread *thread) {
    do {
        run_posts(thread, true);
        while (!td_list_empty(&thread->fibers)) td_fiber_drop(td_container(thread->fibers.prev, td_fiber, all));
        free_locals(thread);
    } while (!td_list_empty(&thread->fibers) || thread->locals || !close_mailbox(&thread->mailbox));
    close_loop(&thread->loop);
    td_sleepers_fini(&thread->sleepers);
    td_stack_fini(&thread->stacks);
}

/* ---- The beginning ---- */

/* thread_free frees a thread whose loop is closed. */
static void thread_free(td_thread *thread) {
    td_watch_unref(atomic_load(&thread->watch));
    pthread_mutex_destroy(&thread->mailbox.mutex);
    free(thread);
}

/* thread_main is the OS thread. */
static void *thread_main(void *arg) {
    td_thread *thread = arg;
    self_thread = thread;
    pthread_setname_np(pthread_self(), thread->name);
    thread->os_id = (int)gettid();
    td_preempt_thread_open(thread);
    uv_run(&thread->loop, UV_RUN_DEFAULT);
    wind_up(thread);
    td_preempt_thread_close(thread);
    self_thread = NULL;
    if (thread->abandoned) thread_free(thread);
    return NULL;
}

/* block_signals leaves to this thread, and to those it starts, the signals that its own faults raise, SIGURG, by which
   fibers are preempted, and SIGCHLD, which libuv must hear of wherever the others block it. The program's signals are
   for its own threads; and SIGPIPE, blocked, is an error code of the write. */
static void block_signals(sigset_t *old) {
    static const int wanted[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGCHLD, SIGURG };
    sigset_t blocked;
    sigfillset(&blocked);
    for (size_t i = 0; i < TD_COUNT(wanted); i++) sigdelset(&blocked, wanted[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, old);
}

/* os_start starts the OS thread. Returns 0 or an errno code. */
static int os_start(td_thread *thread) {
    sigset_t old;
    block_signals(&old);
    int rc = pthread_create(&thread->os, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

int td_thread_start(td_thread **out, const char *name, tidemill_error *err) {
    td_thread *thread = calloc(1, sizeof *thread);
    if (!thread) return td_error_memory(err);
    strncpy(thread->name, name, sizeof thread->name - 1);
    thread->mailbox.tail = &thread->mailbox.first;
    td_list_init(&thread->fibers);
    pthread_mutex_init(&thread->mailbox.mutex, NULL);
    int rc = uv_loop_init(&thread->loop);
    bool loop = rc == 0;
    if (rc == 0) td_schedule_init(thread);
    if (rc == 0) rc = uv_async_init(&thread->loop, &thread->mail, on_mail);
    thread->mail.data = thread;
    if (rc == 0) rc = uv_translate_sys_error(os_start(thread));
    if (rc == 0) {
        *out = thread;
        return 0;
    }
    if (loop) close_loop(&thread->loop);
    thread_free(thread);
    if (rc == UV_ENOMEM) return td_error_memory(err);
    return td_error_set(err, TIDEMILL_EIO, "a thread could not be started: %s", uv_strerror(rc));
}

static void ask_to_stop(td_thread *thread, bool abandon) {
    pthread_mutex_lock(&thread->mailbox.mutex);
    thread->abandoned = abandon;
    thread->mailbox.stopping = true;
    uv_async_send(&thread->mail);
    pthread_mutex_unlock(&thread->mailbox.mutex);
}

void td_thread_abandon(td_thread *thread) {
    pthread_detach(thread->os);
    ask_to_stop(thread, true);
}

void td_thread_stop(td_thread *thread) {
    if (!thread) return;
    assert(thread != td_thread_self());
    ask_to_stop(thread, false);
    pthread_join(thread->os, NULL);
    thread_free(thread);
}
