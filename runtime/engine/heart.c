/* heart.c: liveness, and what is heard from others.

   The heart registers the process and says that it lives. When the database has taken the process for dead meanwhile,
   its jobs are others' by now: they are ended here, and the process registers anew. */
#include "../store/dial.h"
#include "../store/listen.h"
#include "private.h"

/* ---- The heart ---- */

void td_keeper_differs(void *arg, const char *task) {
    td_keeper *k = arg;
    const tidemill_field fields[] = { { "task", task, false } };
    td_log_write(k->config.log, TIDEMILL_WARN,
                 "another process declares this task differently; the declaration of this one, the newest, is in force",
                 fields, 1);
}

static int enroll(td_keeper *k, tidemill_error *err) {
    uint64_t sent_ns = td_now_ns();
    int rc =
        td_work_start(k->config.name, k->queues_json.data, k->tasks_json.data, td_keeper_differs, k, &k->process, err);
    if (rc < 0) return rc;
    k->beat_ns = sent_ns;
    k->marked = false;
    k->alone = false;
    return td_reload_tell(k, 0, err);
}

/* stop_job ends a running job that somebody asked to stop. */
static void stop_job(void *arg, int64_t id, int64_t lease, bool cancel) {
    td_keeper *k = arg;
    td_pool_end(*k->config.pool, id, lease, cancel ? TD_CANCELLED : TD_DISCARDED, NULL);
}

/* answer tells what the running jobs do. A thread that is stuck is not waited for. */
static int answer(td_keeper *k, int64_t inquiry, bool traces, tidemill_error *err) {
    td_survey *survey = td_pool_survey(*k->config.pool, traces);
    uint64_t end_ns = td_now_ns() + TD_SURVEY_MS * UINT64_C(1000000);
    if (!survey) return td_error_memory(err);
    while (!td_survey_done(survey) && td_now_ns() < end_ns) (void)td_wait_until(td_now_ns() + 1000000, NULL);
    td_buf_clear(&k->survey_json);
    td_survey_take(survey, &k->survey_json);
    td_survey_unref(survey);
    if (k->survey_json.failed) return td_error_memory(err);
    return td_work_answer(k->process, inquiry, k->survey_json.data, err);
}

static int beat(td_keeper *k, tidemill_error *err) {
    td_pulse pulse = { .arg = k, .stop = stop_job };
    uint64_t sent_ns = td_now_ns();
    int rc = td_work_heartbeat(k->process, &pulse, err);
    if (rc < 0 || k->done) return rc; /* once it has signed off, it is not alive, and what it ran with may be gone */
    if (pulse.alive) {
        k->beat_ns = sent_ns;
        if (k->alone) td_exchange_ask(k, NULL);
        k->alone = false;
        if (pulse.reload > k->reload.request) {
            if (pulse.reload_to[0])
                td_reload_to(k, pulse.reload_to, pulse.reload);
            else
                td_reload_ask(k, pulse.reload);
        }
        rc = td_reload_beat(k, err);
        return rc == 0 && pulse.inquiry ? answer(k, pulse.inquiry, pulse.traces, err) : rc;
    }
    td_logf(k->config.log, TIDEMILL_ERROR,
            "this process was taken for dead and its jobs were given to others: those that run here are ended");
    td_keeper_end_all(k, TD_LOST, "the process was taken for dead, and the job was given to another");
    rc = enroll(k, err);
    if (rc == 0) td_exchange_ask(k, NULL);
    return rc;
}

/* tell_start lets td_keeper_start return. */
static void tell_start(td_keeper *k, int rc, const tidemill_error *err) {
    k->start_rc = rc;
    if (rc < 0) k->start_error = *err;
    k->started = rc == 0;
    uv_sem_post(&k->told);
}

void td_heart_fiber(void *arg) {
    td_keeper *k = arg;
    tidemill_error err;
    bool failing = false;
    int rc = enroll(k, &err);
    tell_start(k, rc, &err);
    if (rc == 0) td_keeper_begin(k);
    for (;;) {
        while (!k->beat) td_fiber_park(); /* for ever after a failed start */
        k->beat = false;
        rc = beat(k, &err);
        if (rc < 0 && !failing) td_logf(k->config.log, TIDEMILL_WARN, "heartbeat: %s", err.message);
        failing = rc < 0;
    }
}

/* ---- The listener ---- */

/* heard takes a notification: the name of a queue that has work, or "" when a running job was asked to stop. */
static void heard(void *arg, const char *payload) {
    td_keeper *k = arg;
    if (*payload == '\0') {
        k->beat = true;
        td_fiber_wake(k->heart);
        return;
    }
    td_queue_state *queue = td_queues_find(k->config.queues, payload);
    if (queue) td_exchange_ask(k, queue);
}

static void hang_up(td_hold *hold) {
    td_keeper *k = td_container(hold, td_keeper, ear_hold);
    td_dial_hangup(k->ear);
    k->ear = NULL;
}

/* listen_once listens until the connection is lost. */
static int listen_once(td_keeper *k, tidemill_error *err) {
    int rc = td_listen_open(k->config.database, &k->ear, err);
    if (rc < 0) return rc;
    td_hold_push(td_fiber_self(), &k->ear_hold, hang_up);
    td_exchange_ask(k, NULL); /* what was notified meanwhile was not heard */
    while (rc == 0) rc = td_listen_wait(k->ear, heard, k, err);
    td_hold_take(&k->ear_hold);
    hang_up(&k->ear_hold);
    return rc;
}

void td_listener_fiber(void *arg) {
    td_keeper *k = arg;
    tidemill_error err;
    int64_t pause_ms = 0;
    for (;;) {
        uint64_t began_ns = td_now_ns();
        (void)!listen_once(k, &err);
        if (td_now_ns() - began_ns > TD_RETRY_MAX_MS * UINT64_C(1000000)) pause_ms = 0;
        if (pause_ms == 0) {
            td_logf(k->config.log, TIDEMILL_WARN,
                    "notifications are not heard: %s; until they are, jobs start up to %d s late", err.message,
                    TD_POLL_MS / 1000);
        }
        td_keeper_pause(&pause_ms);
    }
}
