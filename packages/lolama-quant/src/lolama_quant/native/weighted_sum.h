/* Weighted sums of stored vectors, for every dtype and instruction set: what attention does with values. */
#ifndef LOLAMA_WEIGHTED_SUM_H
#define LOLAMA_WEIGHTED_SUM_H

#include "dot.h"

/* out[r] += sum over t of weights[r][t] * vectors[t], for `rows` (1 to 4) rows.
 *
 * vectors (count, width) stored; weights (rows, count) float32, `stride` floats apart; out (rows, width)
 * float32, contiguous. */
typedef void (*sum_function)(const void *vectors, int64_t count, int64_t width, const float *weights,
                             int64_t stride, float *out);

#define SCALAR_COLUMN(DTYPE, ROWS, c)                                                                    \
    for (int r = 0; r < ROWS; r++) {                                                                     \
        float sum = out[r * width + c];                                                                  \
        for (int64_t t = 0; t < count; t++)                                                              \
            sum += weights[r * stride + t] * weight_at(vectors, t * width + c, DTYPE);                   \
        out[r * width + c] = sum;                                                                        \
    }

#define PORTABLE_SUM(NAME, DTYPE, ROWS)                                                                  \
    static void NAME(const void *vectors, int64_t count, int64_t width, const float *weights,            \
                     int64_t stride, float *out) {                                                       \
        for (int64_t c = 0; c < width; c++) SCALAR_COLUMN(DTYPE, ROWS, c)                                \
    }

FOUR(PORTABLE_SUM, portable_sum_float32, FLOAT32)
FOUR(PORTABLE_SUM, portable_sum_bfloat16, BFLOAT16)
FOUR(PORTABLE_SUM, portable_sum_float16, FLOAT16)

static const sum_function portable_sums[3][4] = {
    TABLE(portable_sum_float32), TABLE(portable_sum_bfloat16), TABLE(portable_sum_float16)};

/* CHUNK vectors of LANES columns at once stay in registers while all stored vectors pass by. */
#define COLUMNS(VEC, LANES, CHUNK, LOAD, LOADX, STORE, SET1, FMA, SIZE, ROWS)                            \
    for (; c + LANES * CHUNK <= width; c += LANES * CHUNK) {                                             \
        VEC acc[ROWS][CHUNK];                                                                            \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int u = 0; u < CHUNK; u++) acc[r][u] = LOADX(out + r * width + c + u * LANES);          \
        for (int64_t t = 0; t < count; t++)                                                              \
            for (int u = 0; u < CHUNK; u++) {                                                            \
                VEC wide = LOAD((const char *)vectors + (t * width + c + u * LANES) * SIZE);             \
                for (int r = 0; r < ROWS; r++)                                                           \
                    acc[r][u] = FMA(wide, SET1(weights[r * stride + t]), acc[r][u]);                     \
            }                                                                                            \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int u = 0; u < CHUNK; u++) STORE(out + r * width + c + u * LANES, acc[r][u]);           \
    }

#define VECTOR_SUM(NAME, TARGET, DTYPE, LOAD, VEC, LANES, CHUNK, LOADX, STORE, SET1, FMA, SIZE, ROWS)    \
    TARGET static void NAME(const void *vectors, int64_t count, int64_t width, const float *weights,     \
                            int64_t stride, float *out) {                                                \
        int64_t c = 0;                                                                                   \
        COLUMNS(VEC, LANES, CHUNK, LOAD, LOADX, STORE, SET1, FMA, SIZE, ROWS)                            \
        COLUMNS(VEC, LANES, 1, LOAD, LOADX, STORE, SET1, FMA, SIZE, ROWS)                                \
        for (; c < width; c++) SCALAR_COLUMN(DTYPE, ROWS, c)                                             \
    }

#if defined(__x86_64__)

#define SUM512(NAME, DTYPE, LOAD, SIZE, ROWS)                                                            \
    VECTOR_SUM(NAME, AVX512, DTYPE, LOAD, __m512, 16, 4, _mm512_loadu_ps, _mm512_storeu_ps,              \
               _mm512_set1_ps, _mm512_fmadd_ps, SIZE, ROWS)

FOUR(SUM512, avx512_sum_float32, FLOAT32, LOAD512_FLOAT32, 4)
FOUR(SUM512, avx512_sum_bfloat16, BFLOAT16, LOAD512_BFLOAT16, 2)
FOUR(SUM512, avx512_sum_float16, FLOAT16, LOAD512_FLOAT16, 2)

static const sum_function avx512_sums[3][4] = {
    TABLE(avx512_sum_float32), TABLE(avx512_sum_bfloat16), TABLE(avx512_sum_float16)};

/* Half as many registers as the others have. */
#define SUM256(NAME, DTYPE, LOAD, SIZE, ROWS)                                                            \
    VECTOR_SUM(NAME, AVX2, DTYPE, LOAD, __m256, 8, (ROWS > 2 ? 2 : 4), _mm256_loadu_ps,                  \
               _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps, SIZE, ROWS)

FOUR(SUM256, avx2_sum_float32, FLOAT32, LOAD256_FLOAT32, 4)
FOUR(SUM256, avx2_sum_bfloat16, BFLOAT16, LOAD256_BFLOAT16, 2)
FOUR(SUM256, avx2_sum_float16, FLOAT16, LOAD256_FLOAT16, 2)

static const sum_function avx2_sums[3][4] = {
    TABLE(avx2_sum_float32), TABLE(avx2_sum_bfloat16), TABLE(avx2_sum_float16)};

#elif defined(__aarch64__)

#define SUMNEON(NAME, DTYPE, LOAD, SIZE, ROWS)                                                           \
    VECTOR_SUM(NAME, , DTYPE, LOAD, float32x4_t, 4, 4, vld1q_f32, vst1q_f32, vdupq_n_f32, FMANEON, SIZE, ROWS)

FOUR(SUMNEON, neon_sum_float32, FLOAT32, LOADNEON_FLOAT32, 4)
FOUR(SUMNEON, neon_sum_bfloat16, BFLOAT16, LOADNEON_BFLOAT16, 2)
FOUR(SUMNEON, neon_sum_float16, FLOAT16, LOADNEON_FLOAT16, 2)

static const sum_function neon_sums[3][4] = {
    TABLE(neon_sum_float32), TABLE(neon_sum_bfloat16), TABLE(neon_sum_float16)};

#endif

static inline const sum_function *sums_for(int isa, int dtype) {
#if defined(__x86_64__)
    if (isa == AVX512_ISA) return avx512_sums[dtype];
    if (isa == AVX2_ISA) return avx2_sums[dtype];
#elif defined(__aarch64__)
    if (isa == NEON_ISA) return neon_sums[dtype];
#endif
    return portable_sums[dtype];
}

#endif
