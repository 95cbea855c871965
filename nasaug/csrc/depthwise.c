// Gradients of a depthwise convolution.

#include "depthwise.h"

// dx [n, h, w, c] (unless null) from dy [n, oh, ow, c] and x; adds the gradient of w to for_w, whose strides are
// given as w's: of channel, row and column, in floats. Padding k / 2; k at most 7.
// Returns 0, or 1 where memory ran out.
int depthwise_back(const float *dy, const float *x, const float *w, const long *w_stride, float *dx, float *for_w,
                   const long *for_stride, long n, long h, long wd, long c, long k, long s, long oh, long ow,
                   int threads) {
    long parts = (c + LANES - 1) / LANES, groups = at_most(n, GROUPS), kk = k * k;
    long wide = wd + k - 1, area = (h + k - 1) * wide, size = h * wd * c;
    Vec *partial = vectors(groups * parts * kk), *taps = vectors(parts * kk);
    Vec *turned = vectors(parts * kk);
    int failed = !partial || !taps || !turned;
    for (long p = 0; p < parts && !failed; p++) {
        taps_of(taps + p * kk, w, w_stride, p * LANES, lanes_of(p, c), k, 0);
        taps_of(turned + p * kk, w, w_stride, p * LANES, lanes_of(p, c), k, 1);
    }
    #pragma omp parallel num_threads(n * size < ALONE ? 1 : threads) if (!failed)
    {
        Vec *canvas = vectors(area), *spread = vectors(gradient_canvas(h, wd, oh, ow, k, s));
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
                    input_gradient(spread, g, c, taps + p * kk, turned + p * kk, image + from, h, wd, oh, ow, c, lanes,
                                   k, s);
                }
                if (dx) memcpy(dx + i * size, image, size * sizeof(float));
            }
        }
        free(canvas);
        free(spread);
        free(image);
    }
    for (long p = 0; p < parts && !failed; p++)
        add_taps(for_w, for_stride, partial + p * kk, parts, groups, p * LANES, lanes_of(p, c), k);
    free(partial);
    free(taps);
    free(turned);
    return failed;
}
