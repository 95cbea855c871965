// The augmentation operators on uint8 images [n, c, h, w], c 1 or 3, bit-identical to nasaug/augment/ops.py.
//
// Where torch rounds a product before adding, the product is stored or cast, so that the compiler cannot fuse the two
// operations; where torch rounds once, fmaf is used.

#include "common.h"
#include "pool.h"

typedef unsigned char byte;
typedef struct { long c, h, w; } Size;

enum {  // in the order of ops.OPERATORS
    IDENTITY, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE, COLOR, SHARPNESS, BRIGHTNESS, CONTRAST, POSTERIZE,
    SOLARIZE, AUTOCONTRAST, EQUALIZE, INVERT
};

static inline byte cut(float level) {
    level = level < 0.0f ? 0.0f : level;
    return (byte)(int)(level > 255.0f ? 255.0f : level);
}

// first * factor + second * (1 - factor)
static inline byte blend(float first, float second, float factor, float rest) {
    return cut(fmaf(second, rest, (float)(first * factor)));
}

static inline int grey(byte red, byte green, byte blue) {
    return (int)fmaf(blue, 0.114f, fmaf(green, 0.587f, (float)(red * 0.2989f)));
}

// --- geometric operators: affine maps with nearest sampling, zeros outside -----------------------------------

// Maps output to source coordinates, both relative to the centre: (by x, by y, offset) for x and y, in half sizes.
static void affine(int operator, double value, Size s, float *map) {
    double rows[6] = {1, 0, 0, 0, 1, 0};
    if (operator == SHEAR_X) { rows[1] = value; rows[2] = value * s.h / 2; }
    if (operator == SHEAR_Y) { rows[3] = value; rows[5] = value * s.w / 2; }
    if (operator == TRANSLATE_X) rows[2] = -trunc(value);
    if (operator == TRANSLATE_Y) rows[5] = -trunc(value);
    if (operator == ROTATE) {
        double angle = value * (M_PI / 180), turn = sin(angle);
        rows[0] = rows[4] = cos(angle);
        rows[1] = -turn;
        rows[3] = turn;
    }
    for (int i = 0; i < 6; i++) map[i] = (float)rows[i] / ((i < 3 ? s.w : s.h) / 2.0f);
}

// `room`: 3 (w + h) floats.
static void sample(const byte *restrict from, byte *restrict into, Size s, const float *map, float *room) {
    float *x_by_x = room, *y_by_x = x_by_x + s.w, *x_by_y = y_by_x + s.w, *y_by_y = x_by_y + s.h;
    int *source = (int *)(y_by_y + s.h);  // of each pixel of a row; -1: outside
    for (long x = 0; x < s.w; x++) {
        x_by_x[x] = map[0] * (x - (s.w - 1) / 2.0f);
        y_by_x[x] = map[3] * (x - (s.w - 1) / 2.0f);
    }
    for (long y = 0; y < s.h; y++) {
        x_by_y[y] = map[1] * (y - (s.h - 1) / 2.0f);
        y_by_y[y] = map[4] * (y - (s.h - 1) / 2.0f);
    }
    float half_w = s.w / 2.0f, half_h = s.h / 2.0f, top_w = s.w, top_h = s.h;
    for (long y = 0; y < s.h; y++) {
        for (long x = 0; x < s.w; x++) {
            float across = rintf(fmaf(x_by_x[x] + x_by_y[y] + map[2] + 1.0f, half_w, -0.5f));
            float down = rintf(fmaf(y_by_x[x] + y_by_y[y] + map[5] + 1.0f, half_h, -0.5f));
            int inside = (across > -1.0f) & (across < top_w) & (down > -1.0f) & (down < top_h);
            source[x] = inside ? (int)down * (int)s.w + (int)across : -1;
        }
        for (long c = 0; c < s.c; c++) {
            const byte *plane = from + c * s.h * s.w;
            byte *row = into + (c * s.h + y) * s.w;
            for (long x = 0; x < s.w; x++) row[x] = source[x] < 0 ? 0 : plane[source[x]];
        }
    }
}

// --- operators that depend on a pixel's other channels or neighbours -----------------------------------------

static void color(const byte *restrict red, byte *restrict into, Size s, double value) {
    float factor = (float)(1 + value), rest = (float)(1 - (1 + value));
    long area = s.h * s.w;
    const byte *green = red + area, *blue = green + area;
    byte *restrict into_green = into + area, *restrict into_blue = into_green + area;
    for (long i = 0; i < area; i++) {
        int luma = grey(red[i], green[i], blue[i]);
        into[i] = blend(red[i], luma, factor, rest);
        into_green[i] = blend(green[i], luma, factor, rest);
        into_blue[i] = blend(blue[i], luma, factor, rest);
    }
}

static void sharpness(const byte *restrict from, byte *restrict into, Size s, double value) {
    float factor = (float)-value;
    long area = s.h * s.w, w = s.w;
    for (long c = 0; c < s.c; c++, from += area, into += area) {
        for (long i = w + 1; i < area - w - 1; i++) {  // includes the border columns, to keep the loop flat
            int total = from[i - w - 1] + from[i - w] + from[i - w + 1] + from[i - 1] + 5 * from[i] + from[i + 1]
                + from[i + w - 1] + from[i + w] + from[i + w + 1];
            into[i] = cut(fmaf((2 * total + 13) / 26 - from[i], factor, from[i]));
        }
        memcpy(into, from, w);
        memcpy(into + area - w, from + area - w, w);
        for (long y = 1; y < s.h; y++) {
            into[y * w - 1] = from[y * w - 1];
            into[y * w] = from[y * w];
        }
    }
}

// --- operators that map a channel's 256 levels by a lookup table ---------------------------------------------

static void autocontrast(const byte *plane, long area, byte *table) {
    byte low = 255, high = 0;
    for (long i = 0; i < area; i++) {
        low = plane[i] < low ? plane[i] : low;
        high = plane[i] > high ? plane[i] : high;
    }
    float scale = low == high ? 1.0f : (high - low) * (float)(1.0 / 255), base = low == high ? 0.0f : low;
    for (int l = 0; l < 256; l++) table[l] = cut((l - base) / scale);
}

static void equalize(const byte *plane, long area, byte *table) {
    long counts[256] = {0}, last = 255, below = 0;
    for (long i = 0; i < area; i++) counts[plane[i]]++;
    while (last && !counts[last]) last--;
    long step = (area - counts[last]) / 255;
    for (int l = 0; l < 256; l++) {
        table[l] = step ? at_most((below + step / 2) / step, 255) : l;
        below += counts[l];
    }
}

static float mean_grey(const byte *from, Size s) {
    long area = s.h * s.w, total = 0;
    for (long i = 0; i < area; i++)
        total += s.c == 1 ? from[i] : grey(from[i], from[area + i], from[2 * area + i]);
    return (float)total / (float)area;
}

// The lookup table of one plane.
static void levels(int operator, double value, float mean, const byte *plane, long area, byte *table) {
    float factor = (float)(1 + value), rest = (float)(1 - (1 + value)), threshold = (float)(255 * value);
    int kept = operator == POSTERIZE ? 256 - (1 << (8 - (int)value)) : 255;
    if (operator == AUTOCONTRAST) autocontrast(plane, area, table);
    else if (operator == EQUALIZE) equalize(plane, area, table);
    else
        for (int l = 0; l < 256; l++)
            table[l] = operator == BRIGHTNESS ? cut(l * factor)
                : operator == CONTRAST ? blend(l, mean, factor, rest)
                : operator == POSTERIZE ? l & kept
                : operator == SOLARIZE ? (l >= threshold ? 255 - l : l)
                : operator == INVERT ? 255 - l : l;
}

static void by_tables(const byte *restrict from, byte *restrict into, Size s, int operator, double value) {
    byte table[256];
    long area = s.h * s.w;
    float mean = operator == CONTRAST ? mean_grey(from, s) : 0.0f;
    for (long c = 0; c < s.c; c++) {
        const byte *plane = from + c * area;
        levels(operator, value, mean, plane, area, table);
        for (long i = 0; i < area; i++) into[c * area + i] = table[plane[i]];
    }
}

// The arguments of one call.
typedef struct { const byte *images; byte *into; const long *which; const double *values; Size s; float *rooms; } Job;

static void operate(const void *job, long i, int thread) {
    const Job *j = job;
    Size s = j->s;
    long size = s.c * s.h * s.w;
    const byte *from = j->images + i * size;
    byte *to = j->into + i * size;
    int operator = (int)j->which[i];
    if (operator >= SHEAR_X && operator <= ROTATE) {
        float map[6];
        affine(operator, j->values[i], s, map);
        sample(from, to, s, map, j->rooms + thread * 3 * (s.w + s.h));
    }
    else if (operator == COLOR && s.c == 3) color(from, to, s, j->values[i]);
    else if (operator == SHARPNESS && s.h > 2 && s.w > 2) sharpness(from, to, s, j->values[i]);
    else if (operator >= BRIGHTNESS) by_tables(from, to, s, operator, j->values[i]);
    else memcpy(to, from, size);
}

// into [n, c, h, w] of images as large, each under its own operator at its own value (in ops.py's units), c 1 or 3.
// Returns 0, or 1 if out of memory.
int operators(const byte *images, byte *into, const long *which, const double *values, long n, long c, long h, long w,
              int threads) {
    Job j = {images, into, which, values, {c, h, w}, NULL};
    threads = n * c * h * w < ALONE ? 1 : threads;
    j.rooms = malloc(threads * 3 * (w + h) * sizeof(float));
    if (!j.rooms) return 1;
    share(operate, &j, n, threads);
    free(j.rooms);
    return 0;
}
