/* letter.c: people, headers, bodies and attachments, from a table of Lua's into the text of a message.

   Each function returns 0, or -1 with the letter's failure set; reading Lua's tables may raise besides. */
#include "letter.h"

#include "../loop/loop.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    OPTIONS = TD_LETTER_OPTIONS,
    PEOPLE_MAX = 1000,
    HEADER_NAME_MAX = 70,
    ATTACHMENTS_MAX = 100,
    ATTACHED_MAX = 25 << 20,
    TURN = 57 * 4096, /* bytes to encode before others have their turn: whole lines of base64 */
};

/* ---- Options ---- */

int td_letter_option(lua_State *L, int options, const char *name) {
    lua_pushstring(L, name);
    return lua_rawget(L, options);
}

static int wrong_type(td_letter *m, const char *field, const char *given, const char *wanted) {
    return td_failure_set(&m->failure, "invalid", "%s: %s is not allowed; give %s", field, given, wanted);
}

int td_letter_text(lua_State *L, int options, td_letter *m, const char *name, const char **text, size_t *len) {
    int type = td_letter_option(L, options, name);
    *text = NULL;
    *len = 0;
    if (type == LUA_TSTRING) *text = lua_tolstring(L, -1, len);
    lua_pop(L, 1);
    if (type == LUA_TNIL) return 0;
    if (!*text) return wrong_type(m, name, lua_typename(L, type), "a string");
    if (strlen(*text) != *len) return td_failure_set(&m->failure, "invalid", "%s: a NUL byte is not allowed", name);
    return 0;
}

/* ---- People ---- */

/* read_people adds the addresses that an option has, one or a list, to p, and writes them as a header (NULL: none). */
static int read_people(lua_State *L, td_letter *m, const char *name, const char *header, td_people *p) {
    int type = td_letter_option(L, OPTIONS, name), list = lua_gettop(L);
    size_t first = p->count, count = type == LUA_TSTRING ? 1 : type == LUA_TTABLE ? (size_t)lua_rawlen(L, list) : 0;
    if (type == LUA_TNIL) return 0;
    if (count < 1 || count > PEOPLE_MAX - first) {
        return td_failure_set(&m->failure, "invalid", "%s: give an address, or a list of 1 to %d", name, PEOPLE_MAX);
    }
    td_address *longer = realloc(p->list, (first + count) * sizeof *longer);
    if (!longer) return td_failure_memory(&m->failure);
    p->list = longer;
    for (size_t i = 1; i <= count; i++) {
        size_t len;
        if (type == LUA_TSTRING)
            lua_pushvalue(L, list);
        else
            lua_rawgeti(L, list, (lua_Integer)i);
        if (lua_type(L, -1) != LUA_TSTRING) return wrong_type(m, name, luaL_typename(L, -1), "addresses as strings");
        const char *text = lua_tolstring(L, -1, &len);
        if (td_mime_parse(name, text, len, &p->list[p->count], &m->failure) < 0) return -1;
        p->count++;
        lua_pop(L, 1);
    }
    if (header) td_mime_addresses(&m->message, header, p->list + first, count);
    lua_pop(L, 1);
    return 0;
}

/* read_recipients reads to, cc and bcc, and makes the list of their paths. */
static int read_recipients(lua_State *L, td_letter *m) {
    td_people *p = &m->recipients;
    if (read_people(L, m, "to", "To", p) < 0 || read_people(L, m, "cc", "Cc", p) < 0 ||
        read_people(L, m, "bcc", NULL, p) < 0 || read_people(L, m, "reply_to", "Reply-To", &m->reply) < 0) {
        return -1;
    }
    if (p->count == 0) {
        return td_failure_set(&m->failure, "invalid", "to: give an address, or a list of 1 to %d", PEOPLE_MAX);
    }
    m->paths = calloc(p->count, sizeof *m->paths);
    if (!m->paths) return td_failure_memory(&m->failure);
    for (size_t i = 0; i < p->count; i++) m->paths[i] = p->list[i].address;
    return 0;
}

static int read_sender(lua_State *L, td_letter *m) {
    const char *text;
    size_t len;
    if (td_letter_text(L, OPTIONS, m, "from", &text, &len) < 0) return -1;
    if (!text) return td_failure_set(&m->failure, "invalid", "from: this option is missing; give the sender's address");
    if (td_mime_parse("from", text, len, &m->from, &m->failure) < 0) return -1;
    td_mime_addresses(&m->message, "From", &m->from, 1);
    return 0;
}

/* ---- Headers and bodies ---- */

static int read_subject(lua_State *L, td_letter *m) {
    const char *text;
    size_t len;
    if (td_letter_text(L, OPTIONS, m, "subject", &text, &len) < 0) return -1;
    if (!text) return 0;
    if (td_mime_check("subject", text, len, &m->failure) < 0) return -1;
    td_mime_header(&m->message, "Subject", text, len);
    return 0;
}

/* check_header_name refuses what is no header's name, and the headers that send makes itself. */
static int check_header_name(td_letter *m, const char *name, size_t len) {
    static const char *const own[] = { "from", "to", "cc", "bcc", "subject", "date", "mime-version" };
    bool good = len > 0 && len <= HEADER_NAME_MAX;
    for (size_t i = 0; i < len; i++) good = good && name[i] > ' ' && name[i] <= '~' && name[i] != ':';
    if (!good) {
        return td_failure_set(&m->failure, "invalid",
                              "headers: the name of a header is up to %d letters, digits and dashes", HEADER_NAME_MAX);
    }
    bool ours = strncasecmp(name, "content-", 8) == 0;
    for (size_t i = 0; i < TD_COUNT(own); i++) ours = ours || strcasecmp(name, own[i]) == 0;
    ours = ours || (m->reply.count > 0 && strcasecmp(name, "reply-to") == 0);
    if (!ours) return 0;
    return td_failure_set(&m->failure, "invalid", "headers: %s is not allowed; it is set from the other options", name);
}

/* add_header appends one of the caller's headers. Reply-To and Sender are addresses. */
static int add_header(td_letter *m, const char *name, const char *value, size_t len) {
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
static int read_headers(lua_State *L, td_letter *m, bool *identified) {
    int type = td_letter_option(L, OPTIONS, "headers"), table = lua_gettop(L);
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
static int read_body(lua_State *L, td_letter *m, const char *name, const char **text, size_t *len) {
    if (td_letter_text(L, OPTIONS, m, name, text, len) < 0) return -1;
    if (!*text || td_utf8_valid(*text, *len)) return 0;
    return td_failure_set(&m->failure, "invalid", "%s: this is not valid UTF-8", name);
}

/* put_bodies appends text, html, or both as alternatives: a part of the message, or all of it. */
static void put_bodies(td_letter *m, const char *text, size_t text_len, const char *html, size_t html_len) {
    td_buf *b = &m->message;
    if (!text || !html) {
        td_mime_part(b, text ? "plain" : "html", text ? text : html, text ? text_len : html_len);
        return;
    }
    uint64_t id = td_random64(); /* no quoted-printable line contains "=_", so no text this boundary */
    td_buf_printf(b, "Content-Type: multipart/alternative; boundary=\"=_%016" PRIx64 "\"\r\n", id);
    td_buf_printf(b, "\r\n--=_%016" PRIx64 "\r\n", id);
    td_mime_part(b, "plain", text, text_len);
    td_buf_printf(b, "\r\n--=_%016" PRIx64 "\r\n", id);
    td_mime_part(b, "html", html, html_len);
    td_buf_printf(b, "\r\n--=_%016" PRIx64 "--\r\n", id);
}

/* ---- Attachments ---- */

/* get_field reads a string of the attachment on top of the stack; *text is NULL if it is not there. */
static int get_field(lua_State *L, td_letter *m, const char *name, const char **text, size_t *len) {
    lua_pushstring(L, name);
    int type = lua_rawget(L, -2);
    *text = NULL;
    *len = 0;
    if (type == LUA_TSTRING) *text = lua_tolstring(L, -1, len); /* the attachment keeps it */
    lua_pop(L, 1);
    if (*text || type == LUA_TNIL) return 0;
    return td_failure_set(&m->failure, "invalid", "attachments: %s: %s is not allowed; give a string", name,
                          lua_typename(L, type));
}

/* put_attachment appends the attachment on top of the stack. Others have their turn while a large one is encoded. */
static int put_attachment(lua_State *L, td_letter *m, size_t *total) {
    const char *filename, *content, *type;
    size_t filename_len, len, type_len;
    tidemill_error err;
    if (!lua_istable(L, -1)) return wrong_type(m, "attachments", luaL_typename(L, -1), "a list of tables");
    if (get_field(L, m, "filename", &filename, &filename_len) < 0 || get_field(L, m, "content", &content, &len) < 0 ||
        get_field(L, m, "content_type", &type, &type_len) < 0) {
        return -1;
    }
    if (!filename || !content)
        return td_failure_set(&m->failure, "invalid", "attachments: give each a filename and content");
    *total += len;
    if (*total > ATTACHED_MAX) {
        return td_failure_set(&m->failure, "limit", "attachments: they are larger than %d MiB in all",
                              ATTACHED_MAX >> 20);
    }
    if (!type) {
        type = "application/octet-stream";
        type_len = strlen(type);
    }
    if (td_mime_attachment(&m->message, filename, filename_len, type, type_len, &m->failure) < 0) return -1;
    for (size_t done = 0; done < len; done += TURN) {
        td_mime_base64(&m->message, content + done, len - done < TURN ? len - done : TURN);
        if (done > 0 && td_wait_until(0, &err) < 0) return td_failure_error(&m->failure, &err);
    }
    return 0;
}

/* read_attachments appends those that the option has, which is on top of the stack, between boundaries. */
static int read_attachments(lua_State *L, td_letter *m, uint64_t id) {
    size_t total = 0;
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= count; i++) {
        td_buf_printf(&m->message, "\r\n--=_%016" PRIx64 "\r\n", id);
        lua_rawgeti(L, -1, i);
        if (put_attachment(L, m, &total) < 0) return -1;
        lua_pop(L, 1);
    }
    td_buf_printf(&m->message, "\r\n--=_%016" PRIx64 "--\r\n", id);
    return 0;
}

/* read_content appends the bodies, and the attachments if there are any. */
static int read_content(lua_State *L, td_letter *m) {
    const char *text, *html;
    size_t text_len, html_len;
    if (read_body(L, m, "text", &text, &text_len) < 0 || read_body(L, m, "html", &html, &html_len) < 0) return -1;
    if (!text && !html)
        return td_failure_set(&m->failure, "invalid", "text: there is no body; give text, html or both");
    td_buf_puts(&m->message, "MIME-Version: 1.0\r\n");
    int type = td_letter_option(L, OPTIONS, "attachments");
    size_t count = type == LUA_TTABLE ? (size_t)lua_rawlen(L, -1) : 0;
    if (type != LUA_TNIL && type != LUA_TTABLE)
        return wrong_type(m, "attachments", lua_typename(L, type), "a list of tables");
    if (count > ATTACHMENTS_MAX) {
        return td_failure_set(&m->failure, "limit", "attachments: %zu are too many; %d are allowed", count,
                              ATTACHMENTS_MAX);
    }
    uint64_t id = td_random64();
    if (count > 0) {
        td_buf_printf(&m->message, "Content-Type: multipart/mixed; boundary=\"=_%016" PRIx64 "\"\r\n", id);
        td_buf_printf(&m->message, "\r\n--=_%016" PRIx64 "\r\n", id);
    }
    put_bodies(m, text, text_len, html, html_len);
    return count > 0 ? read_attachments(L, m, id) : 0;
}

/* ---- The whole ---- */

int td_letter_write(lua_State *L, int options, td_letter *m) {
    bool identified = false;
    lua_settop(L, options);
    if (read_sender(L, m) < 0 || read_recipients(L, m) < 0 || read_subject(L, m) < 0 ||
        read_headers(L, m, &identified) < 0) {
        return -1;
    }
    td_mime_date(&m->message, td_wall_us());
    if (!identified) {
        td_buf_printf(&m->message, "Message-ID: <%016" PRIx64 "%016" PRIx64 "@%s>\r\n", td_random64(), td_random64(),
                      strchr(m->from.address, '@') + 1);
    }
    if (read_content(L, m) < 0) return -1;
    return m->message.failed ? td_failure_memory(&m->failure) : 0;
}

void td_letter_fini(td_letter *m) {
    td_buf_free(&m->message);
    free(m->recipients.list);
    free(m->reply.list);
    free(m->paths);
}
