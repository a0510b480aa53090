/* loop_test.c: threads and fibers: posting, parking and waking, dropping, stopping. Waiting is in wait_test.c. */
#include "loop_fixture.h"

/* ---- Threads ---- */

typedef struct poster {
    rig *rig;
    pthread_t os;
    int number, sent;
    struct letter {
        struct poster *from;
        int number;
    } letters[1000];
} poster;

static void receive(void *arg) {
    struct letter *letter = arg;
    note(letter->from->rig, letter->from->number * 1000 + letter->number);
}

static void *post_all(void *arg) {
    poster *p = arg;
    for (int i = 0; i < 1000; i++) {
        p->letters[i].from = p;
        p->letters[i].number = i;
        if (td_thread_post(p->rig->thread, receive, &p->letters[i]) == 0) p->sent++;
    }
    return NULL;
}

static void posts_of_several_threads_all_arrive_in_the_order_of_each(void **state) {
    rig *r = *state;
    static poster posters[4];
    for (int i = 0; i < 4; i++) {
        posters[i] = (poster){ .rig = r, .number = i };
        assert_int_equal(pthread_create(&posters[i].os, NULL, post_all, &posters[i]), 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(posters[i].os, NULL);
    settle(r);
    assert_int_equal(r->count, 4000);
    int next[4] = { 0 };
    for (size_t i = 0; i < r->count; i++) {
        int from = r->order[i] / 1000;
        assert_int_equal(posters[from].sent, 1000);
        assert_int_equal(r->order[i] % 1000, next[from]++);
    }
}

static void look_around(void *arg) {
    rig *r = arg;
    sigset_t blocked;
    char name[16];
    int fds[2];
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    pthread_getname_np(pthread_self(), name, sizeof name);
    note(r, td_thread_self() == r->thread);
    note(r, td_fiber_self() == NULL);
    note(r, strcmp(name, "test") == 0);
    note(r, sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGPIPE) && sigismember(&blocked, SIGUSR1));
    note(r, sigismember(&blocked, SIGSEGV) || sigismember(&blocked, SIGCHLD) || sigismember(&blocked, SIGURG));
    note(r, pipe(fds) == 0 && close(fds[0]) == 0 && write(fds[1], "x", 1) < 0 && errno == EPIPE);
    close(fds[1]);
}

static void a_thread_knows_itself_and_leaves_signals_to_the_program(void **state) {
    rig *r = *state;
    sigset_t blocked;
    call(r, look_around);
    assert_happened(r, 1, 1, 1, 1, 0, 1);
    assert_null(td_thread_self());
    assert_null(td_fiber_self());
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    assert_false(sigismember(&blocked, SIGTERM));
}

static const char key_a, key_b;

static void set_locals(void *arg) {
    rig *r = arg;
    note(r, td_thread_local(r->thread, &key_a) == NULL);
    note(r, td_thread_set_local(r->thread, &key_a, r, nothing));
    note(r, td_thread_set_local(r->thread, &key_b, r->fds, nothing));
    note(r, td_thread_local(r->thread, &key_a) == r && td_thread_local(r->thread, &key_b) == r->fds);
    note(r, td_thread_set_local(r->thread, &key_a, r->order, nothing));
    note(r, td_thread_local(r->thread, &key_a) == r->order);
    note(r, td_thread_set_local(r->thread, &key_a, NULL, NULL));
    note(r, td_thread_local(r->thread, &key_a) == NULL && td_thread_local(r->thread, &key_b) == r->fds);
}

static void locals_are_found_by_their_key(void **state) {
    rig *r = *state;
    call(r, set_locals);
    assert_happened(r, 1, 0, 0, 1, 0, 1, 0, 1);
}

/* ---- Parking and waking ---- */

#define RING   1000
#define ROUNDS 20

typedef struct ring {
    rig *rig;
    struct ring *next;
    td_fiber *fiber;
    int rounds;
    bool last;
} ring;

static void hand_on(void *arg) {
    ring *self = arg;
    for (int i = 0; i < ROUNDS; i++) {
        td_fiber_park();
        self->rounds++;
        if (!self->last || i < ROUNDS - 1) td_fiber_wake(self->next->fiber);
    }
    gate_open(&self->rig->done);
}

static void make_ring(void *arg) {
    rig *r = arg;
    ring *members = r->pointer;
    for (int i = 0; i < RING; i++) {
        members[i] = (ring){ .rig = r, .next = &members[(i + 1) % RING], .last = i == RING - 1 };
        members[i].fiber = spawn(hand_on, &members[i]);
    }
}

static void wake_pointer(void *arg) {
    rig *r = arg;
    td_fiber_wake(r->pointer);
}

static void a_thousand_fibers_hand_on_a_wake(void **state) {
    rig *r = *state;
    static ring members[RING];
    r->pointer = members;
    call(r, make_ring);
    settle(r);
    r->pointer = members[0].fiber;
    call(r, wake_pointer);
    for (int i = 0; i < RING; i++) gate_wait(&r->done);
    for (int i = 0; i < RING; i++) assert_int_equal(members[i].rounds, ROUNDS);
}

static void note_parks(void *arg) {
    rig *r = arg;
    for (int i = 1; i <= 3; i++) {
        note(r, i);
        td_fiber_park();
    }
    note(r, 4);
}

static void start_parking(void *arg) {
    rig *r = arg;
    r->fibers[0] = td_fiber_new(note_parks, r, 0);
    note(r, r->fibers[0] != NULL);
}

static void wake_first(void *arg) {
    rig *r = arg;
    td_fiber_wake(r->fibers[0]);
}

static void a_fiber_starts_when_it_is_woken_and_stays_parked_until_then(void **state) {
    rig *r = *state;
    call(r, start_parking);
    settle(r);
    assert_happened(r, 1);
    call(r, wake_first);
    settle(r);
    assert_happened(r, 1, 1);
    call(r, wake_first);
    settle(r);
    assert_happened(r, 1, 1, 2);
}

static void wake_first_often(void *arg) {
    for (int i = 0; i < 5; i++) wake_first(arg);
}

static void wakes_of_a_ready_fiber_count_once_more(void **state) {
    rig *r = *state;
    call(r, start_parking);
    call(r, wake_first_often); /* the first starts it, the others are kept as one: it passes one park */
    settle(r);
    assert_happened(r, 1, 1, 2);
}

typedef struct walker {
    rig *rig;
    int number;
} walker;

/* Gives way twice. */
static void walk(void *arg) {
    walker *w = arg;
    for (int i = 0; i < 3; i++) {
        note(w->rig, w->number);
        td_fiber_wake(td_fiber_self());
        td_fiber_park();
    }
}

static void start_walkers(void *arg) {
    walker *w = arg;
    for (int i = 0; i < 3; i++) spawn(walk, &w[i]);
}

static void start_walkers_of(void *arg) {
    start_walkers(((rig *)arg)->pointer);
}

static void fibers_that_give_way_take_turns(void **state) {
    rig *r = *state;
    walker walkers[] = { { r, 1 }, { r, 2 }, { r, 3 } };
    r->pointer = walkers;
    call(r, start_walkers_of);
    settle(r);
    settle(r);
    assert_happened(r, 1, 2, 3, 1, 2, 3, 1, 2, 3);
}

static void wake_second(void *arg) {
    rig *r = arg;
    note(r, 1);
    td_fiber_wake(r->fibers[1]);
    td_fiber_wake(td_fiber_self());
    td_fiber_park();
    note(r, 3);
}

static void note_two(void *arg) {
    note(arg, 2);
}

static void start_pair(void *arg) {
    rig *r = arg;
    r->fibers[0] = spawn(wake_second, r);
    r->fibers[1] = td_fiber_new(note_two, r, 0);
}

static void who_is_woken_runs_before_who_gives_way(void **state) {
    rig *r = *state;
    call(r, start_pair);
    settle(r);
    assert_happened(r, 1, 2, 3);
}

/* Gives way, then works for longer than fibers that gave way are given, and wakes who waits. */
static void work_long(void *arg) {
    walker *w = arg;
    td_fiber_wake(td_fiber_self());
    td_fiber_park();
    note(w->rig, w->number);
    if (w->number == 1) td_fiber_wake(w->rig->fibers[0]);
    for (uint64_t end_ns = td_now_ns() + 3 * MS; td_now_ns() < end_ns;) continue;
}

static void start_workers(void *arg) {
    rig *r = arg;
    walker *w = r->pointer;
    for (int i = 0; i < 3; i++) spawn(work_long, &w[i]);
    r->fibers[0] = td_fiber_new(note_two, r, 0);
}

static void who_is_woken_runs_next_when_work_of_those_that_gave_way_is_long(void **state) {
    rig *r = *state;
    walker workers[] = { { r, 1 }, { r, 3 }, { r, 4 } };
    r->pointer = workers;
    call(r, start_workers);
    while (r->count < 4) settle(r);
    assert_happened(r, 1, 2, 3, 4);
}

static void never_rest(void *arg) {
    rig *r = arg;
    while (!r->flag) {
        td_fiber_wake(td_fiber_self());
        td_fiber_park();
    }
    gate_open(&r->done);
}

static void start_three_restless(void *arg) {
    for (int i = 0; i < 3; i++) spawn(never_rest, arg);
}

static void set_flag(void *arg) {
    ((rig *)arg)->flag = true;
}

static void restless_fibers_do_not_keep_posts_waiting(void **state) {
    rig *r = *state;
    call(r, start_three_restless);
    for (int i = 0; i < 100; i++) call(r, nothing);
    call(r, set_flag);
    for (int i = 0; i < 3; i++) gate_wait(&r->done);
}

/* ---- Stacks ---- */

/* Uses about bytes of stack, and returns the lowest address used. Not inlined, and not a tail call. */
__attribute__((noinline)) static const char *descend(size_t bytes) {
    volatile char room[4000];
    memset((char *)room, 1, sizeof room);
    const char *deepest = (const char *)room;
    if (bytes > sizeof room) deepest = descend(bytes - sizeof room);
    return room[bytes % sizeof room] ? deepest : NULL;
}

static void go_deep(void *arg) {
    rig *r = arg;
    r->pointer = (char *)(uintptr_t)descend((size_t)500 << 10);
    note(r, r->pointer != NULL);
    gate_open(&r->done);
}

static void start_deep(void *arg) {
    spawn(go_deep, arg);
}

static void a_fiber_may_use_500_kib_of_stack_and_its_memory_is_given_back(void **state) {
    rig *r = *state;
    call(r, start_deep);
    gate_wait(&r->done);
    settle(r);
    assert_happened(r, 1);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    unsigned char resident = 0;
    int rc = mincore((void *)((uintptr_t)r->pointer / page * page), page, &resident);
    assert_true((rc == 0 && !(resident & 1)) || (rc != 0 && errno == ENOMEM)); /* kept empty, or unmapped */
}

/* Whether the kernel can read from an address: write(2) says so without touching it here. */
static int readable(int fd, const void *address) {
    return write(fd, address, 1) == 1;
}

static void probe_stack(void *arg) {
    rig *r = arg;
    const td_stack *stack = td_fiber_self()->stack;
    note(r, readable(r->fds[1], stack->low));
    note(r, readable(r->fds[1], stack->low - 1));
    note(r, td_stack_size(stack) >= 12345);
}

static void start_probes(void *arg) {
    td_fiber_wake(td_fiber_new(probe_stack, arg, 0));
    td_fiber_wake(td_fiber_new(probe_stack, arg, 12345));
}

static void below_a_stack_there_is_a_guard(void **state) {
    rig *r = *state;
    assert_int_equal(pipe(r->fds), 0);
    call(r, start_probes);
    settle(r);
    assert_happened(r, 1, 0, 1, 1, 0, 1);
}

static void want_too_much(void *arg) {
    rig *r = arg;
    note(r, td_fiber_new(nothing, r, SIZE_MAX) == NULL);
    note(r, td_fiber_new(nothing, r, (size_t)1 << 60) == NULL);
    td_fiber *small = td_fiber_new(nothing, r, 10000);
    note(r, small != NULL);
    td_fiber_drop(small);
}

static void a_fiber_without_memory_is_null(void **state) {
    rig *r = *state;
    call(r, want_too_much);
    assert_happened(r, 1, 1, 1);
}

static void enter_and_park(void *arg) {
    (void)arg;
    td_nopreempt_enter();
    td_nopreempt_enter();
    td_fiber_park();
    td_nopreempt_leave();
    td_fiber_park();
    td_nopreempt_leave();
    td_fiber_park();
}

static void only_park(void *arg) {
    (void)arg;
    td_fiber_park();
}

static void start_entering(void *arg) {
    rig *r = arg;
    r->fibers[0] = spawn(enter_and_park, r);
    r->fibers[1] = spawn(only_park, r);
}

static void note_nopreempt(void *arg) {
    rig *r = arg;
    note(r, (int)r->fibers[0]->nopreempt);
    note(r, (int)r->fibers[1]->nopreempt);
    td_fiber_wake(r->fibers[0]);
}

static void regions_without_preemption_nest_and_belong_to_their_fiber(void **state) {
    rig *r = *state;
    call(r, start_entering);
    settle(r);
    for (int i = 0; i < 3; i++) {
        call(r, note_nopreempt);
        settle(r);
    }
    assert_happened(r, 2, 0, 1, 0, 0, 0);
}

/* ---- Dropping ---- */

static void park_for_ever(void *arg) {
    char frame[3000]; /* red zones that must not be left in a stack that is used again */
    memset(frame, 1, sizeof frame);
    for (;;) td_fiber_park();
    note(arg, frame[0]);
}

static void make_holding(void *arg) {
    rig *r = arg;
    r->fibers[0] = td_fiber_new(park_for_ever, r, 0); /* never started */
    r->fibers[1] = spawn(park_for_ever, r);           /* parked, in the next call */
    r->fibers[2] = spawn(park_for_ever, r);
    hold_noted(r, r->fibers[0], 1);
    hold_noted(r, r->fibers[0], 2);
    hold_noted(r, r->fibers[1], 3);
    hold_noted(r, r->fibers[1], 4);
    noted_hold *taken = hold_noted(r, r->fibers[1], 5);
    td_hold_take(&taken->hold);
    free(taken);
    hold_noted(r, r->fibers[2], 6);
}

static void drop_holding(void *arg) {
    rig *r = arg;
    td_fiber_wake(r->fibers[2]); /* ready */
    for (int i = 0; i < 3; i++) td_fiber_drop(r->fibers[i]);
    td_fiber_drop(NULL);
}

static void a_dropped_fiber_releases_its_holds_the_last_first(void **state) {
    rig *r = *state;
    call(r, make_holding);
    settle(r);
    call(r, drop_holding);
    assert_happened(r, 2, 1, 4, 3, 6);
    call(r, start_deep); /* on a stack that one of them had */
    gate_wait(&r->done);
}

static void start_ending(void *arg) {
    rig *r = arg;
    td_fiber *fiber = spawn(note_two, r);
    hold_noted(r, fiber, 4);
    hold_noted(r, fiber, 3);
}

static void a_fiber_that_ends_releases_its_holds(void **state) {
    rig *r = *state;
    call(r, start_ending);
    settle(r);
    assert_happened(r, 2, 3, 4);
}

static void drop_the_others(void *arg) {
    rig *r = arg;
    td_fiber_drop(r->fibers[0]); /* has run in this turn */
    td_fiber_drop(r->fibers[2]); /* would be next */
    note(r, td_fiber_self() == r->fibers[1]);
}

static void start_three(void *arg) {
    rig *r = arg;
    r->fibers[0] = spawn(park_for_ever, r);
    r->fibers[1] = spawn(drop_the_others, r);
    r->fibers[2] = spawn(note_two, r);
    hold_noted(r, r->fibers[2], 7);
}

static void a_fiber_may_drop_others_in_the_same_turn(void **state) {
    rig *r = *state;
    call(r, start_three);
    settle(r);
    assert_happened(r, 7, 1);
}

static void churn(void *arg) {
    rig *r = arg;
    for (int i = 0; i < 200; i++) {
        td_fiber_drop(r->fibers[i % 8]);
        r->fibers[i % 8] = spawn(park_for_ever, r);
    }
}

static void drop_all(void *arg) {
    rig *r = arg;
    for (int i = 0; i < 8; i++) td_fiber_drop(r->fibers[i]);
    note(r, (int)r->thread->fibers_count);
    note(r, r->thread->stacks.count >= 8);
}

static void stacks_are_used_again(void **state) {
    rig *r = *state;
    for (int i = 0; i < 10; i++) call(r, churn);
    call(r, drop_all);
    assert_happened(r, 0, 1);
}

/* ---- Stopping ---- */

static void free_noting_one(void *arg) {
    rig *r = arg;
    note(r, td_thread_self() == r->thread ? 1 : -1);
}

static void free_noting_two(void *arg) {
    rig *r = arg;
    note(r, td_thread_self() == r->thread ? 2 : -1);
}

static void leave_much_behind(void *arg) {
    rig *r = arg;
    r->rc = td_thread_set_local(r->thread, &key_a, r, free_noting_one);
    r->rc |= td_thread_set_local(r->thread, &key_b, r, free_noting_two);
    hold_noted(r, spawn(park_for_ever, r), 12);
    hold_noted(r, td_fiber_new(park_for_ever, r, 0), 11);
}

static void post_again(void *arg) {
    rig *r = arg;
    note(r, 10);
    if (td_thread_post(r->thread, r->fn, r) != 0) note(r, -1);
}

static void note_ten(void *arg) {
    note(arg, 10);
}

static void a_stop_runs_posts_then_drops_fibers_then_frees_locals(void **state) {
    rig *r = *state;
    call(r, leave_much_behind);
    settle(r);
    r->fn = note_ten; /* what post_again posts */
    assert_int_equal(td_thread_post(r->thread, post_again, r), 0);
    rig_stop(r);
    assert_int_equal(r->rc, 0);
    assert_happened(r, 10, 10, 11, 12, 2, 1);
}

static void post_from_close(uv_handle_t *handle) {
    rig *r = handle->data;
    note(r, td_thread_post(r->thread, nothing, r));
    free(handle);
}

/* The object of a layer above that has a handle of its own. */
static void close_own_handle(void *object) {
    uv_close(object, post_from_close);
}

static void open_own_handle(void *arg) {
    rig *r = arg;
    uv_timer_t *timer = malloc(sizeof *timer);
    note(r, uv_timer_init(td_thread_loop(r->thread), timer));
    timer->data = r;
    note(r, td_thread_set_local(r->thread, &key_a, timer, close_own_handle));
}

static void a_post_that_can_no_longer_run_is_refused(void **state) {
    rig *r = *state;
    call(r, open_own_handle);
    rig_stop(r);
    assert_happened(r, 0, 0, TIDEMILL_ESTATE);
}

static void spawn_on_release(td_hold *hold) {
    noted_hold *h = td_container(hold, noted_hold, hold);
    rig *r = h->rig;
    note(r, h->number);
    if (h->number > 1) td_hold_push(td_fiber_new(nothing, r, 0), hold, spawn_on_release);
    if (h->number-- == 1) free(h);
}

static void leave_a_phoenix(void *arg) {
    rig *r = arg;
    td_fiber *fiber = spawn(park_for_ever, r);
    noted_hold *h = hold_noted(r, fiber, 3);
    td_hold_take(&h->hold);
    td_hold_push(fiber, &h->hold, spawn_on_release);
}

static void a_stop_also_drops_fibers_that_are_made_meanwhile(void **state) {
    rig *r = *state;
    call(r, leave_a_phoenix);
    rig_stop(r);
    assert_happened(r, 3, 2, 1);
}

static void free_making_more(void *arg) {
    rig *r = arg;
    note(r, 5);
    hold_noted(r, td_fiber_new(nothing, r, 0), 6);
    note(r, td_thread_set_local(r->thread, &key_b, r, free_noting_two));
}

static void leave_one_that_makes_more(void *arg) {
    rig *r = arg;
    r->rc = td_thread_set_local(r->thread, &key_a, r, free_making_more);
}

static void a_stop_also_ends_what_freeing_brings_forth(void **state) {
    rig *r = *state;
    call(r, leave_one_that_makes_more);
    rig_stop(r);
    assert_happened(r, 5, 0, 2, 6);
}

static void stopping_nothing_is_allowed(void **state) {
    (void)state;
    td_thread_stop(NULL);
    td_thread *threads[8];
    for (size_t i = 0; i < TD_COUNT(threads); i++) assert_int_equal(td_thread_start(&threads[i], "many", NULL), 0);
    for (size_t i = 0; i < TD_COUNT(threads); i++) td_thread_stop(threads[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(posts_of_several_threads_all_arrive_in_the_order_of_each),
        TEST(a_thread_knows_itself_and_leaves_signals_to_the_program),
        TEST(locals_are_found_by_their_key),
        TEST(a_thousand_fibers_hand_on_a_wake),
        TEST(a_fiber_starts_when_it_is_woken_and_stays_parked_until_then),
        TEST(wakes_of_a_ready_fiber_count_once_more),
        TEST(fibers_that_give_way_take_turns),
        TEST(who_is_woken_runs_before_who_gives_way),
        TEST(who_is_woken_runs_next_when_work_of_those_that_gave_way_is_long),
        TEST(restless_fibers_do_not_keep_posts_waiting),
        TEST(a_fiber_may_use_500_kib_of_stack_and_its_memory_is_given_back),
        TEST(below_a_stack_there_is_a_guard),
        TEST(a_fiber_without_memory_is_null),
        TEST(regions_without_preemption_nest_and_belong_to_their_fiber),
        TEST(a_dropped_fiber_releases_its_holds_the_last_first),
        TEST(a_fiber_that_ends_releases_its_holds),
        TEST(a_fiber_may_drop_others_in_the_same_turn),
        TEST(stacks_are_used_again),
        TEST(a_stop_runs_posts_then_drops_fibers_then_frees_locals),
        TEST(a_post_that_can_no_longer_run_is_refused),
        TEST(a_stop_also_drops_fibers_that_are_made_meanwhile),
        TEST(a_stop_also_ends_what_freeing_brings_forth),
        TEST(stopping_nothing_is_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
