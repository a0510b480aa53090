/* wait_test.c: fibers that wait for a time or a descriptor, and those that are dropped while they do. */
#include "loop_fixture.h"

/* ---- Times ---- */

typedef struct sleeper {
    rig *rig;
    td_fiber *fiber;
    uint64_t deadline_ns, woke_ns;
    int number;
} sleeper;

static void sleep_once(void *arg) {
    sleeper *s = arg;
    int rc = td_wait_until(s->deadline_ns, NULL);
    s->woke_ns = td_now_ns();
    note(s->rig, rc ? rc : s->number);
    gate_open(&s->rig->done);
}

/* Starts MANY sleepers, due in a scrambled order, 20 us from one to the next. */
static void start_many_sleepers(void *arg) {
    rig *r = arg;
    sleeper *sleepers = r->pointer;
    uint64_t start_ns = td_now_ns() + 2000 * MS; /* by then all have fallen asleep */
    for (int i = 0; i < MANY; i++) {
        int number = (int)((unsigned)i * 7919u % MANY);
        sleepers[i] = (sleeper){ .rig = r, .number = number, .deadline_ns = start_ns + 20000 * (uint64_t)number };
        sleepers[i].fiber = spawn(sleep_once, &sleepers[i]);
    }
}

static void many_sleepers_wake_in_order_and_never_early(void **state) {
    rig *r = *state;
    static sleeper sleepers[MANY];
    r->pointer = sleepers;
    call(r, start_many_sleepers);
    for (int i = 0; i < MANY; i++) gate_wait(&r->done);
    assert_int_equal(r->count, MANY);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(r->order[i], i);
        assert_true(sleepers[i].woke_ns >= sleepers[i].deadline_ns);
    }
}

static void start_spread_sleepers(void *arg) {
    rig *r = arg;
    sleeper *sleepers = r->pointer;
    for (int i = 0; i < 50; i++) {
        uint64_t deadline_ns = td_now_ns() + 5 * MS + 730000 * (uint64_t)i; /* at other parts of a millisecond each */
        sleepers[i] = (sleeper){ .rig = r, .number = i, .deadline_ns = deadline_ns };
        spawn(sleep_once, &sleepers[i]);
    }
}

static void a_sleeper_does_not_wake_with_an_earlier_one(void **state) {
    rig *r = *state;
    static sleeper sleepers[50];
    r->pointer = sleepers;
    call(r, start_spread_sleepers);
    for (int i = 0; i < 50; i++) gate_wait(&r->done);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(r->order[i], i);
        assert_true(sleepers[i].woke_ns >= sleepers[i].deadline_ns);
    }
}

static void start_sleeper(void *arg) {
    spawn(sleep_once, ((rig *)arg)->pointer);
}

/* libuv's timer counts whole milliseconds, and may fire before the time when posts turn the loop meanwhile. */
static void a_sleeper_wakes_though_the_thread_was_busy_until_just_before(void **state) {
    rig *r = *state;
    static sleeper one;
    r->pointer = &one;
    for (int i = 0; i < 100; i++) {
        one = (sleeper){ .rig = r, .number = i, .deadline_ns = td_now_ns() + 2 * MS };
        call(r, start_sleeper);
        while (td_now_ns() + MS / 10 < one.deadline_ns) call(r, nothing);
        gate_wait(&r->done);
        assert_true(one.woke_ns >= one.deadline_ns);
    }
}

static void start_equal_sleepers(void *arg) {
    rig *r = arg;
    sleeper *sleepers = r->pointer;
    uint64_t deadline_ns = td_now_ns() + 10 * MS;
    for (int i = 0; i < 100; i++) {
        sleepers[i] = (sleeper){ .rig = r, .number = i, .deadline_ns = deadline_ns };
        spawn(sleep_once, &sleepers[i]);
    }
}

static void equal_times_wake_in_the_order_of_falling_asleep(void **state) {
    rig *r = *state;
    static sleeper sleepers[100];
    r->pointer = sleepers;
    call(r, start_equal_sleepers);
    for (int i = 0; i < 100; i++) gate_wait(&r->done);
    for (int i = 0; i < 100; i++) assert_int_equal(r->order[i], i);
}

/* Drops every sleeper but each fourth. */
static void drop_most_sleepers(void *arg) {
    rig *r = arg;
    sleeper *sleepers = r->pointer;
    for (int i = 0; i < MANY; i++)
        if (sleepers[i].number % 4 != 0) td_fiber_drop(sleepers[i].fiber);
    gate_open(&r->called);
}

static void sleepers_that_are_dropped_do_not_disturb_the_others(void **state) {
    rig *r = *state;
    static sleeper sleepers[MANY];
    r->pointer = sleepers;
    /* When all have fallen asleep, and before the first is due. */
    call(r, start_many_sleepers);
    settle(r);
    assert_int_equal(td_thread_post(r->thread, drop_most_sleepers, r), 0);
    gate_wait(&r->called);
    for (int i = 0; i < MANY / 4; i++) gate_wait(&r->done);
    settle(r);
    assert_int_equal(r->count, MANY / 4);
    for (int i = 0; i < MANY / 4; i++) assert_int_equal(r->order[i], 4 * i);
}

static void on_turn(uv_prepare_t *prepare) {
    rig *r = prepare->data;
    note(r, 0);
}

static void free_handle(uv_handle_t *handle) {
    free(handle);
}

static void close_counter(void *object) {
    uv_close(object, free_handle);
}

/* The loop turns without waiting while a fiber gives way: that has to end. */
static void give_way_then_sleep(void *arg) {
    td_fiber_wake(td_fiber_self());
    td_fiber_park();
    sleep_once(arg);
}

/* A sleeper, and a count of the loop's turns. */
static void start_counted_sleeper(void *arg) {
    rig *r = arg;
    uv_prepare_t *counter = calloc(1, sizeof *counter);
    uv_prepare_init(td_thread_loop(r->thread), counter);
    counter->data = r;
    uv_prepare_start(counter, on_turn);
    r->rc = td_thread_set_local(r->thread, r->fds, counter, close_counter);
    sleeper *s = r->pointer;
    *s = (sleeper){ .rig = r, .number = 1, .deadline_ns = td_now_ns() + 50 * MS };
    spawn(give_way_then_sleep, s);
}

static void a_thread_whose_fibers_sleep_rests(void **state) {
    rig *r = *state;
    static sleeper one;
    r->pointer = &one;
    call(r, start_counted_sleeper);
    gate_wait(&r->done);
    rig_stop(r);
    assert_int_equal(r->rc, 0);
    assert_in_range(r->count, 2, 20);
}

static void sleep_to_zero(void *arg) {
    rig *r = arg;
    td_wait_until(0, NULL);
    note(r, 2);
    gate_open(&r->done);
}

static void start_past_sleepers(void *arg) {
    rig *r = arg;
    spawn(sleep_to_zero, r);
    note(r, 1);
}

static void a_time_that_is_over_is_waited_for_at_once(void **state) {
    rig *r = *state;
    call(r, start_past_sleepers);
    gate_wait(&r->done);
    assert_happened(r, 1, 2);
}

static void sleep_then_park(void *arg) {
    rig *r = arg;
    td_wait_until(r->deadline_ns, NULL);
    note(r, td_now_ns() >= r->deadline_ns);
    td_fiber_park(); /* ended by the wake that came during the sleep */
    note(r, 2);
    gate_open(&r->done);
    td_fiber_park();
    note(r, 3);
}

static void start_interrupted(void *arg) {
    rig *r = arg;
    r->deadline_ns = td_now_ns() + 20 * MS;
    r->fibers[0] = spawn(sleep_then_park, r);
}

static void wake_first(void *arg) {
    td_fiber_wake(((rig *)arg)->fibers[0]);
}

static void a_wake_does_not_end_a_sleep_and_is_not_lost(void **state) {
    rig *r = *state;
    call(r, start_interrupted);
    settle(r);
    call(r, wake_first);
    settle(r);
    call(r, wake_first);
    gate_wait(&r->done);
    settle(r);
    assert_happened(r, 1, 2);
}

static void wait_off_fiber(void *arg) {
    rig *r = arg;
    note(r, td_wait_until(0, NULL));
    note(r, td_wait_fd(0, UV_READABLE, 0, NULL, NULL));
}

static void waiting_without_a_fiber_is_an_error(void **state) {
    rig *r = *state;
    call(r, wait_off_fiber);
    assert_happened(r, TIDEMILL_ESTATE, TIDEMILL_ESTATE);
    assert_int_equal(td_wait_until(0, NULL), TIDEMILL_ESTATE);
}

/* ---- Descriptors ---- */

static void wait_readable(void *arg) {
    rig *r = arg;
    note(r, td_wait_fd(r->fds[0], UV_READABLE, r->deadline_ns, &r->ready, NULL));
    note(r, r->ready);
    gate_open(&r->done);
}

static void start_reader(void *arg) {
    rig *r = arg;
    r->fibers[0] = spawn(wait_readable, r);
}

static void write_byte(void *arg) {
    rig *r = arg;
    r->rc = (int)write(r->fds[1], "x", 1);
}

static void note_sleepers(void *arg) {
    rig *r = arg;
    note(r, (int)r->thread->sleepers.count);
}

static void a_fiber_waits_until_there_is_something_to_read(void **state) {
    rig *r = *state;
    assert_int_equal(pipe(r->fds), 0);
    r->deadline_ns = td_now_ns() + 30000 * MS;
    call(r, start_reader);
    settle(r);
    call(r, note_sleepers);
    call(r, write_byte);
    gate_wait(&r->done);
    call(r, note_sleepers); /* its time is not kept */
    assert_happened(r, 1, 0, UV_READABLE, 0);
}

static void a_wait_ends_when_the_other_side_closes(void **state) {
    rig *r = *state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, r->fds), 0);
    r->deadline_ns = UINT64_MAX;
    call(r, start_reader);
    settle(r);
    close(r->fds[1]);
    r->fds[1] = -1;
    gate_wait(&r->done);
    assert_happened(r, 0, UV_READABLE);
}

static void a_wait_ends_at_its_deadline_and_not_before(void **state) {
    rig *r = *state;
    assert_int_equal(pipe(r->fds), 0);
    r->deadline_ns = td_now_ns() + 30 * MS;
    r->ready = 99;
    call(r, start_reader);
    gate_wait(&r->done);
    assert_true(td_now_ns() >= r->deadline_ns);
    assert_happened(r, TIDEMILL_ETIMEOUT, 0);
}

/* Waits, reads and waits again, 100 times on the same descriptor, with and without a timeout between. */
static void read_all(void *arg) {
    rig *r = arg;
    char byte;
    for (int i = 0; i < 100; i++) {
        tidemill_error err;
        if (td_wait_fd(r->fds[0], UV_READABLE, UINT64_MAX, NULL, &err) != 0) note(r, err.code);
        if (read(r->fds[0], &byte, 1) != 1) note(r, -100);
        if (i % 10 == 0) r->rc = td_wait_fd(r->fds[0], UV_READABLE, td_now_ns(), NULL, &err);
        if (i % 10 == 0 && r->rc != 0 && r->rc != TIDEMILL_ETIMEOUT) note(r, r->rc);
    }
    note(r, 1);
    gate_open(&r->done);
}

static void write_all(void *arg) {
    rig *r = arg;
    for (int i = 0; i < 100; i++) {
        if (td_wait_fd(r->fds[1], UV_WRITABLE, UINT64_MAX, &r->ready, NULL) != 0 || r->ready != UV_WRITABLE)
            note(r, -101);
        if (write(r->fds[1], "x", 1) != 1) note(r, -102);
    }
    gate_open(&r->done);
}

static void start_reader_and_writer(void *arg) {
    spawn(read_all, arg);
    spawn(write_all, arg);
}

static void the_same_descriptor_may_be_waited_for_again_and_again(void **state) {
    rig *r = *state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, r->fds), 0);
    call(r, start_reader_and_writer);
    gate_wait(&r->done);
    gate_wait(&r->done);
    assert_happened(r, 1);
}

static void wait_for_both(void *arg) {
    rig *r = arg;
    note(r, td_wait_fd(r->fds[0], UV_READABLE | UV_WRITABLE, UINT64_MAX, &r->ready, NULL));
    note(r, r->ready);
    gate_open(&r->done);
}

static void start_wait_for_both(void *arg) {
    spawn(wait_for_both, arg);
}

static void both_directions_may_be_waited_for_at_once(void **state) {
    rig *r = *state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, r->fds), 0);
    call(r, start_wait_for_both);
    gate_wait(&r->done);
    assert_int_equal(write(r->fds[1], "x", 1), 1);
    call(r, start_wait_for_both);
    gate_wait(&r->done);
    assert_happened(r, 0, UV_WRITABLE, 0, UV_READABLE | UV_WRITABLE);
}

static void wait_broken(void *arg) {
    rig *r = arg;
    note(r, td_wait_fd(r->fds[1], UV_WRITABLE, UINT64_MAX, &r->ready, NULL));
    note(r, r->ready);
    gate_open(&r->done);
}

static void start_wait_broken(void *arg) {
    spawn(wait_broken, arg);
}

static void a_descriptor_with_an_error_is_ready(void **state) {
    rig *r = *state;
    assert_int_equal(pipe(r->fds), 0);
    close(r->fds[0]);
    r->fds[0] = -1;
    call(r, start_wait_broken); /* libuv reports the error of a pipe that nobody reads */
    gate_wait(&r->done);
    assert_happened(r, 0, UV_WRITABLE);
}

static void wait_for_what_cannot_be(void *arg) {
    rig *r = arg;
    tidemill_error err;
    note(r, td_wait_fd(-1, UV_READABLE, UINT64_MAX, NULL, &err));
    note(r, td_wait_fd(r->fds[0], UV_READABLE, UINT64_MAX, NULL, &err));
    note(r, strstr(err.message, "cannot be waited for") != NULL);
    gate_open(&r->done);
}

static void start_wait_for_what_cannot_be(void *arg) {
    spawn(wait_for_what_cannot_be, arg);
}

static void what_cannot_be_waited_for_is_an_io_error(void **state) {
    rig *r = *state;
    r->fds[0] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); /* epoll refuses files */
    assert_true(r->fds[0] >= 0);
    call(r, start_wait_for_what_cannot_be);
    gate_wait(&r->done);
    assert_happened(r, TIDEMILL_EIO, TIDEMILL_EIO, 1);
}

static void a_wake_does_not_end_a_wait_for_a_descriptor(void **state) {
    rig *r = *state;
    assert_int_equal(pipe(r->fds), 0);
    r->deadline_ns = UINT64_MAX;
    call(r, start_reader);
    settle(r);
    call(r, wake_first);
    settle(r);
    assert_int_equal(r->count, 0);
    call(r, write_byte);
    gate_wait(&r->done);
    assert_happened(r, 0, UV_READABLE);
}

/* ---- Dropped while waiting ---- */

static void hold_and_wait(void *arg) {
    rig *r = arg;
    hold_noted(r, td_fiber_self(), 1);
    r->rc = td_wait_fd(r->fds[0], UV_READABLE, r->deadline_ns, NULL, NULL);
    note(r, -1);
    for (;;) td_fiber_park();
}

static void start_holding_reader(void *arg) {
    rig *r = arg;
    r->fibers[0] = spawn(hold_and_wait, r);
}

static void drop_and_wait_again(void *arg) {
    rig *r = arg;
    td_fiber_drop(r->fibers[0]);
    note(r, (int)r->thread->sleepers.count);
    r->fibers[0] = spawn(wait_readable, r);
}

static void a_fiber_dropped_in_a_wait_leaves_the_descriptor_free(void **state) {
    rig *r = *state;
    assert_int_equal(pipe(r->fds), 0);
    r->deadline_ns = td_now_ns() + 30000 * MS;
    call(r, start_holding_reader);
    settle(r);
    call(r, drop_and_wait_again);
    settle(r);
    call(r, write_byte);
    gate_wait(&r->done);
    assert_happened(r, 1, 0, 0, UV_READABLE);
}

static void drop_when_ready(void *arg) {
    rig *r = arg;
    note(r, td_wait_fd(r->fds[1], UV_WRITABLE, UINT64_MAX, NULL, NULL)); /* ready in the same turn as the other */
    td_fiber_drop(r->fibers[0]);
    gate_open(&r->done);
}

static void start_dropper_then_reader(void *arg) {
    rig *r = arg;
    spawn(drop_when_ready, r);
    r->fibers[0] = spawn(hold_and_wait, r);
}

static void a_fiber_may_be_dropped_when_its_descriptor_is_ready_already(void **state) {
    rig *r = *state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, r->fds), 0);
    assert_int_equal(write(r->fds[1], "x", 1), 1);
    r->deadline_ns = UINT64_MAX;
    call(r, start_dropper_then_reader);
    gate_wait(&r->done);
    settle(r);
    if (r->count == 3) /* it had its turn before it was dropped */
        assert_happened(r, -1, 0, 1);
    else
        assert_happened(r, 0, 1);
}

static void start_all_kinds_of_waits(void *arg) {
    rig *r = arg;
    sleeper *s = r->pointer;
    *s = (sleeper){ .rig = r, .number = -1, .deadline_ns = td_now_ns() + 30000 * MS };
    spawn(sleep_once, s);
    r->fibers[0] = spawn(hold_and_wait, r);
}

static void a_stop_ends_all_waits(void **state) {
    rig *r = *state;
    static sleeper one;
    r->pointer = &one;
    assert_int_equal(pipe(r->fds), 0);
    r->deadline_ns = td_now_ns() + 30000 * MS;
    call(r, start_all_kinds_of_waits);
    settle(r);
    rig_stop(r);
    assert_happened(r, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(many_sleepers_wake_in_order_and_never_early),
        TEST(a_sleeper_does_not_wake_with_an_earlier_one),
        TEST(a_sleeper_wakes_though_the_thread_was_busy_until_just_before),
        TEST(equal_times_wake_in_the_order_of_falling_asleep),
        TEST(sleepers_that_are_dropped_do_not_disturb_the_others),
        TEST(a_thread_whose_fibers_sleep_rests),
        TEST(a_time_that_is_over_is_waited_for_at_once),
        TEST(a_wake_does_not_end_a_sleep_and_is_not_lost),
        TEST(waiting_without_a_fiber_is_an_error),
        TEST(a_fiber_waits_until_there_is_something_to_read),
        TEST(a_wait_ends_when_the_other_side_closes),
        TEST(a_wait_ends_at_its_deadline_and_not_before),
        TEST(the_same_descriptor_may_be_waited_for_again_and_again),
        TEST(both_directions_may_be_waited_for_at_once),
        TEST(a_descriptor_with_an_error_is_ready),
        TEST(what_cannot_be_waited_for_is_an_io_error),
        TEST(a_wake_does_not_end_a_wait_for_a_descriptor),
        TEST(a_fiber_dropped_in_a_wait_leaves_the_descriptor_free),
        TEST(a_fiber_may_be_dropped_when_its_descriptor_is_ready_already),
        TEST(a_stop_ends_all_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
