// What the compiled kernels share: sizes, vectors of sixteen channels, activations over tiles of rows.
//
// nasaug/compiled.py compiles this folder where the machine has a C compiler, and nasaug/kernels.py has the same in
// torch for where it has not. An image batch is [rows, c], channels last: one row of channels for every pixel.
// Loops over it run flat, over a tile of some rows at a time, with per-channel factors repeated to the tile's
// length, so odd channel counts cost nothing. Sums are taken over fixed blocks and merged in their order: the
// number of threads does not change a result.

#pragma once

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TILE 512            // floats that a tile has at least (one row, where that is longer)
#define ALONE 32768         // floats under which a second thread costs more than it gives
#define GROUPS 16           // parts of a batch whose sums are taken apart

enum { NONE = 0, CLIP = 1, HSWISH = 2 };

#ifdef _OPENMP
extern int omp_get_thread_num(void);
static inline int this_thread(void) { return omp_get_thread_num(); }
#else
static inline int this_thread(void) { return 0; }
#endif

static inline long at_least(long a, long b) { return a > b ? a : b; }
static inline long at_most(long a, long b) { return a < b ? a : b; }

// --- vectors -------------------------------------------------------------------------------------------------

typedef float Vec __attribute__((vector_size(64)));
#define LANES 16

static inline long lanes_of(long part, long c) { return at_most(LANES, c - part * LANES); }

#ifdef __AVX512F__
#include <immintrin.h>
static inline Vec load(const float *from, long lanes) {
    return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes) - 1), from);
}
static inline void store(float *into, Vec v, long lanes) {
    _mm512_mask_storeu_ps(into, (__mmask16)((1u << lanes) - 1), (__m512)v);
}
// Of what is no number the second operand is handed on.
static inline Vec clamped(Vec z, Vec low, Vec high) {
    return (Vec)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)z));
}
// `then` where z <= low (z >= high), else v.
static inline Vec if_below(Vec z, Vec low, Vec then, Vec v) {
    return (Vec)_mm512_mask_mov_ps((__m512)v, _mm512_cmp_ps_mask((__m512)z, (__m512)low, _CMP_LE_OQ), (__m512)then);
}
static inline Vec if_above(Vec z, Vec high, Vec then, Vec v) {
    return (Vec)_mm512_mask_mov_ps((__m512)v, _mm512_cmp_ps_mask((__m512)z, (__m512)high, _CMP_GE_OQ), (__m512)then);
}
#else
static inline Vec load(const float *from, long lanes) {
    Vec v = {0};
    memcpy(&v, from, lanes == LANES ? sizeof v : lanes * sizeof(float));
    return v;
}
static inline void store(float *into, Vec v, long lanes) {
    memcpy(into, &v, lanes == LANES ? sizeof v : lanes * sizeof(float));
}
static inline Vec clamped(Vec z, Vec low, Vec high) {
    for (int i = 0; i < LANES; i++) {  // comparisons that are false for NaN, so that it is handed on
        z[i] = z[i] < low[i] ? low[i] : z[i];
        z[i] = z[i] > high[i] ? high[i] : z[i];
    }
    return z;
}
static inline Vec if_below(Vec z, Vec low, Vec then, Vec v) {
    for (int i = 0; i < LANES; i++) v[i] = z[i] <= low[i] ? then[i] : v[i];
    return v;
}
static inline Vec if_above(Vec z, Vec high, Vec then, Vec v) {
    for (int i = 0; i < LANES; i++) v[i] = z[i] >= high[i] ? then[i] : v[i];
    return v;
}
#endif

// Room for n vectors; null where there is no memory.
static inline Vec *space(long n) {
    void *p = NULL;
    return posix_memalign(&p, sizeof(Vec), n * sizeof(Vec)) ? NULL : p;
}

// n vectors of zeros; null where there is no memory.
static inline Vec *vectors(long n) {
    Vec *p = space(n);
    if (p) memset(p, 0, n * sizeof(Vec));
    return p;
}

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
        for (long i = 0; i < n; i++) {  // comparisons that are false for NaN, so that it is handed on
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
        slope = z > 3.0f ? 1.0f : slope;
        return g * (z < -3.0f ? 0.0f : slope);
    }
    return g;
}
