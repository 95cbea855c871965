// The norms of a compiled block: statistics over parts of a batch, and the functions that apply them to rows.
//
// Loops take one vector of channels at a time through all rows, so that per-channel values stay in registers.
// Statistics are accumulated in single precision within a few rows or an image, and in double precision and fixed order
// across them.

#pragma once

#include "arena.h"

// One convolution with its norm: the slice of its parameters that is used, and what belongs to it.
typedef struct {
    const float *w;
    long stride[3];         // of output channel, row, column, in floats; a projection's input channels are adjacent
    const float *scale, *shift;
    float *mean, *rstd;     // of the batch: written by forward, read by back
    float *running_mean, *running_var, momentum;  // updated by forward unless null; what `inverted_eval` uses
    float *for_w, *for_scale, *for_shift;  // back adds the gradients to these; for_w has w's strides
} Conv;

// A norm as y -> a y + b; back: dy = a d + p (y - mean) + q.
typedef struct {
    long c;
    float *a, *b, *mean, *p, *q;
} Affine;

static Affine affine(Arena *a, long c) {
    return (Affine){c, carve(a, c, 4), carve(a, c, 4), carve(a, c, 4), carve(a, c, 4), carve(a, c, 4)};
}

// What follows for channels `from` to `to` is for one thread's share of them.
static void set_affine(Affine f, const Conv *conv, long from, long to) {
    for (long i = from; i < to; i++) {
        f.a[i] = conv->scale[i] * conv->rstd[i];
        f.b[i] = conv->shift[i] - conv->mean[i] * f.a[i];
        f.mean[i] = conv->mean[i];
    }
}

static void known_affine(Affine f, const Conv *conv, float eps) {
    for (long i = 0; i < f.c; i++) {
        f.a[i] = conv->scale[i] / sqrtf(conv->running_var[i] + eps);
        f.b[i] = conv->shift[i] - conv->running_mean[i] * f.a[i];
    }
}

// --- parts of a batch and their statistics -------------------------------------------------------------------

static long from_of(long part, long parts, long rows) { return part * rows / parts; }

// Two sums per channel for each part; `pivot` is subtracted from values before squaring, to avoid cancellation.
typedef struct { double *one, *two; float *pivot; } Sums;

static Sums sums_of(Arena *a, long parts, long c) {
    return (Sums){carve(a, parts * c, sizeof(double)), carve(a, parts * c, sizeof(double)), carve(a, parts * c, 4)};
}

static void begin_sums(Sums s, long part, long c) {
    memset(s.one + part * c, 0, c * sizeof(double));
    memset(s.two + part * c, 0, c * sizeof(double));
}

// Where a part begins, its pivot: the mean of four rows spread over those given.
static void set_pivot(float *pivot, const float *y, long rows, long c) {
    long few = at_most(rows, 4);
    for (long i = 0; i < c; i++) pivot[i] = 0.0f;
    for (long r = 0; r < few; r++)
        for (long i = 0; i < c; i++) pivot[i] += y[r * rows / few * c + i] / few;
}

// For each vector of channels, from channel `at` on, `lanes` of them.
#define EACH_PART(c) for (long at = 0, lanes; lanes = at_most(LANES, (c) - at), at < (c); at += LANES)

static inline void add_to(double *into, Vec sum, long lanes) {
    for (long i = 0; i < lanes; i++) into[i] += sum[i];
}

// Adds the sums of (y - pivot) and its square.
static void add_sums(double *one, double *two, const float *pivot, const float *y, long rows, long c) {
    EACH_PART(c) {
        Vec p = load(pivot + at, lanes), s[4] = {{0}}, t[4] = {{0}};  // four sums are exacter than one, and wait less
        long r = 0;
        for (; r + 4 <= rows; r += 4)
            #pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                Vec d = load(y + (r + k) * c + at, lanes) - p;
                s[k] += d;
                t[k] += d * d;
            }
        for (; r < rows; r++) {
            Vec d = load(y + r * c + at, lanes) - p;
            s[0] += d;
            t[0] += d * d;
        }
        add_to(one + at, (s[0] + s[1]) + (s[2] + s[3]), lanes);
        add_to(two + at, (t[0] + t[1]) + (t[2] + t[3]), lanes);
    }
}

// The whole batch's mean and deviation from the parts' sums (Chan et al. 1979), and the running ones. Parts are of
// `units`, each of `each` rows.
static void finish(const Conv *conv, Affine f, Sums s, long parts, long units, long each, float eps, long from,
                   long to) {
    long rows = units * each;
    for (long i = from; i < to; i++) {
        double mean = 0.0, squares = 0.0, count = 0.0;
        for (long k = 0; k < parts; k++) {
            double n = (from_of(k + 1, parts, units) - from_of(k, parts, units)) * each, first = s.one[k * f.c + i];
            double away = s.pivot[k * f.c + i] + first / n - mean;
            mean += away * n / (count + n);
            squares += s.two[k * f.c + i] - first * first / n + away * away * n * count / (count + n);
            count += n;
        }
        double var = squares < 0.0 ? 0.0 : squares / rows;
        conv->mean[i] = (float)mean;
        conv->rstd[i] = (float)(1.0 / sqrt(var + eps));
        if (conv->running_mean) {
            conv->running_mean[i] += conv->momentum * (conv->mean[i] - conv->running_mean[i]);
            conv->running_var[i] += conv->momentum * ((float)(squares / (rows - 1)) - conv->running_var[i]);
        }
    }
    set_affine(f, conv, from, to);
}

// p, q and the norm's own gradients from the parts' sums of d and d (y - mean).
// dy = a (d - mean(d) - (y - mean) rstd^2 mean(d (y - mean))), as a d + p (y - mean) + q
static void finish_back(const Conv *conv, Affine f, Sums s, long parts, long rows, long from, long to) {
    for (long i = from; i < to; i++) {
        double first = 0.0, second = 0.0;
        for (long k = 0; k < parts; k++) {
            first += s.one[k * f.c + i];
            second += s.two[k * f.c + i];
        }
        conv->for_shift[i] += (float)first;
        conv->for_scale[i] += (float)(second * conv->rstd[i]);
        f.p[i] = (float)(-f.a[i] * second / rows * conv->rstd[i] * conv->rstd[i]);
        f.q[i] = (float)(-f.a[i] * first / rows);
    }
}

static inline __attribute__((always_inline)) Vec acted(Vec z, const int act, float top) {
    const Vec zero = {0};
    return act == CLIP ? clamped(z, zero, zero + top)
        : act == HSWISH ? z * clamped(z + 3.0f, zero, zero + 6.0f) * (1.0f / 6.0f) : z;
}

// The gradient before the activation: of g where the activation's input is z.
static inline __attribute__((always_inline)) Vec passed(Vec g, Vec z, const int act, float top) {
    const Vec zero = {0};
    if (act == CLIP) return if_above(z, zero + top, zero, if_below(z, zero, zero, g));
    if (act == HSWISH) {
        Vec slope = if_below(z, zero - 3.0f, zero, z * (1.0f / 3.0f) + 0.5f);
        return g * if_above(z, zero + 3.0f, zero + 1.0f, slope);
    }
    return g;
}

static inline __attribute__((always_inline)) void apply_act(
    Affine f, const float *y, float *out, long rows, const int act, float top) {
    EACH_PART(f.c) {
        Vec a = load(f.a + at, lanes), b = load(f.b + at, lanes);
        for (long r = 0; r < rows; r++) {
            long here = r * f.c + at;
            store(out + here, acted(a * load(y + here, lanes) + b, act, top), lanes);
        }
    }
}

// out = act(a y + b).
static void apply(Affine f, const float *y, float *out, long rows, int act, float top) {
    if (act == CLIP) apply_act(f, y, out, rows, CLIP, top);
    else if (act == HSWISH) apply_act(f, y, out, rows, HSWISH, top);
    else apply_act(f, y, out, rows, NONE, top);
}

static inline __attribute__((always_inline)) void mask_act(
    Affine f, const float *y, float *d, float *remade, long rows, const int act, float top, double *one, double *two) {
    EACH_PART(f.c) {
        Vec a = load(f.a + at, lanes), b = load(f.b + at, lanes), m = load(f.mean + at, lanes), s = {0}, t = {0};
        for (long r = 0; r < rows; r++) {
            Vec v = load(y + r * f.c + at, lanes), z = a * v + b, g = load(d + r * f.c + at, lanes);
            if (act != NONE) {
                g = passed(g, z, act, top);
                store(d + r * f.c + at, g, lanes);
            }
            s += g;
            t += g * (v - m);
            if (remade) store(remade + r * f.c + at, acted(z, act, top), lanes);
        }
        add_to(one + at, s, lanes);
        add_to(two + at, t, lanes);
    }
}

// d, the gradient of act(a y + b), becomes that before the activation, and its sums are added; the activated values
// go to `remade` unless it is null.
static void mask(Affine f, const float *y, float *d, float *remade, long rows, int act, float top, double *one,
                 double *two) {
    if (act == CLIP) mask_act(f, y, d, remade, rows, CLIP, top, one, two);
    else if (act == HSWISH) mask_act(f, y, d, remade, rows, HSWISH, top, one, two);
    else mask_act(f, y, d, remade, rows, NONE, top, one, two);
}

// The gradient of y from d, that before the activation.
static void norm_back(Affine f, const float *d, const float *y, float *out, long rows) {
    EACH_PART(f.c) {
        Vec a = load(f.a + at, lanes), m = load(f.mean + at, lanes);
        Vec p = load(f.p + at, lanes), q = load(f.q + at, lanes);
        for (long r = 0; r < rows; r++) {
            long here = r * f.c + at;
            store(out + here, a * load(d + here, lanes) + (p * (load(y + here, lanes) - m) + q), lanes);
        }
    }
}
