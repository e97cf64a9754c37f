/* Dot products of queries with stored keys, for every dtype and instruction set: what attention begins with.
 *
 * A key is short, so adding up the lanes of its product would take longer than the product. Four keys at a
 * time share that work. */
#ifndef LOLAMA_SCORES_H
#define LOLAMA_SCORES_H

#include "dot.h"

/* scores[r][t] = scale * queries[r] . keys[t], for `rows` (1 to 4) rows and four keys.
 *
 * keys (4, width) stored; queries (rows, width) float32, contiguous; scores float32, `stride` floats apart. */
typedef void (*score_function)(const void *keys, int64_t width, const float *queries, float scale,
                               float *scores, int64_t stride);

#define SCALAR_SCORES(DTYPE, ROWS, i)                                                                    \
    for (int r = 0; r < ROWS; r++)                                                                       \
        for (int t = 0; t < 4; t++)                                                                      \
            for (int64_t c = i; c < width; c++)                                                          \
                scores[r * stride + t] += scale * queries[r * width + c] * weight_at(keys, t * width + c, DTYPE);

#define PORTABLE_SCORES(NAME, DTYPE, ROWS)                                                               \
    static void NAME(const void *keys, int64_t width, const float *queries, float scale, float *scores,  \
                     int64_t stride) {                                                                   \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int t = 0; t < 4; t++) scores[r * stride + t] = 0;                                      \
        SCALAR_SCORES(DTYPE, ROWS, 0)                                                                    \
    }

FOUR(PORTABLE_SCORES, portable_scores_float32, FLOAT32)
FOUR(PORTABLE_SCORES, portable_scores_bfloat16, BFLOAT16)
FOUR(PORTABLE_SCORES, portable_scores_float16, FLOAT16)

static const score_function portable_scores[3][4] = {
    TABLE(portable_scores_float32), TABLE(portable_scores_bfloat16), TABLE(portable_scores_float16)};

/* STORE adds up the lanes of four sums, and stores these multiplied by `scale`. */
#define VECTOR_SCORES(NAME, TARGET, DTYPE, LOAD, VEC, LANES, ZERO, LOADX, FMA, STORE, SIZE, ROWS)        \
    TARGET static void NAME(const void *keys, int64_t width, const float *queries, float scale,          \
                            float *scores, int64_t stride) {                                             \
        VEC acc[ROWS][4];                                                                                \
        int64_t i = 0;                                                                                   \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int t = 0; t < 4; t++) acc[r][t] = ZERO;                                                \
        for (; i + LANES <= width; i += LANES)                                                           \
            for (int t = 0; t < 4; t++) {                                                                \
                VEC wide = LOAD((const char *)keys + (t * width + i) * SIZE);                            \
                for (int r = 0; r < ROWS; r++)                                                           \
                    acc[r][t] = FMA(wide, LOADX(queries + r * width + i), acc[r][t]);                    \
            }                                                                                            \
        for (int r = 0; r < ROWS; r++) STORE(scores + r * stride, acc[r], scale);                        \
        if (i < width) SCALAR_SCORES(DTYPE, ROWS, i)                                                     \
    }

#if defined(__x86_64__)

AVX512 static inline void store_512(float *to, const __m512 *acc, float scale) {
    __m256 halves[4];
    for (int t = 0; t < 4; t++) {
        __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(acc[t]), 1));
        halves[t] = _mm256_add_ps(_mm512_castps512_ps256(acc[t]), upper);
    }
    _mm_storeu_ps(to, _mm_mul_ps(four_sums(halves), _mm_set1_ps(scale)));
}

#define SCORES512(NAME, DTYPE, LOAD, SIZE, ROWS)                                                         \
    VECTOR_SCORES(NAME, AVX512, DTYPE, LOAD, __m512, 16, _mm512_setzero_ps(), _mm512_loadu_ps,           \
                  _mm512_fmadd_ps, store_512, SIZE, ROWS)

FOUR(SCORES512, avx512_scores_float32, FLOAT32, LOAD512_FLOAT32, 4)
FOUR(SCORES512, avx512_scores_bfloat16, BFLOAT16, LOAD512_BFLOAT16, 2)
FOUR(SCORES512, avx512_scores_float16, FLOAT16, LOAD512_FLOAT16, 2)

static const score_function avx512_scores[3][4] = {
    TABLE(avx512_scores_float32), TABLE(avx512_scores_bfloat16), TABLE(avx512_scores_float16)};

AVX2 static inline void store_256(float *to, const __m256 *acc, float scale) {
    _mm_storeu_ps(to, _mm_mul_ps(four_sums(acc), _mm_set1_ps(scale)));
}

#define SCORES256(NAME, DTYPE, LOAD, SIZE, ROWS)                                                         \
    VECTOR_SCORES(NAME, AVX2, DTYPE, LOAD, __m256, 8, _mm256_setzero_ps(), _mm256_loadu_ps,              \
                  _mm256_fmadd_ps, store_256, SIZE, ROWS)

FOUR(SCORES256, avx2_scores_float32, FLOAT32, LOAD256_FLOAT32, 4)
FOUR(SCORES256, avx2_scores_bfloat16, BFLOAT16, LOAD256_BFLOAT16, 2)
FOUR(SCORES256, avx2_scores_float16, FLOAT16, LOAD256_FLOAT16, 2)

static const score_function avx2_scores[3][4] = {
    TABLE(avx2_scores_float32), TABLE(avx2_scores_bfloat16), TABLE(avx2_scores_float16)};

#elif defined(__aarch64__)

static inline void store_neon(float *to, const float32x4_t *acc, float scale) {
    float32x4_t sums = vpaddq_f32(vpaddq_f32(acc[0], acc[1]), vpaddq_f32(acc[2], acc[3]));
    vst1q_f32(to, vmulq_n_f32(sums, scale));
}

#define SCORESNEON(NAME, DTYPE, LOAD, SIZE, ROWS)                                                        \
    VECTOR_SCORES(NAME, , DTYPE, LOAD, float32x4_t, 4, vdupq_n_f32(0), vld1q_f32, FMANEON, store_neon,   \
                  SIZE, ROWS)

FOUR(SCORESNEON, neon_scores_float32, FLOAT32, LOADNEON_FLOAT32, 4)
FOUR(SCORESNEON, neon_scores_bfloat16, BFLOAT16, LOADNEON_BFLOAT16, 2)
FOUR(SCORESNEON, neon_scores_float16, FLOAT16, LOADNEON_FLOAT16, 2)

static const score_function neon_scores[3][4] = {
    TABLE(neon_scores_float32), TABLE(neon_scores_bfloat16), TABLE(neon_scores_float16)};

#endif

static inline const score_function *scores_for(int isa, int dtype) {
#if defined(__x86_64__)
    if (isa == AVX512_ISA) return avx512_scores[dtype];
    if (isa == AVX2_ISA) return avx2_scores[dtype];
#elif defined(__aarch64__)
    if (isa == NEON_ISA) return neon_scores[dtype];
#endif
    return portable_scores[dtype];
}

#endif
