/* sleepers.c: a binary heap: each fiber is due no later than the two below it, and knows its place. */
#include "private.h"

#include <stdlib.h>

/* before: whether a is due before b. */
static bool before(const td_fiber *a, const td_fiber *b) {
    return a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->due_number < b->due_number);
}

/* place puts a fiber at i. */
static void place(td_sleepers *s, size_t i, td_fiber *fiber) {
    s->heap[i] = fiber;
    fiber->due_place = i;
}

/* rise finds the place of a fiber from i upwards. */
static void rise(td_sleepers *s, size_t i, td_fiber *fiber) {
    for (; i > 0 && before(fiber, s->heap[(i - 1) / 2]); i = (i - 1) / 2) place(s, i, s->heap[(i - 1) / 2]);
    place(s, i, fiber);
}

/* sink finds the place of a fiber from i downwards. */
static void sink(td_sleepers *s, size_t i, td_fiber *fiber) {
    for (size_t child; (child = 2 * i + 1) < s->count; i = child) {
        if (child + 1 < s->count && before(s->heap[child + 1], s->heap[child])) child++;
        if (!before(s->heap[child], fiber)) break;
        place(s, i, s->heap[child]);
    }
    place(s, i, fiber);
}

bool td_sleepers_reserve(td_sleepers *s, size_t count) {
    if (count <= s->cap) return true;
    size_t cap = s->cap ? s->cap * 2 : 64;
    while (cap < count) cap *= 2;
    td_fiber **heap = realloc(s->heap, cap * sizeof *heap);
    if (!heap) return false;
    s->heap = heap;
    s->cap = cap;
    return true;
}

void td_sleepers_fini(td_sleepers *s) {
    free(s->heap);
    *s = (td_sleepers){ 0 };
}

void td_sleepers_add(td_sleepers *s, td_fiber *fiber, uint64_t due_ns) {
    fiber->due = false;
    fiber->due_ns = due_ns;
    fiber->due_number = s->next_number++;
    rise(s, s->count++, fiber);
}

void td_sleepers_remove(td_sleepers *s, td_fiber *fiber) {
    size_t i = fiber->due_place;
    if (i == TD_AWAKE) return;
    fiber->due_place = TD_AWAKE;
    td_fiber *last = s->heap[--s->count];
    if (last == fiber) return;
    if (before(last, fiber))
        rise(s, i, last);
    else
        sink(s, i, last);
}

td_fiber *td_sleepers_first(const td_sleepers *s) {
    return s->count ? s->heap[0] : NULL;
}
