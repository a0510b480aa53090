/* random.c: random numbers that nobody can guess; lease tokens are made of them. */
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

/* from_device reads *bits from /dev/urandom, for where a sandbox forbids the system call. Returns false on failure. */
static bool from_device(uint64_t *bits) {
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, bits, sizeof *bits);
    close(fd);
    return n == (ssize_t)sizeof *bits;
}

/* from_clock mixes the time, the process and an address: the last resort, which differs from one process and one
   moment to another, but can be guessed. */
static uint64_t from_clock(const void *address) {
    uint64_t x = td_now_ns() ^ (uint64_t)td_wall_us() << 20 ^ (uint64_t)getpid() << 40 ^ (uint64_t)(uintptr_t)address;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u; /* splitmix64's finish */
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

uint64_t td_random64(void) {
    uint64_t bits;
    ssize_t n;
    do n = getrandom(&bits, sizeof bits, 0);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof bits || from_device(&bits)) return bits;
    return from_clock(&bits);
}

int64_t td_random_id(void) {
    int64_t id;
    do id = (int64_t)(td_random64() >> 1);
    while (id == 0);
    return id;
}
