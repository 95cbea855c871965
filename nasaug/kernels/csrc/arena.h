// Working space of one call: laid out once to count it, allocated in one piece, laid out again.

#pragma once

#include "common.h"

typedef struct { char *base; long used; } Arena;

// Room for n items of `size` bytes, on cache lines of its own; null while it is only counted.
static inline void *carve(Arena *a, long n, long size) {
    long at = a->used;
    a->used += (n * size + 63) / 64 * 64;
    return a->base ? a->base + at : NULL;
}
