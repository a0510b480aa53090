/* curl.c: the multi interface: libcurl says which sockets and what time to wait for, and is told what came.

   libcurl starts an OS thread for each name that is to be resolved. So a transfer waits in a queue until less than
   RESOLVING_MAX others are between their start and their first socket, or their first request on a connection that is
   used again: both are moments away where no name server is asked. */
#include "curl.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    IDLE_MAX = 64,      /* connections that a thread keeps for later transfers */
    RESOLVING_MAX = 32, /* transfers of a thread that may be asking for a name at a time */
    SWEEP_MS = 20,      /* how often the queue is looked through for transfers whose time is over */
};

/* A thread's libcurl. */
typedef struct driver {
    CURLM *multi;
    uv_loop_t *loop;
    uv_timer_t timer, sweep; /* sweep: active while there is a queue */
    td_list queue;           /* transfers that are not added yet */
    int resolving;
    int handles; /* of the two timers, that are not closed yet */
} driver;

/* A socket that libcurl waits for. */
typedef struct watch {
    uv_poll_t poll;
    driver *driver;
    curl_socket_t socket;
} watch;

static const char driver_key;

/* ---- The queue ---- */

/* resolved notes that a transfer asks for no name any more. */
static void resolved(td_transfer *transfer) {
    driver *d = transfer->driver;
    if (transfer->resolving) d->resolving--;
    transfer->resolving = false;
}

/* finish ends a transfer that libcurl has no part in. */
static void finish(td_transfer *transfer, CURLcode result) {
    td_list_remove(&transfer->queued);
    transfer->done = true;
    transfer->result = result;
    td_fiber_wake(transfer->fiber);
}

/* add hands a transfer to libcurl, with the time that is left of it. */
static void add(driver *d, td_transfer *transfer) {
    uint64_t now = td_now_ns();
    if (transfer->deadline_ns <= now) {
        finish(transfer, CURLE_OPERATION_TIMEDOUT);
        return;
    }
    if (transfer->deadline_ns < UINT64_MAX) {
        long left_ms = (long)((transfer->deadline_ns - now + 999999) / 1000000);
        curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, left_ms);
        curl_easy_setopt(transfer->easy, CURLOPT_CONNECTTIMEOUT_MS, left_ms);
    }
    CURLMcode added = curl_multi_add_handle(d->multi, transfer->easy);
    if (added != CURLM_OK) {
        finish(transfer, added == CURLM_OUT_OF_MEMORY ? CURLE_OUT_OF_MEMORY : CURLE_FAILED_INIT);
        return;
    }
    transfer->multi = d->multi;
    transfer->resolving = true;
    d->resolving++;
}

/* admit adds transfers from the queue. Not from libcurl's callbacks. */
static void admit(driver *d) {
    while (d->resolving < RESOLVING_MAX) {
        td_list *first = td_list_shift(&d->queue);
        if (!first) break;
        add(d, td_container(first, td_transfer, queued));
    }
    if (td_list_empty(&d->queue)) uv_timer_stop(&d->sweep);
}

static void on_sweep(uv_timer_t *timer) {
    driver *d = timer->data;
    uint64_t now = td_now_ns();
    for (td_list *node = d->queue.next, *next; node != &d->queue; node = next) {
        td_transfer *transfer = td_container(node, td_transfer, queued);
        next = node->next;
        if (transfer->deadline_ns <= now) finish(transfer, CURLE_OPERATION_TIMEDOUT);
    }
}

/* open_socket is libcurl's CURLOPT_OPENSOCKETFUNCTION: it has an address to connect to. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address) {
    (void)purpose;
    resolved(arg);
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* on_request is libcurl's CURLOPT_PREREQFUNCTION: it has a connection. */
static int on_request(void *arg, char *remote, char *local, int remote_port, int local_port) {
    (void)remote;
    (void)local;
    (void)remote_port;
    (void)local_port;
    resolved(arg);
    return CURL_PREREQFUNC_OK;
}

/* ---- What came ---- */

/* collect wakes the fibers whose transfers have ended, and begins others. */
static void collect(driver *d) {
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(d->multi, &left));) {
        char *private = NULL;
        if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private) != CURLE_OK)
            continue;
        td_transfer *transfer = (td_transfer *)(void *)private;
        transfer->done = true;
        transfer->result = m->data.result;
        resolved(transfer);
        td_fiber_wake(transfer->fiber);
    }
    admit(d);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
    watch *w = poll->data;
    driver *d = w->driver; /* w may be closed by libcurl in this call */
    int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;
    if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(d->multi, w->socket, flags, &running);
    collect(d);
}

static void on_time(uv_timer_t *timer) {
    driver *d = timer->data;
    int running;
    curl_multi_socket_action(d->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(d);
}

/* ---- What to wait for ---- */

static void watch_closed(uv_handle_t *handle) {
    free(handle->data);
}

/* watch_new begins to watch a socket. NULL on failure. */
static watch *watch_new(driver *d, curl_socket_t socket) {
    watch *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->poll.data = w;
    w->driver = d;
    w->socket = socket;
    if (uv_poll_init_socket(d->loop, &w->poll, socket) == 0) {
        curl_multi_assign(d->multi, socket, w);
        return w;
    }
    free(w);
    return NULL;
}

/* set_socket is libcurl's CURLMOPT_SOCKETFUNCTION. */
static int set_socket(CURL *easy, curl_socket_t socket, int what, void *arg, void *known) {
    driver *d = arg;
    watch *w = known;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (!w) return 0;
        curl_multi_assign(d->multi, socket, NULL);
        uv_close((uv_handle_t *)&w->poll, watch_closed);
        return 0;
    }
    if (!w) w = watch_new(d, socket);
    if (!w) return -1; /* libcurl then fails the transfer */
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&w->poll, events, on_ready) < 0 ? -1 : 0;
}

/* set_timer is libcurl's CURLMOPT_TIMERFUNCTION. */
static int set_timer(CURLM *multi, long timeout_ms, void *arg) {
    driver *d = arg;
    (void)multi;
    if (timeout_ms < 0) {
        uv_timer_stop(&d->timer);
        return 0;
    }
    uv_update_time(d->loop);
    return uv_timer_start(&d->timer, on_time, (uint64_t)timeout_ms, 0) < 0 ? -1 : 0;
}

/* ---- A thread's driver ---- */

static void timer_closed(uv_handle_t *timer) {
    driver *d = timer->data;
    if (--d->handles == 0) free(d);
}

static void driver_free(void *arg) {
    driver *d = arg;
    curl_multi_cleanup(d->multi);
    uv_close((uv_handle_t *)&d->timer, timer_closed);
    uv_close((uv_handle_t *)&d->sweep, timer_closed);
}

static void init_library(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* driver_new makes this thread's driver. */
static driver *driver_new(td_thread *thread) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_library);
    driver *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->loop = td_thread_loop(thread);
    d->multi = curl_multi_init();
    if (!d->multi) {
        free(d);
        return NULL;
    }
    uv_timer_init(d->loop, &d->timer); /* cannot fail */
    uv_timer_init(d->loop, &d->sweep);
    d->timer.data = d->sweep.data = d;
    d->handles = 2;
    td_list_init(&d->queue);
    curl_multi_setopt(d->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(d->multi, CURLMOPT_SOCKETDATA, d);
    curl_multi_setopt(d->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(d->multi, CURLMOPT_TIMERDATA, d);
    curl_multi_setopt(d->multi, CURLMOPT_MAXCONNECTS, (long)IDLE_MAX);
    if (td_thread_set_local(thread, &driver_key, d, driver_free) == 0) return d;
    driver_free(d);
    return NULL;
}

/* driver_get returns this thread's driver; NULL without memory. */
static driver *driver_get(void) {
    td_thread *thread = td_thread_self();
    driver *d = td_thread_local(thread, &driver_key);
    return d ? d : driver_new(thread);
}

/* ---- Transfers ---- */

/* discard frees a transfer that no fiber owns. */
static void discard(td_transfer *transfer) {
    td_list_remove(&transfer->queued);
    if (transfer->multi) curl_multi_remove_handle(transfer->multi, transfer->easy);
    if (transfer->driver) resolved(transfer);
    curl_easy_cleanup(transfer->easy);
    transfer->easy = NULL;
    if (transfer->driver) admit(transfer->driver);
    transfer->free_fn(transfer);
}

static void release(td_hold *hold) {
    discard(td_container(hold, td_transfer, hold));
}

int td_curl_begin(td_transfer *transfer, void (*free_fn)(td_transfer *transfer), td_failure *failure) {
    transfer->free_fn = free_fn;
    transfer->fiber = td_fiber_self();
    transfer->deadline_ns = UINT64_MAX;
    transfer->driver = driver_get();
    if (transfer->driver) transfer->easy = curl_easy_init();
    if (!transfer->easy) {
        discard(transfer);
        return td_failure_memory(failure);
    }
    curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(transfer->easy, CURLOPT_QUICK_EXIT,
                     1L); /* else it is joined with the thread that resolves a name */
    curl_easy_setopt(transfer->easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(transfer->easy, CURLOPT_OPENSOCKETDATA, (void *)transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(transfer->easy, CURLOPT_PREREQDATA, (void *)transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, (void *)transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_ERRORBUFFER, transfer->text);
    td_hold_push(transfer->fiber, &transfer->hold, release);
    return 0;
}

/* code_of is the code that handlers see. */
static const char *code_of(CURLcode result) {
    switch (result) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return "invalid";
    case CURLE_OUT_OF_MEMORY:
        return "memory";
    case CURLE_TOO_MANY_REDIRECTS:
        return "limit";
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return "connect";
    case CURLE_OPERATION_TIMEDOUT:
        return "timeout";
    case CURLE_LOGIN_DENIED:
    case CURLE_AUTH_ERROR:
        return "denied";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_USE_SSL_FAILED:
        return "tls";
    default:
        return "io";
    }
}

void td_curl_start(td_transfer *transfer) {
    driver *d = transfer->driver;
    td_list_push(&d->queue, &transfer->queued);
    if (!uv_is_active((uv_handle_t *)&d->sweep)) uv_timer_start(&d->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    admit(d);
}

int td_curl_result(const td_transfer *transfer, td_failure *failure) {
    if (transfer->result == CURLE_OK) return 0;
    const char *text = transfer->text[0] ? transfer->text : curl_easy_strerror(transfer->result);
    return td_failure_set(failure, code_of(transfer->result), "%s", text);
}

int td_curl_perform(td_transfer *transfer, td_failure *failure) {
    td_curl_start(transfer);
    while (!transfer->done) td_fiber_park();
    return td_curl_result(transfer, failure);
}

void td_curl_end(td_transfer *transfer) {
    td_hold_take(&transfer->hold);
    discard(transfer);
}
