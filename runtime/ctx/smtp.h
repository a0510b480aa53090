/* smtp.h: handing one message to a mail server, on a connection that libcurl has made.

   libcurl connects, encrypts and authenticates (CURLOPT_CONNECT_ONLY), but it does not send: after a message's last
   line, and after QUIT, its SMTP blocks the thread until the server answers. */
#ifndef TD_SMTP_H
#define TD_SMTP_H

#include "curl.h"

/* What to send: all of it must stay where it is meanwhile. */
typedef struct td_envelope {
    const char *from; /* addresses without <> */
    const char *const *to;
    size_t to_count;
    const char *message; /* lines of at most 998 bytes that end in CRLF, none of which begins with a dot */
    size_t message_len;
} td_envelope;

/* td_smtp_send sends a message through a transfer whose td_curl_perform succeeded, and parks until the server has taken
   it, for all its recipients or for none, or deadline_ns. Failures: refused (the server's code and text in the
   message), timeout, io, outcome (the connection was lost while the server was taking it: it may have been sent). */
int td_smtp_send(td_transfer *transfer, const td_envelope *envelope, uint64_t deadline_ns,
                 td_failure *failure) TD_MUST_CHECK;

#endif
