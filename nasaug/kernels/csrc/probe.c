// Called by build.py to check a library before using it.

#include "product.h"

// The vector unit that it was compiled for.
const char *unit(void) { return UNIT; }

// Returns 0 if it runs on this processor and is correct: a product of ROWS + 1 rows with a partial last vector.
int probe(void) {
    enum { M = ROWS + 1, K = 3, N = PANEL + 1 };
    float a[M * K], b[K * N], c[M * N];
    Vec packed[2 * 2 * K];
    for (int i = 0; i < M * K; i++) a[i] = i;
    for (int i = 0; i < K * N; i++) b[i] = i % 7;
    for (long p = 0; p < panels(N); p++) pack(packed, b, K, N, N, 1, p);
    product(a, packed, c, M, K, N);
    for (int r = 0; r < M; r++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int k = 0; k < K; k++) sum += a[r * K + k] * b[k * N + j];
            if (sum != c[r * N + j]) return 1;
        }
    return 0;
}
