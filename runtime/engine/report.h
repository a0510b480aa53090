/* report.h: the log's line about an attempt. */
#ifndef TD_REPORT_H
#define TD_REPORT_H

#include "job.h"

/* td_report_attempt writes one record about a job that has ended: job, task, queue, attempt, outcome, duration_ms,
   generation and code that it ran on, and the error where there is one; another for what it warns of. From any thread.
 */
void td_report_attempt(const td_log *log, const td_job *job);

/* td_report_dies says whether the attempt was its job's last, and failed: it goes to the dead-letter queue. */
bool td_report_dies(const td_job *job);

#endif
