// A whole inverted residual block in training, forward and back: 1x1 expansion, depthwise convolution, 1x1 projection,
// each with its batch norm and activation, and the shortcut.
//
// A tiny network's step is bound by its passes over memory. What is kept are the convolutions' own outputs, y1, y2 and
// y3; normalised and activated they exist only as the part of a batch that a core's cache holds, made again where it is
// needed. So an expanded array is written and read twice each forward, and read six times and written twice back.
//
// Stages go over fixed parts of the batch, at most GROUPS; statistics are summed within some rows or an image in single
// precision and across them in double, in their order.

#include "block_small.h"
#include "depthwise.h"
#include "product.h"

#define CACHED 49152        // floats of the widest array that a block of rows has

// Rows that are worked on at once, so that `c` floats of each stay in the cache.
static long rows_at_once(long c) { return at_least(CACHED / c / ROWS, 1) * ROWS; }

// Fetches the share of what will be read next that falls to part `p` of `parts`: reading sixteen channels of every
// pixel jumps about in memory, which the processor does not foresee.
static inline void fetch(const float *next, long floats, long p, long parts) {
    for (long i = p * floats / parts; i < (p + 1) * floats / parts; i += LANES) __builtin_prefetch(next + i, 0, 2);
}

// The same for the rows that follow a block of rows, up to `to`.
static inline void fetch_rows(const float *y, long r, long step, long to, long c) {
    if (r + step < to) fetch(y + (r + step) * c, at_most(step, to - r - step) * c, 0, 1);
}

// --- the depthwise convolution's image, sixteen channels at a time ---------------------------------------------

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

typedef struct { long before, after, image, map, groups, widest, scratch, parts, wide, canvas, kk; } Sizes;

static Sizes sizes_of(const Inverted *v) {
    Sizes z = {.before = v->n * v->h * v->w, .after = v->n * v->oh * v->ow, .image = v->h * v->w * v->hidden};
    z.map = v->oh * v->ow * v->hidden;
    long c = at_least(v->hidden, at_least(v->in, v->out));
    z.groups = at_most(v->n, at_most(GROUPS, at_least(4, z.after / 256)));  // few where there is little to do
    z.widest = c;
    z.parts = (v->hidden + LANES - 1) / LANES;
    z.wide = v->w + v->k - 1;
    z.canvas = (v->h + v->k - 1) * z.wide;
    z.kk = v->k * v->k;
    // a thread's own floats: two blocks of rows, or the map of an image
    z.scratch = at_least(2 * rows_at_once(c) * c, at_least(z.image, z.map));
    return z;
}

static long end_of(long part, long c) { return part * LANES + lanes_of(part, c); }

// Room for the weights as the loops read them: panels of the expansion [a, b] and the projection [c, d], and taps.
typedef struct { Vec *grow, *shrink, *taps; } Weights;

static Weights weights_of(const Inverted *v, Sizes z, long a, long b, long c, long d) {
    return (Weights){space(v->expands ? panels(b) * a * 2 : 1), space(panels(d) * c * 2), space(z.parts * z.kk)};
}

static void drop_weights(Weights w) { free(w.grow); free(w.shrink); free(w.taps); }

// out [n, oh, ow, out] and y1, y2, y3 of x [n, h, w, in]. Returns 0, or 1 where memory ran out.
int inverted(const Inverted *v, const float *x, float *y1, float *y2, float *y3, float *out, int threads) {
    Sizes z = sizes_of(v);
    long hidden = v->hidden, outs = v->out;
    Affine one = affine(hidden), two = affine(hidden), three = affine(outs);
    Sums first = sums_of(z.groups, hidden), second = sums_of(z.groups, hidden), third = sums_of(z.groups, outs);
    Weights w = weights_of(v, z, v->in, hidden, hidden, outs);
    int failed = !one.a || !two.a || !three.a || !first.one || !first.pivot || !second.one || !second.pivot
        || !third.one || !third.pivot || !w.grow || !w.shrink || !w.taps;
    if (failed) goto out;
    #pragma omp parallel num_threads(z.before * hidden < ALONE ? 1 : threads)
    {
        float *scratch = malloc(z.scratch * sizeof(float)), *rows = scratch, *map = scratch;
        Vec *canvas = vectors(z.canvas);
        if (!scratch || !canvas) failed = 1;
        #pragma omp barrier
        if (v->expands) {
            #pragma omp for schedule(static)
            for (long p = 0; p < panels(hidden); p++)
                pack(w.grow, v->expand.w, v->in, hidden, 1, v->expand.stride[0], p);
            long step = rows_at_once(hidden);
            #pragma omp for schedule(static)
            for (long g = 0; g < z.groups; g++) {
                if (failed) continue;
                long to = from_of(g + 1, z.groups, z.before), from = from_of(g, z.groups, z.before);
                begin_sums(first, g, hidden);
                for (long r = from; r < to; r += step) {
                    long here = at_most(step, to - r);
                    float *y = y1 + r * hidden;
                    product(x + r * v->in, w.grow, y, here, v->in, hidden);
                    if (r == from) set_pivot(first.pivot + g * hidden, y, here, hidden);
                    add_sums(first.one + g * hidden, first.two + g * hidden, first.pivot + g * hidden, y, here, hidden);
                }
            }
            #pragma omp for schedule(static)
            for (long p = 0; p < z.parts; p++)
                if (!failed)
                    finish(&v->expand, one, first, z.groups, z.before, 1, v->eps, p * LANES, end_of(p, hidden));
        }
        #pragma omp for schedule(static)
        for (long p = 0; p < z.parts; p++)
            taps_of(w.taps + p * z.kk, v->depthwise.w, v->depthwise.stride, p * LANES, lanes_of(p, hidden), v->k, 0);
        #pragma omp for schedule(static)
        for (long g = 0; g < z.groups; g++) {
            if (failed) continue;
            float *pivot = second.pivot + g * hidden;
            long begin = from_of(g, z.groups, v->n), end = from_of(g + 1, z.groups, v->n), pixels = v->oh * v->ow;
            begin_sums(second, g, hidden);
            if (is_small(v)) {
                small(v, one, y1, y2, w.taps, second, g, begin, end);
                continue;
            }
            for (long i = begin; i < end; i++) {
                const float *image = (v->expands ? y1 : x) + i * z.image;
                for (long p = 0; p < z.parts; p++) {
                    long from = p * LANES, lanes = at_most(LANES, hidden - from);
                    if (i + 1 < end) fetch(image + z.image, z.image, p, z.parts);
                    place_input(v, one, canvas, image, from, lanes, z.wide);
                    correlate(canvas, w.taps + p * z.kk, map + from, v->oh, v->ow, hidden, lanes, z.wide, v->k, v->s);
                }
                if (i == begin) set_pivot(pivot, map, pixels, hidden);
                add_sums(second.one + g * hidden, second.two + g * hidden, pivot, map, pixels, hidden);
                memcpy(y2 + i * z.map, map, z.map * sizeof(float));
            }
        }
        #pragma omp for schedule(static) nowait
        for (long p = 0; p < z.parts; p++)
            if (!failed)
                finish(&v->depthwise, two, second, z.groups, v->n, v->oh * v->ow, v->eps, p * LANES, end_of(p, hidden));
        #pragma omp for schedule(static)
        for (long p = 0; p < panels(outs); p++)
            pack(w.shrink, v->project.w, hidden, outs, 1, v->project.stride[0], p);
        long step = rows_at_once(hidden);
        #pragma omp for schedule(static)
        for (long g = 0; g < z.groups; g++) {
            if (failed) continue;
            long to = from_of(g + 1, z.groups, z.after), from = from_of(g, z.groups, z.after);
            begin_sums(third, g, outs);
            for (long r = from; r < to; r += step) {
                long here = at_most(step, to - r);
                float *y = y3 + r * outs;
                fetch_rows(y2, r, step, to, hidden);
                apply(two, y2 + r * hidden, rows, here, v->act, v->top);
                product(rows, w.shrink, y, here, hidden, outs);
                if (r == from) set_pivot(third.pivot + g * outs, y, here, outs);
                add_sums(third.one + g * outs, third.two + g * outs, third.pivot + g * outs, y, here, outs);
            }
        }
        #pragma omp for schedule(static)
        for (long from = 0; from < outs; from += LANES)
            if (!failed)
                finish(&v->project, three, third, z.groups, z.after, 1, v->eps, from, at_most(from + LANES, outs));
        #pragma omp for schedule(static)
        for (long g = 0; g < z.groups; g++) {
            if (failed) continue;
            long from = from_of(g, z.groups, z.after) * outs, n = from_of(g + 1, z.groups, z.after) * outs - from;
            apply(three, y3 + from, out + from, n / outs, NONE, 0.0f);
            if (v->residual)
                for (long i = from; i < from + n; i++) out[i] += x[i];
        }
        free(scratch);
        free(canvas);
    }
out:
    free(one.a); free(two.a); free(three.a);
    drop(first); drop(second); drop(third);
    drop_weights(w);
    return failed;
}

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

// The gradient of x to dx unless null, and of all parameters, added to their places, from g, that of `inverted`'s out.
int inverted_back(const Inverted *v, const float *x, const float *y1, const float *y2, const float *y3,
                  const float *g, float *dx, int threads) {
    Sizes z = sizes_of(v);
    long hidden = v->hidden, outs = v->out, ins = v->in;
    Affine one = affine(hidden), two = affine(hidden), three = affine(outs);
    Sums first = sums_of(z.groups, hidden), second = sums_of(z.groups, hidden), third = sums_of(z.groups, outs);
    Weights w = weights_of(v, z, hidden, ins, outs, hidden);
    Vec *turned = space(z.parts * z.kk), *for_taps = space(z.groups * z.parts * z.kk);
    float *d1 = malloc((v->expands ? z.before * hidden : 1) * sizeof(float));
    float *d2 = malloc(z.after * hidden * sizeof(float));
    float *partial = malloc(z.groups * hidden * at_least(ins, outs) * sizeof(float));
    int failed = !one.a || !two.a || !three.a || !first.one || !first.pivot || !second.one || !second.pivot
        || !third.one || !third.pivot || !w.grow || !w.shrink || !w.taps || !turned || !for_taps || !d1 || !d2
        || !partial;
    if (failed) goto out;
    set_affine(three, &v->project, 0, outs);
    #pragma omp parallel num_threads(z.before * hidden < ALONE ? 1 : threads)
    {
        long step = rows_at_once(z.widest);
        float *scratch = malloc(z.scratch * sizeof(float)), *rows = scratch, *others = scratch + step * z.widest;
        float *image = scratch;
        Vec *canvas = vectors(z.canvas), *gradient = vectors(v->oh * v->ow);
        Vec *spread = vectors(gradient_canvas(v->h, v->w, v->oh, v->ow, v->k, v->s));
        if (!scratch || !canvas || !spread || !gradient) failed = 1;
        #pragma omp barrier
        #pragma omp for schedule(static) nowait
        for (long p = 0; p < z.parts; p++) {
            long at = p * LANES, lanes = lanes_of(p, hidden);
            if (v->expands) set_affine(one, &v->expand, at, at + lanes);
            set_affine(two, &v->depthwise, at, at + lanes);
            taps_of(w.taps + p * z.kk, v->depthwise.w, v->depthwise.stride, at, lanes, v->k, 0);
            taps_of(turned + p * z.kk, v->depthwise.w, v->depthwise.stride, at, lanes, v->k, 1);
        }
        #pragma omp for schedule(static) nowait
        for (long p = 0; p < panels(hidden); p++)
            pack(w.shrink, v->project.w, outs, hidden, v->project.stride[0], 1, p);
        #pragma omp for schedule(static)
        for (long part = 0; part < z.groups; part++) {  // the projection's norm: sums of g
            if (failed) continue;
            long to = from_of(part + 1, z.groups, z.after);
            begin_sums(third, part, outs);
            for (long r = from_of(part, z.groups, z.after); r < to; r += step) {
                long here = at_most(step, to - r);
                mask(three, y3 + r * outs, (float *)g + r * outs, NULL, here, NONE, 0.0f, third.one + part * outs,
                     third.two + part * outs);  // without an activation, which leaves g as it is
            }
        }
        #pragma omp for schedule(static)
        for (long from = 0; from < outs; from += LANES)
            if (!failed) finish_back(&v->project, three, third, z.groups, z.after, from, at_most(from + LANES, outs));
        #pragma omp for schedule(static)
        for (long part = 0; part < z.groups; part++) {  // through the projection, to before its input's activation
            if (failed) continue;
            long from = from_of(part, z.groups, z.after), to = from_of(part + 1, z.groups, z.after);
            begin_sums(second, part, hidden);
            for (long r = from; r < to; r += step) {
                long here = at_most(step, to - r);
                float *d = d2 + r * hidden;
                fetch_rows(y2, r, step, to, hidden);
                norm_back(three, g + r * outs, y3 + r * outs, rows, here);
                product(rows, w.shrink, d, here, outs, hidden);
                mask(two, y2 + r * hidden, d, others, here, v->act, v->top, second.one + part * hidden,
                     second.two + part * hidden);
                outer(rows, others, partial + part * outs * hidden, here, outs, hidden, r > from);
            }
        }
        #pragma omp for schedule(static)
        for (long p = 0; p < z.parts; p++) {
            if (failed) continue;
            long from = p * LANES, to = end_of(p, hidden), row = v->project.stride[0];
            finish_back(&v->depthwise, two, second, z.groups, z.after, from, to);
            add_weights(v->project.for_w, partial, z.groups, outs, hidden, row, 1, from, to);
        }
        #pragma omp for schedule(static)
        for (long part = 0; part < z.groups; part++) {  // through the depthwise convolution
            if (failed) continue;
            long begin = from_of(part, z.groups, v->n), end = from_of(part + 1, z.groups, v->n);
            begin_sums(first, part, hidden);
            memset(for_taps + part * z.parts * z.kk, 0, z.parts * z.kk * sizeof(Vec));
            if (is_small(v)) {
                Vec *into = for_taps + part * z.parts * z.kk;
                small_back(v, one, two, y1, y2, d2, d1, w.taps, into, first, part, begin, end);
                continue;
            }
            for (long i = begin; i < end; i++) {
                const float *from = (v->expands ? y1 : x) + i * z.image;
                float *into = v->expands ? d1 + i * z.image : dx ? dx + i * z.image : NULL;
                for (long p = 0; p < z.parts; p++) {
                    long at = p * LANES, lanes = at_most(LANES, hidden - at);
                    if (i + 1 < end) {
                        fetch(from + z.image, z.image, p, z.parts);
                        fetch(d2 + (i + 1) * z.map, z.map, p, z.parts);
                        fetch(y2 + (i + 1) * z.map, z.map, p, z.parts);
                    }
                    place_input(v, one, canvas, from, at, lanes, z.wide);
                    part_back(two, d2 + i * z.map, y2 + i * z.map, gradient, v->oh * v->ow, at, lanes);
                    const float *flat = (const float *)gradient;
                    Vec *into_taps = for_taps + (part * z.parts + p) * z.kk;
                    tap_sums(canvas, flat, into_taps, v->oh, v->ow, LANES, LANES, z.wide, v->s, v->k);
                    if (!into) continue;
                    input_gradient(spread, flat, LANES, w.taps + p * z.kk, turned + p * z.kk, image + at, v->h, v->w,
                                   v->oh, v->ow, hidden, lanes, v->k, v->s);
                }
                if (!into) continue;
                if (v->expands)
                    mask(one, y1 + i * z.image, image, NULL, v->h * v->w, v->act, v->top, first.one + part * hidden,
                         first.two + part * hidden);
                else if (v->residual)
                    for (long j = 0; j < z.image; j++) image[j] += g[i * z.image + j];
                memcpy(into, image, z.image * sizeof(float));
            }
        }
        #pragma omp for schedule(static)
        for (long p = 0; p < z.parts; p++) {
            if (failed) continue;
            long from = p * LANES, lanes = lanes_of(p, hidden);
            Vec *sums = for_taps + p * z.kk;
            add_taps(v->depthwise.for_w, v->depthwise.stride, sums, z.parts, z.groups, from, lanes, v->k);
            if (v->expands) finish_back(&v->expand, one, first, z.groups, z.before, from, from + lanes);
        }
        if (v->expands) {
            #pragma omp for schedule(static)
            for (long p = 0; p < panels(ins); p++)
                pack(w.grow, v->expand.w, hidden, ins, v->expand.stride[0], 1, p);
            #pragma omp for schedule(static)
            for (long part = 0; part < z.groups; part++) {  // through the expansion
                if (failed) continue;
                long from = from_of(part, z.groups, z.before), to = from_of(part + 1, z.groups, z.before);
                for (long r = from; r < to; r += step) {
                    long here = at_most(step, to - r);
                    fetch_rows(y1, r, step, to, hidden);
                    fetch_rows(d1, r, step, to, hidden);
                    norm_back(one, d1 + r * hidden, y1 + r * hidden, rows, here);
                    outer(x + r * ins, rows, partial + part * ins * hidden, here, ins, hidden, r > from);
                    if (!dx) continue;
                    product(rows, w.grow, dx + r * ins, here, hidden, ins);
                    if (v->residual)
                        for (long j = r * ins; j < (r + here) * ins; j++) dx[j] += g[j];
                }
            }
            #pragma omp for schedule(static)
            for (long p = 0; p < z.parts; p++) {
                if (failed) continue;
                long from = p * LANES, to = end_of(p, hidden), column = v->expand.stride[0];
                add_weights(v->expand.for_w, partial, z.groups, ins, hidden, 1, column, from, to);
            }
        }
        free(scratch);
        free(canvas);
        free(spread);
        free(gradient);
    }
out:
    free(one.a); free(two.a); free(three.a);
    drop(first); drop(second); drop(third);
    drop_weights(w);
    free(turned); free(for_taps);
    free(d1); free(d2); free(partial);
    return failed;
}

// out of x with the running statistics, so many images at a time as a core's cache holds: nothing but x and out passes
// through memory. Returns 0, or 1 where memory ran out.
int inverted_eval(const Inverted *v, const float *x, float *out, int threads) {
    Sizes z = sizes_of(v);
    long hidden = v->hidden, outs = v->out, pixels = v->h * v->w, after = v->oh * v->ow;
    long many = at_most(v->n, at_least(1, CACHED / z.image)), chunks = (v->n + many - 1) / many;
    Affine one = affine(hidden), two = affine(hidden), three = affine(outs);
    Weights w = weights_of(v, z, v->in, hidden, hidden, outs);
    int failed = !one.a || !two.a || !three.a || !w.grow || !w.shrink || !w.taps;
    if (failed) goto out;
    if (v->expands) known_affine(one, &v->expand, v->eps);
    known_affine(two, &v->depthwise, v->eps);
    known_affine(three, &v->project, v->eps);
    #pragma omp parallel num_threads(z.before * hidden < ALONE ? 1 : threads)
    {
        float *wide = malloc(many * z.image * sizeof(float)), *map = malloc(many * z.map * sizeof(float));
        Vec *canvas = vectors(z.canvas);
        if (!wide || !map || !canvas) failed = 1;
        #pragma omp for schedule(static) nowait
        for (long p = 0; p < (v->expands ? panels(hidden) : 0); p++)
            pack(w.grow, v->expand.w, v->in, hidden, 1, v->expand.stride[0], p);
        #pragma omp for schedule(static) nowait
        for (long p = 0; p < panels(outs); p++)
            pack(w.shrink, v->project.w, hidden, outs, 1, v->project.stride[0], p);
        #pragma omp for schedule(static)
        for (long p = 0; p < z.parts; p++)
            taps_of(w.taps + p * z.kk, v->depthwise.w, v->depthwise.stride, p * LANES, lanes_of(p, hidden), v->k, 0);
        #pragma omp for schedule(static)
        for (long chunk = 0; chunk < chunks; chunk++) {
            if (failed) continue;
            long from = chunk * many, here = at_most(many, v->n - from);
            const float *inputs = x + from * pixels * v->in, *image = inputs;
            float *into = out + from * after * outs;
            if (v->expands) {
                product(inputs, w.grow, wide, here * pixels, v->in, hidden);
                apply(one, wide, wide, here * pixels, v->act, v->top);
                image = wide;
            }
            for (long i = 0; i < here; i++)
                for (long p = 0; p < z.parts; p++) {
                    long at = p * LANES, lanes = at_most(LANES, hidden - at);
                    place(canvas, image + i * z.image + at, v->h, v->w, hidden, lanes, z.wide, v->k / 2, 1);
                    correlate(canvas, w.taps + p * z.kk, map + i * z.map + at, v->oh, v->ow, hidden, lanes, z.wide,
                              v->k, v->s);
                }
            apply(two, map, map, here * after, v->act, v->top);
            product(map, w.shrink, into, here * after, hidden, outs);
            apply(three, into, into, here * after, NONE, 0.0f);
            if (v->residual)
                for (long i = 0; i < here * after * outs; i++) into[i] += inputs[i];
        }
        free(wide);
        free(map);
        free(canvas);
    }
out:
    free(one.a); free(two.a); free(three.a);
    drop_weights(w);
    return failed;
}
