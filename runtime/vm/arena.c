#include "arena.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define HIDE(p, n) ((void)(p), (void)(n))
#define SHOW(p, n) ((void)(p), (void)(n))
#endif

/* A mapping: a chunk that small blocks are cut from, or one large block. The header keeps blocks aligned to 16. */
typedef struct td_region {
    struct td_region *next, *prev;
    size_t size; /* of the mapping, header included */
    size_t free; /* in td_arena_trim: bytes of a chunk that are in free lists; LARGE for a large block */
} td_region;

#define LARGE SIZE_MAX

enum {
    GRAIN = 16,    /* sizes of classes are multiples of it */
    SMALL = 32768, /* blocks above this have a mapping of their own */
    PAGE = 4096,
    SLACK = 256 * 1024, /* mapped memory may reach twice the limit and this */
};

/* class_of returns the class of blocks that hold n bytes (1 to SMALL), and its size: 16 to 128 by 16, then four
   classes for each doubling. */
static int class_of(size_t n, size_t *size) {
    if (n <= 128) {
        int cls = (int)((n - 1) / GRAIN);
        *size = (size_t)(cls + 1) * GRAIN;
        return cls;
    }
    int doubling = 63 - __builtin_clzll((unsigned long long)n - 1);
    int quarter = (int)((n - 1) >> (doubling - 2)) & 3;
    *size = ((size_t)1 << doubling) + ((size_t)(quarter + 1) << (doubling - 2));
    return 8 + (doubling - 7) * 4 + quarter;
}

static size_t class_size(int cls) {
    if (cls < 8) return (size_t)(cls + 1) * GRAIN;
    int doubling = 7 + (cls - 8) / 4, quarter = (cls - 8) % 4;
    return ((size_t)1 << doubling) + ((size_t)(quarter + 1) << (doubling - 2));
}

/* class_within returns the largest class whose blocks fit into n bytes (at least GRAIN), and its size. */
static int class_within(size_t n, size_t *size) {
    int cls = class_of(n < SMALL ? n : SMALL, size);
    if (*size > n) *size = class_size(--cls);
    return cls;
}

static void push_block(td_arena *a, int cls, void *block, size_t size) {
    SHOW(block, sizeof(void *));
    *(void **)block = a->blocks[cls];
    a->blocks[cls] = block;
    HIDE(block, size);
}

static void *pop_block(td_arena *a, int cls) {
    void *block = a->blocks[cls];
    if (block) {
        SHOW(block, sizeof(void *));
        a->blocks[cls] = *(void **)block;
    }
    return block;
}

/* cut_up puts a piece of memory, a multiple of GRAIN long, into the free lists. */
static void cut_up(td_arena *a, char *piece, size_t size) {
    while (size >= GRAIN) {
        size_t block_size;
        int cls = class_within(size, &block_size);
        push_block(a, cls, piece, block_size);
        piece += block_size;
        size -= block_size;
    }
}

static void link_region(td_arena *a, td_region *r, size_t size) {
    r->size = size;
    r->free = 0;
    r->prev = NULL;
    r->next = a->regions;
    if (r->next) r->next->prev = r;
    a->regions = r;
}

/* count_mapped adds to what is mapped; a difference below zero wraps around, as unsigned numbers do. */
static void count_mapped(td_arena *a, size_t more) {
    a->mapped += more;
    if (a->total) atomic_fetch_add_explicit(a->total, more, memory_order_relaxed);
}

static td_region *map_region(td_arena *a, size_t size) {
    if (a->limit && a->mapped + size > 2 * a->limit + SLACK) return NULL;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    link_region(a, memory, size);
    count_mapped(a, size);
    return memory;
}

static void unmap_region(td_arena *a, td_region *r) {
    if (r->prev)
        r->prev->next = r->next;
    else
        a->regions = r->next;
    if (r->next) r->next->prev = r->prev;
    count_mapped(a, (size_t)0 - r->size);
    SHOW(r, r->size);
    munmap(r, r->size);
}

/* new_chunk maps memory for small blocks; the first chunks are small, since most states stay small. */
static bool new_chunk(td_arena *a) {
    size_t size = a->chunks < 4 ? 64u << 10 : a->chunks < 16 ? 256u << 10 : 1u << 20;
    td_region *r = map_region(a, size);
    if (!r) return false;
    cut_up(a, a->bump, (size_t)(a->end - a->bump));
    a->chunks++;
    a->bump = (char *)(r + 1);
    a->end = (char *)r + size;
    HIDE(a->bump, size - sizeof *r);
    return true;
}

/* split_larger takes a block of `size` bytes off a free block of a larger class, or returns NULL. */
static char *split_larger(td_arena *a, int cls, size_t size) {
    do {
        if (++cls == TD_ARENA_CLASSES) return NULL;
    } while (!a->blocks[cls]);
    char *block = pop_block(a, cls);
    cut_up(a, block + size, class_size(cls) - size);
    return block;
}

static void *new_small(td_arena *a, size_t n) {
    size_t size;
    int cls = class_of(n, &size);
    char *block = pop_block(a, cls);
    if (!block && (size_t)(a->end - a->bump) < size) {
        block = split_larger(a, cls, size);
        if (!block && !new_chunk(a)) return NULL;
    }
    if (!block) {
        block = a->bump;
        a->bump += size;
    }
    SHOW(block, n);
    return block;
}

static size_t large_size(size_t n) {
    return (n + sizeof(td_region) + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static void *new_block(td_arena *a, size_t n) {
    if (n <= SMALL) return new_small(a, n);
    if (n > SIZE_MAX / 4) return NULL;
    td_region *r = map_region(a, large_size(n));
    if (!r) return NULL;
    r->free = LARGE;
    HIDE((char *)(r + 1) + n, r->size - sizeof *r - n);
    return r + 1;
}

static void free_block(td_arena *a, void *block, size_t n) {
    if (n > SMALL) {
        unmap_region(a, (td_region *)block - 1);
        return;
    }
    size_t size;
    int cls = class_of(n, &size);
    push_block(a, cls, block, size);
}

/* shrink_small makes a small block smaller where it lies, so that no memory is needed for it. */
static void *shrink_small(td_arena *a, char *block, size_t old_size, size_t new_size) {
    size_t from, to;
    class_of(old_size, &from);
    class_of(new_size, &to);
    HIDE(block + new_size, from - new_size);
    cut_up(a, block + to, from - to);
    return block;
}

/* shrink_to_small turns a large block into a small one. Without memory for that, its mapping becomes a chunk that
   begins with the block. */
static void *shrink_to_small(td_arena *a, char *block, size_t new_size) {
    char *copy = new_small(a, new_size);
    td_region *r = (td_region *)block - 1;
    if (copy) {
        memcpy(copy, block, new_size);
        unmap_region(a, r);
        return copy;
    }
    size_t size;
    class_of(new_size, &size);
    r->free = 0;
    HIDE(block + new_size, r->size - sizeof *r - new_size);
    cut_up(a, block + size, r->size - sizeof *r - size);
    return block;
}

static void *resize_large(td_arena *a, char *block, size_t old_size, size_t new_size) {
    td_region *r = (td_region *)block - 1;
    size_t old_mapping = r->size, mapping = large_size(new_size);
    SHOW(r, old_mapping);
    if (mapping != old_mapping) {
        bool allowed =
            !a->limit || mapping < old_mapping || a->mapped + (mapping - old_mapping) <= 2 * a->limit + SLACK;
        void *moved = allowed ? mremap(r, old_mapping, mapping, MREMAP_MAYMOVE) : MAP_FAILED;
        if (moved == MAP_FAILED) {
            if (new_size > old_size) return NULL;
        } else {
            r = moved;
            r->size = mapping;
            if (r->prev)
                r->prev->next = r;
            else
                a->regions = r;
            if (r->next) r->next->prev = r;
            count_mapped(a, mapping - old_mapping);
        }
    }
    HIDE((char *)(r + 1) + new_size, r->size - sizeof *r - new_size);
    return r + 1;
}

static void *resize_block(td_arena *a, char *block, size_t old_size, size_t new_size) {
    if (old_size > SMALL && new_size > SMALL) return resize_large(a, block, old_size, new_size);
    if (old_size > SMALL) return shrink_to_small(a, block, new_size);
    if (new_size <= old_size) return shrink_small(a, block, old_size, new_size);
    if (new_size <= SMALL) {
        size_t from, to;
        if (class_of(old_size, &from) == class_of(new_size, &to)) {
            SHOW(block, new_size);
            return block;
        }
    }
    void *copy = new_block(a, new_size);
    if (!copy) return NULL;
    memcpy(copy, block, old_size);
    free_block(a, block, old_size);
    return copy;
}

/* ---- Giving back what is free ---- */

/* Some chunks of an arena, sorted by address. */
typedef struct chunk_set {
    td_region *list[256];
    size_t count;
} chunk_set;

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (td_region *const *)a, y = (uintptr_t) * (td_region *const *)b;
    return (x > y) - (x < y);
}

/* pick_chunks fills the set with chunks from r on. Returns the region after the last one looked at. */
static td_region *pick_chunks(chunk_set *set, td_region *r) {
    set->count = 0;
    for (; r && set->count < sizeof set->list / sizeof *set->list; r = r->next) {
        if (r->free == LARGE) continue;
        r->free = 0;
        set->list[set->count++] = r;
    }
    qsort(set->list, set->count, sizeof *set->list, by_address);
    return r;
}

/* chunk_holding returns the chunk of the set that a block lies in, or NULL. */
static td_region *chunk_holding(const chunk_set *set, const char *block) {
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *begin = (const char *)set->list[middle];
        if (block < begin)
            high = middle;
        else if (block >= begin + set->list[middle]->size)
            low = middle + 1;
        else
            return set->list[middle];
    }
    return NULL;
}

static bool all_free(const td_region *r) {
    return r->free == r->size - sizeof *r;
}

/* take_free_blocks takes every block of a class off its list, counts it in its chunk, and puts back those whose chunk
   is not known to be free as a whole. */
static void take_free_blocks(td_arena *a, const chunk_set *set, int cls, bool count) {
    size_t size = class_size(cls);
    void *kept = NULL, *block;
    while ((block = pop_block(a, cls))) {
        td_region *r = chunk_holding(set, block);
        if (r && count) r->free += size;
        if (r && !count && all_free(r)) continue;
        *(void **)block = kept;
        kept = block;
    }
    while ((block = kept)) {
        kept = *(void **)block;
        push_block(a, cls, block, size);
    }
}

void td_arena_trim(td_arena *a) {
    chunk_set set;
    cut_up(a, a->bump, (size_t)(a->end - a->bump));
    a->bump = a->end = NULL;
    for (td_region *next = a->regions; next;) {
        next = pick_chunks(&set, next);
        for (int cls = 0; cls < TD_ARENA_CLASSES; cls++) take_free_blocks(a, &set, cls, true);
        for (int cls = 0; cls < TD_ARENA_CLASSES; cls++) take_free_blocks(a, &set, cls, false);
        for (size_t i = 0; i < set.count; i++) {
            if (!all_free(set.list[i])) continue;
            unmap_region(a, set.list[i]);
            a->chunks--;
        }
    }
}

/* ---- The allocator ---- */

/* may_grow says whether the arena may hold so many bytes more. */
static bool may_grow(td_arena *a, size_t more) {
    if (a->fail_after >= 0) {
        if (a->fail_after > 0) {
            a->fail_after--;
        } else if (a->fail_times > 0) {
            a->fail_times--;
            return false;
        }
    }
    return !a->limit || (more <= a->limit && a->used <= a->limit - more);
}

static void *place_block(td_arena *a, void *block, size_t old_size, size_t new_size) {
    return old_size ? resize_block(a, block, old_size, new_size) : new_block(a, new_size);
}

void td_arena_init(td_arena *a, size_t limit) {
    *a = (td_arena){ .limit = limit, .fail_after = -1 };
}

void *td_arena_alloc(void *arena, void *block, size_t old_size, size_t new_size) {
    td_arena *a = arena;
    if (!block) old_size = 0; /* Lua passes the kind of object there */
    if (new_size == 0) {
        if (old_size) free_block(a, block, old_size);
        a->used -= old_size;
        return NULL;
    }
    bool granted = new_size <= old_size || may_grow(a, new_size - old_size);
    void *result = granted ? place_block(a, block, old_size, new_size) : NULL;
    if (granted && !result) { /* too much is mapped, but perhaps not used */
        td_arena_trim(a);
        result = place_block(a, block, old_size, new_size);
    }
    if (!result) {
        a->refused++;
        return NULL;
    }
    a->used += new_size - old_size;
    if (a->used > a->peak) a->peak = a->used;
    return result;
}

void td_arena_destroy(td_arena *a) {
    while (a->regions) unmap_region(a, a->regions);
    td_arena_init(a, a->limit);
}
