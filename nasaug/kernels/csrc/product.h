// Matrix products with many rows and few columns, as in 1x1 convolutions of tiny networks.

#pragma once

#include "common.h"

#define PANEL (2 * LANES)   // columns that the inner loop takes at once

static inline long panels(long n) { return (n + PANEL - 1) / PANEL; }

// Panel p of b [k, n], element (i, j) at b[i * row + j * column]: PANEL columns, [k][PANEL], zeros beyond n.
static inline void pack(Vec *packed, const float *b, long k, long n, long row, long column, long p) {
    Vec *into = packed + p * k * 2;
    long from = p * PANEL, columns = at_most(PANEL, n - from);
    if (column == 1) {
        for (long i = 0; i < k; i++)
            for (long half = 0; half < 2; half++) {
                long count = at_least(at_most(LANES, columns - half * LANES), 0);
                into[i * 2 + half] = load(b + i * row + from + (count ? half * LANES : 0), count);
            }
        return;
    }
    if (columns < PANEL) memset(into, 0, k * 2 * sizeof(Vec));
    for (long j = 0; j < columns; j++)
        for (long i = 0; i < k; i++) ((float *)into)[i * PANEL + j] = b[i * row + (from + j) * column];
}

// c [rows, vectors of columns] (+)= a b over k; element (r, i) of a at a[r * a_row + i * a_k], row i of b at
// b + i * b_k. The last vector has `lanes` columns; `whole` says that b's rows can be read beyond them.
static inline __attribute__((always_inline)) void micro(
    const float *a, long a_row, long a_k, const float *b, long b_k, int whole, long k, float *c, long c_row,
    long lanes, int add, const int rows, const int wide) {
    Vec sum[ROWS][2];
    #pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        #pragma GCC unroll 2
        for (int v = 0; v < wide; v++) sum[r][v] = (Vec){0};
    for (long i = 0; i < k; i++) {
        const float *row = b + i * b_k;
        Vec first, second = {0};
        if (wide == 2) {
            memcpy(&first, row, sizeof first);
            if (whole) memcpy(&second, row + LANES, sizeof second);
            else second = load(row + LANES, lanes);
        } else if (whole) memcpy(&first, row, sizeof first);
        else first = load(row, lanes);
        #pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            float x = a[r * a_row + i * a_k];
            sum[r][0] += x * first;
            if (wide == 2) sum[r][1] += x * second;
        }
    }
    #pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        #pragma GCC unroll 2
        for (int v = 0; v < wide; v++) {
            float *into = c + r * c_row + v * LANES;
            long here = v == wide - 1 ? lanes : LANES;
            store(into, add ? load(into, here) + sum[r][v] : sum[r][v], here);
        }
}

// The same for at most ROWS rows and PANEL columns, not known at compile time.
static inline __attribute__((always_inline)) void strip(
    const float *a, long a_row, long a_k, const float *b, long b_k, const int whole, long k, float *c, long c_row,
    long columns, int add, long rows) {
    const int wide = columns > LANES ? 2 : 1;
    long lanes = columns > LANES ? columns - LANES : columns;
    #define MICRO(R) \
        (wide == 2 ? micro(a, a_row, a_k, b, b_k, whole, k, c, c_row, lanes, add, R, 2) \
                   : micro(a, a_row, a_k, b, b_k, whole, k, c, c_row, lanes, add, R, 1))
    #define SOME(R) if (R < ROWS && rows >= R) { MICRO(R); a += R * a_row; c += R * c_row; rows -= R; }
    if (rows == ROWS) MICRO(ROWS);
    else { SOME(8) SOME(4) SOME(2) SOME(1) }
}

// c [rows, n] = a [rows, k] times packed panels; rows of a and c are k and n long.
static void product(const float *a, const Vec *panels, float *c, long rows, long k, long n) {
    for (long r = 0; r < rows; r += ROWS)
        for (long j = 0; j < n; j += PANEL)
            strip(a + r * k, k, 1, (const float *)panels + j * k, PANEL, 1, k, c + r * n + j, n,
                  at_most(PANEL, n - j), 0, at_most(ROWS, rows - r));
}

// c [m, n] (+)= a^T b with a [rows, m] and b [rows, n].
static __attribute__((unused)) void outer(const float *a, const float *b, float *c, long rows, long m, long n, int add) {
    for (long i = 0; i < m; i += ROWS)
        for (long j = 0; j < n; j += PANEL) {
            long columns = at_most(PANEL, n - j), here = at_most(ROWS, m - i);
            float *into = c + i * n + j;
            if (columns == PANEL) strip(a + i, 1, m, b + j, n, 1, rows, into, n, PANEL, add, here);
            else strip(a + i, 1, m, b + j, n, 0, rows, into, n, columns, add, here);
        }
}
