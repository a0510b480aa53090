/* mail.c: tidemill.mail: send(options) sends one mail through an SMTP server.

   What a call holds is a mail, which the fiber owns by way of its transfer. It is filled in by `build`, a protected
   call, because reading Lua's tables may raise. */
#include "libs.h"

#include "letter.h"
#include "smtp.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TIMEOUT_DEFAULT_S = 30 };
#define TIMEOUT_MAX_S 86400.0
#define SEND          "tidemill.mail.send"

typedef struct mail {
    td_transfer transfer;
    td_letter letter;
    double timeout_s;
} mail;

static void mail_free(td_transfer *transfer) {
    mail *m = td_container(transfer, mail, transfer);
    td_letter_fini(&m->letter);
    free(m);
}

/* ---- Options: each function returns 0, or -1 with the letter's failure set ---- */

enum { MAIL = 1, OPTIONS = 2 };

static int check_names(lua_State *L, mail *m) {
    static const char *const names[] = { "url",     "username", "password", "tls",     "ca_file",     "verify",
                                         "timeout", "from",     "to",       "cc",      "bcc",         "reply_to",
                                         "subject", "text",     "html",     "headers", "attachments", NULL };
    const char *name = td_failure_unknown(L, OPTIONS, names);
    if (!name) return 0;
    const char *nearest = td_nearest(name, names);
    return td_failure_set(&m->letter.failure, "invalid", "%.60s: there is no such option; %s%s", name,
                          nearest ? "did you mean " : "give url, from, to, subject, text, html, ...",
                          nearest ? nearest : "");
}

static int read_timeout(lua_State *L, mail *m) {
    int type = td_letter_option(L, OPTIONS, "timeout");
    m->timeout_s = type == LUA_TNIL ? TIMEOUT_DEFAULT_S : type == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
    if (m->timeout_s > 0 && m->timeout_s <= TIMEOUT_MAX_S) return 0;
    return td_failure_set(&m->letter.failure, "invalid",
                          "timeout: %s is not allowed; give a number of seconds from 0 to a day",
                          luaL_tolstring(L, -1, NULL));
}

/* read_tls decides about encryption. A password is sent over an encrypted connection only, unless the option says
   otherwise: whoever is in between could take the server's offer of STARTTLS out. */
static int read_tls(lua_State *L, mail *m, bool secret) {
    static const char *const names[] = { "required", "allowed", "never" };
    static const long levels[] = { CURLUSESSL_ALL, CURLUSESSL_TRY, CURLUSESSL_NONE };
    CURL *easy = m->transfer.easy;
    const char *tls, *ca_file;
    size_t len;
    if (td_letter_text(L, OPTIONS, &m->letter, "tls", &tls, &len) < 0 ||
        td_letter_text(L, OPTIONS, &m->letter, "ca_file", &ca_file, &len) < 0) {
        return -1;
    }
    long level = tls ? -1 : secret ? CURLUSESSL_ALL : CURLUSESSL_TRY;
    for (size_t i = 0; tls && i < TD_COUNT(names); i++) level = strcmp(tls, names[i]) == 0 ? levels[i] : level;
    int verify = td_letter_option(L, OPTIONS, "verify");
    bool trusting = verify == LUA_TBOOLEAN && !lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (verify != LUA_TNIL && verify != LUA_TBOOLEAN)
        return td_failure_set(&m->letter.failure, "invalid", "verify: give true or false");
    if (level < 0) {
        return td_failure_set(&m->letter.failure, "invalid",
                              "tls: %.60s is not allowed; give required, allowed or never", tls);
    }
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_USE_SSL, level);
    if (!rc && ca_file) rc = curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, trusting ? 0L : 1L);
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, trusting ? 0L : 2L);
    return rc ? td_failure_memory(&m->letter.failure) : 0;
}

/* read_server tells libcurl where to connect, and as whom. */
static int read_server(lua_State *L, mail *m) {
    const char *url, *username, *password;
    size_t len;
    CURL *easy = m->transfer.easy;
    if (td_letter_text(L, OPTIONS, &m->letter, "url", &url, &len) < 0 ||
        td_letter_text(L, OPTIONS, &m->letter, "username", &username, &len) < 0 ||
        td_letter_text(L, OPTIONS, &m->letter, "password", &password, &len) < 0) {
        return -1;
    }
    if (!url || (strncasecmp(url, "smtp://", 7) != 0 && strncasecmp(url, "smtps://", 8) != 0)) {
        return td_failure_set(&m->letter.failure, "invalid", "url: %s; give smtp://host:port, or smtps://host:port",
                              url ? "this is not a mail server's" : "this option is missing");
    }
    if (strpbrk(url, "\r\n \t")) {
        return td_failure_set(&m->letter.failure, "invalid", "url: spaces and line breaks are not allowed");
    }
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_URL, url);
    if (!rc && username) rc = curl_easy_setopt(easy, CURLOPT_USERNAME, username);
    if (!rc && password) rc = curl_easy_setopt(easy, CURLOPT_PASSWORD, password);
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    if (rc) return td_failure_memory(&m->letter.failure);
    return read_tls(L, m, password || strchr(url, '@'));
}

/* build(mail, options) sets up the transfer and writes the message. Returns whether it is all right. */
static int build(lua_State *L) {
    mail *m = lua_touserdata(L, MAIL);
    luaL_checkstack(L, 12, SEND);
    bool ok = check_names(L, m) == 0 && read_timeout(L, m) == 0 && read_server(L, m) == 0 &&
              td_letter_write(L, OPTIONS, &m->letter) == 0;
    lua_pushboolean(L, ok);
    return 1;
}

/* ---- Sending ---- */

/* explain adds to a failure to connect what libcurl leaves out: the server's last reply code. */
static void explain(mail *m) {
    long reply = 0;
    td_failure was = m->letter.failure;
    curl_easy_getinfo(m->transfer.easy, CURLINFO_RESPONSE_CODE, &reply);
    if (reply < 400) {
        td_failure_set(&m->letter.failure, was.code, "the mail server cannot be used: %.900s", was.message);
        return;
    }
    const char *code = strcmp(was.code, "io") == 0 ? "refused" : was.code;
    td_failure_set(&m->letter.failure, code, "the mail server cannot be used: %.900s (%ld)", was.message, reply);
}

static int transmit(mail *m) {
    uint64_t deadline_ns = td_now_ns() + (uint64_t)(m->timeout_s * 1e9);
    const td_letter *l = &m->letter;
    td_envelope envelope = { l->from.address, l->paths, l->recipients.count, l->message.data, l->message.len };
    m->transfer.deadline_ns = deadline_ns;
    int rc = td_curl_perform(&m->transfer, &m->letter.failure);
    if (rc < 0) explain(m);
    return rc < 0 ? rc : td_smtp_send(&m->transfer, &envelope, deadline_ns, &m->letter.failure);
}

/* send{url, username, password, from, to, subject, text, ...}: true, or nil, message, code. It waits without holding
   the thread; a job that ends meanwhile closes the connection. url          smtp://host:port, or smtps://host:port,
   which is encrypted from the first byte username, password   to log in tls          "required", "allowed" (if the
   server offers STARTTLS) or "never"; required with a password, else allowed ca_file      certificates to trust, in
   place of the system's; verify = false trusts anybody timeout      seconds for all of it; 30 unless given from,
   reply_to, to, cc, bcc   addresses: "ann@example.com" or "Ann <ann@example.com>"; all but from may be lists. One of
   to, cc and bcc is needed, 1000 in all are allowed; bcc is in no header. subject, text, html   UTF-8; one of text and
   html is needed, and both are alternatives of each other attachments  a list of {filename, content, content_type}: 100
   at most, of 25 MiB in all. The content is a string of any bytes; the type application/octet-stream unless given.
     headers      a table of further names and values
   The server takes the mail for all recipients or for none. Codes: invalid, connect, timeout, tls, denied (user or
   password), refused (by the server, which the message quotes), io, memory, and outcome: it may have been delivered,
   since the server's last answer is missing. */
static int l_send(lua_State *L) {
    td_failure failure;
    td_failure_outside(L, SEND);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkstack(L, 4, SEND);
    mail *m = calloc(1, sizeof *m);
    if (!m) {
        td_failure_memory(&failure);
        return td_failure_push(L, &failure);
    }
    if (td_curl_begin(&m->transfer, mail_free, &failure) < 0) return td_failure_push(L, &failure);
    lua_pushcfunction(L, build);
    lua_pushlightuserdata(L, m);
    lua_pushvalue(L, 1);
    int status = lua_pcall(L, 2, 1, 0);
    bool sent = status == LUA_OK && lua_toboolean(L, -1) && transmit(m) == 0;
    failure = m->letter.failure;
    td_curl_end(&m->transfer);
    if (status != LUA_OK) return lua_error(L);
    if (!sent) return td_failure_push(L, &failure);
    lua_pushboolean(L, true);
    return 1;
}

int td_mail_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "send", l_send }, { NULL, NULL } };
    luaL_newlib(L, functions);
    return 1;
}
