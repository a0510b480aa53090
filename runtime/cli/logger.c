/* logger.c: log records as lines. See logger.h. */
#include "logger.h"

#include "json.h"
#include "output.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const td_logger_levels[] = { "debug", "info", "warn", "error", NULL };
const char *const td_logger_formats[] = { "text", "json", NULL };

void td_logger_init(td_logger *logger, int fd, const char *format) {
    bool terminal = isatty(fd) != 0;
    logger->fd = fd;
    logger->json = format ? strcmp(format, "json") == 0 : !terminal;
    logger->colour = !logger->json && td_output_colour(fd);
    logger->blocks = !logger->json && terminal;
}

tidemill_level td_logger_level(const char *name) {
    for (int i = 0; name && td_logger_levels[i]; i++)
        if (strcmp(td_logger_levels[i], name) == 0) return (tidemill_level)i;
    return TIDEMILL_INFO;
}

/* level_name returns the word of a level, also of one out of range. */
static const char *level_name(tidemill_level level) {
    return level >= TIDEMILL_DEBUG && level <= TIDEMILL_ERROR ? td_logger_levels[level] : "error";
}

/* local_time appends a time in the local zone, with milliseconds. */
static void local_time(td_buf *line, int64_t us) {
    time_t seconds = (time_t)(us / 1000000);
    struct tm tm;
    char text[40];
    if (!localtime_r(&seconds, &tm) || !strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm)) text[0] = '\0';
    td_buf_printf(line, "%s.%03d", text, (int)(us / 1000 % 1000));
}

/* plain: whether a value reads well without quotes, and cannot be taken for several. */
static bool plain(const char *text) {
    static const char also[] = "_-./:@+,~%()*#^?&;<>|$!";
    if (!*text) return false;
    for (; *text; text++) {
        bool word = (*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z');
        if (!word && !strchr(also, *text)) return false;
    }
    return true;
}

/* one_line appends cleaned text with its newlines as the two characters \n, so that a record stays one line. */
static void one_line(td_buf *line, const char *text) {
    td_buf clean = { 0 };
    td_output_clean(&clean, text, false);
    if (clean.failed) line->failed = true;
    for (const char *p = clean.data; p && *p; p++) {
        if (*p == '\n')
            td_buf_puts(line, "\\n");
        else
            td_buf_putc(line, *p == '\t' ? ' ' : *p);
    }
    td_buf_free(&clean);
}

/* quoted appends a field's text: as it is where it reads well, else as a JSON string. */
static void quoted(td_buf *line, const tidemill_field *field) {
    td_buf clean = { 0 };
    if (plain(field->value)) {
        td_buf_puts(line, field->value);
        return;
    }
    if (field->json) {
        one_line(line, field->value);
        return;
    }
    /* JSON escapes newlines and quotes; the rest is cleaned before, also what JSON would let pass. */
    td_output_clean(&clean, field->value, false);
    if (clean.failed) line->failed = true;
    if (clean.data) td_buf_json(line, clean.data, clean.len);
    td_buf_free(&clean);
}

/* block appends each line of a field's text, indented under its record. The bar shows which lines belong to it: text
   of a handler cannot pass for a record. */
static void block(td_buf *line, const tidemill_field *field) {
    td_buf clean = { 0 };
    td_output_clean(&clean, field->value, false);
    if (clean.failed) line->failed = true;
    for (const char *p = clean.data; p && *p;) {
        size_t len = strcspn(p, "\n");
        td_buf_puts(line, "    | ");
        td_buf_add(line, p, len);
        td_buf_putc(line, '\n');
        p += len + (p[len] == '\n');
    }
    td_buf_free(&clean);
}

/* text_line makes a record's line of text. */
static void text_line(const td_logger *logger, const tidemill_record *r, td_buf *line) {
    static const char *const colours[] = { "\033[2m", "\033[32m", "\033[33m", "\033[31m" };
    const char *on = "", *off = "", *dim = "";
    if (logger->colour) {
        on = colours[r->level >= TIDEMILL_DEBUG && r->level <= TIDEMILL_ERROR ? r->level : TIDEMILL_ERROR];
        dim = "\033[2m";
        off = "\033[0m";
    }
    td_buf_puts(line, dim);
    local_time(line, r->time_us);
    td_buf_printf(line, "%s %s%-5s%s ", off, on, level_name(r->level), off);
    one_line(line, r->message);
    for (size_t i = 0; i < r->fields_count; i++) {
        const tidemill_field *f = &r->fields[i];
        if (!f->value || (logger->blocks && strchr(f->value, '\n'))) continue;
        td_buf_printf(line, " %s", dim);
        one_line(line, f->name);
        td_buf_printf(line, "=%s", off);
        quoted(line, f);
    }
    td_buf_putc(line, '\n');
    for (size_t i = 0; logger->blocks && i < r->fields_count; i++)
        if (r->fields[i].value && strchr(r->fields[i].value, '\n')) block(line, &r->fields[i]);
}

/* json_line makes a record's line of JSON. */
static void json_line(const tidemill_record *r, td_buf *line) {
    td_json_open(line, '{');
    td_json_key(line, "ts");
    td_buf_putc(line, '"');
    td_output_time(line, r->time_us);
    td_buf_putc(line, '"');
    td_json_key(line, "level");
    td_json_text(line, level_name(r->level));
    td_json_key(line, "message");
    td_json_text(line, r->message);
    for (size_t i = 0; i < r->fields_count; i++) {
        const tidemill_field *f = &r->fields[i];
        td_json_key(line, f->name);
        if (f->json && f->value)
            td_json_raw(line, f->value);
        else
            td_json_text(line, f->value);
    }
    /* JSON has raw newlines only between values, where a space means the same: a record stays one line. */
    for (size_t i = 0; i < line->len; i++)
        if (line->data[i] == '\n' || line->data[i] == '\r') line->data[i] = ' ';
    td_json_close(line, '}');
    td_buf_putc(line, '\n');
}

void td_logger_write(void *userdata, const tidemill_record *record) {
    const td_logger *logger = userdata;
    td_buf line = { 0 };
    if (logger->json)
        json_line(record, &line);
    else
        text_line(logger, record, &line);
    for (size_t done = 0; !line.failed && done < line.len;) {
        ssize_t n = write(logger->fd, line.data + done, line.len - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        done += (size_t)n;
    }
    td_buf_free(&line);
}
