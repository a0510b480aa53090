/* mime.c: writing the parts of a mail. */
#include "mime.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    LINE = 76,      /* bytes in a line, when there is a choice */
    WORD_MAX = 900, /* of a word that cannot be folded and stays as it is */
    ENCODED_MAX = 75,
    ENCODED_FRAME = 12, /* =?UTF-8?B? and ?= */
};

/* A header that is being written, and how far its last line goes. */
typedef struct header {
    td_buf *b;
    size_t column;
} header;

static void put(header *h, const char *text, size_t len) {
    td_buf_add(h->b, text, len);
    h->column += len;
}

static void fold(header *h) {
    td_buf_puts(h->b, "\r\n ");
    h->column = 1;
}

static header begin(td_buf *b, const char *name) {
    header h = { b, 0 };
    put(&h, name, strlen(name));
    put(&h, ": ", 2);
    return h;
}

/* ---- Text in headers ---- */

/* char_len returns the bytes of the UTF-8 character at text. */
static size_t char_len(const char *text) {
    unsigned char c = (unsigned char)text[0];
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static void put_base64(header *h, const char *text, size_t len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t bits = (uint32_t)(unsigned char)text[i] << 16;
        if (i + 1 < len) bits |= (uint32_t)(unsigned char)text[i + 1] << 8;
        if (i + 2 < len) bits |= (uint32_t)(unsigned char)text[i + 2];
        char out[4] = { digits[bits >> 18], digits[bits >> 12 & 63], digits[bits >> 6 & 63], digits[bits & 63] };
        if (i + 1 >= len) out[2] = '=';
        if (i + 2 >= len) out[3] = '=';
        put(h, out, sizeof out);
    }
}

/* word_fit returns how many bytes of text, in whole characters, an encoded word of at most `room` bytes holds. */
static size_t word_fit(const char *text, size_t len, size_t room) {
    size_t fit = 0, most = room > ENCODED_FRAME ? (room - ENCODED_FRAME) / 4 * 3 : 0;
    while (fit < len && fit + char_len(text + fit) <= most) fit += char_len(text + fit);
    return fit;
}

/* put_encoded writes text as encoded words, which read as one text however many lines they take. */
static void put_encoded(header *h, const char *text, size_t len) {
    while (len > 0) {
        size_t room = h->column < LINE ? LINE - h->column : 0;
        size_t n = word_fit(text, len, room < ENCODED_MAX ? room : ENCODED_MAX);
        if (n == 0) {
            fold(h);
            continue;
        }
        put(h, "=?UTF-8?B?", 10);
        put_base64(h, text, n);
        put(h, "?=", 2);
        text += n;
        len -= n;
        if (len > 0) fold(h);
    }
}

/* plain says whether text can be written as it is: printable ASCII that nobody takes for an encoded word, with spaces
   to fold at and none at its ends. */
static bool plain(const char *text, size_t len) {
    size_t word = 0;
    if (len > 0 && (text[0] == ' ' || text[len - 1] == ' ')) return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < ' ' || text[i] > '~') return false;
        if (text[i] == '=' && i + 1 < len && text[i + 1] == '?') return false;
        word = text[i] == ' ' ? 0 : word + 1;
        if (word > WORD_MAX) return false;
    }
    return true;
}

/* put_folded writes plain text, folded at spaces: each step is some spaces and the word after them. */
static void put_folded(header *h, const char *text, size_t len) {
    while (len > 0) {
        size_t n = 0;
        while (n < len && text[n] == ' ') n++;
        bool space = n > 0;
        while (n < len && text[n] != ' ') n++;
        if (space && h->column + n > LINE) {
            td_buf_puts(h->b, "\r\n");
            h->column = 0;
        }
        put(h, text, n);
        text += n;
        len -= n;
    }
}

void td_mime_header(td_buf *b, const char *name, const char *text, size_t len) {
    header h = begin(b, name);
    if (plain(text, len))
        put_folded(&h, text, len);
    else
        put_encoded(&h, text, len);
    td_buf_puts(b, "\r\n");
}

int td_mime_check(const char *field, const char *text, size_t len, td_failure *failure) {
    if (memchr(text, '\r', len) || memchr(text, '\n', len) || memchr(text, '\0', len)) {
        return td_failure_set(failure, "invalid", "%s: a line break or NUL byte is not allowed in a header", field);
    }
    if (!td_utf8_valid(text, len)) return td_failure_set(failure, "invalid", "%s: this is not valid UTF-8", field);
    return 0;
}

/* ---- Addresses ---- */

/* trim moves the ends of a text inwards, past spaces. */
static void trim(const char **text, size_t *len) {
    while (*len > 0 && (*text)[0] == ' ') {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && (*text)[*len - 1] == ' ') (*len)--;
}

/* good_address: one @ with something on either side, of the characters that need no quotes. */
static bool good_address(const char *text, size_t len) {
    size_t at = 0, count = 0;
    if (len < 3 || len > 254) return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~' || strchr("<>()[],;:\\\"", text[i])) return false;
        if (text[i] != '@') continue;
        at = i;
        count++;
    }
    return count == 1 && at > 0 && at < len - 1;
}

/* take_name takes what stands before the address. */
static void take_name(const char *text, size_t len, td_address *address) {
    trim(&text, &len);
    address->quoted = len >= 2 && text[0] == '"' && text[len - 1] == '"';
    address->name = address->quoted ? text + 1 : text;
    address->name_len = address->quoted ? len - 2 : len;
}

int td_mime_parse(const char *field, const char *text, size_t len, td_address *address, td_failure *failure) {
    int rc = td_mime_check(field, text, len, failure);
    if (rc < 0) return rc;
    const char *path = text, *open = memrchr(text, '<', len);
    size_t path_len = len;
    *address = (td_address){ 0 };
    trim(&path, &path_len);
    if (open && path_len > 0 && path[path_len - 1] == '>') {
        take_name(text, (size_t)(open - text), address);
        path_len = (size_t)(path + path_len - 1 - (open + 1));
        path = open + 1;
    }
    if (!good_address(path, path_len)) {
        return td_failure_set(
            failure, "invalid",
            "%s: \"%.*s\" is not allowed; give one address, as in ann@example.com or Ann <ann@example.com>", field,
            len < 200 ? (int)len : 200, text);
    }
    memcpy(address->address, path, path_len);
    address->address[path_len] = '\0';
    return 0;
}

/* unquoted copies a name without the backslashes that its quotes needed. It is not longer than the original. */
static void unquoted(const td_address *a, td_buf *name) {
    for (size_t i = 0; i < a->name_len; i++) {
        if (a->quoted && a->name[i] == '\\' && i + 1 < a->name_len) i++;
        td_buf_putc(name, a->name[i]);
    }
}

/* put_name writes a display name: in quotes if it is short and plain, else as encoded words. */
static void put_name(header *h, const td_address *a) {
    td_buf name = { 0 }, quoted = { 0 };
    unquoted(a, &name);
    td_buf_putc(&quoted, '"');
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] == '"' || name.data[i] == '\\') td_buf_putc(&quoted, '\\');
        td_buf_putc(&quoted, name.data[i]);
    }
    td_buf_putc(&quoted, '"');
    h->b->failed |= name.failed || quoted.failed;
    if (!h->b->failed) {
        if (plain(name.data, name.len) && quoted.len < LINE)
            put(h, quoted.data, quoted.len);
        else
            put_encoded(h, name.data, name.len);
    }
    td_buf_free(&name);
    td_buf_free(&quoted);
}

void td_mime_addresses(td_buf *b, const char *name, const td_address *addresses, size_t count) {
    header h = begin(b, name);
    for (size_t i = 0; i < count; i++) {
        const td_address *a = &addresses[i];
        if (i > 0) {
            put(&h, ",", 1);
            fold(&h);
        }
        if (a->name_len > 0) {
            put_name(&h, a);
            if (h.column + strlen(a->address) + 3 > LINE)
                fold(&h);
            else
                put(&h, " ", 1);
            put(&h, "<", 1);
        }
        put(&h, a->address, strlen(a->address));
        if (a->name_len > 0) put(&h, ">", 1);
    }
    td_buf_puts(b, "\r\n");
}

/* ---- Dates and bodies ---- */

void td_mime_date(td_buf *b, int64_t time_us) {
    static const char days[][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
    static const char months[][4] = {
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
    };
    time_t seconds = (time_t)(time_us / 1000000);
    struct tm t;
    gmtime_r(&seconds, &t);
    td_buf_printf(b, "Date: %s, %d %s %d %02d:%02d:%02d +0000\r\n", days[t.tm_wday], t.tm_mday, months[t.tm_mon],
                  t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

/* line_end returns the bytes of the line end at text: "\n" or "\r\n", else 0. */
static size_t line_end(const char *text, size_t len) {
    if (len > 0 && text[0] == '\n') return 1;
    return len > 1 && text[0] == '\r' && text[1] == '\n' ? 2 : 0;
}

/* put_quoted writes one byte of a quoted-printable line. */
static void put_quoted(header *h, const char *text, size_t len) {
    char c = text[0], code[4];
    bool last = len == 1 || line_end(text + 1, len - 1) > 0;
    bool literal = c > ' ' && c <= '~' && c != '=' && !(c == '.' && h->column == 0);
    if ((c == ' ' || c == '\t') && !last) literal = true;
    if (h->column + (literal ? 1 : 3) > LINE - 1) {
        td_buf_puts(h->b, "=\r\n");
        h->column = 0;
        literal = literal && c != '.';
    }
    snprintf(code, sizeof code, "=%02X", (unsigned)(unsigned char)c);
    put(h, literal ? &c : code, literal ? 1 : 3);
}

void td_mime_part(td_buf *b, const char *type, const char *text, size_t len) {
    header h = { b, 0 };
    td_buf_printf(b, "Content-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
                  type);
    for (size_t i = 0; i < len;) {
        size_t end = line_end(text + i, len - i);
        if (end > 0) {
            td_buf_puts(b, "\r\n");
            h.column = 0;
            i += end;
        } else {
            put_quoted(&h, text + i, len - i);
            i++;
        }
    }
    if (h.column > 0) td_buf_puts(b, "\r\n");
}

/* ---- Attachments ---- */

enum { FILENAME_MAX_BYTES = 200, TYPE_MAX = 200, BASE64_LINE = 57 };

/* good_type says whether a media type is well-formed; those that contain mails cannot be in base64. */
static bool good_type(const char *type, size_t len) {
    size_t slash = strcspn(type, "/"), end = strcspn(type, "; ");
    if (len == 0 || len > TYPE_MAX || strlen(type) != len || slash == 0 || slash + 1 >= end) return false;
    for (size_t i = 0; i < len; i++) {
        if (type[i] < ' ' || type[i] > '~' || (i < end && i != slash && strchr("()<>@,:\\\"/[]?=", type[i])))
            return false;
    }
    return strncasecmp(type, "multipart/", 10) != 0 && strncasecmp(type, "message/", 8) != 0;
}

/* put_filename writes a file's name as a parameter: by RFC 2231 unless it is plain. */
static void put_filename(td_buf *b, const char *name, size_t len) {
    bool simple = true;
    for (size_t i = 0; i < len; i++) simple = simple && name[i] >= ' ' && name[i] <= '~' && !strchr("\"\\", name[i]);
    if (simple) {
        td_buf_printf(b, ";\r\n filename=\"%s\"\r\n", name);
        return;
    }
    td_buf_puts(b, ";\r\n filename*=UTF-8''");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];
        bool literal =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
        td_buf_printf(b, literal ? "%c" : "%%%02X", c);
    }
    td_buf_puts(b, "\r\n");
}

int td_mime_attachment(td_buf *b, const char *filename, size_t filename_len, const char *type, size_t type_len,
                       td_failure *failure) {
    if (td_mime_check("attachments: filename", filename, filename_len, failure) < 0) return -1;
    if (filename_len == 0 || filename_len > FILENAME_MAX_BYTES) {
        return td_failure_set(failure, "invalid", "attachments: filename: give 1 to %d bytes", FILENAME_MAX_BYTES);
    }
    if (!good_type(type, type_len)) {
        return td_failure_set(failure, "invalid",
                              "attachments: content_type: this is not allowed; give a type such as image/png");
    }
    td_buf_printf(b, "Content-Type: %s\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment", type);
    put_filename(b, filename, filename_len);
    td_buf_puts(b, "\r\n");
    return 0;
}

/* put_line writes up to 57 bytes as one line. */
static void put_line(td_buf *b, const unsigned char *data, size_t len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char line[BASE64_LINE / 3 * 4 + 2];
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        unsigned second = i + 1 < len ? data[i + 1] : 0, third = i + 2 < len ? data[i + 2] : 0;
        unsigned bits = (unsigned)data[i] << 16 | second << 8 | third;
        line[n++] = digits[bits >> 18];
        line[n++] = digits[bits >> 12 & 63];
        line[n++] = i + 1 < len ? digits[bits >> 6 & 63] : '=';
        line[n++] = i + 2 < len ? digits[bits & 63] : '=';
    }
    line[n++] = '\r';
    line[n++] = '\n';
    td_buf_add(b, line, n);
}

void td_mime_base64(td_buf *b, const char *data, size_t len) {
    for (size_t i = 0; i < len; i += BASE64_LINE) {
        put_line(b, (const unsigned char *)data + i, len - i < BASE64_LINE ? len - i : BASE64_LINE);
    }
}
