/* arena.h: the memory of one worker's Lua state, counted to the byte and given back whole.

   Small blocks (up to 32 KiB) are cut from chunks and kept in free lists by size class; they have no header, since Lua
   tells a block's size when it changes or frees it. A large block has a mapping of its own, which goes back to the
   system when it is freed. Every mapping is in one list, so destroying an arena needs no help from Lua.

   What must hold: used is the sum of the sizes that Lua asked for, never above limit (0: none). A free block may be
   cut into smaller ones, but is never joined to others; so what is mapped can exceed what is used, up to twice the
   limit, where chunks that are free as a whole are given back.
   One thread at a time. */
#ifndef TD_VM_ARENA_H
#define TD_VM_ARENA_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { TD_ARENA_CLASSES = 40 };

typedef struct td_arena {
    size_t used, peak, limit;
    size_t mapped;
    _Atomic size_t *total; /* of all arenas that share it, or NULL */
    size_t refused;        /* requests turned down, for want of memory or because of the limit */
    char *bump, *end;      /* what is left of the newest chunk */
    void *blocks[TD_ARENA_CLASSES];
    struct td_region *regions;
    unsigned chunks;
    long fail_after; /* for tests: so many more requests are granted, then fail_times are refused; below 0: off */
    long fail_times;
} td_arena;

/* td_arena_init makes an empty arena. It maps nothing yet. */
void td_arena_init(td_arena *arena, size_t limit);

/* td_arena_alloc is a lua_Alloc whose first argument is the arena. Making a block smaller never fails. */
void *td_arena_alloc(void *arena, void *block, size_t old_size, size_t new_size);

/* td_arena_trim gives chunks without a block in use back to the system. Takes time by the number of free blocks. */
void td_arena_trim(td_arena *arena);

/* td_arena_destroy gives every mapping back; the arena is then empty as after td_arena_init. */
void td_arena_destroy(td_arena *arena);

#endif
