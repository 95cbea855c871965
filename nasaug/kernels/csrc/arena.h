// Working space of one call: laid out once to count it, allocated in one piece, laid out again.

#pragma once

#include "common.h"

#ifdef __SANITIZE_ADDRESS__  // which sees no border within one piece of memory: each item is followed by a forbidden gap
#include <sanitizer/asan_interface.h>
#define GAP 64
#else
#define GAP 0
#define ASAN_POISON_MEMORY_REGION(from, bytes)
#endif

typedef struct { char *base; long used; } Arena;

// Room for n items of `size` bytes, on cache lines of its own; null while it is only counted.
static inline void *carve(Arena *a, long n, long size) {
    long at = a->used;
    a->used += (n * size + 63) / 64 * 64 + GAP;
    if (!a->base) return NULL;
    ASAN_POISON_MEMORY_REGION(a->base + at + n * size, a->used - at - n * size);
    return a->base + at;
}

// The same, of zeros.
static inline void *carve_zeros(Arena *a, long n, long size) {
    void *room = carve(a, n, size);
    return room ? memset(room, 0, n * size) : NULL;
}

// Lays out a job's working space in one piece of memory, to be freed as `a->base`. Returns 0, or 1 where there is none.
static inline int set_up(Arena *a, void *job, void (*lay_out)(Arena *, void *)) {
    *a = (Arena){0};
    lay_out(a, job);
    void *base = NULL;
    if (posix_memalign(&base, 64, a->used)) return 1;
    *a = (Arena){base, 0};
    lay_out(a, job);
    return 0;
}
