/* report.c: the log's line about an attempt. See report.h. */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool td_report_dies(const td_job *job) {
    switch (job->result.outcome) {
    case TD_FAILED:
    case TD_TIMEOUT:
    case TD_MEMORY:
        return job->claimed.attempt >= job->claimed.max_attempts;
    case TD_DISCARDED:
        return true;
    default:
        return false;
    }
}

static tidemill_level level_of(const td_job *job) {
    switch (job->result.outcome) {
    case TD_COMPLETED:
    case TD_SNOOZED:
    case TD_CANCELLED:
    case TD_RETURNED:
        return TIDEMILL_INFO;
    default:
        return td_report_dies(job) ? TIDEMILL_ERROR : TIDEMILL_WARN;
    }
}

static const char *message_of(const td_job *job) {
    if (td_report_dies(job)) return "job dead";
    switch (job->result.outcome) {
    case TD_COMPLETED:
        return "job completed";
    case TD_SNOOZED:
        return "job snoozed";
    case TD_CANCELLED:
        return "job cancelled";
    case TD_RETURNED:
        return "job given back";
    case TD_LOST:
        return "job lost";
    default:
        return "job failed";
    }
}

void td_report_attempt(const td_log *log, const td_job *job) {
    const td_claimed *c = &job->claimed;
    const td_result *r = &job->result;
    tidemill_level level = level_of(job);
    if (!td_log_on(log, level) && !r->warning) return;
    char id[24], attempt[16], generation[16], duration[32];
    double ms = (double)job->wall_us / 1e3;
    snprintf(id, sizeof id, "%" PRId64, c->id);
    snprintf(attempt, sizeof attempt, "%d", c->attempt);
    snprintf(generation, sizeof generation, "%d", job->generation);
    snprintf(duration, sizeof duration, "%.3f", ms);
    tidemill_field fields[9] = {
        { "job", id, true },
        { "task", c->task, false },
        { "queue", c->queue, false },
        { "attempt", attempt, true },
        { "outcome", td_outcome_name(r->outcome), false },
        { "duration_ms", duration, true },
    };
    size_t count = 6;
    if (job->generation) { /* else it did not start */
        fields[count++] = (tidemill_field){ "generation", generation, true };
        fields[count++] = (tidemill_field){ "code", job->code, false };
    }
    if (r->error) fields[count++] = (tidemill_field){ "error", r->error, false };
    td_log_write(log, level, message_of(job), fields, count);
    if (r->warning) td_log_write(log, TIDEMILL_WARN, r->warning, fields, 4);
}
