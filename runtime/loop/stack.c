/* stack.c: C stacks for fibers: mapped, guarded, and used again.

   A fresh stack costs two system calls, two entries in the process's memory map and a page fault for each page it
   touches, so that a few are kept. What a deep one touched beyond KEEP_BYTES is given back before it is kept: else a
   thread's memory would grow to the deepest call of each stack. */
#include "private.h"

#include <sys/mman.h>
#include <unistd.h>

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(low, high) 0
#define VALGRIND_STACK_DEREGISTER(id)      (void)(id)
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (void)(address)
#endif

#define DEFAULT_BYTES ((size_t)1 << 20)
#define GUARD_BYTES   ((size_t)64 << 10)
#define KEEP_BYTES    ((size_t)64 << 10)
#define CACHED_MAX    64

/* mapped_size: what to map for a usable size: whole pages, a guard, and room for the record. */
static size_t mapped_size(size_t size_bytes, size_t page) {
    return (size_bytes + sizeof(td_stack) + page - 1) / page * page + GUARD_BYTES;
}

/* stack_map maps a new stack. */
static td_stack *stack_map(size_t mapped_bytes) {
    char *guard = mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (guard == MAP_FAILED) return NULL;
    if (mprotect(guard, GUARD_BYTES, PROT_NONE) != 0) {
        munmap(guard, mapped_bytes);
        return NULL;
    }
    td_stack *stack = (td_stack *)(void *)(guard + mapped_bytes) - 1;
    stack->low = guard + GUARD_BYTES;
    stack->mapped_bytes = mapped_bytes;
    stack->valgrind = VALGRIND_STACK_REGISTER(stack->low, (char *)stack);
    return stack;
}

/* stack_unmap gives a stack back to the system. */
static void stack_unmap(td_stack *stack) {
    VALGRIND_STACK_DEREGISTER(stack->valgrind);
    munmap(stack->low - GUARD_BYTES, stack->mapped_bytes);
}

td_stack *td_stack_new(td_stack_cache *cache, size_t size_bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size_bytes > SIZE_MAX / 2) return NULL;
    size_t mapped_bytes = mapped_size(size_bytes ? size_bytes : DEFAULT_BYTES, page);
    td_stack *stack = cache->first;
    if (!stack || mapped_bytes != stack->mapped_bytes) return stack_map(mapped_bytes);
    cache->first = stack->next;
    cache->count--;
    return stack;
}

void td_stack_free(td_stack_cache *cache, td_stack *stack) {
    if (!stack) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    ASAN_UNPOISON_MEMORY_REGION(stack->low, td_stack_size(stack)); /* a dropped fiber's frames left their red zones */
    if (cache->count >= CACHED_MAX || stack->mapped_bytes != mapped_size(DEFAULT_BYTES, page)) {
        stack_unmap(stack);
        return;
    }
    madvise(stack->low, (stack->mapped_bytes - GUARD_BYTES) - KEEP_BYTES, MADV_DONTNEED);
    stack->next = cache->first;
    cache->first = stack;
    cache->count++;
}

void td_stack_fini(td_stack_cache *cache) {
    while (cache->first) {
        td_stack *stack = cache->first;
        cache->first = stack->next;
        stack_unmap(stack);
    }
    cache->count = 0;
}

size_t td_stack_size(const td_stack *stack) {
    return (size_t)((const char *)stack - stack->low);
}
