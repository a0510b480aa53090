/* fiber.c: the life of a fiber: made, parked, woken, dropped; and what it holds beyond its stack. */
#include "private.h"

#include <assert.h>
#include <stdlib.h>

td_fiber *td_fiber_self(void) {
    td_thread *thread = td_thread_self();
    return thread ? thread->current : NULL;
}

void td_nopreempt_enter(void) {
    td_fiber *self = td_fiber_self();
    if (self) self->nopreempt++;
}

void td_nopreempt_leave(void) {
    td_fiber *self = td_fiber_self();
    if (!self) return;
    assert(self->nopreempt > 0);
    self->nopreempt--;
}

/* fiber_alloc makes a fiber with a stack, or returns NULL. */
static td_fiber *fiber_alloc(td_thread *thread, size_t stack_size) {
    td_fiber *fiber = calloc(1, sizeof *fiber);
    if (!fiber || !td_sleepers_reserve(&thread->sleepers, thread->fibers_count + 1)) goto failed;
    fiber->stack = td_stack_new(&thread->stacks, stack_size);
    if (fiber->stack) return fiber;
failed:
    free(fiber);
    return NULL;
}

td_fiber *td_fiber_new(td_call_fn *entry, void *arg, size_t stack_size) {
    td_thread *thread = td_thread_self();
    assert(thread);
    td_nopreempt_enter();
    td_fiber *fiber = fiber_alloc(thread, stack_size);
    if (fiber) {
        fiber->thread = thread;
        fiber->entry = entry;
        fiber->arg = arg;
        fiber->due_place = TD_AWAKE;
        td_list_init(&fiber->holds);
        td_list_push(&thread->fibers, &fiber->all);
        thread->fibers_count++;
        td_switch_init(fiber);
    }
    td_nopreempt_leave();
    return fiber;
}

void td_fiber_park(void) {
    td_fiber *self = td_fiber_self();
    assert(self);
    if (self->token) {
        self->token = false;
        td_schedule_yield(self);
    } else {
        td_switch_back(self);
    }
}

const char *td_fiber_doing(const char *what) {
    td_fiber *self = td_fiber_self();
    if (!self) return NULL;
    const char *before = self->doing;
    self->doing = what;
    return before;
}

const char *td_fiber_waits(const td_fiber *fiber) {
    if (fiber->link.next) return NULL;
    if (fiber->doing) return fiber->doing;
    return fiber->due_place != TD_AWAKE ? "a time" : "an event";
}

void td_fiber_yield(void) {
    td_fiber *self = td_fiber_self();
    assert(self);
    td_schedule_yield(self);
}

void td_fiber_start(td_fiber *fiber) {
    assert(fiber->thread == td_thread_self());
    if (!fiber->link.next) td_list_push(&fiber->thread->yielded, &fiber->link);
}

void td_fiber_interrupt(td_fiber *fiber) {
    fiber->interrupted = true;
    if (fiber != fiber->thread->current) td_schedule_ready(fiber);
}

void td_fiber_restore(td_fiber *fiber) {
    fiber->interrupted = false;
}

bool td_fiber_interrupted(void) {
    const td_fiber *self = td_fiber_self();
    return self && self->interrupted;
}

void td_fiber_set_tag(td_fiber *fiber, int64_t tag) {
    fiber->tag = tag;
    if (fiber == fiber->thread->current) atomic_store_explicit(&fiber->thread->run_tag, tag, memory_order_relaxed);
}

uint64_t td_fiber_run_ns(td_fiber *fiber) {
    if (fiber == fiber->thread->current) td_switch_account(fiber);
    return fiber->run_ns;
}

bool td_fiber_torn(const td_fiber *fiber) {
    return fiber->torn;
}

void td_fiber_set_preempt(td_fiber *fiber, const td_preempt *preempt, void *arg) {
    /* A signal may come in between: it finds either nothing, or both. */
    fiber->preempt = NULL;
    atomic_signal_fence(memory_order_seq_cst);
    fiber->preempt_arg = arg;
    atomic_signal_fence(memory_order_seq_cst);
    fiber->preempt = preempt;
}

void td_fiber_set_overflow(td_fiber *fiber, td_call_fn *fn, void *arg) {
    fiber->overflow = fn;
    fiber->overflow_arg = arg;
}

void td_fiber_wake(td_fiber *fiber) {
    td_thread *thread = fiber->thread;
    assert(thread == td_thread_self());
    if (fiber == thread->current || fiber->link.next)
        fiber->token = true;
    else
        td_schedule_ready(fiber);
}

void td_fiber_drop(td_fiber *fiber) {
    if (!fiber) return;
    td_thread *thread = fiber->thread;
    assert(thread == td_thread_self() && fiber != thread->current);
    td_nopreempt_enter();
    td_list_remove(&fiber->link);
    td_sleepers_remove(&thread->sleepers, fiber);
    for (td_list *link; (link = td_list_shift(&fiber->holds));) {
        td_hold *hold = td_container(link, td_hold, link);
        hold->release(hold);
    }
    td_list_remove(&fiber->link); /* a release may have woken it */
    td_list_remove(&fiber->all);
    thread->fibers_count--;
    td_switch_fini(fiber);
    td_stack_free(&thread->stacks, fiber->stack);
    free(fiber);
    td_nopreempt_leave();
}

void td_hold_push(td_fiber *fiber, td_hold *hold, void (*release)(td_hold *)) {
    hold->release = release;
    td_list_unshift(&fiber->holds, &hold->link);
}

void td_hold_take(td_hold *hold) {
    td_list_remove(&hold->link);
}
