/* smtp.c: the dialogue of RFC 5321 from MAIL to QUIT, one command and one reply at a time. */
#include "smtp.h"

#include <stdio.h>
#include <string.h>

/* How long to wait for the answer to QUIT, which nothing depends on. */
#define QUIT_NS UINT64_C(1000000000)

/* A dialogue. `reply` is the last line of the server's last reply; `input` what was read beyond it. */
typedef struct dialogue {
    CURL *easy;
    int fd;
    uint64_t deadline_ns;
    td_failure *failure;
    size_t have;
    char input[2048];
    char reply[1024];
} dialogue;

/* wait_for parks until the socket is ready. */
static int wait_for(dialogue *d, int events) {
    tidemill_error err;
    int rc = td_wait_fd(d->fd, events, d->deadline_ns, NULL, &err);
    if (rc == TIDEMILL_ETIMEOUT) return td_failure_set(d->failure, "timeout", "the mail server did not answer in time");
    return rc < 0 ? td_failure_error(d->failure, &err) : 0;
}

static int lost(dialogue *d) {
    return td_failure_set(d->failure, "io", "the connection to the mail server was lost");
}

static int put(dialogue *d, const char *data, size_t len) {
    while (len > 0) {
        size_t n = 0;
        CURLcode result = curl_easy_send(d->easy, data, len, &n);
        if (result == CURLE_AGAIN) {
            int rc = wait_for(d, UV_WRITABLE);
            if (rc < 0) return rc;
        } else if (result != CURLE_OK) {
            return lost(d);
        }
        data += n;
        len -= n;
    }
    return 0;
}

/* read_more reads what comes next, without regard to lines. */
static int read_more(dialogue *d) {
    size_t n = 0;
    if (d->have == sizeof d->input) return td_failure_set(d->failure, "io", "the mail server's reply is not SMTP");
    for (;;) {
        CURLcode result = curl_easy_recv(d->easy, d->input + d->have, sizeof d->input - d->have, &n);
        if (result == CURLE_OK && n > 0) break;
        if (result != CURLE_AGAIN) return lost(d);
        int rc = wait_for(d, UV_READABLE);
        if (rc < 0) return rc;
    }
    d->have += n;
    return 0;
}

/* read_line moves the next line into d->reply, without its end and made printable. */
static int read_line(dialogue *d) {
    char *end;
    while (!(end = memchr(d->input, '\n', d->have))) {
        int rc = read_more(d);
        if (rc < 0) return rc;
    }
    size_t whole = (size_t)(end - d->input) + 1, len = 0;
    for (size_t i = 0; i + 1 < whole && len + 1 < sizeof d->reply; i++) {
        unsigned char c = (unsigned char)d->input[i];
        if (c != '\r') d->reply[len++] = c >= ' ' && c < 127 ? (char)c : '?';
    }
    d->reply[len] = '\0';
    d->have -= whole;
    memmove(d->input, end + 1, d->have);
    return 0;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* read_reply reads a whole reply. Returns the first digit of its code, or -1. */
static int read_reply(dialogue *d) {
    for (;;) {
        int rc = read_line(d);
        if (rc < 0) return rc;
        const char *line = d->reply;
        if (!is_digit(line[0]) || !is_digit(line[1]) || !is_digit(line[2])) {
            return td_failure_set(d->failure, "io", "the mail server's reply is not SMTP: %.100s", line);
        }
        if (line[3] != '-') return line[0] - '0';
    }
}

/* ask sends data and wants a reply that begins with `wanted`; what names the request in the message. */
static int ask(dialogue *d, const char *data, size_t len, int wanted, const char *what) {
    int rc = put(d, data, len);
    if (rc == 0) rc = read_reply(d);
    if (rc < 0 || rc == wanted) return rc < 0 ? rc : 0;
    return td_failure_set(d->failure, "refused", "the mail server refused %s: %s", what, d->reply);
}

/* ask_path asks with an address. */
static int ask_path(dialogue *d, const char *command, const char *address, const char *role) {
    char line[512], what[400];
    int len = snprintf(line, sizeof line, "%s:<%s>\r\n", command, address);
    snprintf(what, sizeof what, "the %s %s", role, address);
    if (len < 0 || (size_t)len >= sizeof line) return td_failure_set(d->failure, "invalid", "%s is too long", what);
    return ask(d, line, (size_t)len, 2, what);
}

/* put_message sends the message and its end, and waits until the server has taken it. From the last line on, a lost
   connection or a late answer does not tell whether it has. */
static int put_message(dialogue *d, const td_envelope *e) {
    static const char end[] = ".\r\n";
    int rc = put(d, e->message, e->message_len);
    if (rc < 0) return rc;
    rc = ask(d, end, sizeof end - 1, 2, "the message");
    if (rc == 0 || strcmp(d->failure->code, "refused") == 0) return rc;
    return td_failure_set(
        d->failure, "outcome",
        "the mail server did not answer after the whole message was sent, so it may have been delivered");
}

/* say_goodbye ends the dialogue as the server expects it, whatever became of the message. */
static void say_goodbye(dialogue *d) {
    td_failure ignored;
    uint64_t latest_ns = td_now_ns() + QUIT_NS;
    d->failure = &ignored;
    if (d->deadline_ns > latest_ns) d->deadline_ns = latest_ns;
    (void)ask(d, "QUIT\r\n", 6, 2, "");
}

int td_smtp_send(td_transfer *transfer, const td_envelope *e, uint64_t deadline_ns, td_failure *failure) {
    dialogue d = { .easy = transfer->easy, .deadline_ns = deadline_ns, .failure = failure };
    curl_socket_t fd = CURL_SOCKET_BAD;
    curl_easy_getinfo(transfer->easy, CURLINFO_ACTIVESOCKET, &fd);
    if (fd == CURL_SOCKET_BAD) return lost(&d);
    d.fd = fd;
    int rc = ask_path(&d, "MAIL FROM", e->from, "sender");
    for (size_t i = 0; rc == 0 && i < e->to_count; i++) rc = ask_path(&d, "RCPT TO", e->to[i], "recipient");
    if (rc == 0) rc = ask(&d, "DATA\r\n", 6, 3, "to take a message");
    if (rc == 0) rc = put_message(&d, e);
    if (rc == 0 || strcmp(failure->code, "refused") == 0) say_goodbye(&d);
    return rc;
}
