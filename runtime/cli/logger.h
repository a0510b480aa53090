/* logger.h: writes the runtime's log records, one line each with one write, as text or as JSON.

   Text:  2030-01-31 08:00:00.123 info  job ended job=42 task=cleanup outcome=completed
   JSON:  {"ts":"2030-01-31T07:00:00.123456Z","level":"info","message":"job ended","job":42,"task":"cleanup"}
   What a handler wrote cannot forge a line: control characters are escaped. On a terminal, text of several lines (a
   traceback) follows its record as an indented block. */
#ifndef TD_LOGGER_H
#define TD_LOGGER_H

#include "../base/base.h"

typedef struct td_logger {
    int fd;
    bool json, colour, blocks;
} td_logger;

/* td_logger_init sets a logger up for a descriptor. format is "text", "json", or NULL: text on a terminal, else JSON.
 */
void td_logger_init(td_logger *logger, int fd, const char *format);

/* td_logger_write is the tidemill_log_fn of a td_logger, its userdata. From any thread. A line that cannot be written
   is dropped. */
void td_logger_write(void *logger, const tidemill_record *record);

/* td_logger_level returns the level of a name in td_logger_levels, a NULL-terminated list. NULL: INFO. */
extern const char *const td_logger_levels[];
extern const char *const td_logger_formats[];
tidemill_level td_logger_level(const char *name);

#endif
