/* schedule.c: one turn of a thread, hung into libuv's loop.

   libuv waits for I/O between its `prepare` and its `check` handles. In `check`, when posts and I/O have been dealt
   with, the sleepers that are due become ready, and then fibers run: first those that are ready, each once; then those
   that only gave way, were made to, or are new, for a short time. What one fiber wakes runs in the next turn, so that
   I/O and timers do not starve; and when those that are ready take long, the others of them wait for the next turn,
   too. */
#include "private.h"

#include <assert.h>

/* How long fibers that are ready, and then those that only gave way, may keep I/O and the others from their turn. One
   of each always runs. */
#define READY_NS   2000000u
#define YIELDED_NS 1000000u

#define NS_PER_MS 1000000u
#define NEVER_NS  UINT64_MAX

/* run_fiber runs one until it parks or ends. */
static void run_fiber(td_fiber *fiber) {
    td_switch_to(fiber);
    if (fiber->returned)
        td_fiber_drop(fiber);
    else if (fiber->overflowed)
        fiber->overflow(fiber->overflow_arg);
}

void td_fiber_run(td_fiber *fiber) {
    assert(fiber->thread == td_thread_self() && !fiber->thread->current);
    td_list_remove(&fiber->link);
    run_fiber(fiber);
}

/* run_queue runs the fibers of a queue that stand before the mark, each once; but begins none after until_ns. Takes the
   mark out. */
static void run_queue(td_list *queue, td_list *mark, uint64_t until_ns) {
    for (td_list *link; (link = td_list_shift(queue)) != mark;) {
        td_fiber *fiber = td_container(link, td_fiber, link);
        run_fiber(fiber);
        if (td_now_ns() >= until_ns) break;
    }
    td_list_remove(mark);
}

/* wake_due makes the sleepers ready whose time has come, in the order of their times. */
static void wake_due(td_thread *thread) {
    td_fiber *first = td_sleepers_first(&thread->sleepers);
    if (!first) return;
    for (uint64_t now_ns = td_now_ns(); first && first->due_ns <= now_ns;) {
        td_sleepers_remove(&thread->sleepers, first);
        first->due = true;
        td_schedule_ready(first);
        first = td_sleepers_first(&thread->sleepers);
    }
}

/* on_after is the turn. Who joins a queue during it stands behind the marks, and waits for the next. */
static void on_after(uv_check_t *check) {
    td_thread *thread = check->data;
    td_list ready_mark = { 0 }, yielded_mark = { 0 };
    wake_due(thread);
    if (td_list_empty(&thread->ready) && td_list_empty(&thread->yielded)) return;
    td_switch_clock(thread);
    td_list_push(&thread->ready, &ready_mark);
    td_list_push(&thread->yielded, &yielded_mark);
    run_queue(&thread->ready, &ready_mark, td_now_ns() + READY_NS);
    run_queue(&thread->yielded, &yielded_mark, td_now_ns() + YIELDED_NS);
}

/* on_busy and on_alarm only make libuv end its waiting: what is to be done then is done in on_after. */
static void on_busy(uv_idle_t *idle) {
    (void)idle;
}

static void on_alarm(uv_timer_t *timer) {
    td_thread *thread = timer->data;
    thread->alarm_ns = NEVER_NS;
}

/* set_alarm sets libuv's timer for the first sleeper. libuv counts in milliseconds from the time it last read: read it
   anew, and round up, so that the alarm comes at most a millisecond late, and hardly ever early (it is set again then).
 */
static void set_alarm(td_thread *thread) {
    const td_fiber *first = td_sleepers_first(&thread->sleepers);
    uint64_t due_ns = first ? first->due_ns : NEVER_NS;
    if (due_ns == thread->alarm_ns) return;
    thread->alarm_ns = due_ns;
    if (due_ns == NEVER_NS) {
        uv_timer_stop(&thread->alarm);
        return;
    }
    uint64_t now_ns = td_now_ns();
    uint64_t in_ms = due_ns > now_ns ? (due_ns - now_ns - 1) / NS_PER_MS + 1 : 0;
    uv_update_time(&thread->loop);
    uv_timer_start(&thread->alarm, on_alarm, in_ms, 0);
}

/* on_before decides how long libuv may wait. */
static void on_before(uv_prepare_t *prepare) {
    td_thread *thread = prepare->data;
    if (td_list_empty(&thread->ready) && td_list_empty(&thread->yielded)) {
        uv_idle_stop(&thread->busy);
        set_alarm(thread);
    } else {
        uv_idle_start(&thread->busy, on_busy);
    }
}

void td_schedule_init(td_thread *thread) {
    uv_loop_t *loop = &thread->loop;
    td_list_init(&thread->ready);
    td_list_init(&thread->yielded);
    thread->alarm_ns = NEVER_NS;
    uv_prepare_init(loop, &thread->before); /* these four cannot fail */
    uv_check_init(loop, &thread->after);
    uv_idle_init(loop, &thread->busy);
    uv_timer_init(loop, &thread->alarm);
    thread->before.data = thread->after.data = thread->busy.data = thread->alarm.data = thread;
    uv_prepare_start(&thread->before, on_before);
    uv_check_start(&thread->after, on_after);
}

void td_schedule_ready(td_fiber *fiber) {
    if (!fiber->link.next) td_list_push(&fiber->thread->ready, &fiber->link);
}

void td_schedule_yield(td_fiber *fiber) {
    assert(fiber == fiber->thread->current);
    td_list_push(&fiber->thread->yielded, &fiber->link);
    td_switch_back(fiber);
}
