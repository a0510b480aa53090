/* output.c: what a command prints on stdout. See output.h. */
#include "output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define CELL_MAX    ((size_t)1 << 24) /* bytes of one value; arguments are far smaller */
#define FIELD_WIDTH 14

bool td_output_colour(int fd) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    if (no_color && *no_color) return false;
    return isatty(fd) && term && strcmp(term, "dumb") != 0;
}

/* terminal_width returns the columns of the terminal on stdout, 80 where it does not tell, 0 when it is none. */
static int terminal_width(void) {
    struct winsize size;
    if (!isatty(STDOUT_FILENO)) return 0;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
}

void td_output_init(td_output *out, bool json) {
    *out = (td_output){ .json = json, .colour = !json && td_output_colour(STDOUT_FILENO), .width = terminal_width() };
    out->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

int td_output_flush(td_output *out, tidemill_error *err) {
    if (out->text.failed) return td_error_memory(err);
    size_t done = 0;
    while (done < out->text.len) {
        ssize_t n = write(STDOUT_FILENO, out->text.data + done, out->text.len - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return td_error_set(err, TIDEMILL_EIO, "the output could not be written: %s", strerror(errno));
        done += (size_t)n;
    }
    td_buf_free(&out->text);
    return 0;
}

void td_output_fini(td_output *out) {
    td_buf_free(&out->text);
    if (out->locale) freelocale(out->locale);
    out->locale = (locale_t)0;
}

unsigned td_output_hidden(const char *text, size_t *len) {
    const unsigned char *p = (const unsigned char *)text;
    *len = 1;
    if (p[0] == 0x7F) return 0x7F;
    *len = 2;
    if (p[0] == 0xC2 && p[1] >= 0x80 && p[1] <= 0x9F) return p[1];
    *len = 3;
    if (p[0] == 0xE2 && (p[1] == 0x80 || p[1] == 0x81)) {
        unsigned code = 0x2000u + ((unsigned)(p[1] & 0x3F) << 6) + (p[2] & 0x3Fu);
        bool turns = code == 0x200E || code == 0x200F || (code >= 0x2028 && code <= 0x202E) ||
                     (code >= 0x2066 && code <= 0x2069);
        if (turns) return code;
    }
    *len = 1;
    return 0;
}

void td_output_clean(td_buf *b, const char *text, bool one_line) {
    td_buf clean = { 0 };
    td_text_clean(&clean, text, strlen(text), CELL_MAX);
    if (clean.failed) b->failed = true;
    const char *p = clean.data;
    while (p && *p) {
        size_t len;
        unsigned code = td_output_hidden(p, &len);
        if (code)
            td_buf_printf(b, "\\u%04X", code);
        else if (one_line && (*p == '\n' || *p == '\t'))
            td_buf_putc(b, ' ');
        else
            td_buf_putc(b, *p);
        p += len;
    }
    td_buf_free(&clean);
}

void td_output_puts(td_output *out, const char *text) {
    td_buf_puts(&out->text, text);
}

void td_output_style(td_output *out, td_style style, const char *text) {
    static const char *const codes[] = { "", "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[33m", "\033[36m" };
    bool shown = out->colour && style != TD_PLAIN;
    if (shown) td_buf_puts(&out->text, codes[style]);
    td_output_clean(&out->text, text, false);
    if (shown) td_buf_puts(&out->text, "\033[0m");
}

void td_output_block(td_output *out, const char *text, int indent) {
    td_buf clean = { 0 };
    td_output_clean(&clean, text, false);
    if (clean.failed) out->text.failed = true;
    for (const char *line = clean.data; line && *line;) {
        size_t len = strcspn(line, "\n");
        td_buf_printf(&out->text, "%*s%.*s\n", indent, "", (int)len, line);
        line += len + (line[len] == '\n');
    }
    td_buf_free(&clean);
}

void td_output_wrap(td_buf *b, const char *text, int column, int indent, int width) {
    bool first = true; /* of its line */
    while (*text) {
        size_t len = strcspn(text, " \n");
        if (!first && column + 1 + (int)len > width) {
            td_buf_printf(b, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        td_buf_printf(b, "%s%.*s", first ? "" : " ", (int)len, text);
        column += (int)len + !first;
        first = false;
        text += len;
        if (*text == '\n') {
            td_buf_printf(b, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        if (*text) text++;
    }
    td_buf_putc(b, '\n');
}

void td_output_field(td_output *out, const char *name, td_style style, const char *value) {
    if (!value) return;
    td_buf_printf(&out->text, "  %-*s", FIELD_WIDTH, name);
    td_output_style(out, style, value);
    td_output_puts(out, "\n");
}

void td_output_time(td_buf *b, int64_t us) {
    int64_t seconds = us / 1000000, micros = us % 1000000;
    if (micros < 0) {
        micros += 1000000;
        seconds--;
    }
    time_t t = (time_t)seconds;
    struct tm tm;
    char date[40];
    if (!gmtime_r(&t, &tm) || strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) == 0) date[0] = '\0';
    td_buf_puts(b, date);
    if (micros) td_buf_printf(b, ".%06lld", (long long)micros);
    td_buf_putc(b, 'Z');
}

void td_output_age(td_buf *b, int64_t us, int64_t now_us) {
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "m" }, { 1, "s" } };
    bool future = us > now_us;
    int64_t seconds = (future ? us - now_us : now_us - us) / 1000000;
    size_t i = 0;
    /* Two of a unit at least, so that 90 minutes do not read as one hour; seconds as they are. */
    while (i < TD_COUNT(units) - 1 && seconds < 2 * units[i].seconds) i++;
    int64_t n = seconds / units[i].seconds;
    if (n == 0)
        td_buf_puts(b, "now");
    else
        td_buf_printf(b, future ? "in %lld%s" : "%lld%s ago", (long long)n, units[i].name);
}
