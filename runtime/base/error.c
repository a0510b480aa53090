/* error.c: filling in the caller's tidemill_error. Every function here accepts NULL for it. */
#include "utf8.h"

#include <stdio.h>
#include <string.h>

/* format_message writes the message; what does not fit is cut at a character. */
static void format_message(tidemill_error *err, const char *format, va_list args) {
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    if (n < 0) err->message[0] = 0;
    if (n >= (int)sizeof err->message) err->message[td_utf8_trim(err->message, sizeof err->message - 1)] = 0;
}

int td_error_set(tidemill_error *err, int code, const char *format, ...) {
    if (!err) return code;
    err->code = code;
    err->sqlstate[0] = 0;
    err->field[0] = 0;
    va_list args;
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    return code;
}

int td_error_field(tidemill_error *err, const char *field, const char *format, ...) {
    if (!err) return TIDEMILL_EINVALID;
    err->code = TIDEMILL_EINVALID;
    err->sqlstate[0] = 0;
    snprintf(err->field, sizeof err->field, "%s", field);
    va_list args;
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    return TIDEMILL_EINVALID;
}

int td_error_prefix(tidemill_error *err, const char *format, ...) {
    if (!err) return TIDEMILL_EINVALID;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    format_message(err, format, args);
    va_end(args);
    size_t used = strlen(err->message), room = sizeof err->message - used;
    int n = snprintf(err->message + used, room, ": %s", old);
    if (n >= (int)room) err->message[td_utf8_trim(err->message, sizeof err->message - 1)] = 0;
    return err->code;
}

int td_error_memory(tidemill_error *err) {
    return td_error_set(err, TIDEMILL_EMEMORY, "there was not enough memory");
}

const char *tidemill_error_name(int code) {
    switch (code) {
#define X(name, value, lua, meaning)                                                                                   \
    case value:                                                                                                        \
        return lua;
        TIDEMILL_ERRORS(X)
#undef X
    default:
        return "unknown";
    }
}
