/* stuck.c: jobs that do not let go of their threads, since foreign code blocks in there.

   The thread cannot be asked anything, and what is on it cannot be touched. So when it is written off, the ends of the
   jobs that waited on it are recorded by copies of them; the originals are freed when the thread hands them back, some
   time or never. The job that it is stuck in may still end by itself, until its deadline. */
#include "private.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>

/* replace records an end of a job that stays where it is, by a copy. */
static void replace(td_keeper *k, td_job *job, td_outcome outcome, const char *why) {
    td_job *copy = calloc(1, sizeof *copy);
    if (!copy) return; /* it is tried again */
    const td_claimed *c = &job->claimed;
    copy->claimed = (td_claimed){ .id = c->id,
                                  .task = td_strdup(c->task),
                                  .queue = td_strdup(c->queue),
                                  .run = c->run,
                                  .attempt = c->attempt,
                                  .max_attempts = c->max_attempts };
    copy->lease = job->lease;
    copy->lease->open++;
    copy->token = job->token;
    copy->queue = job->queue;
    copy->result = (td_result){ .outcome = outcome, .error = td_strdup(why), .delay_s = -1 };
    td_list_init(&copy->running);
    td_list_remove(&job->running);
    td_list_push(&k->running, &copy->running);
    job->abandoned = true;
    if (copy->claimed.task && copy->claimed.queue) td_report_attempt(k->config.log, copy);
    td_keeper_job_ended(k, copy);
}

void td_stuck_give_back(td_keeper *k, const td_executor *executor, int64_t but) {
    for (td_list *node = k->running.next, *after; node != &k->running; node = after) {
        td_job *job = td_container(node, td_job, running);
        after = node->next;
        if ((!executor || job->executor == executor) && job->claimed.id != but) replace(k, job, TD_RETURNED, NULL);
    }
    td_exchange_ask(k, NULL);
}

void td_stuck_check(td_keeper *k) {
    uint64_t now = td_now_ns();
    for (td_list *node = k->running.next, *after; node != &k->running; node = after) {
        td_job *job = td_container(node, td_job, running);
        after = node->next;
        if (now <= atomic_load(&job->overdue_ns)) continue;
        td_executor *executor = job->executor;
        int64_t id = job->claimed.id;
        replace(k, job, TD_TIMEOUT, "the job ran into its timeout, and blocks its thread still");
        if (!job->abandoned || !td_pool_write_off(*k->config.pool, executor, id)) continue;
        td_stuck_give_back(k, executor, id);
        after = k->running.next; /* the one that followed may be gone */
    }
}

static void log_stuck(td_keeper *k, const td_job *job, uint64_t ms, bool lost) {
    char id[24], text[24];
    snprintf(id, sizeof id, "%lld", (long long)job->claimed.id);
    snprintf(text, sizeof text, "%llu", (unsigned long long)ms);
    const tidemill_field fields[] = { { "job", id, true },
                                      { "task", job->claimed.task, false },
                                      { "blocked_ms", text, true } };
    td_log_write(
        k->config.log, lost ? TIDEMILL_ERROR : TIDEMILL_WARN,
        lost ? "the thread that this job blocks was given up, and the other jobs on it go on elsewhere; declare "
               "blocking = true in the task's handler"
             : "this job blocks its thread, and the other jobs on it wait; declare blocking = true in the task's "
               "handler, or use one of tidemill's own libraries, which wait without holding a thread",
        fields, TD_COUNT(fields));
}

/* What the watcher tells. */
typedef struct report {
    td_keeper *keeper;
    td_executor *executor;
    int64_t job;
    uint64_t ms;
} report;

static void deal_with(void *arg) {
    report *r = arg;
    td_keeper *k = r->keeper;
    for (td_list *node = k->running.next; node != &k->running; node = node->next) {
        const td_job *job = td_container(node, td_job, running);
        if (job->claimed.id != r->job || job->executor != r->executor) continue;
        bool lost = r->ms >= TD_WRITE_OFF_MS && td_pool_write_off(*k->config.pool, r->executor, r->job);
        if (lost) atomic_fetch_add(&k->written_off, 1);
        if (r->ms < 2 * TD_STUCK_MS) atomic_fetch_add(&k->blocked, 1);
        if (lost || r->ms < 2 * TD_STUCK_MS) log_stuck(k, job, r->ms, lost);
        if (lost) td_stuck_give_back(k, r->executor, r->job);
        break;
    }
    free(r);
}

void td_keeper_stuck(void *keeper, td_executor *executor, int64_t job, uint64_t ms) {
    td_keeper *k = keeper;
    report *r = malloc(sizeof *r);
    if (!r) return; /* it is told again */
    *r = (report){ k, executor, job, ms };
    if (td_thread_post(k->thread, deal_with, r) < 0) free(r);
}
