// Depthwise convolutions of one image, one vector of channels at a time, in a zero-padded canvas that fits in the
// cache. Missing channels of the last vector are zeros. Strips of four output pixels share their loads.

#pragma once

#include "common.h"

// taps[t]: tap t for the channels starting at `at`, zeros beyond `lanes`. `turned`: rotated by 180 degrees, for the
// gradient of the input.
static inline void taps_of(Vec *taps, const float *w, const long *stride, long at, long lanes, long k, int turned) {
    long kk = k * k;
    for (long t = 0; t < kk; t++) {
        Vec tap = {0};
        const float *from = w + at * stride[0] + t / k * stride[1] + t % k * stride[2];
        for (long i = 0; i < lanes; i++) tap[i] = from[i * stride[0]];
        taps[turned ? kk - 1 - t : t] = tap;
    }
}

// Adds the taps' partial gradients of `groups` parts, `parts` vectors' taps from one to the next, to those of a weight.
static inline void add_taps(float *for_w, const long *stride, const Vec *partial, long parts, long groups, long at,
                            long lanes, long k) {
    long kk = k * k;
    for (long t = 0; t < kk; t++) {
        float *into = for_w + at * stride[0] + t / k * stride[1] + t % k * stride[2];
        for (long i = 0; i < lanes; i++) {
            double sum = 0.0;
            for (long g = 0; g < groups; g++) sum += partial[g * parts * kk + t][i];
            into[i * stride[0]] += (float)sum;
        }
    }
}

// An image's lanes into the middle of a zeroed canvas `wide` pixels wide, `pad` from its edges, pixels `step` apart.
static inline void place(Vec *canvas, const float *image, long h, long w, long c, long lanes, long wide, long pad,
                         long step) {
    for (long i = 0; i < h; i++)
        for (long j = 0; j < w; j++)
            canvas[(i * step + pad) * wide + j * step + pad] = load(image + (i * w + j) * c, lanes);
}

static inline __attribute__((always_inline)) void correlate_k(
    const Vec *canvas, const Vec *taps, float *out, long h, long w, long c, long lanes, long wide, const long k,
    const long s) {
    for (long i = 0; i < h; i++) {
        const Vec *row = canvas + i * s * wide;
        long j = 0;
        for (; j + 4 <= w; j += 4) {
            Vec one = {0}, two = {0}, three = {0}, four = {0};
            #pragma GCC unroll 7
            for (long u = 0; u < k; u++) {
                const Vec *at = row + u * wide + j * s;
                #pragma GCC unroll 7
                for (long v = 0; v < k; v++) {
                    Vec tap = taps[u * k + v];
                    one += at[v] * tap;
                    two += at[v + s] * tap;
                    three += at[v + 2 * s] * tap;
                    four += at[v + 3 * s] * tap;
                }
            }
            float *into = out + (i * w + j) * c;
            store(into, one, lanes);
            store(into + c, two, lanes);
            store(into + 2 * c, three, lanes);
            store(into + 3 * c, four, lanes);
        }
        for (; j < w; j++) {
            Vec sum = {0};
            #pragma GCC unroll 7
            for (long u = 0; u < k; u++)
                #pragma GCC unroll 7
                for (long v = 0; v < k; v++) sum += row[u * wide + j * s + v] * taps[u * k + v];
            store(out + (i * w + j) * c, sum, lanes);
        }
    }
}

// out [h, w, c]: the canvas correlated with k x k taps, at every s-th place.
static inline void correlate(const Vec *canvas, const Vec *taps, float *out, long h, long w, long c, long lanes,
                             long wide, long k, long s) {
    if (k == 3 && s == 1) correlate_k(canvas, taps, out, h, w, c, lanes, wide, 3, 1);
    else if (k == 3 && s == 2) correlate_k(canvas, taps, out, h, w, c, lanes, wide, 3, 2);
    else if (k == 5 && s == 1) correlate_k(canvas, taps, out, h, w, c, lanes, wide, 5, 1);
    else if (k == 5 && s == 2) correlate_k(canvas, taps, out, h, w, c, lanes, wide, 5, 2);
    else correlate_k(canvas, taps, out, h, w, c, lanes, wide, k, s);
}

static inline __attribute__((always_inline)) void tap_sums_k(
    const Vec *canvas, const float *g, Vec *sums_, long oh, long ow, long c, long lanes, long wide, const long s,
    const long k) {
    Vec sum[49];
    memcpy(sum, sums_, k * k * sizeof(Vec));
    for (long i = 0; i < oh; i++) {
        long j = 0;
        for (; j + 2 <= ow; j += 2) {
            const Vec *corner = canvas + i * s * wide + j * s;
            Vec one = load(g + (i * ow + j) * c, lanes), two = load(g + (i * ow + j + 1) * c, lanes);
            #pragma GCC unroll 7
            for (long u = 0; u < k; u++)
                #pragma GCC unroll 7
                for (long v = 0; v < k; v++)
                    sum[u * k + v] += corner[u * wide + v] * one + corner[u * wide + v + s] * two;
        }
        for (; j < ow; j++) {
            const Vec *corner = canvas + i * s * wide + j * s;
            Vec one = load(g + (i * ow + j) * c, lanes);
            #pragma GCC unroll 7
            for (long u = 0; u < k; u++)
                #pragma GCC unroll 7
                for (long v = 0; v < k; v++) sum[u * k + v] += corner[u * wide + v] * one;
        }
    }
    memcpy(sums_, sum, k * k * sizeof(Vec));
}

// Adds to sum[t] the products of the canvas, moved by tap t, with g [oh, ow, c].
static inline void tap_sums(const Vec *canvas, const float *g, Vec *sum, long oh, long ow, long c, long lanes,
                            long wide, long s, long k) {
    if (k == 3 && s == 1) tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, 1, 3);
    else if (k == 3) tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, s, 3);
    else if (k == 5 && s == 1) tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, 1, 5);
    else if (k == 5) tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, s, 5);
    else tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, s, k);
}

// --- the gradient of the input -------------------------------------------------------------------------------
//
// With stride 2, an input pixel only contributes to taps of its own parity, a quarter of them on average.

#define EDGE(k) ((k) / 2 + 1)  // zeros around the gradient's canvas

static inline __attribute__((always_inline)) void every_other_k(
    const Vec *canvas, const Vec *taps, float *out, long h, long w, long c, long lanes, long wide, const long k) {
    #pragma GCC unroll 4
    for (int parity = 0; parity < 4; parity++) {
        const long y = parity / 2, x = parity % 2, u = (y + k / 2) % 2, v = (x + k / 2) % 2;
        for (long i = y; i < h; i += 2)
            for (long j = x; j < w; j += 2) {
                const Vec *at = canvas + ((i + k / 2 - u) / 2 + EDGE(k)) * wide + (j + k / 2 - v) / 2 + EDGE(k);
                Vec sum = {0};
                #pragma GCC unroll 4
                for (long a = 0; u + 2 * a < k; a++)
                    #pragma GCC unroll 4
                    for (long b = 0; v + 2 * b < k; b++) sum += at[-a * wide - b] * taps[(u + 2 * a) * k + v + 2 * b];
                store(out + (i * w + j) * c, sum, lanes);
            }
    }
}

// The size of the canvas that `input_gradient` needs, in pixels.
static inline long gradient_canvas(long h, long w, long oh, long ow, long k, long s) {
    return s == 2 ? (oh + 2 * EDGE(k)) * (ow + 2 * EDGE(k)) : (h + k - 1) * (w + k - 1);
}

// out [h, w, c], the gradient of the input, from g [oh, ow, g_c]. `taps` as they are, `turned` turned round; the canvas
// is zero beside what calls of the same sizes leave there.
static inline void input_gradient(
    Vec *canvas, const float *g, long g_c, const Vec *taps, const Vec *turned, float *out, long h, long w, long oh,
    long ow, long c, long lanes, long k, long s) {
    if (s != 2) {
        long wide = w + k - 1;
        place(canvas, g, oh, ow, g_c, lanes, wide, k - 1 - k / 2, s);
        correlate(canvas, turned, out, h, w, c, lanes, wide, k, 1);
        return;
    }
    long wide = ow + 2 * EDGE(k);
    place(canvas, g, oh, ow, g_c, lanes, wide, EDGE(k), 1);
    if (k == 3) every_other_k(canvas, taps, out, h, w, c, lanes, wide, 3);
    else if (k == 5) every_other_k(canvas, taps, out, h, w, c, lanes, wide, 5);
    else every_other_k(canvas, taps, out, h, w, c, lanes, wide, k);
}
