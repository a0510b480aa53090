/* parse.h: what is typed on a command line, read strictly: numbers, durations, times, queue=workers.

   Each function returns 0, or INVALID with a sentence that does not name the option (the caller puts that before). */
#ifndef TD_PARSE_H
#define TD_PARSE_H

#include "../base/base.h"

/* td_parse_integer reads a whole number from min to max, all of text. */
int td_parse_integer(const char *text, int64_t min, int64_t max, int64_t *value, tidemill_error *err) TD_MUST_CHECK;

/* td_parse_duration reads "90", "90s", "5m", "2h", "1d", "1h30m", "1.5h", "250ms" into milliseconds. A number without
   a unit is seconds. At most 100 years. */
int td_parse_duration(const char *text, int64_t *ms, tidemill_error *err) TD_MUST_CHECK;

/* td_parse_time reads an RFC 3339 time with its zone, "2030-01-31T08:00:00Z" or "2030-01-31 08:00:00.5+02:00" (also
   "+02", as PostgreSQL prints it), into microseconds since 1970. */
int td_parse_time(const char *text, int64_t *us, tidemill_error *err) TD_MUST_CHECK;

/* td_parse_queue reads "NAME=N", or "NAME" for 10 workers. *name is malloc'd. */
int td_parse_queue(const char *text, char **name, int *workers, tidemill_error *err) TD_MUST_CHECK;

#endif
