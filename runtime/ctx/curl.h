/* curl.h: libcurl on a thread's loop: any number of transfers at a time, each awaited by its fiber.

   A thread has one multi handle, made at its first transfer; libuv watches the sockets for it. Names are resolved by
   libcurl's own threads, of which each of ours has at most 32 at work. */
#ifndef TD_CURL_H
#define TD_CURL_H

#include "failure.h"

#include "../loop/loop.h"

#include <curl/curl.h>

/* One transfer. Embedded in a structure of the caller's, which `free_fn` frees with everything in it, by then without
   the transfer. The fiber owns it: when that is dropped, the transfer is ended. */
typedef struct td_transfer {
    td_hold hold;
    CURL *easy; /* for the caller to set up */
    void (*free_fn)(struct td_transfer *transfer);
    td_fiber *fiber;
    uint64_t deadline_ns; /* the caller's to set; none: UINT64_MAX */
    struct driver *driver;
    td_list queued; /* while it waits for others to begin */
    bool resolving;
    CURLM *multi; /* where easy was added, else NULL */
    bool done;
    CURLcode result;
    char text[CURL_ERROR_SIZE]; /* libcurl's words for a failure */
} td_transfer;

/* td_curl_begin gives the running fiber a zeroed transfer, with an easy handle that uses no signals and never blocks.
   Failure: memory; then the transfer was freed. */
int td_curl_begin(td_transfer *transfer, void (*free_fn)(td_transfer *transfer), td_failure *failure) TD_MUST_CHECK;

/* td_curl_start begins the transfer as its easy handle says. The fiber is woken when it is `done`; libcurl's callbacks
   run on the loop meanwhile, and may wake the fiber for what they have. */
void td_curl_start(td_transfer *transfer);

/* td_curl_result says what came of a transfer that is done. Failures: as td_curl_perform's. */
int td_curl_result(const td_transfer *transfer, td_failure *failure) TD_MUST_CHECK;

/* td_curl_perform runs the transfer as its easy handle says, and parks until it has ended; its result is kept. Then
   curl_easy_getinfo tells more, and curl_easy_send and _recv work if it was CURLOPT_CONNECT_ONLY.
   Failures: invalid, connect, timeout, tls, denied (of a user or password), limit (of redirects), memory, io; the
   message is in libcurl's words. */
int td_curl_perform(td_transfer *transfer, td_failure *failure) TD_MUST_CHECK;

/* td_curl_end takes the transfer back from its fiber, closes it and frees it. */
void td_curl_end(td_transfer *transfer);

#endif
