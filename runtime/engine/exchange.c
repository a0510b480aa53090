/* exchange.c: claiming and recording, in one round trip for both: what gathers while one is under way is the next
   batch. So an idle system answers at once and a busy one batches, and no timer decides.

   What is due: a queue's `due` says that there may be jobs that were not asked for. It is set by a notification, by the
   poll, by the timer for the next job that waits for its time, and stays set while a claim comes back full.

   Falling asleep: enqueues notify only processes that are marked as asleep. A process marks itself when a claim has
   come back short, and asks once more after that, since what was committed before its mark could be seen has notified
   nobody. It takes the mark back when its claims have come back full for a second.

   Claiming ahead: where jobs end faster than a round trip takes, the workers would wait for most of the time. So a
   queue may claim as many more than it has workers as have ended since the last exchange, if those were several: about
   what will end during this one. They wait in `ahead`, in order, and are started as workers become free; what still
   waits after half a second, since the jobs before it turned out to be long, is given back for others to run.

   An exchange whose outcome is unknown is done again with the same batch, which changes nothing if it had taken effect;
   what it may have claimed is given back first. */
#include "private.h"
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_NS  UINT64_C(1000000000)
#define AHEAD_NS UINT64_C(500000000)

enum { AHEAD_MIN = 8 }; /* fewer that ended in one exchange are no reason to claim ahead */

/* ---- Jobs that wait for a worker of this process ---- */

static void push_ahead(td_job *job) {
    td_list_push(&job->queue->ahead, &job->link);
    job->queue->ahead_count++;
}

static td_job *first_ahead(const td_queue_state *q) {
    return q->ahead_count > 0 ? td_container(q->ahead.next, td_job, link) : NULL;
}

static td_job *shift_ahead(td_queue_state *q) {
    td_list *node = q->ahead_count > 0 ? td_list_shift(&q->ahead) : NULL;
    if (!node) return NULL;
    q->ahead_count--;
    return td_container(node, td_job, link);
}

/* give_back gives back those that have waited for too long, or all when nothing is to be started any more. */
static void give_back(td_keeper *k) {
    bool all = k->stopping || k->alone;
    uint64_t now = td_now_ns();
    for (size_t i = 0; i < k->config.queues->count; i++) {
        td_queue_state *q = k->config.queues->list[i];
        td_job *job;
        while ((job = first_ahead(q)) != NULL && (all || now - job->claimed_ns > AHEAD_NS)) {
            td_list_push(&k->ended, &shift_ahead(q)->link);
            job->result.outcome = TD_RETURNED;
        }
    }
}

static void prepare(td_keeper *k, td_job *job) {
    job->queue->busy++;
    k->running_count++;
    atomic_fetch_add(&k->now_running, 1);
    td_list_push(&k->running, &job->running);
}

/* start_jobs hands as many to the pool as there are free workers. */
static void start_jobs(td_keeper *k) {
    td_list jobs;
    if (k->stopping || k->alone) {
        give_back(k);
        return;
    }
    td_list_init(&jobs);
    for (size_t i = 0; i < k->config.queues->count; i++) {
        td_queue_state *q = k->config.queues->list[i];
        td_job *job;
        while (q->busy < q->workers && (job = shift_ahead(q)) != NULL) {
            prepare(k, job);
            td_list_push(&jobs, &job->link);
        }
    }
    if (!td_list_empty(&jobs)) td_pool_run(*k->config.pool, &jobs);
}

void td_exchange_wake(td_keeper *k) {
    start_jobs(k);
    td_fiber_wake(k->exchange);
}

void td_exchange_ask(td_keeper *k, td_queue_state *queue) {
    if (queue) queue->due = true;
    for (size_t i = 0; !queue && i < k->config.queues->count; i++) k->config.queues->list[i]->due = true;
    td_exchange_wake(k);
}

static void on_due(uv_timer_t *timer) {
    td_exchange_ask(timer->data, NULL);
}

/* ---- What to send ---- */

/* ahead_of returns how many more of a queue's jobs to claim than it has workers: as many as have ended since the last
   exchange, and twice as many where the workers had nothing left to do. */
static int ahead_of(const td_queue_state *q) {
    if (q->ended < AHEAD_MIN) return 0;
    return q->ahead_count == 0 && q->busy < q->workers ? 2 * q->ended : q->ended;
}

/* find_room decides how many jobs of each queue to ask for, also ahead or not. Returns their sum. */
static int find_room(td_keeper *k, bool ahead) {
    int sum = 0;
    for (size_t i = 0; i < k->config.queues->count; i++) {
        td_queue_state *q = k->config.queues->list[i];
        int left = TD_BATCH_MAX - sum, room = q->workers - q->busy - q->ahead_count;
        if (ahead) room += ahead_of(q);
        if (room < 0) room = 0;
        q->got = 0;
        q->free = !q->due || k->stopping || k->alone ? 0 : room < left ? room : left;
        sum += q->free;
    }
    return sum;
}

static void fill_batch(td_keeper *k) {
    td_list *node;
    if (k->batch_count > 0) return; /* it is sent again */
    for (size_t i = 0; i < k->config.queues->count; i++) k->config.queues->list[i]->ended = 0;
    while (k->batch_count < TD_BATCH_MAX && (node = td_list_shift(&k->ended)) != NULL) {
        td_job *job = td_container(node, td_job, link);
        job->queue->ended++;
        k->batch[k->batch_count++] = job;
    }
}

static void describe_endings(td_keeper *k, td_exchange *x) {
    for (size_t i = 0; i < k->batch_count; i++) {
        const td_job *job = k->batch[i];
        const td_result *r = &job->result;
        k->endings[i] = (td_ending){
            .id = job->claimed.id,
            .lease = job->token,
            .outcome = td_outcome_name(r->outcome),
            .error = r->error,
            .traceback = r->traceback,
            .result = r->result,
            .delay_s = r->delay_s,
            .cpu_us = job->cpu_us,
            .wall_us = job->wall_us,
            .peak_bytes = job->peak_bytes,
            .generation = job->generation,
            .code = job->code,
            .log = r->outcome == TD_COMPLETED && !k->config.keep_logs ? NULL : job->log,
        };
    }
    x->endings = k->endings;
    x->endings_count = k->batch_count;
}

/* find_spent lists the leases of which nothing is left when the batch is recorded. */
static void find_spent(td_keeper *k, td_exchange *x) {
    for (size_t i = 0; i < k->batch_count; i++) {
        td_lease *lease = k->batch[i]->lease;
        if (++lease->ending == lease->open) k->spent[x->spent_count++] = lease->token;
    }
    for (size_t i = 0; i < k->batch_count; i++) k->batch[i]->lease->ending = 0;
    x->spent = k->spent;
}

/* ---- What came back ---- */

/* take_job keeps a claimed job. */
static int take_job(void *arg, td_claimed *claimed) {
    td_keeper *k = arg;
    td_queue_state *queue = td_queues_find(k->config.queues, claimed->queue);
    td_job *job = queue ? calloc(1, sizeof *job) : NULL;
    if (!job) return -1;
    job->claimed = *claimed;
    job->lease = k->lease;
    job->token = k->lease->token;
    job->queue = queue;
    job->result.delay_s = -1;
    job->overdue_ns = UINT64_MAX;
    td_list_init(&job->running);
    td_list_push(&k->claimed, &job->link);
    k->lease->open++;
    queue->got++;
    return 0;
}

static void note_stale(void *arg, int64_t id) {
    td_keeper *k = arg;
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, id);
    const tidemill_field fields[] = { { "job", text, true } };
    atomic_fetch_add(&k->outcomes[TD_LOST], 1);
    td_log_write(k->config.log, TIDEMILL_WARN, "the job was lost to another process before its end was recorded",
                 fields, 1);
}

/* keep_jobs lets the claimed jobs start. */
static void keep_jobs(td_keeper *k) {
    td_list *node;
    uint64_t now = td_now_ns();
    while ((node = td_list_shift(&k->claimed)) != NULL) {
        td_job *job = td_container(node, td_job, link);
        job->claimed_ns = now;
        push_ahead(job);
    }
    start_jobs(k);
}

/* drop_jobs forgets what a claim that failed may have brought. */
static void drop_jobs(td_keeper *k) {
    td_list *node;
    if (td_list_empty(&k->claimed)) free(k->lease);
    while ((node = td_list_shift(&k->claimed)) != NULL) td_keeper_job_free(td_container(node, td_job, link));
    k->lease = NULL;
}

/* settle_queues notes what the claim tells about what is due, and about falling asleep. */
static void settle_queues(td_keeper *k, int room, const td_exchange *x, const td_exchange_reply *reply) {
    bool came_short = false;
    for (size_t i = 0; i < k->config.queues->count; i++) {
        td_queue_state *q = k->config.queues->list[i];
        if (q->free == 0 || q->got == q->free) continue;
        came_short = true;
        q->due = false;
    }
    if (x->marks != TD_MARKS_KEEP) k->marked = x->marks == TD_MARKS_SET;
    if (came_short || room == 0)
        k->busy_ns = 0;
    else if (k->busy_ns == 0)
        k->busy_ns = td_now_ns();
    if (x->marks == TD_MARKS_SET || (came_short && !k->marked)) td_exchange_ask(k, NULL);
    if (room > 0 && reply->wait_ms >= 0 && reply->wait_ms < TD_POLL_MS) {
        uv_update_time(k->due.loop);
        uv_timer_start(&k->due, on_due, (uint64_t)reply->wait_ms + 1, 0);
    }
}

/* wanted_marks decides whether to change the marks with this exchange: before a claim that is likely to come back
   short, which is one after a claim that did (busy_ns is 0 then). */
static int wanted_marks(const td_keeper *k, int room) {
    if (k->stopping) return TD_MARKS_KEEP;
    if (k->marked) return k->busy_ns && td_now_ns() - k->busy_ns > BUSY_NS ? TD_MARKS_CLEAR : TD_MARKS_KEEP;
    return room > 0 && k->busy_ns == 0 ? TD_MARKS_SET : TD_MARKS_KEEP;
}

/* ---- One exchange ---- */

/* describe fills in what is sent. */
static void describe(td_keeper *k, int room, td_exchange *x) {
    *x = (td_exchange){
        .process = k->process, .token = k->lease->token, .tasks = k->tasks, .tasks_count = k->tasks_count
    };
    describe_endings(k, x);
    find_spent(k, x);
    x->marks = wanted_marks(k, room);
    x->rooms = k->rooms;
    x->rooms_count = room > 0 ? k->config.queues->count : 0;
    for (size_t i = 0; i < x->rooms_count; i++)
        k->rooms[i] = (td_room){ k->config.queues->list[i]->name, k->config.queues->list[i]->free };
}

/* exchange does one round trip. Afterwards the batch is empty, unless it failed. */
static int exchange(td_keeper *k, int room, tidemill_error *err) {
    td_exchange x;
    td_exchange_reply reply = { .arg = k, .job = take_job, .stale = note_stale };
    k->lease = calloc(1, sizeof *k->lease);
    if (!k->lease) return td_error_memory(err);
    k->lease->token = td_random_id();
    describe(k, room, &x);
    int rc = td_work_exchange(&x, &reply, err);
    if (rc < 0) {
        if (room > 0) k->unknown_token = x.token;
        drop_jobs(k);
        return rc;
    }
    for (size_t i = 0; i < k->batch_count; i++) td_keeper_job_free(k->batch[i]);
    k->batch_count = 0;
    settle_queues(k, room, &x, &reply);
    if (reply.jobs == 0) free(k->lease);
    k->lease = NULL;
    keep_jobs(k);
    return 0;
}

/* work does what there is to do once. */
static int work(td_keeper *k, tidemill_error *err) {
    if (k->unknown_token) {
        int rc = td_work_give_back(k->process, k->unknown_token, err);
        if (rc < 0) return rc;
        k->unknown_token = 0;
    }
    fill_batch(k);
    return exchange(k, find_room(k, true), err);
}

/* enough_ended tells whether there is enough to record. While jobs wait for a worker here, as many may gather as wait:
   more in one round trip, and still half of the work left to do meanwhile. */
static bool enough_ended(const td_keeper *k) {
    int wanted = 1;
    for (size_t i = 0; i < k->config.queues->count; i++) wanted += k->config.queues->list[i]->ahead_count;
    for (const td_list *node = k->ended.next; node != &k->ended && wanted > 0; node = node->next) wanted--;
    return wanted == 0;
}

/* wait_for_work parks until there is something to do. Returns the room for claims, or -1 when all is done for good. */
static int wait_for_work(td_keeper *k) {
    for (;;) {
        give_back(k);
        int room = find_room(k, false);
        if (room > 0 || k->batch_count > 0 || enough_ended(k)) return room;
        if (k->stopping && k->running_count == 0) return -1;
        td_fiber_park();
    }
}

void td_exchange_fiber(void *arg) {
    td_keeper *k = arg;
    tidemill_error err;
    int64_t pause_ms = 0;
    for (;;) {
        int room = wait_for_work(k);
        int rc = room < 0 ? td_work_stop(k->process, &err) : work(k, &err);
        if (rc == 0 && room < 0) break;
        if (rc == 0) {
            pause_ms = 0;
            continue;
        }
        if (pause_ms == 0)
            td_logf(k->config.log, TIDEMILL_ERROR, "jobs cannot be claimed or recorded: %s", err.message);
        td_keeper_pause(&pause_ms);
    }
    td_keeper_done(k);
    for (;;) td_fiber_park(); /* the keeper may still be woken */
}
