/* time.c: times as text. */
#include "base.h"

#include <string.h>
#include <time.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* digits takes exactly count digits off *text into *value. Returns false if they are not there. */
static bool digits(const char **text, int count, int *value) {
    *value = 0;
    for (int i = 0; i < count; i++) {
        char c = (*text)[i];
        if (!is_digit(c)) return false;
        *value = *value * 10 + (c - '0');
    }
    *text += count;
    return true;
}

/* literal takes one character out of allowed off *text. */
static bool literal(const char **text, const char *allowed) {
    if (**text == '\0' || !strchr(allowed, **text)) return false;
    (*text)++;
    return true;
}

/* zone takes "Z", "+02:00" or "+02" off *text into seconds east of UTC. */
static bool zone(const char **text, int *seconds) {
    *seconds = 0;
    if (literal(text, "Zz")) return true;
    int sign = **text == '-' ? -1 : 1, hours, minutes = 0;
    if (!literal(text, "+-") || !digits(text, 2, &hours)) return false;
    if (literal(text, ":") && !digits(text, 2, &minutes)) return false;
    *seconds = sign * (hours * 3600 + minutes * 60);
    return hours < 24 && minutes < 60;
}

/* fraction takes ".123456" off *text, if it is there, into microseconds; further digits are dropped. */
static bool fraction(const char **text, int *us) {
    *us = 0;
    if (!literal(text, ".")) return true;
    if (!is_digit(**text)) return false;
    for (int scale = 100000; is_digit(**text); scale /= 10) *us += (*(*text)++ - '0') * scale;
    return true;
}

bool td_time_read(const char *text, int64_t *us) {
    struct tm tm = { 0 };
    int micros, east, year, month, day, second;
    bool ok = digits(&text, 4, &year) && literal(&text, "-") && digits(&text, 2, &month) && literal(&text, "-") &&
              digits(&text, 2, &day) && literal(&text, "Tt ") && digits(&text, 2, &tm.tm_hour) && literal(&text, ":") &&
              digits(&text, 2, &tm.tm_min) && literal(&text, ":") && digits(&text, 2, &second) &&
              fraction(&text, &micros) && zone(&text, &east) && *text == '\0';
    if (!ok || month < 1 || month > 12 || tm.tm_hour > 23 || tm.tm_min > 59 || second > 60) return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    tm.tm_mday = day;
    int64_t seconds = timegm(&tm); /* carries a 30th of February over into March */
    if (tm.tm_mday != day || tm.tm_mon != month - 1) return false;
    *us = (seconds + second - east) * 1000000 + micros; /* a leap second is the next minute's first */
    return true;
}
