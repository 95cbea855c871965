// Shared by the compiled kernels: sizes, vectors of channels, activations over tiles of rows.
//
// nasaug/kernels/build.py compiles this folder if there is a C compiler; nasaug/kernels/fused.py has the equivalent
// torch operations. An image batch is [rows, c], channels last, with one row of channels per pixel. Loops are flat over
// a tile of several rows, with per-channel factors repeated to the tile's length, so odd channel counts cost nothing.
// Sums are taken over fixed blocks and merged in order, so results do not depend on the number of threads.

#pragma once

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vec.h"

#define TILE 512            // minimum floats per tile (or one row, if that is longer)
#define ALONE 32768         // below this many floats, a second thread costs more than it gains
#define GROUPS 16           // maximum number of parts of a batch with separate sums

enum { NONE = 0, CLIP = 1, HSWISH = 2 };

static inline long at_least(long a, long b) { return a > b ? a : b; }
static inline long at_most(long a, long b) { return a < b ? a : b; }

static inline long lanes_of(long part, long c) { return at_most(LANES, c - part * LANES); }

// --- tiles of rows -------------------------------------------------------------------------------------------

static inline long tile_rows(long c) { return at_least(TILE / c, 1); }

static inline void repeat(float *into, const float *from, long c, long tile) {
    for (long t = 0; t < tile; t++) memcpy(into + t * c, from, c * sizeof(float));
}

static inline void fold(double *into, const float *tiled, long c, long tile) {
    for (long t = 0; t < tile; t++)
        for (long i = 0; i < c; i++) into[i] += tiled[t * c + i];
}

// act(a y + b) of n values, a and b as long.
static inline void activate(const float *y, float *out, long n, const float *a, const float *b, int act, float top) {
    if (act == CLIP)
        for (long i = 0; i < n; i++) {  // these comparisons are false for NaN, which therefore propagates
            float z = a[i] * y[i] + b[i];
            z = z < 0.0f ? 0.0f : z;
            out[i] = z > top ? top : z;
        }
    else if (act == HSWISH)
        for (long i = 0; i < n; i++) {
            float z = a[i] * y[i] + b[i], r = z + 3.0f;
            r = r < 0.0f ? 0.0f : r;
            r = r > 6.0f ? 6.0f : r;
            out[i] = z * r * (1.0f / 6.0f);
        }
    else
        for (long i = 0; i < n; i++) out[i] = a[i] * y[i] + b[i];
}

// The gradient before the activation: of g where the activation's input is z.
static inline float before(float g, float z, int act, float top) {
    if (act == CLIP) return (z <= 0.0f) | (z >= top) ? 0.0f : g;
    if (act == HSWISH) {
        float slope = z * (1.0f / 3.0f) + 0.5f;
        slope = z >= 3.0f ? 1.0f : slope;
        return g * (z <= -3.0f ? 0.0f : slope);
    }
    return g;
}
