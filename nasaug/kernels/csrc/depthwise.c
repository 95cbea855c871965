// Gradients of a depthwise convolution.

#include "arena.h"
#include "depthwise.h"
#include "pool.h"

typedef struct {
    const float *dy, *x;
    float *dx;
    long n, h, w, c, k, s, oh, ow, parts, groups, canvas, spread, threads;
    Vec *taps, *turned, *partial;
    Vec *canvases, *spreads;  // from here on, separate for each thread
    float *images;            // written in steps of c, which memory would be slow at
} Job;

static void gradients(const void *job, long g, int thread) {
    const Job *j = job;
    long c = j->c, kk = j->k * j->k, wide = j->w + j->k - 1, size = j->h * j->w * c;
    Vec *canvas = j->canvases + thread * j->canvas, *spread = j->spreads + thread * j->spread;
    float *image = j->images + thread * size;
    for (long i = g * j->n / j->groups; i < (g + 1) * j->n / j->groups; i++) {
        for (long p = 0; p < j->parts; p++) {
            long from = p * LANES, lanes = lanes_of(p, c);
            const float *dy = j->dy + i * j->oh * j->ow * c + from;
            place(canvas, j->x + i * size + from, j->h, j->w, c, lanes, wide, j->k / 2, 1);
            tap_sums(canvas, dy, j->partial + (g * j->parts + p) * kk, j->oh, j->ow, c, lanes, wide, j->s, j->k);
            if (j->dx)
                input_gradient(spread, dy, c, j->taps + p * kk, j->turned + p * kk, image + from, j->h, j->w, j->oh,
                               j->ow, c, lanes, j->k, j->s);
        }
        if (j->dx) memcpy(j->dx + i * size, image, size * sizeof(float));
    }
}

static void lay_out(Arena *a, void *job) {
    Job *j = job;
    long kk = j->k * j->k;
    j->partial = carve_zeros(a, j->groups * j->parts * kk, sizeof(Vec));
    j->canvases = carve_zeros(a, j->threads * j->canvas, sizeof(Vec));
    j->spreads = carve_zeros(a, j->threads * j->spread, sizeof(Vec));
    j->taps = carve(a, j->parts * kk, sizeof(Vec));
    j->turned = carve(a, j->parts * kk, sizeof(Vec));
    j->images = carve(a, j->threads * j->h * j->w * j->c, sizeof(float));
}

// dx [n, h, w, c] (unless null) from dy [n, oh, ow, c] and x; adds the gradient of w to for_w, whose strides are
// given as w's: of channel, row and column, in floats. Padding k / 2; k at most 7.
// Returns 0, or 1 if out of memory.
int depthwise_back(const float *dy, const float *x, const float *w, const long *w_stride, float *dx, float *for_w,
                   const long *for_stride, long n, long h, long wd, long c, long k, long s, long oh, long ow,
                   int threads) {
    Job j = {.dy = dy, .x = x, .dx = dx, .n = n, .h = h, .w = wd, .c = c, .k = k, .s = s, .oh = oh, .ow = ow};
    long kk = k * k;
    j.parts = (c + LANES - 1) / LANES;
    j.groups = at_most(n, GROUPS);
    j.canvas = (h + k - 1) * (wd + k - 1);
    j.spread = gradient_canvas(h, wd, oh, ow, k, s);
    j.threads = threads = n * h * wd * c < ALONE ? 1 : threads;
    Arena a;
    if (set_up(&a, &j, lay_out)) return 1;
    for (long p = 0; p < j.parts; p++) {
        taps_of(j.taps + p * kk, w, w_stride, p * LANES, lanes_of(p, c), k, 0);
        taps_of(j.turned + p * kk, w, w_stride, p * LANES, lanes_of(p, c), k, 1);
    }
    share(gradients, &j, j.groups, threads);
    for (long p = 0; p < j.parts; p++)
        add_taps(for_w, for_stride, j.partial + p * kk, j.parts, j.groups, p * LANES, lanes_of(p, c), k);
    free(a.base);
    return 0;
}
