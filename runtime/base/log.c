/* log.c: records on their way to the log callback. */
#include "base.h"

bool td_log_on(const td_log *log, tidemill_level level) {
    return log->fn && level >= log->level;
}

void td_log_write(const td_log *log, tidemill_level level, const char *message, const tidemill_field *fields,
                  size_t count) {
    if (!td_log_on(log, level)) return;
    tidemill_record record = {
        .level = level, .time_us = td_wall_us(), .message = message, .fields = fields, .fields_count = count
    };
    log->fn(log->userdata, &record);
}

void td_logf(const td_log *log, tidemill_level level, const char *format, ...) {
    if (!td_log_on(log, level)) return;
    td_buf text = { 0 };
    va_list args;
    va_start(args, format);
    td_buf_vprintf(&text, format, args);
    va_end(args);
    td_log_write(log, level, text.failed ? format : text.data, NULL, 0);
    td_buf_free(&text);
}
