// Batch norm with activation, in fewer passes over memory than torch's operations.

#include "arena.h"
#include "pool.h"

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

// Shared by the parts of one call: arguments, scratch memory, and factors repeated to a tile's length.
typedef struct {
    Shape s;
    const float *y, *g;
    float *out;                         // or the gradient of y
    int act, threads;
    float top;
    double *partial;                    // two sums a channel for each block
    float *scratch;                     // two tiles for each thread
    float *a, *b, *pivot, *p, *q;       // of each channel
    float *tile_a, *tile_b, *tile_pivot, *tile_p, *tile_q;
} Job;

static void lay_out(Arena *a, void *job) {
    Job *j = job;
    long c = j->s.c, span = j->s.tile * c;
    j->partial = carve(a, 2 * j->s.blocks * c, sizeof(double));
    j->scratch = carve(a, 2 * j->threads * span, sizeof(float));
    float **channels[] = {&j->a, &j->b, &j->pivot, &j->p, &j->q};
    float **tiles[] = {&j->tile_a, &j->tile_b, &j->tile_pivot, &j->tile_p, &j->tile_q};
    for (int i = 0; i < 5; i++) {
        *channels[i] = carve(a, c, sizeof(float));
        *tiles[i] = carve(a, span, sizeof(float));
    }
}

static int threads_for(Shape s, int threads) { return s.rows * s.c < ALONE ? 1 : threads; }

static void sum_block(const void *job, long k, int thread) {
    const Job *j = job;
    float *one = j->scratch + 2 * thread * j->s.tile * j->s.c;
    sums(j->y, j->s, k, j->tile_pivot, one, one + j->s.tile * j->s.c, j->partial + 2 * k * j->s.c);
}

static void apply_block(const void *job, long k, int thread) {
    const Job *j = job;
    long c = j->s.c, span = j->s.tile * c, to = at_most(j->s.rows * c, (k + 1) * j->s.block * c);
    for (long at = k * j->s.block * c; at < to; at += span)
        activate(j->y + at, j->out + at, at_most(span, to - at), j->tile_a, j->tile_b, j->act, j->top);
}

// A channel's two sums over all blocks.
static void merged(const Job *j, long i, double *first, double *second) {
    *first = *second = 0.0;
    for (long k = 0; k < j->s.blocks; k++) {
        *first += j->partial[2 * k * j->s.c + i];
        *second += j->partial[(2 * k + 1) * j->s.c + i];
    }
}

// out = act(norm(y)) with the batch's statistics, written to mean and rstd [c]; running ones updated unless null.
// Returns 0, or 1 if out of memory.
int norm_act(const float *y, float *out, long rows, long c, const float *scale, const float *shift, float eps,
             int act, float top, float *mean, float *rstd, float *running_mean, float *running_var, float momentum,
             int threads) {
    Job j = {.s = shape_of(rows, c), .y = y, .out = out, .act = act, .top = top};
    Arena a;
    j.threads = threads = threads_for(j.s, threads);
    if (set_up(&a, &j, lay_out)) return 1;

    // Sums are of differences from a pivot near the mean (the mean of some rows): otherwise their squares would cancel.
    long few = at_most(rows, at_least(4096 / c, 1));
    for (long i = 0; i < c; i++) j.pivot[i] = 0.0f;
    for (long r = 0; r < few; r++)
        for (long i = 0; i < c; i++) j.pivot[i] += y[r * (rows / few) * c + i] / few;
    repeat(j.tile_pivot, j.pivot, c, j.s.tile);

    share(sum_block, &j, j.s.blocks, threads);
    for (long i = 0; i < c; i++) {
        double first, second;
        merged(&j, i, &first, &second);
        double away = first / rows, var = second / rows - away * away;
        if (var < 0.0) var = 0.0;
        mean[i] = (float)(j.pivot[i] + away);
        rstd[i] = (float)(1.0 / sqrt(var + eps));
        j.a[i] = scale[i] * rstd[i];
        j.b[i] = shift[i] - mean[i] * j.a[i];
        if (running_mean) {
            running_mean[i] += momentum * (mean[i] - running_mean[i]);
            running_var[i] += momentum * ((float)(var * rows / (rows - 1)) - running_var[i]);
        }
    }
    repeat(j.tile_a, j.a, c, j.s.tile);
    repeat(j.tile_b, j.b, c, j.s.tile);
    share(apply_block, &j, j.s.blocks, threads);
    free(a.base);
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

static void sum_back(const void *job, long k, int thread) {
    const Job *j = job;
    long c = j->s.c, span = j->s.tile * c, to = at_most(j->s.rows * c, (k + 1) * j->s.block * c);
    float *one = j->scratch + 2 * thread * span, *two = one + span;
    const float *a = j->tile_a, *b = j->tile_b, *m = j->tile_pivot;
    memset(one, 0, 2 * span * sizeof(float));
    for (long at = k * j->s.block * c; at < to; at += span) {
        long n = at_most(span, to - at);
        if (j->act == CLIP) back_sums(j->g + at, j->y + at, n, a, b, m, one, two, CLIP, j->top);
        else if (j->act == HSWISH) back_sums(j->g + at, j->y + at, n, a, b, m, one, two, HSWISH, j->top);
        else back_sums(j->g + at, j->y + at, n, a, b, m, one, two, NONE, j->top);
    }
    double *into = j->partial + 2 * k * c;
    memset(into, 0, 2 * c * sizeof(double));
    fold(into, one, c, j->s.tile);
    fold(into + c, two, c, j->s.tile);
}

static void apply_back(const void *job, long k, int thread) {
    const Job *j = job;
    long c = j->s.c, span = j->s.tile * c, to = at_most(j->s.rows * c, (k + 1) * j->s.block * c);
    const float *a = j->tile_a, *b = j->tile_b, *m = j->tile_pivot, *p = j->tile_p, *q = j->tile_q;
    for (long at = k * j->s.block * c; at < to; at += span) {
        const float *g = j->g + at, *y = j->y + at;
        long n = at_most(span, to - at);
        if (j->act == CLIP) back_apply(g, y, j->out + at, n, a, b, m, p, q, CLIP, j->top);
        else if (j->act == HSWISH) back_apply(g, y, j->out + at, n, a, b, m, p, q, HSWISH, j->top);
        else back_apply(g, y, j->out + at, n, a, b, m, p, q, NONE, j->top);
    }
}

// dy, the gradient of y, from g, that of act(norm(y)); adds the gradients of scale and shift to for_scale and
// for_shift. Returns 0, or 1 if out of memory.
int norm_act_back(const float *g, const float *y, float *dy, long rows, long c, const float *scale,
                  const float *shift, int act, float top, const float *mean, const float *rstd, float *for_scale,
                  float *for_shift, int threads) {
    Job j = {.s = shape_of(rows, c), .y = y, .g = g, .out = dy, .act = act, .top = top};
    Arena a;
    j.threads = threads = threads_for(j.s, threads);
    if (set_up(&a, &j, lay_out)) return 1;
    for (long i = 0; i < c; i++) {
        j.a[i] = scale[i] * rstd[i];
        j.b[i] = shift[i] - mean[i] * j.a[i];
    }
    repeat(j.tile_a, j.a, c, j.s.tile);
    repeat(j.tile_b, j.b, c, j.s.tile);
    repeat(j.tile_pivot, mean, c, j.s.tile);
    share(sum_back, &j, j.s.blocks, threads);
    for (long i = 0; i < c; i++) {
        double first, second;
        merged(&j, i, &first, &second);
        for_shift[i] += (float)first;
        for_scale[i] += (float)(second * rstd[i]);
        // dy = a (d - mean(d) - (y - mean) rstd^2 mean(d (y - mean))), as a d + p (y - mean) + q
        j.p[i] = (float)(-j.a[i] * second / rows * rstd[i] * rstd[i]);
        j.q[i] = (float)(-j.a[i] * first / rows);
    }
    repeat(j.tile_p, j.p, c, j.s.tile);
    repeat(j.tile_q, j.q, c, j.s.tile);
    share(apply_back, &j, j.s.blocks, threads);
    free(a.base);
    return 0;
}
