// The depthwise convolution of a compiled block on maps of 1 x 1 or 2 x 2 pixels: the last blocks of a network on small
// images. There is no canvas: for one vector of channels, an image's pixels and the nine taps that can reach them stay
// in registers while looping over a part's images.

#pragma once

#include "block_norms.h"

typedef struct {
    long n, h, w, oh, ow, in, hidden, out, k, s;
    int expands, residual, act;  // without an expansion, hidden is in
    float top, eps;
    Conv expand, depthwise, project;
} Inverted;

#define SMALL 2  // pixels a side

static int is_small(const Inverted *v) { return v->expands && v->h == v->w && v->h <= SMALL && v->s <= SMALL; }

// The middle 3 x 3 of k x k taps.
static inline void middle(Vec *into, const Vec *taps, long k) {
    for (long t = 0; t < 9; t++) {
        long y = k / 2 + t / 3 - 1, x = k / 2 + t % 3 - 1;
        into[t] = k > 1 || t == 4 ? taps[y * k + x] : (Vec){0};
    }
}

// Which of the nine taps input pixel q meets at output pixel o, or -1.
static inline __attribute__((always_inline)) int met(
    const int q, const int o, const int side, const int s, const int outs) {
    const int y = q / side - o / outs * s + 1, x = q % side - o % outs * s + 1;
    return y >= 0 && y < 3 && x >= 0 && x < 3 ? y * 3 + x : -1;
}

static inline __attribute__((always_inline)) void small_k(
    const Inverted *v, Affine one, const float *y1, float *y2, const Vec *taps, Sums sums, long part, long begin,
    long end, const int side, const int s, const int act) {
    const int outs = (side + s - 1) / s, pixels = side * side, after = outs * outs;
    long c = v->hidden;
    EACH_PART(c) {
        Vec tap[9], pivot = {0}, first = {0}, second = {0};
        Vec a = load(one.a + at, lanes), b = load(one.b + at, lanes);
        middle(tap, taps + at / LANES * v->k * v->k, v->k);
        for (long i = begin; i < end; i++) {
            Vec x[SMALL * SMALL];
            #pragma GCC unroll 4
            for (int q = 0; q < pixels; q++)
                x[q] = acted(a * load(y1 + (i * pixels + q) * c + at, lanes) + b, act, v->top);
            #pragma GCC unroll 4
            for (int o = 0; o < after; o++) {
                Vec y = {0};
                #pragma GCC unroll 4
                for (int q = 0; q < pixels; q++)
                    if (met(q, o, side, s, outs) >= 0) y += x[q] * tap[met(q, o, side, s, outs)];
                if (i == begin && o == 0) pivot = y;
                store(y2 + (i * after + o) * c + at, y, lanes);
                Vec d = y - pivot;
                first += d;
                second += d * d;
            }
        }
        store(sums.pivot + part * c + at, pivot, lanes);
        add_to(sums.one + part * c + at, first, lanes);
        add_to(sums.two + part * c + at, second, lanes);
    }
}

// The depthwise convolution of the images of a part, from y1 to y2, with the sums of its norm.
static void small(const Inverted *v, Affine one, const float *y1, float *y2, const Vec *taps, Sums sums, long part,
                  long begin, long end) {
    #define SIDES(CALL) if (v->h == 1) CALL(1, 1); else if (v->s == 1) CALL(2, 1); else CALL(2, 2)
    #define ACTED(CALL) \
        if (v->act == CLIP) { CALL(CLIP); } else if (v->act == HSWISH) { CALL(HSWISH); } else { CALL(NONE); }
    #define FORWARD(SIDE, S) small_k(v, one, y1, y2, taps, sums, part, begin, end, SIDE, S, act)
    #define FORWARD_SIDES(ACT) const int act = ACT; SIDES(FORWARD)
    ACTED(FORWARD_SIDES)
}

static inline __attribute__((always_inline)) void small_back_k(
    const Inverted *v, Affine one, Affine two, const float *y1, const float *y2, const float *d2, float *d1,
    const Vec *taps, Vec *for_taps, Sums sums, long part, long begin, long end, const int side, const int s,
    const int act) {
    const int outs = (side + s - 1) / s, pixels = side * side, after = outs * outs;
    long c = v->hidden, k = v->k;
    EACH_PART(c) {
        Vec tap[9], for_tap[9], first = {0}, second = {0};
        Vec a = load(one.a + at, lanes), b = load(one.b + at, lanes), m = load(one.mean + at, lanes);
        Vec a2 = load(two.a + at, lanes), p2 = load(two.p + at, lanes), q2 = load(two.q + at, lanes);
        Vec m2 = load(two.mean + at, lanes);
        middle(tap, taps + at / LANES * k * k, k);
        for (int t = 0; t < 9; t++) for_tap[t] = (Vec){0};
        for (long i = begin; i < end; i++) {
            Vec g[SMALL * SMALL];
            #pragma GCC unroll 4
            for (int o = 0; o < after; o++) {
                long here = (i * after + o) * c + at;
                g[o] = a2 * load(d2 + here, lanes) + (p2 * (load(y2 + here, lanes) - m2) + q2);
            }
            #pragma GCC unroll 4
            for (int q = 0; q < pixels; q++) {
                long here = (i * pixels + q) * c + at;
                Vec y = load(y1 + here, lanes), z = a * y + b, x = acted(z, act, v->top), d = {0};
                #pragma GCC unroll 4
                for (int o = 0; o < after; o++)
                    if (met(q, o, side, s, outs) >= 0) {
                        d += g[o] * tap[met(q, o, side, s, outs)];
                        for_tap[met(q, o, side, s, outs)] += x * g[o];
                    }
                d = passed(d, z, act, v->top);
                store(d1 + here, d, lanes);
                first += d;
                second += d * (y - m);
            }
        }
        Vec *into = for_taps + at / LANES * k * k;
        for (int t = 0; t < 9; t++)
            if (k > 1 || t == 4) into[(k / 2 + t / 3 - 1) * k + k / 2 + t % 3 - 1] += for_tap[t];
        add_to(sums.one + part * c + at, first, lanes);
        add_to(sums.two + part * c + at, second, lanes);
    }
}

// Back from d2, before the depthwise convolution's norm, to d1, before the expansion's activation, with the sums of its
// norm; adds the gradients of the taps of these images.
static void small_back(const Inverted *v, Affine one, Affine two, const float *y1, const float *y2, const float *d2,
                       float *d1, const Vec *taps, Vec *for_taps, Sums sums, long part, long begin, long end) {
    #define BACK(SIDE, S) \
        small_back_k(v, one, two, y1, y2, d2, d1, taps, for_taps, sums, part, begin, end, SIDE, S, act)
    #define BACK_SIDES(ACT) const int act = ACT; SIDES(BACK)
    ACTED(BACK_SIDES)
}
