// Batch norm with its activation, in fewer passes over memory than torch's operations take.

#include "common.h"

#define BLOCK 32768         // floats that one thread sums before it merges in double precision

typedef struct { long rows, c, tile, block, blocks; } Shape;

static Shape shape_of(long rows, long c) {
    long tile = tile_rows(c);
    long block = at_least(BLOCK / (c * tile), 1) * tile;
    return (Shape){rows, c, tile, block, (rows + block - 1) / block};
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
    fold(into, one, s.c, s.tile);
    fold(into + s.c, two, s.c, s.tile);
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
    repeat(tile_p, pivot, c, s.tile);

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
            repeat(tile_a, a, c, s.tile);
            repeat(tile_b, b, c, s.tile);
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
    repeat(ta, a, c, s.tile);
    repeat(tb, b, c, s.tile);
    repeat(tm, mean, c, s.tile);

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
            fold(into, one, s.c, s.tile);
            fold(into + s.c, two, s.c, s.tile);
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
            repeat(tp, p, c, s.tile);
            repeat(tq, q, c, s.tile);
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
