/* mail.c: tidemill.mail: send(options) sends one mail through an SMTP server.

   What a call holds is a mail, which the fiber owns by way of its transfer. It is filled in by `build`, a protected
   call, because reading Lua's tables may raise. */
#include "libs.h"

#include "mime.h"
#include "smtp.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { RECIPIENTS_MAX = 1000, HEADER_NAME_MAX = 70, TIMEOUT_DEFAULT_S = 30 };
#define TIMEOUT_MAX_S 86400.0
#define SEND          "tidemill.mail.send"

typedef struct mail {
    td_transfer transfer;
    td_failure failure;
    double timeout_s;
    td_address from, *to;
    const char **paths; /* the addresses of `to` */
    size_t to_count;
    td_buf message;
} mail;

static void mail_free(td_transfer *transfer) {
    mail *m = td_container(transfer, mail, transfer);
    td_buf_free(&m->message);
    free(m->to);
    free(m->paths);
    free(m);
}

/* ---- Options: each function returns 0, or -1 with the mail's failure set. The options are at stack index OPTIONS.
 * ---- */

enum { MAIL = 1, OPTIONS = 2 };

/* push_option pushes an option, metamethods left aside: what it returns the table keeps alive. */
static int push_option(lua_State *L, const char *name) {
    lua_pushstring(L, name);
    return lua_rawget(L, OPTIONS);
}

static int wrong_type(mail *m, const char *field, const char *given, const char *wanted) {
    return td_failure_set(&m->failure, "invalid", "%s: %s is not allowed; give %s", field, given, wanted);
}

/* get_text reads an option that is a string without NUL; *text is NULL if it is not given. Lua's memory. */
static int get_text(lua_State *L, mail *m, const char *name, const char **text, size_t *len) {
    int type = push_option(L, name);
    *text = NULL;
    *len = 0;
    if (type == LUA_TSTRING) *text = lua_tolstring(L, -1, len);
    lua_pop(L, 1);
    if (type == LUA_TNIL) return 0;
    if (!*text) return wrong_type(m, name, lua_typename(L, type), "a string");
    if (strlen(*text) != *len) return td_failure_set(&m->failure, "invalid", "%s: a NUL byte is not allowed", name);
    return 0;
}

static int check_names(lua_State *L, mail *m) {
    static const char *const names[] = { "url",  "username", "password", "from",    "to", "subject",
                                         "text", "html",     "headers",  "timeout", NULL };
    lua_pushnil(L);
    while (lua_next(L, OPTIONS)) {
        lua_pop(L, 1);
        const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, -1);
        int i = 0;
        while (names[i] && strcmp(names[i], name) != 0) i++;
        if (names[i]) continue;
        const char *nearest = td_nearest(name, names);
        return td_failure_set(&m->failure, "invalid", "%.60s: there is no such option; %s%s", name,
                              nearest ? "did you mean " : "give url, from, to, subject, text, html, ...",
                              nearest ? nearest : "");
    }
    return 0;
}

static int read_timeout(lua_State *L, mail *m) {
    int type = push_option(L, "timeout");
    m->timeout_s = type == LUA_TNIL ? TIMEOUT_DEFAULT_S : type == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
    if (m->timeout_s > 0 && m->timeout_s <= TIMEOUT_MAX_S) return 0;
    return td_failure_set(&m->failure, "invalid",
                          "timeout: %s is not allowed; give a number of seconds from 0 to a day",
                          luaL_tolstring(L, -1, NULL));
}

/* read_server tells libcurl where to connect, and as whom. */
static int read_server(lua_State *L, mail *m) {
    const char *url, *username, *password;
    size_t len;
    CURL *easy = m->transfer.easy;
    if (get_text(L, m, "url", &url, &len) < 0 || get_text(L, m, "username", &username, &len) < 0 ||
        get_text(L, m, "password", &password, &len) < 0) {
        return -1;
    }
    if (!url || (strncasecmp(url, "smtp://", 7) != 0 && strncasecmp(url, "smtps://", 8) != 0)) {
        return td_failure_set(&m->failure, "invalid", "url: %s; give smtp://host:port, or smtps://host:port",
                              url ? "this is not a mail server's" : "this option is missing");
    }
    long timeout_ms = (long)ceil(m->timeout_s * 1000);
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_URL, url);
    if (!rc && username) rc = curl_easy_setopt(easy, CURLOPT_USERNAME, username);
    if (!rc && password) rc = curl_easy_setopt(easy, CURLOPT_PASSWORD, password);
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_USE_SSL, (long)CURLUSESSL_TRY);
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    if (!rc) rc = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, timeout_ms);
    return rc ? td_failure_memory(&m->failure) : 0;
}

/* ---- People ---- */

/* read_recipients reads the option `to`: one address, or a list of them. */
static int read_recipients(lua_State *L, mail *m) {
    int type = push_option(L, "to"), list = lua_gettop(L);
    size_t count = type == LUA_TSTRING ? 1 : type == LUA_TTABLE ? (size_t)lua_rawlen(L, list) : 0;
    if (count < 1 || count > RECIPIENTS_MAX) {
        return td_failure_set(&m->failure, "invalid", "to: give an address, or a list of 1 to %d", RECIPIENTS_MAX);
    }
    m->to = calloc(count, sizeof *m->to);
    m->paths = calloc(count, sizeof *m->paths);
    if (!m->to || !m->paths) return td_failure_memory(&m->failure);
    for (; m->to_count < count; m->to_count++) {
        size_t len;
        td_address *to = &m->to[m->to_count];
        if (type == LUA_TSTRING)
            lua_pushvalue(L, list);
        else
            lua_rawgeti(L, list, (lua_Integer)m->to_count + 1);
        if (lua_type(L, -1) != LUA_TSTRING) return wrong_type(m, "to", luaL_typename(L, -1), "addresses as strings");
        const char *text = lua_tolstring(L, -1, &len);
        if (td_mime_parse("to", text, len, to, &m->failure) < 0) return -1;
        m->paths[m->to_count] = to->address;
        lua_pop(L, 1);
    }
    td_mime_addresses(&m->message, "To", m->to, m->to_count);
    return 0;
}

static int read_sender(lua_State *L, mail *m) {
    const char *text;
    size_t len;
    if (get_text(L, m, "from", &text, &len) < 0) return -1;
    if (!text) return td_failure_set(&m->failure, "invalid", "from: this option is missing; give the sender's address");
    if (td_mime_parse("from", text, len, &m->from, &m->failure) < 0) return -1;
    td_mime_addresses(&m->message, "From", &m->from, 1);
    return 0;
}

/* ---- Headers and bodies ---- */

static int read_subject(lua_State *L, mail *m) {
    const char *text;
    size_t len;
    if (get_text(L, m, "subject", &text, &len) < 0) return -1;
    if (!text) return 0;
    if (td_mime_check("subject", text, len, &m->failure) < 0) return -1;
    td_mime_header(&m->message, "Subject", text, len);
    return 0;
}

/* check_header_name refuses what is no header's name, and the headers that send makes itself. */
static int check_header_name(mail *m, const char *name, size_t len) {
    static const char *const own[] = { "from", "to", "subject", "date", "bcc", "mime-version" };
    bool good = len > 0 && len <= HEADER_NAME_MAX;
    for (size_t i = 0; i < len; i++) good = good && name[i] > ' ' && name[i] <= '~' && name[i] != ':';
    if (!good) {
        return td_failure_set(&m->failure, "invalid",
                              "headers: the name of a header is up to %d letters, digits and dashes", HEADER_NAME_MAX);
    }
    bool ours = strncasecmp(name, "content-", 8) == 0;
    for (size_t i = 0; i < TD_COUNT(own); i++) ours = ours || strcasecmp(name, own[i]) == 0;
    if (!ours) return 0;
    return td_failure_set(&m->failure, "invalid", "headers: %s is not allowed; it is set from the other options", name);
}

/* add_header appends one of the caller's headers. Reply-To and Sender are addresses. */
static int add_header(mail *m, const char *name, const char *value, size_t len) {
    char field[HEADER_NAME_MAX + 16];
    td_address address;
    snprintf(field, sizeof field, "headers.%s", name);
    if (strcasecmp(name, "reply-to") == 0 || strcasecmp(name, "sender") == 0) {
        if (td_mime_parse(field, value, len, &address, &m->failure) < 0) return -1;
        td_mime_addresses(&m->message, name, &address, 1);
        return 0;
    }
    if (td_mime_check(field, value, len, &m->failure) < 0) return -1;
    td_mime_header(&m->message, name, value, len);
    return 0;
}

/* read_headers reads the option `headers`. *identified is whether there is a Message-ID among them. */
static int read_headers(lua_State *L, mail *m, bool *identified) {
    int type = push_option(L, "headers"), table = lua_gettop(L);
    if (type == LUA_TNIL) return 0;
    if (type != LUA_TTABLE) return wrong_type(m, "headers", lua_typename(L, type), "a table of names and values");
    lua_pushnil(L);
    while (lua_next(L, table)) {
        size_t name_len, len;
        if (lua_type(L, -2) != LUA_TSTRING) return wrong_type(m, "headers", "a list", "a table of names and values");
        const char *name = lua_tolstring(L, -2, &name_len);
        if (check_header_name(m, name, name_len) < 0) return -1;
        if (lua_type(L, -1) != LUA_TSTRING) return wrong_type(m, name, luaL_typename(L, -1), "a string");
        const char *value = lua_tolstring(L, -1, &len);
        if (add_header(m, name, value, len) < 0) return -1;
        *identified = *identified || strcasecmp(name, "message-id") == 0;
        lua_pop(L, 1);
    }
    return 0;
}

/* read_body reads an option with text, which may be of any length and lines but must be UTF-8. */
static int read_body(lua_State *L, mail *m, const char *name, const char **text, size_t *len) {
    if (get_text(L, m, name, text, len) < 0) return -1;
    if (!*text || td_utf8_valid(*text, *len)) return 0;
    return td_failure_set(&m->failure, "invalid", "%s: this is not valid UTF-8", name);
}

/* read_bodies appends text, html, or both as alternatives. */
static int read_bodies(lua_State *L, mail *m) {
    const char *text, *html;
    size_t text_len, html_len;
    td_buf *b = &m->message;
    if (read_body(L, m, "text", &text, &text_len) < 0 || read_body(L, m, "html", &html, &html_len) < 0) return -1;
    if (!text && !html)
        return td_failure_set(&m->failure, "invalid", "text: there is no body; give text, html or both");
    td_buf_puts(b, "MIME-Version: 1.0\r\n");
    if (!text || !html) {
        td_mime_part(b, text ? "plain" : "html", text ? text : html, text ? text_len : html_len);
        return 0;
    }
    uint64_t id = td_random64(); /* no quoted-printable line contains "=_", so no text this boundary */
    td_buf_printf(b, "Content-Type: multipart/alternative; boundary=\"=_%016" PRIx64 "\"\r\n", id);
    td_buf_printf(b, "\r\n--=_%016" PRIx64 "\r\n", id);
    td_mime_part(b, "plain", text, text_len);
    td_buf_printf(b, "\r\n--=_%016" PRIx64 "\r\n", id);
    td_mime_part(b, "html", html, html_len);
    td_buf_printf(b, "\r\n--=_%016" PRIx64 "--\r\n", id);
    return 0;
}

/* build(mail, options) sets up the transfer and writes the message, or sets the mail's failure. Returns whether it is
   all right. */
static int build(lua_State *L) {
    mail *m = lua_touserdata(L, MAIL);
    bool identified = false;
    luaL_checkstack(L, 10, SEND);
    bool ok = check_names(L, m) == 0 && read_timeout(L, m) == 0 && read_server(L, m) == 0;
    ok = ok && read_sender(L, m) == 0 && read_recipients(L, m) == 0 && read_subject(L, m) == 0;
    ok = ok && read_headers(L, m, &identified) == 0;
    if (ok) td_mime_date(&m->message, td_wall_us());
    if (ok && !identified) {
        td_buf_printf(&m->message, "Message-ID: <%016" PRIx64 "%016" PRIx64 "@%s>\r\n", td_random64(), td_random64(),
                      strchr(m->from.address, '@') + 1);
    }
    ok = ok && read_bodies(L, m) == 0;
    if (ok && m->message.failed) ok = td_failure_memory(&m->failure) == 0;
    lua_pushboolean(L, ok);
    return 1;
}

/* ---- Sending ---- */

/* explain adds to a failure to connect what libcurl leaves out: the server's last reply code. */
static void explain(mail *m) {
    long reply = 0;
    td_failure was = m->failure;
    curl_easy_getinfo(m->transfer.easy, CURLINFO_RESPONSE_CODE, &reply);
    if (reply < 400) {
        td_failure_set(&m->failure, was.code, "the mail server cannot be used: %.900s", was.message);
        return;
    }
    const char *code = strcmp(was.code, "io") == 0 ? "refused" : was.code;
    td_failure_set(&m->failure, code, "the mail server cannot be used: %.900s (%ld)", was.message, reply);
}

static int transmit(mail *m) {
    uint64_t deadline_ns = td_now_ns() + (uint64_t)(m->timeout_s * 1e9);
    td_envelope envelope = { m->from.address, m->paths, m->to_count, m->message.data, m->message.len };
    int rc = td_curl_perform(&m->transfer, &m->failure);
    if (rc < 0) explain(m);
    return rc < 0 ? rc : td_smtp_send(&m->transfer, &envelope, deadline_ns, &m->failure);
}

/* send{url, username, password, from, to, subject, text, html, headers, timeout}: true, or nil, message, code.
   url is smtp://host:port, which is encrypted if the server offers that, or smtps://host:port. from is an address
   ("ann@example.com" or "Ann <ann@example.com>"), to one or a list; headers a table of further names and values;
   timeout seconds for all of it, 30 unless given. The server takes the mail for all recipients or for none. Codes:
   invalid, connect, timeout, tls, denied (user or password), refused (by the server, which the message quotes), io,
   memory, and outcome: it may have been delivered, since the server's last answer is missing. */
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
    failure = m->failure;
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
