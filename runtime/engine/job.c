/* job.c: see job.h. */
#include "job.h"

#include <stdlib.h>

void td_job_free(td_job *job) {
    td_claimed_free(&job->claimed);
    td_result_free(&job->result);
    free(job->log);
    free(job);
}
