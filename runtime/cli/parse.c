/* parse.c: strict readers for what is typed on a command line. See parse.h. */
#include "parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DURATION_MAX_MS (100.0 * 366 * 86400 * 1000)
#define WORKERS_DEFAULT 10
#define WORKERS_MAX     10000

int td_parse_integer(const char *text, int64_t min, int64_t max, int64_t *value, tidemill_error *err) {
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    bool whole = *end == '\0' && end != text && !isspace((unsigned char)*text) && *text != '+';
    if (!whole || errno == ERANGE || number < min || number > max)
        return td_error_set(err, TIDEMILL_EINVALID, "%s is not allowed; give a whole number from %lld to %lld",
                            *text ? text : "an empty value", (long long)min, (long long)max);
    *value = number;
    return 0;
}

/* unit_ms takes a unit's name off *text and returns its length in milliseconds, or 0. No unit at all means seconds. */
static double unit_ms(const char **text) {
    static const struct {
        const char *name;
        double ms;
    } units[] = { { "ms", 1 }, { "s", 1e3 }, { "m", 60e3 }, { "h", 3600e3 }, { "d", 86400e3 }, { "w", 604800e3 } };
    size_t len = 0;
    while (isalpha((unsigned char)(*text)[len])) len++;
    for (size_t i = 0; i < TD_COUNT(units); i++) {
        if (strlen(units[i].name) != len || strncmp(units[i].name, *text, len) != 0) continue;
        *text += len;
        return units[i].ms;
    }
    return 0;
}

/* decimal takes digits with an optional fraction off *text. Returns a negative number when there are none. */
static double decimal(const char **text) {
    const char *p = *text;
    while (isdigit((unsigned char)*p)) p++;
    if (p == *text) return -1;
    if (*p == '.' && isdigit((unsigned char)p[1])) {
        p++;
        while (isdigit((unsigned char)*p)) p++;
    }
    double value = strtod(*text, NULL);
    *text = p;
    return value;
}

int td_parse_duration(const char *text, int64_t *ms, tidemill_error *err) {
    const char *p = text;
    double total = 0;
    do {
        double number = decimal(&p);
        /* Only a number that stands alone may lack its unit: "1h30" could mean minutes or seconds. */
        double unit = number < 0 ? 0 : *p == '\0' && total == 0 ? 1e3 : unit_ms(&p);
        if (unit == 0)
            return td_error_set(err, TIDEMILL_EINVALID, "%s is not a duration; give one like 90s, 5m, 2h or 1d",
                                *text ? text : "an empty value");
        total += number * unit;
    } while (*p);
    if (!(total <= DURATION_MAX_MS))
        return td_error_set(err, TIDEMILL_EINVALID, "%s is too long; give a duration of at most 100 years", text);
    *ms = (int64_t)(total + 0.5);
    return 0;
}

int td_parse_time(const char *text, int64_t *us, tidemill_error *err) {
    if (td_time_read(text, us)) return 0;
    return td_error_set(
        err, TIDEMILL_EINVALID,
        "%s is not a time; give one with its zone, like 2030-01-31T08:00:00Z or 2030-01-31T08:00:00+02:00",
        *text ? text : "an empty value");
}

int td_parse_queue(const char *text, char **name, int *workers, tidemill_error *err) {
    const char *equals = strrchr(text, '=');
    int64_t count = WORKERS_DEFAULT;
    if (equals && td_parse_integer(equals + 1, 1, WORKERS_MAX, &count, NULL))
        return td_error_set(err, TIDEMILL_EINVALID, "%s is not allowed; give NAME=N, with N workers from 1 to %d", text,
                            WORKERS_MAX);
    size_t len = equals ? (size_t)(equals - text) : strlen(text);
    if (len == 0 || len > 100)
        return td_error_set(err, TIDEMILL_EINVALID, "%s is not allowed; a queue's name has 1 to 100 bytes",
                            *text ? text : "an empty value");
    *name = td_memdup(text, len);
    *workers = (int)count;
    return *name ? 0 : td_error_memory(err);
}
