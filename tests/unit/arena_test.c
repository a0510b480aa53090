/* arena_test.c: the memory of a Lua state. */
#include "../../runtime/vm/arena.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { BLOCKS = 400 };

typedef struct block {
    unsigned char *data;
    size_t size;
    unsigned char fill;
} block;

static unsigned long seed = 42;

static size_t draw(size_t below) {
    seed = seed * 6364136223846793005ul + 1442695040888963407ul;
    return (size_t)(seed >> 33) % below;
}

/* draw_size returns small sizes most often, large ones sometimes, and those around each border. */
static size_t draw_size(void) {
    static const size_t borders[] = { 1, 16, 17, 128, 129, 160, 32767, 32768, 32769, 65536 };
    switch (draw(8)) {
    case 0:
        return borders[draw(sizeof borders / sizeof *borders)];
    case 1:
        return 1 + draw(200000);
    case 2:
        return 1 + draw(40000);
    default:
        return 1 + draw(600);
    }
}

static void check_filled(const block *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (b->data[i] != b->fill) fail_msg("byte %zu of %zu was overwritten", i, b->size);
    }
}

/* resize changes a block as Lua would, and checks what must be kept. */
static void resize(td_arena *a, block *b, size_t size) {
    unsigned char *data = td_arena_alloc(a, b->data, b->size, size);
    assert_true(data != NULL || size == 0);
    assert_int_equal((uintptr_t)data % 16, 0);
    b->data = data;
    check_filled(b, size < b->size ? size : b->size);
    b->size = size;
    b->fill = (unsigned char)draw(256);
    if (size) memset(data, b->fill, size);
}

static void blocks_keep_their_bytes_and_the_count_is_exact(void **state) {
    (void)state;
    static block blocks[BLOCKS];
    td_arena a;
    size_t sum = 0, peak = 0;
    td_arena_init(&a, 0);
    memset(blocks, 0, sizeof blocks);
    for (int i = 0; i < 60000; i++) {
        block *b = &blocks[draw(BLOCKS)];
        check_filled(b, b->size);
        sum -= b->size;
        resize(&a, b, draw(3) ? draw_size() : 0);
        sum += b->size;
        if (sum > peak) peak = sum;
        assert_int_equal(a.used, sum);
    }
    assert_int_equal(a.peak, peak);
    for (int i = 0; i < BLOCKS; i++) resize(&a, &blocks[i], 0);
    assert_int_equal(a.used, 0);
    td_arena_destroy(&a);
    assert_int_equal(a.mapped, 0);
}

static void the_limit_is_exact(void **state) {
    (void)state;
    static const size_t sizes[] = { 1, 100, 5000, 32768, 32769, 1000000 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        td_arena a;
        td_arena_init(&a, sizes[i]);
        assert_null(td_arena_alloc(&a, NULL, 0, sizes[i] + 1));
        assert_int_equal(a.refused, 1);
        void *p = td_arena_alloc(&a, NULL, 0, sizes[i]);
        assert_non_null(p);
        assert_null(td_arena_alloc(&a, NULL, 0, 1));
        assert_null(td_arena_alloc(&a, p, sizes[i], sizes[i] + 1));
        td_arena_alloc(&a, p, sizes[i], 0);
        p = td_arena_alloc(&a, NULL, 0, sizes[i]);
        assert_non_null(p);
        td_arena_destroy(&a);
    }
}

static void an_absurd_size_is_refused(void **state) {
    (void)state;
    td_arena a;
    td_arena_init(&a, 0);
    assert_null(td_arena_alloc(&a, NULL, 0, SIZE_MAX));
    assert_null(td_arena_alloc(&a, NULL, 0, SIZE_MAX - 4096));
    void *p = td_arena_alloc(&a, NULL, 0, 100000);
    assert_null(td_arena_alloc(&a, p, 100000, SIZE_MAX / 2));
    assert_int_equal(a.used, 100000);
    td_arena_destroy(&a);
}

static void a_shrink_never_fails(void **state) {
    (void)state;
    static const size_t from[] = { 32, 500, 32768, 40000, 3000000 }, to[] = { 1, 16, 31, 400, 32000, 33000 };
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < 6; k++) {
            if (to[k] >= from[i]) continue;
            td_arena a;
            td_arena_init(&a, 0);
            block b = { td_arena_alloc(&a, NULL, 0, from[i]), from[i], 7 };
            memset(b.data, b.fill, b.size);
            a.limit = 1; /* nothing is granted or mapped any more */
            resize(&a, &b, to[k]);
            assert_null(td_arena_alloc(&a, NULL, 0, 1));
            resize(&a, &b, 0);
            assert_int_equal(a.used, 0);
            td_arena_destroy(&a);
        }
    }
}

static void memory_left_over_by_a_shrink_is_used_again(void **state) {
    (void)state;
    td_arena a;
    td_arena_init(&a, 0);
    char *p = td_arena_alloc(&a, NULL, 0, 30000);
    assert_ptr_equal(td_arena_alloc(&a, p, 30000, 100), p);
    size_t mapped = a.mapped;
    for (int i = 0; i < 400; i++) assert_non_null(td_arena_alloc(&a, NULL, 0, 64));
    assert_int_equal(a.mapped, mapped);
    td_arena_destroy(&a);
}

static void a_large_block_goes_back_to_the_system_at_once(void **state) {
    (void)state;
    td_arena a;
    unsigned char resident;
    td_arena_init(&a, 0);
    char *p = td_arena_alloc(&a, NULL, 0, 1 << 20);
    char *page = (char *)((uintptr_t)p & ~(uintptr_t)4095);
    assert_int_equal(mincore(page, 4096, &resident), 0);
    td_arena_alloc(&a, p, 1 << 20, 0);
    assert_int_equal(a.mapped, 0);
    assert_int_equal(mincore(page, 4096, &resident), -1);
    assert_int_equal(errno, ENOMEM);
}

static void destroying_gives_all_mappings_back(void **state) {
    (void)state;
    td_arena a;
    char *pages[3];
    unsigned char resident;
    td_arena_init(&a, 0);
    static const size_t sizes[] = { 10, 32768, 500000 };
    for (int i = 0; i < 3; i++) {
        char *p = td_arena_alloc(&a, NULL, 0, sizes[i]);
        pages[i] = (char *)((uintptr_t)p & ~(uintptr_t)4095);
        assert_int_equal(mincore(pages[i], 4096, &resident), 0);
    }
    td_arena_destroy(&a);
    for (int i = 0; i < 3; i++) assert_int_equal(mincore(pages[i], 4096, &resident), -1);
}

static void a_larger_free_block_serves_a_smaller_request(void **state) {
    (void)state;
    enum { COUNT = 100 };
    void *blocks[COUNT];
    td_arena a;
    td_arena_init(&a, 0);
    for (int i = 0; i < COUNT; i++) blocks[i] = td_arena_alloc(&a, NULL, 0, 20000);
    for (int i = 0; i < COUNT; i++) td_arena_alloc(&a, blocks[i], 20000, 0);
    size_t mapped = a.mapped;
    for (int i = 0; i < COUNT * 10; i++) assert_non_null(td_arena_alloc(&a, NULL, 0, 2000));
    assert_int_equal(a.mapped, mapped);
    td_arena_destroy(&a);
}

static void a_trim_gives_back_only_what_is_free(void **state) {
    (void)state;
    enum { COUNT = 20000, KEPT = 7 };
    static block blocks[COUNT];
    td_arena a;
    td_arena_init(&a, 0);
    block large = { NULL, 0, 0 };
    resize(&a, &large, 100000);
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = (block){ NULL, 0, 0 };
        resize(&a, &blocks[i], 1 + draw(1000));
    }
    size_t full = a.mapped;
    for (int i = 0; i < COUNT; i++) {
        if (i != KEPT) resize(&a, &blocks[i], 0);
    }
    td_arena_trim(&a);
    assert_true(a.mapped <= (64 << 10) + (101 << 10) && a.mapped < full / 10);
    check_filled(&blocks[KEPT], blocks[KEPT].size);
    check_filled(&large, large.size);
    for (int i = 0; i < COUNT; i++) resize(&a, &blocks[i], 1 + draw(1000));
    for (int i = 0; i < COUNT; i++) resize(&a, &blocks[i], 0);
    resize(&a, &large, 0);
    td_arena_trim(&a);
    assert_int_equal(a.mapped, 0);
    td_arena_destroy(&a);
}

/* A job that uses one size after the other, from small to large, must neither be refused what its limit allows nor make
   the arena keep memory for each of the sizes. */
static void free_memory_of_one_size_does_not_count_against_another(void **state) {
    (void)state;
    enum { LIMIT = 4 << 20, COUNT = LIMIT / 16 };
    static void *blocks[COUNT];
    td_arena a;
    td_arena_init(&a, LIMIT);
    for (size_t size = 16; size <= 100000; size += size / 2) {
        for (size_t i = 0; i < LIMIT / size; i++) {
            blocks[i] = td_arena_alloc(&a, NULL, 0, size);
            if (!blocks[i]) fail_msg("block %zu of size %zu was refused with %zu used", i, size, a.used);
            assert_true(a.mapped <= 2 * (size_t)LIMIT + (256 << 10));
        }
        for (size_t i = 0; i < LIMIT / size; i++) td_arena_alloc(&a, blocks[i], size, 0);
        assert_int_equal(a.used, 0);
    }
    td_arena_destroy(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_keep_their_bytes_and_the_count_is_exact),
        cmocka_unit_test(the_limit_is_exact),
        cmocka_unit_test(an_absurd_size_is_refused),
        cmocka_unit_test(a_shrink_never_fails),
        cmocka_unit_test(memory_left_over_by_a_shrink_is_used_again),
        cmocka_unit_test(a_large_block_goes_back_to_the_system_at_once),
        cmocka_unit_test(destroying_gives_all_mappings_back),
        cmocka_unit_test(a_larger_free_block_serves_a_smaller_request),
        cmocka_unit_test(a_trim_gives_back_only_what_is_free),
        cmocka_unit_test(free_memory_of_one_size_does_not_count_against_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
