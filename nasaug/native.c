// Batch norm with its activation, and the gradients of depthwise convolutions, on channels-last float32: fewer
// passes over memory than torch's operations take. nasaug/native.py compiles this file where the machine has a C
// compiler, and nasaug/kernels.py has the same in torch for where it has not.
//
// An image batch is [rows, c]: one row of channels for every pixel. Loops over it run flat, over a tile of some
// rows at a time, with per-channel factors repeated to the tile's length, so odd channel counts cost nothing.
// Sums are taken over fixed blocks and merged in their order: the number of threads does not change a result.

#include <stdlib.h>
#include <string.h>
#include <math.h>

#define TILE 512            // floats that a tile has at least (one row, where that is longer)
#define BLOCK 32768         // floats that one thread sums before it merges in double precision
#define ALONE 32768         // floats under which a second thread costs more than it gives
#define GROUPS 16           // parts of a batch, each of whose weights' gradients are summed apart

enum { NONE = 0, CLIP = 1, HSWISH = 2 };

#ifdef _OPENMP
extern int omp_get_thread_num(void);
static int this_thread(void) { return omp_get_thread_num(); }
#else
static int this_thread(void) { return 0; }
#endif

static long at_least(long a, long b) { return a > b ? a : b; }
static long at_most(long a, long b) { return a < b ? a : b; }

// --- batch norm and activation -------------------------------------------------------------------------------

typedef struct { long rows, c, tile, block, blocks; } Shape;

static Shape shape_of(long rows, long c) {
    long tile = at_least(TILE / c, 1);
    long block = at_least(BLOCK / (c * tile), 1) * tile;
    return (Shape){rows, c, tile, block, (rows + block - 1) / block};
}

static void repeat(float *into, const float *from, Shape s) {
    for (long t = 0; t < s.tile; t++) memcpy(into + t * s.c, from, s.c * sizeof(float));
}

static void fold(double *into, const float *tile, Shape s) {
    for (long t = 0; t < s.tile; t++)
        for (long i = 0; i < s.c; i++) into[i] += tile[t * s.c + i];
}

// Sums of (y - pivot) and its square over one block: float within, double across.
static void sums(const float *y, Shape s, long b, const float *pivot, float *one, float *two, double *into) {
    long span = s.tile * s.c, from = b * s.block * s.c, to = at_most(s.rows * s.c, from + s.block * s.c);
    memset(one, 0, span * sizeof(float));
    memset(two, 0, span * sizeof(float));
    for (long at = from; at < to; at += span) {
        long n = at_most(span, to - at);
        const float *row = y + at;
        for (long i = 0; i < n; i++) {
            float d = row[i] - pivot[i];
            one[i] += d;
            two[i] += d * d;
        }
    }
    memset(into, 0, 2 * s.c * sizeof(double));
    fold(into, one, s);
    fold(into + s.c, two, s);
}

static void activate(const float *y, float *out, long n, const float *a, const float *b, int act, float top) {
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

// out = act(norm(y)) with the batch's statistics, written to mean and rstd [c]; running ones updated unless null.
// Returns 0, or 1 where memory ran out.
int norm_act(const float *y, float *out, long rows, long c, const float *scale, const float *shift, float eps,
             int act, float top, float *mean, float *rstd, float *running_mean, float *running_var, float momentum,
             int threads) {
    Shape s = shape_of(rows, c);
    long span = s.tile * c;
    double *partial = malloc(2 * s.blocks * c * sizeof(double));
    float *work = malloc((3 * c + 3 * span) * sizeof(float));
    float *scratch = malloc(2 * (long)threads * span * sizeof(float));
    if (!partial || !work || !scratch) { free(partial); free(work); free(scratch); return 1; }
    float *a = work, *b = work + c, *pivot = work + 2 * c;
    float *tile_a = work + 3 * c, *tile_b = tile_a + span, *tile_p = tile_b + span;

    // The sums are of differences from a pivot near the mean, or their squares would cancel: the mean of some rows.
    long few = at_most(rows, at_least(4096 / c, 1));
    for (long i = 0; i < c; i++) pivot[i] = 0.0f;
    for (long r = 0; r < few; r++)
        for (long i = 0; i < c; i++) pivot[i] += y[r * (rows / few) * c + i] / few;
    repeat(tile_p, pivot, s);

    #pragma omp parallel num_threads(rows * c < ALONE ? 1 : threads)
    {
        float *one = scratch + 2 * this_thread() * span, *two = one + span;
        #pragma omp for schedule(static)
        for (long k = 0; k < s.blocks; k++) sums(y, s, k, tile_p, one, two, partial + 2 * k * c);
        #pragma omp single
        {
            for (long i = 0; i < c; i++) {
                double first = 0.0, second = 0.0;
                for (long k = 0; k < s.blocks; k++) {
                    first += partial[2 * k * c + i];
                    second += partial[(2 * k + 1) * c + i];
                }
                double away = first / rows, var = second / rows - away * away;
                if (var < 0.0) var = 0.0;
                mean[i] = (float)(pivot[i] + away);
                rstd[i] = (float)(1.0 / sqrt(var + eps));
                a[i] = scale[i] * rstd[i];
                b[i] = shift[i] - mean[i] * a[i];
                if (running_mean) {
                    running_mean[i] += momentum * (mean[i] - running_mean[i]);
                    running_var[i] += momentum * ((float)(var * rows / (rows - 1)) - running_var[i]);
                }
            }
            repeat(tile_a, a, s);
            repeat(tile_b, b, s);
        }
        #pragma omp for schedule(static)
        for (long k = 0; k < s.blocks; k++) {
            long to = at_most(rows * c, (k + 1) * s.block * c);
            for (long at = k * s.block * c; at < to; at += span)
                activate(y + at, out + at, at_most(span, to - at), tile_a, tile_b, act, top);
        }
    }
    free(partial); free(work); free(scratch);
    return 0;
}

// The gradient before the activation: of g [n] where the activation's input is z = a y + b.
static inline float before(float g, float z, int act, float top) {
    if (act == CLIP) return (z <= 0.0f) | (z >= top) ? 0.0f : g;
    if (act == HSWISH) {
        float slope = z * (1.0f / 3.0f) + 0.5f;
        slope = z > 3.0f ? 1.0f : slope;
        return g * (z < -3.0f ? 0.0f : slope);
    }
    return g;
}

static inline __attribute__((always_inline)) void back_sums(
    const float *restrict g, const float *restrict y, long n, const float *restrict a, const float *restrict b,
    const float *restrict m, float *restrict one, float *restrict two, const int act, float top) {
    for (long i = 0; i < n; i++) {
        float d = before(g[i], a[i] * y[i] + b[i], act, top);
        one[i] += d;
        two[i] += d * (y[i] - m[i]);
    }
}

static inline __attribute__((always_inline)) void back_apply(
    const float *restrict g, const float *restrict y, float *restrict dy, long n, const float *restrict a,
    const float *restrict b, const float *restrict m, const float *restrict p, const float *restrict q, const int act,
    float top) {
    for (long i = 0; i < n; i++)
        dy[i] = a[i] * before(g[i], a[i] * y[i] + b[i], act, top) + (p[i] * (y[i] - m[i]) + q[i]);
}

// dy, the gradient of y, from g, that of act(norm(y)); adds the gradients of scale and shift to for_scale and
// for_shift. Returns 0, or 1 where memory ran out.
int norm_act_back(const float *g, const float *y, float *dy, long rows, long c, const float *scale,
                  const float *shift, int act, float top, const float *mean, const float *rstd, float *for_scale,
                  float *for_shift, int threads) {
    Shape s = shape_of(rows, c);
    long span = s.tile * c;
    double *partial = malloc(2 * s.blocks * c * sizeof(double));
    float *work = malloc((4 * c + 5 * span) * sizeof(float));
    float *scratch = malloc(2 * (long)threads * span * sizeof(float));
    if (!partial || !work || !scratch) { free(partial); free(work); free(scratch); return 1; }
    float *a = work, *b = a + c, *p = b + c, *q = p + c;
    float *ta = work + 4 * c, *tb = ta + span, *tm = tb + span, *tp = tm + span, *tq = tp + span;
    for (long i = 0; i < c; i++) {
        a[i] = scale[i] * rstd[i];
        b[i] = shift[i] - mean[i] * a[i];
    }
    repeat(ta, a, s);
    repeat(tb, b, s);
    repeat(tm, mean, s);

    #pragma omp parallel num_threads(rows * c < ALONE ? 1 : threads)
    {
        float *one = scratch + 2 * this_thread() * span, *two = one + span;
        #pragma omp for schedule(static)
        for (long k = 0; k < s.blocks; k++) {
            long to = at_most(rows * c, (k + 1) * s.block * c);
            memset(one, 0, 2 * span * sizeof(float));
            for (long at = k * s.block * c; at < to; at += span) {
                long n = at_most(span, to - at);
                if (act == CLIP) back_sums(g + at, y + at, n, ta, tb, tm, one, two, CLIP, top);
                else if (act == HSWISH) back_sums(g + at, y + at, n, ta, tb, tm, one, two, HSWISH, top);
                else back_sums(g + at, y + at, n, ta, tb, tm, one, two, NONE, top);
            }
            double *into = partial + 2 * k * c;
            memset(into, 0, 2 * c * sizeof(double));
            fold(into, one, s);
            fold(into + c, two, s);
        }
        #pragma omp single
        {
            for (long i = 0; i < c; i++) {
                double first = 0.0, second = 0.0;
                for (long k = 0; k < s.blocks; k++) {
                    first += partial[2 * k * c + i];
                    second += partial[(2 * k + 1) * c + i];
                }
                for_shift[i] += (float)first;
                for_scale[i] += (float)(second * rstd[i]);
                // dy = a (d - mean(d) - (y - mean) rstd^2 mean(d (y - mean))), as a d + p (y - mean) + q
                p[i] = (float)(-a[i] * second / rows * rstd[i] * rstd[i]);
                q[i] = (float)(-a[i] * first / rows);
            }
            repeat(tp, p, s);
            repeat(tq, q, s);
        }
        #pragma omp for schedule(static)
        for (long k = 0; k < s.blocks; k++) {
            long to = at_most(rows * c, (k + 1) * s.block * c);
            for (long at = k * s.block * c; at < to; at += span) {
                long n = at_most(span, to - at);
                if (act == CLIP) back_apply(g + at, y + at, dy + at, n, ta, tb, tm, tp, tq, CLIP, top);
                else if (act == HSWISH) back_apply(g + at, y + at, dy + at, n, ta, tb, tm, tp, tq, HSWISH, top);
                else back_apply(g + at, y + at, dy + at, n, ta, tb, tm, tp, tq, NONE, top);
            }
        }
    }
    free(partial); free(work); free(scratch);
    return 0;
}

// --- gradients of a depthwise convolution --------------------------------------------------------------------
//
// Sixteen channels at a time, in a zero-padded copy of one image that stays in the cache. Fewer channels than
// sixteen fill their vector with zeros. Input h x w, kernel k, stride s, output oh x ow.

typedef float Vec __attribute__((vector_size(64)));
#define LANES 16

#ifdef __AVX512F__
#include <immintrin.h>
static inline Vec load(const float *from, long lanes) {
    return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes) - 1), from);
}
static inline void store(float *into, Vec v, long lanes) {
    _mm512_mask_storeu_ps(into, (__mmask16)((1u << lanes) - 1), (__m512)v);
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
#endif

// taps[p kk + kk - 1 - t]: tap t of the LANES channels from p LANES on, turned round as a gradient wants them.
static void taps_of(Vec *taps, const float *w, const long *stride, long c, long k) {
    long kk = k * k;
    for (long i = 0; i < c; i++)
        for (long t = 0; t < kk; t++)
            ((float *)(taps + i / LANES * kk + kk - 1 - t))[i % LANES]
                = w[i * stride[0] + t / k * stride[1] + t % k * stride[2]];
}

// An image's lanes into the middle of a zeroed canvas `wide` pixels wide, `pad` from its edges, pixels `step` apart.
static void place(Vec *canvas, const float *image, long h, long w, long c, long lanes, long wide, long pad, long step) {
    for (long i = 0; i < h; i++)
        for (long j = 0; j < w; j++)
            canvas[(i * step + pad) * wide + j * step + pad] = load(image + (i * w + j) * c, lanes);
}

static inline __attribute__((always_inline)) void correlate_k(
    const Vec *canvas, const Vec *taps, float *out, long h, long w, long c, long lanes, long wide, const long k) {
    for (long i = 0; i < h; i++)
        for (long j = 0; j < w; j++) {
            const Vec *corner = canvas + i * wide + j;
            Vec sum = {0};
            #pragma GCC unroll 7
            for (long u = 0; u < k; u++)
                #pragma GCC unroll 7
                for (long v = 0; v < k; v++) sum += corner[u * wide + v] * taps[u * k + v];
            store(out + (i * w + j) * c, sum, lanes);
        }
}

static void correlate(const Vec *canvas, const Vec *taps, float *out, long h, long w, long c, long lanes, long wide,
                      long k) {
    if (k == 3) correlate_k(canvas, taps, out, h, w, c, lanes, wide, 3);
    else if (k == 5) correlate_k(canvas, taps, out, h, w, c, lanes, wide, 5);
    else correlate_k(canvas, taps, out, h, w, c, lanes, wide, k);
}

static inline __attribute__((always_inline)) void tap_sums_k(
    const Vec *canvas, const float *g, Vec *sums_, long oh, long ow, long c, long lanes, long wide, long s,
    const long k) {
    Vec sum[49];
    memcpy(sum, sums_, k * k * sizeof(Vec));
    for (long i = 0; i < oh; i++)
        for (long j = 0; j < ow; j++) {
            const Vec *corner = canvas + i * s * wide + j * s;
            Vec d = load(g + (i * ow + j) * c, lanes);
            #pragma GCC unroll 7
            for (long u = 0; u < k; u++)
                #pragma GCC unroll 7
                for (long v = 0; v < k; v++) sum[u * k + v] += corner[u * wide + v] * d;
        }
    memcpy(sums_, sum, k * k * sizeof(Vec));
}

static void tap_sums(const Vec *canvas, const float *g, Vec *sum, long oh, long ow, long c, long lanes, long wide,
                     long s, long k) {
    if (k == 3) tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, s, 3);
    else if (k == 5) tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, s, 5);
    else tap_sums_k(canvas, g, sum, oh, ow, c, lanes, wide, s, k);
}

// n vectors of zeros; null where there is no memory.
static Vec *vectors(long n) {
    void *p = NULL;
    if (posix_memalign(&p, sizeof(Vec), n * sizeof(Vec))) return NULL;
    memset(p, 0, n * sizeof(Vec));
    return p;
}

// dx [n, h, w, c] (unless null) from dy [n, oh, ow, c] and x; adds the gradient of w to for_w, whose strides are
// given as w's: of channel, row and column, in floats. Padding k / 2; k at most 7.
// Returns 0, or 1 where memory ran out.
int depthwise_back(const float *dy, const float *x, const float *w, const long *w_stride, float *dx, float *for_w,
                   const long *for_stride, long n, long h, long wd, long c, long k, long s, long oh, long ow,
                   int threads) {
    long parts = (c + LANES - 1) / LANES, groups = at_most(n, GROUPS), kk = k * k;
    long wide = wd + k - 1, area = (h + k - 1) * wide, size = h * wd * c;
    Vec *partial = vectors(groups * parts * kk), *taps = vectors(parts * kk);
    int failed = !partial || !taps;
    if (!failed) taps_of(taps, w, w_stride, c, k);
    #pragma omp parallel num_threads(n * size < ALONE ? 1 : threads) if (!failed)
    {
        Vec *canvas = vectors(area), *spread = vectors(area);
        float *image = malloc(size * sizeof(float));  // written in steps of c, which memory would be slow at
        if (!canvas || !spread || !image) failed = 1;
        #pragma omp for schedule(static)
        for (long group = 0; group < groups; group++) {
            if (failed) continue;
            for (long i = group * n / groups; i < (group + 1) * n / groups; i++) {
                for (long p = 0; p < parts; p++) {
                    long from = p * LANES, lanes = at_most(LANES, c - from);
                    const float *g = dy + i * oh * ow * c + from;
                    place(canvas, x + i * size + from, h, wd, c, lanes, wide, k / 2, 1);
                    tap_sums(canvas, g, partial + (group * parts + p) * kk, oh, ow, c, lanes, wide, s, k);
                    if (!dx) continue;
                    place(spread, g, oh, ow, c, lanes, wide, k - 1 - k / 2, s);
                    correlate(spread, taps + p * kk, image + from, h, wd, c, lanes, wide, k);
                }
                if (dx) memcpy(dx + i * size, image, size * sizeof(float));
            }
        }
        free(canvas);
        free(spread);
        free(image);
    }
    if (!failed)
        for (long i = 0; i < c; i++)
            for (long t = 0; t < kk; t++) {
                double sum = 0.0;
                for (long group = 0; group < groups; group++)
                    sum += ((float *)(partial + (group * parts + i / LANES) * kk + t))[i % LANES];
                for_w[i * for_stride[0] + t / k * for_stride[1] + t % k * for_stride[2]] += (float)sum;
            }
    free(partial);
    free(taps);
    return failed;
}
