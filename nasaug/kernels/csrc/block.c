// A whole inverted residual block, forward and backward in training: 1x1 expansion, depthwise convolution and 1x1
// projection, each with its batch norm and activation, and the shortcut.
//
// A tiny network's step is bound by its passes over memory. Only the raw outputs of the convolutions, y1, y2 and y3,
// are stored; normalised and activated values exist only for the part of a batch that fits in a core's cache, and are
// recomputed where needed. An expanded array is thus written twice and read twice in the forward pass, and read six
// times and written twice in the backward pass.
//
// Each function that processes a part is a stage, shared by the threads. Stages are divided into fixed parts of the
// batch, at most GROUPS, or of the channels. Statistics are accumulated in single precision within a few rows or an
// image, and in double precision and fixed order across them.

#include "block_small.h"
#include "depthwise.h"
#include "pool.h"
#include "product.h"

#define CACHED 49152        // floats of the widest array that a block of rows has
#define LINE 16             // floats that the memory hands over at once

// The number of rows of `c` floats to process at a time so that they fit in the cache.
static long rows_at_once(long c) { return at_least(CACHED / c / ROWS, 1) * ROWS; }

// Prefetches part `p` of `parts` of the data read next: reading some channels of every pixel is a strided access
// pattern that the hardware prefetcher does not recognise.
static inline void fetch(const float *next, long floats, long p, long parts) {
    for (long i = p * floats / parts; i < (p + 1) * floats / parts; i += LINE) __builtin_prefetch(next + i, 0, 2);
}

// The same for the rows that follow a block of rows, up to `to`.
static inline void fetch_rows(const float *y, long r, long step, long to, long c) {
    if (r + step < to) fetch(y + (r + step) * c, at_most(step, to - r - step) * c, 0, 1);
}

// --- the depthwise convolution's image, a vector of channels at a time -------------------------------------------

// `place` of act(a y + b).
static inline __attribute__((always_inline)) void place_act(
    Vec *canvas, const float *image, long h, long w, long c, long lanes, long wide, long pad, const float *from_a,
    const float *from_b, const int act, float top) {
    Vec a = load(from_a, lanes), b = load(from_b, lanes);
    for (long i = 0; i < h; i++) {
        Vec *into = canvas + (i + pad) * wide + pad;
        const float *row = image + i * w * c;
        for (long j = 0; j < w; j++) into[j] = acted(a * load(row + j * c, lanes) + b, act, top);
    }
}

// The part from channel `at` on of the depthwise convolution's input, onto the canvas.
static void place_input(const Inverted *v, Affine f, Vec *canvas, const float *image, long at, long lanes, long wide) {
    long pad = v->k / 2, c = v->hidden;
    const float *from = image + at, *a = f.a + at, *b = f.b + at;
    if (!v->expands) place(canvas, from, v->h, v->w, c, lanes, wide, pad, 1);
    else if (v->act == CLIP) place_act(canvas, from, v->h, v->w, c, lanes, wide, pad, a, b, CLIP, v->top);
    else if (v->act == HSWISH) place_act(canvas, from, v->h, v->w, c, lanes, wide, pad, a, b, HSWISH, 0.0f);
    else place_act(canvas, from, v->h, v->w, c, lanes, wide, pad, a, b, NONE, 0.0f);
}

// [pixels][LANES]: `norm_back` of the part from channel `at` on.
static void part_back(Affine f, const float *d, const float *y, Vec *out, long pixels, long at, long lanes) {
    Vec a = load(f.a + at, lanes), p = load(f.p + at, lanes), q = load(f.q + at, lanes), m = load(f.mean + at, lanes);
    for (long i = 0; i < pixels; i++) {
        long here = i * f.c + at;
        out[i] = a * load(d + here, lanes) + (p * (load(y + here, lanes) - m) + q);
    }
}

// --- the block ------------------------------------------------------------------------------------------------

typedef struct { long before, after, image, map, groups, widest, scratch, parts, wide, canvas, spread, kk; } Sizes;

static Sizes sizes_of(const Inverted *v) {
    Sizes z = {.before = v->n * v->h * v->w, .after = v->n * v->oh * v->ow, .image = v->h * v->w * v->hidden};
    z.map = v->oh * v->ow * v->hidden;
    long c = at_least(v->hidden, at_least(v->in, v->out));
    z.groups = at_most(v->n, at_most(GROUPS, at_least(4, z.after / 256)));  // few where there is little to do
    z.widest = c;
    z.parts = (v->hidden + LANES - 1) / LANES;
    z.wide = v->w + v->k - 1;
    z.canvas = (v->h + v->k - 1) * z.wide;
    z.spread = gradient_canvas(v->h, v->w, v->oh, v->ow, v->k, v->s);
    z.kk = v->k * v->k;
    // a thread's own floats: two blocks of rows, or the map of an image
    z.scratch = at_least(2 * rows_at_once(c) * c, at_least(z.image, z.map));
    return z;
}

static long end_of(long part, long c) { return part * LANES + lanes_of(part, c); }

// Shared by the stages of one call: arguments and scratch memory.
typedef struct {
    const Inverted *v;
    Sizes z;
    int threads;
    const float *x, *g;
    float *y1, *y2, *y3, *out, *dx;
    Affine one, two, three;             // the norms of the expansion, the depthwise convolution and the projection
    Sums first, second, third;          // and their sums
    Vec *grow, *shrink;                 // the weights of expansion and projection as panels
    Vec *taps, *turned, *for_taps;
    float *d1, *d2, *partial;           // gradients before the two activations; the weights' of each part
    float *scratch;                     // from here on, separate for each thread
    Vec *canvas, *spread, *gradient;
    long many;                          // images that evaluation takes at once
} Job;

static float *scratch_of(const Job *j, int thread) { return j->scratch + thread * j->z.scratch; }
static Vec *canvas_of(const Job *j, int thread) { return j->canvas + thread * j->z.canvas; }

// The layout common to forward, backward and evaluation: norms, packed weights and zeroed canvases. The expansion's
// panels are of a matrix [a, b], the projection's of [c, d].
static void carve_common(Arena *a, Job *j, long grow_rows, long grow_columns, long shrink_rows, long shrink_columns) {
    const Inverted *v = j->v;
    j->one = affine(a, v->hidden);
    j->two = affine(a, v->hidden);
    j->three = affine(a, v->out);
    j->grow = carve(a, v->expands ? panels(grow_columns) * grow_rows * 2 : 0, sizeof(Vec));
    j->shrink = carve(a, panels(shrink_columns) * shrink_rows * 2, sizeof(Vec));
    j->taps = carve(a, j->z.parts * j->z.kk, sizeof(Vec));
    j->canvas = carve_zeros(a, j->threads * j->z.canvas, sizeof(Vec));
}

static void carve_sums(Arena *a, Job *j) {
    j->first = sums_of(a, j->z.groups, j->v->hidden);
    j->second = sums_of(a, j->z.groups, j->v->hidden);
    j->third = sums_of(a, j->z.groups, j->v->out);
    j->scratch = carve(a, j->threads * j->z.scratch, sizeof(float));
}

// The number of threads that pays off for a block.
static int threads_for(const Inverted *v, int threads) { return v->n * v->h * v->w * v->hidden < ALONE ? 1 : threads; }

// --- forward --------------------------------------------------------------------------------------------------

static void pack_grow(const void *job, long p, int thread) {
    const Job *j = job;
    pack(j->grow, j->v->expand.w, j->v->in, j->v->hidden, 1, j->v->expand.stride[0], p);
}

static void pack_shrink(const void *job, long p, int thread) {
    const Job *j = job;
    pack(j->shrink, j->v->project.w, j->v->hidden, j->v->out, 1, j->v->project.stride[0], p);
}

static void take_taps(const void *job, long p, int thread) {
    const Job *j = job;
    const Conv *conv = &j->v->depthwise;
    taps_of(j->taps + p * j->z.kk, conv->w, conv->stride, p * LANES, lanes_of(p, j->v->hidden), j->v->k, 0);
}

// y1 of a part of the rows, with its sums.
static void expand(const void *job, long g, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    long hidden = v->hidden, step = rows_at_once(hidden);
    long from = from_of(g, j->z.groups, j->z.before), to = from_of(g + 1, j->z.groups, j->z.before);
    Sums s = j->first;
    float *pivot = s.pivot + g * hidden;
    begin_sums(s, g, hidden);
    for (long r = from; r < to; r += step) {
        long here = at_most(step, to - r);
        float *y = j->y1 + r * hidden;
        product(j->x + r * v->in, j->grow, y, here, v->in, hidden);
        if (r == from) set_pivot(pivot, y, here, hidden);
        add_sums(s.one + g * hidden, s.two + g * hidden, pivot, y, here, hidden);
    }
}

static void finish_first(const void *job, long p, int thread) {
    const Job *j = job;
    long hidden = j->v->hidden;
    finish(&j->v->expand, j->one, j->first, j->z.groups, j->z.before, 1, j->v->eps, p * LANES, end_of(p, hidden));
}

// y2 of a part of the images, with its sums.
static void convolve(const void *job, long g, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    Sizes z = j->z;
    Sums s = j->second;
    long hidden = v->hidden, begin = from_of(g, z.groups, v->n), end = from_of(g + 1, z.groups, v->n);
    float *map = scratch_of(j, thread), *pivot = s.pivot + g * hidden;
    Vec *canvas = canvas_of(j, thread);
    begin_sums(s, g, hidden);
    if (is_small(v)) {
        small(v, j->one, j->y1, j->y2, j->taps, s, g, begin, end);
        return;
    }
    for (long i = begin; i < end; i++) {
        const float *image = (v->expands ? j->y1 : j->x) + i * z.image;
        for (long p = 0; p < z.parts; p++) {
            long from = p * LANES, lanes = at_most(LANES, hidden - from);
            if (i + 1 < end) fetch(image + z.image, z.image, p, z.parts);
            place_input(v, j->one, canvas, image, from, lanes, z.wide);
            correlate(canvas, j->taps + p * z.kk, map + from, v->oh, v->ow, hidden, lanes, z.wide, v->k, v->s);
        }
        if (i == begin) set_pivot(pivot, map, v->oh * v->ow, hidden);
        add_sums(s.one + g * hidden, s.two + g * hidden, pivot, map, v->oh * v->ow, hidden);
        memcpy(j->y2 + i * z.map, map, z.map * sizeof(float));
    }
}

static void finish_second(const void *job, long p, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    finish(&v->depthwise, j->two, j->second, j->z.groups, v->n, v->oh * v->ow, v->eps, p * LANES,
           end_of(p, v->hidden));
}

// y3 of a part of the rows, with its sums.
static void project(const void *job, long g, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    Sums s = j->third;
    long hidden = v->hidden, outs = v->out, step = rows_at_once(hidden);
    long from = from_of(g, j->z.groups, j->z.after), to = from_of(g + 1, j->z.groups, j->z.after);
    float *rows = scratch_of(j, thread), *pivot = s.pivot + g * outs;
    begin_sums(s, g, outs);
    for (long r = from; r < to; r += step) {
        long here = at_most(step, to - r);
        float *y = j->y3 + r * outs;
        fetch_rows(j->y2, r, step, to, hidden);
        apply(j->two, j->y2 + r * hidden, rows, here, v->act, v->top);
        product(rows, j->shrink, y, here, hidden, outs);
        if (r == from) set_pivot(pivot, y, here, outs);
        add_sums(s.one + g * outs, s.two + g * outs, pivot, y, here, outs);
    }
}

static void finish_third(const void *job, long p, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    finish(&v->project, j->three, j->third, j->z.groups, j->z.after, 1, v->eps, p * LANES, end_of(p, v->out));
}

// out of a part of the rows, the shortcut added.
static void put_out(const void *job, long g, int thread) {
    const Job *j = job;
    long outs = j->v->out, from = from_of(g, j->z.groups, j->z.after) * outs;
    long n = from_of(g + 1, j->z.groups, j->z.after) * outs - from;
    apply(j->three, j->y3 + from, j->out + from, n / outs, NONE, 0.0f);
    if (j->v->residual)
        for (long i = from; i < from + n; i++) j->out[i] += j->x[i];
}

static long vectors_of(long c) { return (c + LANES - 1) / LANES; }

static void lay_out_forward(Arena *a, void *job) {
    Job *j = job;
    carve_common(a, j, j->v->in, j->v->hidden, j->v->hidden, j->v->out);
    carve_sums(a, j);
}

// out [n, oh, ow, out] and y1, y2, y3 of x [n, h, w, in]. Returns 0, or 1 if out of memory.
int inverted(const Inverted *v, const float *x, float *y1, float *y2, float *y3, float *out, int threads) {
    threads = threads_for(v, threads);
    Job j = {.v = v, .z = sizes_of(v), .threads = threads, .x = x, .y1 = y1, .y2 = y2, .y3 = y3, .out = out};
    Arena a;
    if (set_up(&a, &j, lay_out_forward)) return 1;
    if (v->expands) {
        share(pack_grow, &j, panels(v->hidden), threads);
        share(expand, &j, j.z.groups, threads);
        share(finish_first, &j, j.z.parts, threads);
    }
    share(take_taps, &j, j.z.parts, threads);
    share(convolve, &j, j.z.groups, threads);
    share(finish_second, &j, j.z.parts, threads);
    share(pack_shrink, &j, panels(v->out), threads);
    share(project, &j, j.z.groups, threads);
    share(finish_third, &j, vectors_of(v->out), threads);
    share(put_out, &j, j.z.groups, threads);
    free(a.base);
    return 0;
}

// --- back -----------------------------------------------------------------------------------------------------

// Adds columns `from` to `to` of the partial gradients [small, hidden] of `groups` parts to a weight's: element (i, j)
// at `i * row + j * column`.
static void add_weights(float *for_w, const float *partial, long groups, long small, long hidden, long row, long column,
                        long from, long to) {
    long size = small * hidden, lanes = to - from;
    for (long i = 0; i < small; i++) {
        const float *part = partial + i * hidden + from;
        Vec sum = load(part, lanes);
        for (long g = 1; g < groups; g++) sum += load(part + g * size, lanes);
        float *into = for_w + i * row + from * column;
        if (column == 1) store(into, load(into, lanes) + sum, lanes);
        else for (long j = 0; j < lanes; j++) into[j * column] += sum[j];
    }
}

static void prepare_back(const void *job, long p, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    const Conv *conv = &v->depthwise;
    long at = p * LANES, lanes = lanes_of(p, v->hidden), kk = j->z.kk;
    if (v->expands) set_affine(j->one, &v->expand, at, at + lanes);
    set_affine(j->two, conv, at, at + lanes);
    taps_of(j->taps + p * kk, conv->w, conv->stride, at, lanes, v->k, 0);
    taps_of(j->turned + p * kk, conv->w, conv->stride, at, lanes, v->k, 1);
}

static void pack_shrink_back(const void *job, long p, int thread) {
    const Job *j = job;
    pack(j->shrink, j->v->project.w, j->v->out, j->v->hidden, j->v->project.stride[0], 1, p);
}

static void pack_grow_back(const void *job, long p, int thread) {
    const Job *j = job;
    pack(j->grow, j->v->expand.w, j->v->hidden, j->v->in, j->v->expand.stride[0], 1, p);
}

// The projection's norm: sums of g.
static void sum_third(const void *job, long g, int thread) {
    const Job *j = job;
    long outs = j->v->out, step = rows_at_once(j->z.widest), to = from_of(g + 1, j->z.groups, j->z.after);
    Sums s = j->third;
    begin_sums(s, g, outs);
    for (long r = from_of(g, j->z.groups, j->z.after); r < to; r += step)
        mask(j->three, j->y3 + r * outs, (float *)j->g + r * outs, NULL, at_most(step, to - r), NONE, 0.0f,
             s.one + g * outs, s.two + g * outs);  // without an activation, which leaves g as it is
}

static void finish_third_back(const void *job, long p, int thread) {
    const Job *j = job;
    finish_back(&j->v->project, j->three, j->third, j->z.groups, j->z.after, p * LANES, end_of(p, j->v->out));
}

// Through the projection, to before its input's activation.
static void project_back(const void *job, long g, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    Sums s = j->second;
    long hidden = v->hidden, outs = v->out, step = rows_at_once(j->z.widest);
    long from = from_of(g, j->z.groups, j->z.after), to = from_of(g + 1, j->z.groups, j->z.after);
    float *rows = scratch_of(j, thread), *others = rows + step * j->z.widest;
    begin_sums(s, g, hidden);
    for (long r = from; r < to; r += step) {
        long here = at_most(step, to - r);
        float *d = j->d2 + r * hidden;
        fetch_rows(j->y2, r, step, to, hidden);
        norm_back(j->three, j->g + r * outs, j->y3 + r * outs, rows, here);
        product(rows, j->shrink, d, here, outs, hidden);
        mask(j->two, j->y2 + r * hidden, d, others, here, v->act, v->top, s.one + g * hidden, s.two + g * hidden);
        outer(rows, others, j->partial + g * outs * hidden, here, outs, hidden, r > from);
    }
}

static void finish_second_back(const void *job, long p, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    long from = p * LANES, to = end_of(p, v->hidden), row = v->project.stride[0];
    finish_back(&v->depthwise, j->two, j->second, j->z.groups, j->z.after, from, to);
    add_weights(v->project.for_w, j->partial, j->z.groups, v->out, v->hidden, row, 1, from, to);
}

// Through the depthwise convolution, to before the expansion's activation, or to x.
static void convolve_back(const void *job, long g, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    Sizes z = j->z;
    Sums s = j->first;
    long hidden = v->hidden, pixels = v->oh * v->ow;
    long begin = from_of(g, z.groups, v->n), end = from_of(g + 1, z.groups, v->n);
    float *image = scratch_of(j, thread);
    Vec *canvas = canvas_of(j, thread), *spread = j->spread + thread * z.spread;
    Vec *gradient = j->gradient + thread * pixels, *for_taps = j->for_taps + g * z.parts * z.kk;
    begin_sums(s, g, hidden);
    memset(for_taps, 0, z.parts * z.kk * sizeof(Vec));
    if (is_small(v)) {
        small_back(v, j->one, j->two, j->y1, j->y2, j->d2, j->d1, j->taps, for_taps, s, g, begin, end);
        return;
    }
    for (long i = begin; i < end; i++) {
        const float *from = (v->expands ? j->y1 : j->x) + i * z.image, *d2 = j->d2 + i * z.map, *y2 = j->y2 + i * z.map;
        float *into = v->expands ? j->d1 + i * z.image : j->dx ? j->dx + i * z.image : NULL;
        for (long p = 0; p < z.parts; p++) {
            long at = p * LANES, lanes = at_most(LANES, hidden - at);
            if (i + 1 < end) {
                fetch(from + z.image, z.image, p, z.parts);
                fetch(d2 + z.map, z.map, p, z.parts);
                fetch(y2 + z.map, z.map, p, z.parts);
            }
            place_input(v, j->one, canvas, from, at, lanes, z.wide);
            part_back(j->two, d2, y2, gradient, pixels, at, lanes);
            const float *flat = (const float *)gradient;
            tap_sums(canvas, flat, for_taps + p * z.kk, v->oh, v->ow, LANES, LANES, z.wide, v->s, v->k);
            if (into)
                input_gradient(spread, flat, LANES, j->taps + p * z.kk, j->turned + p * z.kk, image + at, v->h, v->w,
                               v->oh, v->ow, hidden, lanes, v->k, v->s);
        }
        if (!into) continue;
        if (v->expands)
            mask(j->one, from, image, NULL, v->h * v->w, v->act, v->top, s.one + g * hidden, s.two + g * hidden);
        else if (v->residual)
            for (long k = 0; k < z.image; k++) image[k] += j->g[i * z.image + k];
        memcpy(into, image, z.image * sizeof(float));
    }
}

static void finish_first_back(const void *job, long p, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    long from = p * LANES, lanes = lanes_of(p, v->hidden);
    add_taps(v->depthwise.for_w, v->depthwise.stride, j->for_taps + p * j->z.kk, j->z.parts, j->z.groups, from, lanes,
             v->k);
    if (v->expands) finish_back(&v->expand, j->one, j->first, j->z.groups, j->z.before, from, from + lanes);
}

// Through the expansion, to x.
static void expand_back(const void *job, long g, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    long hidden = v->hidden, ins = v->in, step = rows_at_once(j->z.widest);
    long from = from_of(g, j->z.groups, j->z.before), to = from_of(g + 1, j->z.groups, j->z.before);
    float *rows = scratch_of(j, thread);
    for (long r = from; r < to; r += step) {
        long here = at_most(step, to - r);
        fetch_rows(j->y1, r, step, to, hidden);
        fetch_rows(j->d1, r, step, to, hidden);
        norm_back(j->one, j->d1 + r * hidden, j->y1 + r * hidden, rows, here);
        outer(j->x + r * ins, rows, j->partial + g * ins * hidden, here, ins, hidden, r > from);
        if (!j->dx) continue;
        product(rows, j->grow, j->dx + r * ins, here, hidden, ins);
        if (v->residual)
            for (long k = r * ins; k < (r + here) * ins; k++) j->dx[k] += j->g[k];
    }
}

static void add_expansion(const void *job, long p, int thread) {
    const Job *j = job;
    const Conv *conv = &j->v->expand;
    long hidden = j->v->hidden;
    add_weights(conv->for_w, j->partial, j->z.groups, j->v->in, hidden, 1, conv->stride[0], p * LANES,
                end_of(p, hidden));
}

static void lay_out_back(Arena *a, void *job) {
    Job *j = job;
    const Inverted *v = j->v;
    Sizes z = j->z;
    carve_common(a, j, v->hidden, v->in, v->out, v->hidden);
    carve_sums(a, j);
    j->turned = carve(a, z.parts * z.kk, sizeof(Vec));
    j->for_taps = carve(a, z.groups * z.parts * z.kk, sizeof(Vec));
    j->gradient = carve(a, j->threads * v->oh * v->ow, sizeof(Vec));
    j->spread = carve_zeros(a, j->threads * z.spread, sizeof(Vec));
    j->d1 = carve(a, v->expands ? z.before * v->hidden : 0, sizeof(float));
    j->d2 = carve(a, z.after * v->hidden, sizeof(float));
    j->partial = carve(a, z.groups * v->hidden * at_least(v->in, v->out), sizeof(float));
}

// The gradient of x to dx unless null, and of all parameters, added to their places, from g, that of `inverted`'s out.
int inverted_back(const Inverted *v, const float *x, const float *y1, const float *y2, const float *y3,
                  const float *g, float *dx, int threads) {
    threads = threads_for(v, threads);
    Job j = {.v = v, .z = sizes_of(v), .threads = threads, .x = x, .y1 = (float *)y1, .y2 = (float *)y2,
             .y3 = (float *)y3, .g = g, .dx = dx};
    Arena a;
    if (set_up(&a, &j, lay_out_back)) return 1;
    set_affine(j.three, &v->project, 0, v->out);
    share(prepare_back, &j, j.z.parts, threads);
    share(pack_shrink_back, &j, panels(v->hidden), threads);
    share(sum_third, &j, j.z.groups, threads);
    share(finish_third_back, &j, vectors_of(v->out), threads);
    share(project_back, &j, j.z.groups, threads);
    share(finish_second_back, &j, j.z.parts, threads);
    share(convolve_back, &j, j.z.groups, threads);
    share(finish_first_back, &j, j.z.parts, threads);
    if (v->expands) {
        share(pack_grow_back, &j, panels(v->in), threads);
        share(expand_back, &j, j.z.groups, threads);
        share(add_expansion, &j, j.z.parts, threads);
    }
    free(a.base);
    return 0;
}

// --- evaluation -----------------------------------------------------------------------------------------------

// out of some images, as many as a core's cache holds: nothing but x and out passes through memory.
static void evaluate(const void *job, long chunk, int thread) {
    const Job *j = job;
    const Inverted *v = j->v;
    Sizes z = j->z;
    long hidden = v->hidden, outs = v->out, pixels = v->h * v->w, after = v->oh * v->ow;
    long from = chunk * j->many, here = at_most(j->many, v->n - from);
    const float *inputs = j->x + from * pixels * v->in, *image = inputs;
    float *into = j->out + from * after * outs, *wide = scratch_of(j, thread), *map = wide + j->many * z.image;
    Vec *canvas = canvas_of(j, thread);
    if (v->expands) {
        product(inputs, j->grow, wide, here * pixels, v->in, hidden);
        apply(j->one, wide, wide, here * pixels, v->act, v->top);
        image = wide;
    }
    for (long i = 0; i < here; i++)
        for (long p = 0; p < z.parts; p++) {
            long at = p * LANES, lanes = at_most(LANES, hidden - at);
            place(canvas, image + i * z.image + at, v->h, v->w, hidden, lanes, z.wide, v->k / 2, 1);
            correlate(canvas, j->taps + p * z.kk, map + i * z.map + at, v->oh, v->ow, hidden, lanes, z.wide, v->k,
                      v->s);
        }
    apply(j->two, map, map, here * after, v->act, v->top);
    product(map, j->shrink, into, here * after, hidden, outs);
    apply(j->three, into, into, here * after, NONE, 0.0f);
    if (v->residual)
        for (long i = 0; i < here * after * outs; i++) into[i] += inputs[i];
}

static void lay_out_evaluation(Arena *a, void *job) {
    Job *j = job;
    carve_common(a, j, j->v->in, j->v->hidden, j->v->hidden, j->v->out);
    j->scratch = carve(a, j->threads * j->z.scratch, sizeof(float));
}

// out of x with the running statistics. Returns 0, or 1 if out of memory.
int inverted_eval(const Inverted *v, const float *x, float *out, int threads) {
    threads = threads_for(v, threads);
    Job j = {.v = v, .z = sizes_of(v), .threads = threads, .x = x, .out = out};
    j.many = at_most(v->n, at_least(1, CACHED / j.z.image));
    j.z.scratch = j.many * (j.z.image + j.z.map);
    Arena a;
    if (set_up(&a, &j, lay_out_evaluation)) return 1;
    if (v->expands) {
        known_affine(j.one, &v->expand, v->eps);
        share(pack_grow, &j, panels(v->hidden), threads);
    }
    known_affine(j.two, &v->depthwise, v->eps);
    known_affine(j.three, &v->project, v->eps);
    share(pack_shrink, &j, panels(v->out), threads);
    share(take_taps, &j, j.z.parts, threads);
    share(evaluate, &j, (v->n + j.many - 1) / j.many, threads);
    free(a.base);
    return 0;
}

// --- blocks one after another ---------------------------------------------------------------------------------

// A block that reads the output of the one before, with what its forward pass writes: y1, y2, y3 and out of `inverted`.
typedef struct {
    Inverted v;
    float *y1, *y2, *y3, *out;
} Link;

// All outputs of `count` blocks, of which the first reads x. Returns 0, or 1 if out of memory.
int chain(const Link *link, long count, const float *x, int threads) {
    for (; count--; x = link++->out)
        if (inverted(&link->v, x, link->y1, link->y2, link->y3, link->out, threads)) return 1;
    return 0;
}

// The gradient of x to dx unless null, and of all parameters, added to their places, from g, that of the last block's
// out. `room`: two buffers of `size` floats, each with room for the gradient of any block's input but the first's.
int chain_back(const Link *link, long count, const float *x, const float *g, float *dx, float *room, long size,
               int threads) {
    while (count--) {
        const Link *it = link + count;
        float *into = count ? room + count % 2 * size : dx;
        if (inverted_back(&it->v, count ? it[-1].out : x, it->y1, it->y2, it->y3, g, into, threads)) return 1;
        g = into;
    }
    return 0;
}
