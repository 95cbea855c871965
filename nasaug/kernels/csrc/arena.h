// Scratch memory for one call: a first pass over the layout computes its size, a second one places the items.

#pragma once

#include "common.h"

#ifdef __SANITIZE_ADDRESS__  // it cannot see borders inside one allocation, so a poisoned gap follows each item
#include <sanitizer/asan_interface.h>
#define GAP 64
#else
#define GAP 0
#define ASAN_POISON_MEMORY_REGION(from, bytes)
#endif

typedef struct { char *base; long used; } Arena;

// Space for n items of `size` bytes, aligned to cache lines; null in the first pass.
static inline void *carve(Arena *a, long n, long size) {
    long at = a->used;
    a->used += (n * size + 63) / 64 * 64 + GAP;
    if (!a->base) return NULL;
    ASAN_POISON_MEMORY_REGION(a->base + at + n * size, a->used - at - n * size);
    return a->base + at;
}

// The same, zeroed.
static inline void *carve_zeros(Arena *a, long n, long size) {
    void *room = carve(a, n, size);
    return room ? memset(room, 0, n * size) : NULL;
}

// Allocates a job's scratch memory in one block; the caller frees `a->base`. Returns 0, or 1 if out of memory.
static inline int set_up(Arena *a, void *job, void (*lay_out)(Arena *, void *)) {
    *a = (Arena){0};
    lay_out(a, job);
    void *base = NULL;
    if (posix_memalign(&base, 64, a->used)) return 1;
    *a = (Arena){base, 0};
    lay_out(a, job);
    return 0;
}
