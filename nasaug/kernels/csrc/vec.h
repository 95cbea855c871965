// The supported vector units: AVX-512, AVX2 with FMA, and NEON on 64-bit ARM. Only this header depends on the unit; the
// other files use Vec, a vector of LANES floats.
//
// Without any of them this folder does not compile, and nasaug/kernels/build.py does not try: generic vectors, which
// the compiler splits into what the processor has, were six times slower than torch.

#pragma once

#include <string.h>

#if defined(__AVX512F__)

#include <immintrin.h>
#define LANES 16
#define ROWS 12  // rows of a product per inner loop: with two vectors of columns, as many sums as fit in registers
#define UNIT "AVX-512"
typedef float Vec __attribute__((vector_size(64)));

static inline Vec load(const float *from, long lanes) {
    return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes) - 1), from);
}
static inline void store(float *into, Vec v, long lanes) {
    _mm512_mask_storeu_ps(into, (__mmask16)((1u << lanes) - 1), (__m512)v);
}
// MIN and MAX return the second operand if either is NaN, so that NaN in z propagates.
static inline Vec clamped(Vec z, Vec low, Vec high) {
    return (Vec)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)z));
}
static inline Vec if_below(Vec z, Vec low, Vec then, Vec v) {
    return (Vec)_mm512_mask_mov_ps((__m512)v, _mm512_cmp_ps_mask((__m512)z, (__m512)low, _CMP_LE_OQ), (__m512)then);
}
static inline Vec if_above(Vec z, Vec high, Vec then, Vec v) {
    return (Vec)_mm512_mask_mov_ps((__m512)v, _mm512_cmp_ps_mask((__m512)z, (__m512)high, _CMP_GE_OQ), (__m512)then);
}

#elif defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>
#define LANES 8
#define ROWS 6
#define UNIT "AVX2"
typedef float Vec __attribute__((vector_size(32)));

static inline __m256i mask_of(long lanes) {
    static const int ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(ones_then_zeros + LANES - lanes));
}
static inline Vec load(const float *from, long lanes) {
    return lanes == LANES ? (Vec)_mm256_loadu_ps(from) : (Vec)_mm256_maskload_ps(from, mask_of(lanes));
}
// In halves: AVX2's masked store takes a dozen cycles on AMD processors.
static inline void store(float *into, Vec v, long lanes) {
    if (lanes == LANES) {
        _mm256_storeu_ps(into, (__m256)v);
        return;
    }
    __m128 rest = _mm256_castps256_ps128((__m256)v);
    if (lanes & 4) {
        _mm_storeu_ps(into, rest);
        rest = _mm256_extractf128_ps((__m256)v, 1);
        into += 4;
    }
    if (lanes & 2) {
        _mm_storel_pi((__m64 *)into, rest);
        rest = _mm_movehl_ps(rest, rest);
        into += 2;
    }
    if (lanes & 1) _mm_store_ss(into, rest);
}
// MIN and MAX return the second operand if either is NaN, so that NaN in z propagates.
static inline Vec clamped(Vec z, Vec low, Vec high) {
    return (Vec)_mm256_min_ps((__m256)high, _mm256_max_ps((__m256)low, (__m256)z));
}
static inline Vec if_below(Vec z, Vec low, Vec then, Vec v) {
    return (Vec)_mm256_blendv_ps((__m256)v, (__m256)then, _mm256_cmp_ps((__m256)z, (__m256)low, _CMP_LE_OQ));
}
static inline Vec if_above(Vec z, Vec high, Vec then, Vec v) {
    return (Vec)_mm256_blendv_ps((__m256)v, (__m256)then, _mm256_cmp_ps((__m256)z, (__m256)high, _CMP_GE_OQ));
}

#elif defined(__aarch64__) && defined(__ARM_NEON)

#include <arm_neon.h>
#define LANES 4
#define ROWS 10  // the most for which gcc keeps all sums in registers
#define UNIT "NEON"
typedef float Vec __attribute__((vector_size(16)));

// Fewer than LANES in halves: element by element, they would go through memory.
static inline Vec load(const float *from, long lanes) {
    if (lanes == LANES) return (Vec)vld1q_f32(from);
    float32x2_t low = vdup_n_f32(0.0f), high = low;
    if (lanes & 2) {
        low = vld1_f32(from);
        if (lanes & 1) high = vld1_lane_f32(from + 2, high, 0);
    } else if (lanes & 1) low = vld1_lane_f32(from, low, 0);
    return (Vec)vcombine_f32(low, high);
}
static inline void store(float *into, Vec v, long lanes) {
    if (lanes == LANES) {
        vst1q_f32(into, (float32x4_t)v);
        return;
    }
    float32x2_t rest = vget_low_f32((float32x4_t)v);
    if (lanes & 2) {
        vst1_f32(into, rest);
        rest = vget_high_f32((float32x4_t)v);
        into += 2;
    }
    if (lanes & 1) vst1_lane_f32(into, rest, 0);
}
// FMAX and FMIN propagate NaN.
static inline Vec clamped(Vec z, Vec low, Vec high) {
    return (Vec)vminq_f32(vmaxq_f32((float32x4_t)z, (float32x4_t)low), (float32x4_t)high);
}
static inline Vec if_below(Vec z, Vec low, Vec then, Vec v) {
    return (Vec)vbslq_f32(vcleq_f32((float32x4_t)z, (float32x4_t)low), (float32x4_t)then, (float32x4_t)v);
}
static inline Vec if_above(Vec z, Vec high, Vec then, Vec v) {
    return (Vec)vbslq_f32(vcgeq_f32((float32x4_t)z, (float32x4_t)high), (float32x4_t)then, (float32x4_t)v);
}

#else
#error "no vector unit that the kernels are written for"
#endif

// load: `lanes` floats, 0 to LANES, and zeros beyond; store: only `lanes` floats. clamped: z limited to [low, high],
// propagating NaN. if_below (if_above): `then` where z <= low (z >= high), else v.
