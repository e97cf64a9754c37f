/* Dot products of stored weights with float32 activations, for every dtype and instruction set.
 *
 * With one row of activations every weight is read once and used once, so a product can go no faster than
 * memory. These loops read each weight row from front to back, widen sixteen bits to float32 in registers,
 * and keep enough sums going to hide the latency of the additions. The activations stay in the first-level
 * cache.
 *
 * Plain C with no header but the compiler's: one library serves every version of Python and of torch. The
 * instruction set is an argument, chosen when the program runs.
 */
#ifndef LOLAMA_DOT_H
#define LOLAMA_DOT_H

#include <stdint.h>
#include <string.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "next_lines.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define UNROLL _Pragma("GCC unroll 16")

/* Below this many multiplications, waking threads takes longer than the work. When other programs hold the
 * cores, waiting for a thread that is not scheduled takes a thousand times longer. */
#define SMALLEST_PARALLEL (1 << 19)

static inline int thread_number(void) {
#if defined(_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static inline int thread_count(void) {
#if defined(_OPENMP)
    return omp_get_num_threads();
#else
    return 1;
#endif
}

/* As many threads as may work. */
static inline int most_threads(void) {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* Threads take contiguous shares of a range. */
static inline void share(int64_t size, int thread, int threads, int64_t *begin, int64_t *end) {
    *begin = size * thread / threads;
    *end = size * (thread + 1) / threads;
}

/* The outputs of a product that a thread takes next: at first its share of seven eighths of them, then a piece
 * of the rest, like whoever else is free. Memory serves one core faster than another, and shares fixed
 * beforehand would leave that one waiting for a tenth of the time; long ones stream better than pieces.
 *
 * `taken` counts the pieces, from zero on, for all threads; `turn` those of this thread. False if none is left.
 * A piece is a multiple of 64 outputs, but for the last. */
static inline int take(int64_t size, int64_t *taken, int64_t turn, int64_t *begin, int64_t *end) {
    const int64_t threads = thread_count(), units = size / 64, fixed = units * 7 / 8;
    if (threads == 1 || units < 4 * threads) {
        share(size, thread_number(), (int)threads, begin, end);
        return turn == 0;
    }
    if (turn == 0) {
        share(fixed, thread_number(), (int)threads, begin, end);
    } else {
        const int64_t piece = (units - fixed + 2 * threads - 1) / (2 * threads);
        *begin = fixed + piece * __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED);
        if (*begin >= units) return 0;
        *end = *begin + piece < units ? *begin + piece : units;
    }
    *begin *= 64;
    *end = *end == units ? size : *end * 64;
    return 1;
}

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, INT8 = 3 };

/* A dot product of k weights with each of `rows` (1 to 4) rows of x, `stride` floats apart. */
typedef void (*dot_function)(const void *weights, const float *x, int64_t stride, int64_t k, float *sums);

/* The dot products of four weight rows, `gap` bytes apart, with one row of x, summed in the same order.
 *
 * Four streams from far apart keep more of memory busy than one: the hardware's prefetchers follow each, and
 * none of them past the end of a page. */
typedef void (*stream_function)(const void *weights, int64_t gap, const float *x, int64_t k, float *sums);

/* ---- any processor -------------------------------------------------------------------------------- */

static float widen_bfloat16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

static float widen_float16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    uint32_t wide;
    float value;
    if (exponent == 31) { /* infinity, NaN */
        wide = sign | 0x7f800000u | fraction << 13;
    } else if (exponent) {
        wide = sign | (exponent + 112) << 23 | fraction << 13;
    } else { /* zero and subnormal: fraction times 2^-24 is exact in float32 */
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    memcpy(&value, &wide, 4);
    return value;
}

static float weight_at(const void *weights, int64_t i, int dtype) {
    if (dtype == BFLOAT16) return widen_bfloat16(((const uint16_t *)weights)[i]);
    if (dtype == FLOAT16) return widen_float16(((const uint16_t *)weights)[i]);
    return ((const float *)weights)[i];
}

#define PORTABLE(NAME, DTYPE, ROWS)                                                                      \
    static void NAME(const void *weights, const float *x, int64_t stride, int64_t k, float *sums) {      \
        for (int r = 0; r < ROWS; r++) sums[r] = 0;                                                      \
        for (int64_t i = 0; i < k; i++) {                                                                \
            float w = weight_at(weights, i, DTYPE);                                                      \
            for (int r = 0; r < ROWS; r++) sums[r] += w * x[r * stride + i];                             \
        }                                                                                                \
    }

#define PORTABLE_STREAMS(NAME, DTYPE)                                                                    \
    static void NAME(const void *weights, int64_t gap, const float *x, int64_t k, float *sums) {         \
        for (int s = 0; s < 4; s++) {                                                                    \
            sums[s] = 0;                                                                                 \
            for (int64_t i = 0; i < k; i++)                                                              \
                sums[s] += weight_at((const char *)weights + s * gap, i, DTYPE) * x[i];                  \
        }                                                                                                \
    }

#define FOUR(MAKE, NAME, ...)                                                                            \
    MAKE(NAME##_1, __VA_ARGS__, 1)                                                                       \
    MAKE(NAME##_2, __VA_ARGS__, 2)                                                                       \
    MAKE(NAME##_3, __VA_ARGS__, 3)                                                                       \
    MAKE(NAME##_4, __VA_ARGS__, 4)
#define TABLE(NAME) {NAME##_1, NAME##_2, NAME##_3, NAME##_4}

FOUR(PORTABLE, portable_float32, FLOAT32)
FOUR(PORTABLE, portable_bfloat16, BFLOAT16)
FOUR(PORTABLE, portable_float16, FLOAT16)

static const dot_function portable[3][4] = {
    TABLE(portable_float32), TABLE(portable_bfloat16), TABLE(portable_float16)};

PORTABLE_STREAMS(portable_streams_float32, FLOAT32)
PORTABLE_STREAMS(portable_streams_bfloat16, BFLOAT16)
PORTABLE_STREAMS(portable_streams_float16, FLOAT16)

static const stream_function portable_streams[3] = {
    portable_streams_float32, portable_streams_bfloat16, portable_streams_float16};

/* ---- vector units --------------------------------------------------------------------------------- */

/* One body for all of them. LANES weights are widened at a time, in UNROLL independent sums a row; what is
 * left at the end goes one by one. */
#define VECTOR(NAME, TARGET, DTYPE, LOAD, VEC, LANES, UNROLL, ZERO, LOADX, FMA, ADD, SUM, SIZE, ROWS)     \
    TARGET static void NAME(const void *weights, const float *x, int64_t stride, int64_t k,              \
                            float *sums) {                                                               \
        const char *w = (const char *)weights;                                                           \
        VEC acc[ROWS][UNROLL];                                                                           \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int u = 0; u < UNROLL; u++) acc[r][u] = ZERO;                                           \
        int64_t i = 0;                                                                                   \
        for (; i + LANES * UNROLL <= k; i += LANES * UNROLL)                                             \
            for (int u = 0; u < UNROLL; u++) {                                                           \
                VEC wide = LOAD(w + (i + u * LANES) * SIZE);                                             \
                for (int r = 0; r < ROWS; r++)                                                           \
                    acc[r][u] = FMA(wide, LOADX(x + r * stride + i + u * LANES), acc[r][u]);             \
            }                                                                                            \
        for (; i + LANES <= k; i += LANES) {                                                             \
            VEC wide = LOAD(w + i * SIZE);                                                               \
            for (int r = 0; r < ROWS; r++)                                                               \
                acc[r][0] = FMA(wide, LOADX(x + r * stride + i), acc[r][0]);                             \
        }                                                                                                \
        for (int r = 0; r < ROWS; r++) {                                                                 \
            for (int u = 1; u < UNROLL; u++) acc[r][0] = ADD(acc[r][0], acc[r][u]);                      \
            sums[r] = SUM(acc[r][0]);                                                                    \
        }                                                                                                \
        for (; i < k; i++)                                                                               \
            for (int r = 0; r < ROWS; r++)                                                               \
                sums[r] += weight_at(weights, i, DTYPE) * x[r * stride + i];                             \
    }

#define VECTOR_STREAMS(NAME, TARGET, DTYPE, LOAD, VEC, LANES, UNROLL, ZERO, LOADX, FMA, ADD, SUM, SIZE, AHEAD) \
    TARGET static void NAME(const void *weights, int64_t gap, const float *x, int64_t k, float *sums) {  \
        const char *w = (const char *)weights;                                                           \
        VEC acc[4][UNROLL];                                                                              \
        for (int s = 0; s < 4; s++)                                                                      \
            for (int u = 0; u < UNROLL; u++) acc[s][u] = ZERO;                                           \
        int64_t i = 0;                                                                                   \
        for (; i + LANES * UNROLL <= k; i += LANES * UNROLL) {                                           \
            if (AHEAD) ask_for_four(w + i * SIZE + AHEAD, gap, LANES * UNROLL * SIZE);                   \
            for (int s = 0; s < 4; s++)                                                                  \
                for (int u = 0; u < UNROLL; u++)                                                         \
                    acc[s][u] = FMA(LOAD(w + s * gap + (i + u * LANES) * SIZE), LOADX(x + i + u * LANES), \
                                    acc[s][u]);                                                          \
        }                                                                                                \
        for (; i + LANES <= k; i += LANES)                                                               \
            for (int s = 0; s < 4; s++)                                                                  \
                acc[s][0] = FMA(LOAD(w + s * gap + i * SIZE), LOADX(x + i), acc[s][0]);                  \
        for (int s = 0; s < 4; s++) {                                                                    \
            for (int u = 1; u < UNROLL; u++) acc[s][0] = ADD(acc[s][0], acc[s][u]);                      \
            sums[s] = SUM(acc[s][0]);                                                                    \
            for (int64_t j = i; j < k; j++) sums[s] += weight_at(w + s * gap, j, DTYPE) * x[j];          \
        }                                                                                                \
    }

#if defined(__x86_64__)

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,fma,f16c")))
#define AVX2 __attribute__((target("avx2,fma,f16c")))

#define LOAD512_FLOAT32(p) _mm512_loadu_ps(p)
#define LOAD512_BFLOAT16(p)                                                                              \
    _mm512_castsi512_ps(                                                                                 \
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))), 16))
#define LOAD512_FLOAT16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))

#define WIDE512(NAME, DTYPE, LOAD, SIZE, ROWS)                                                           \
    VECTOR(NAME, AVX512, DTYPE, LOAD, __m512, 16, 4, _mm512_setzero_ps(), _mm512_loadu_ps,               \
           _mm512_fmadd_ps, _mm512_add_ps, _mm512_reduce_add_ps, SIZE, ROWS)

FOUR(WIDE512, avx512_float32, FLOAT32, LOAD512_FLOAT32, 4)
FOUR(WIDE512, avx512_bfloat16, BFLOAT16, LOAD512_BFLOAT16, 2)
FOUR(WIDE512, avx512_float16, FLOAT16, LOAD512_FLOAT16, 2)

static const dot_function avx512[3][4] = {
    TABLE(avx512_float32), TABLE(avx512_bfloat16), TABLE(avx512_float16)};

#define STREAMS512(NAME, DTYPE, LOAD, SIZE)                                                              \
    VECTOR_STREAMS(NAME, AVX512, DTYPE, LOAD, __m512, 16, 4, _mm512_setzero_ps(), _mm512_loadu_ps,               \
                   _mm512_fmadd_ps, _mm512_add_ps, _mm512_reduce_add_ps, SIZE, AHEAD_AVX512)

STREAMS512(avx512_streams_float32, FLOAT32, LOAD512_FLOAT32, 4)
STREAMS512(avx512_streams_bfloat16, BFLOAT16, LOAD512_BFLOAT16, 2)
STREAMS512(avx512_streams_float16, FLOAT16, LOAD512_FLOAT16, 2)

static const stream_function avx512_streams[3] = {avx512_streams_float32, avx512_streams_bfloat16,
                                                  avx512_streams_float16};

AVX2 static inline float sum256(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* The lanes of four sums, added up. */
AVX2 static inline __m128 four_sums(const __m256 *acc) {
    __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(acc[0], acc[1]), _mm256_hadd_ps(acc[2], acc[3]));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

#define LOAD256_FLOAT32(p) _mm256_loadu_ps((const float *)(p))
#define LOAD256_BFLOAT16(p)                                                                              \
    _mm256_castsi256_ps(                                                                                 \
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p))), 16))
#define LOAD256_FLOAT16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))

#define WIDE256(NAME, DTYPE, LOAD, SIZE, ROWS)                                                           \
    VECTOR(NAME, AVX2, DTYPE, LOAD, __m256, 8, 2, _mm256_setzero_ps(), _mm256_loadu_ps,                  \
           _mm256_fmadd_ps, _mm256_add_ps, sum256, SIZE, ROWS)

FOUR(WIDE256, avx2_float32, FLOAT32, LOAD256_FLOAT32, 4)
FOUR(WIDE256, avx2_bfloat16, BFLOAT16, LOAD256_BFLOAT16, 2)
FOUR(WIDE256, avx2_float16, FLOAT16, LOAD256_FLOAT16, 2)

static const dot_function avx2[3][4] = {
    TABLE(avx2_float32), TABLE(avx2_bfloat16), TABLE(avx2_float16)};

#define STREAMS256(NAME, DTYPE, LOAD, SIZE)                                                              \
    VECTOR_STREAMS(NAME, AVX2, DTYPE, LOAD, __m256, 8, 2, _mm256_setzero_ps(), _mm256_loadu_ps,                   \
                   _mm256_fmadd_ps, _mm256_add_ps, sum256, SIZE, 0)

STREAMS256(avx2_streams_float32, FLOAT32, LOAD256_FLOAT32, 4)
STREAMS256(avx2_streams_bfloat16, BFLOAT16, LOAD256_BFLOAT16, 2)
STREAMS256(avx2_streams_float16, FLOAT16, LOAD256_FLOAT16, 2)

static const stream_function avx2_streams[3] = {avx2_streams_float32, avx2_streams_bfloat16,
                                                  avx2_streams_float16};

#elif defined(__aarch64__)

#define LOADNEON_FLOAT32(p) vld1q_f32((const float *)(p))
#define LOADNEON_BFLOAT16(p) vreinterpretq_f32_u32(vshll_n_u16(vld1_u16((const uint16_t *)(p)), 16))
#define LOADNEON_FLOAT16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(p))))
#define FMANEON(a, b, c) vfmaq_f32(c, a, b)

#define WIDENEON(NAME, DTYPE, LOAD, SIZE, ROWS)                                                          \
    VECTOR(NAME, , DTYPE, LOAD, float32x4_t, 4, 4, vdupq_n_f32(0), vld1q_f32, FMANEON, vaddq_f32,        \
           vaddvq_f32, SIZE, ROWS)

FOUR(WIDENEON, neon_float32, FLOAT32, LOADNEON_FLOAT32, 4)
FOUR(WIDENEON, neon_bfloat16, BFLOAT16, LOADNEON_BFLOAT16, 2)
FOUR(WIDENEON, neon_float16, FLOAT16, LOADNEON_FLOAT16, 2)

static const dot_function neon[3][4] = {
    TABLE(neon_float32), TABLE(neon_bfloat16), TABLE(neon_float16)};

#define STREAMSNEON(NAME, DTYPE, LOAD, SIZE)                                                              \
    VECTOR_STREAMS(NAME, , DTYPE, LOAD, float32x4_t, 4, 4, vdupq_n_f32(0), vld1q_f32, FMANEON, vaddq_f32,         \
                   vaddvq_f32, SIZE, 0)

STREAMSNEON(neon_streams_float32, FLOAT32, LOADNEON_FLOAT32, 4)
STREAMSNEON(neon_streams_bfloat16, BFLOAT16, LOADNEON_BFLOAT16, 2)
STREAMSNEON(neon_streams_float16, FLOAT16, LOADNEON_FLOAT16, 2)

static const stream_function neon_streams[3] = {neon_streams_float32, neon_streams_bfloat16,
                                                  neon_streams_float16};

#endif

/* ---- choosing, and the product -------------------------------------------------------------------- */

enum { PORTABLE_ISA = 0, AVX2_ISA = 1, AVX512_ISA = 2, NEON_ISA = 3 };

/* The best instruction set of this processor. */
static inline int best_isa(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return AVX512_ISA;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return AVX2_ISA;
    return PORTABLE_ISA;
#elif defined(__aarch64__)
    return NEON_ISA;
#else
    return PORTABLE_ISA;
#endif
}

static inline const dot_function *functions_for(int isa, int dtype) {
#if defined(__x86_64__)
    if (isa == AVX512_ISA) return avx512[dtype];
    if (isa == AVX2_ISA) return avx2[dtype];
#elif defined(__aarch64__)
    if (isa == NEON_ISA) return neon[dtype];
#endif
    return portable[dtype];
}

static inline stream_function streams_for(int isa, int dtype) {
#if defined(__x86_64__)
    if (isa == AVX512_ISA) return avx512_streams[dtype];
    if (isa == AVX2_ISA) return avx2_streams[dtype];
#elif defined(__aarch64__)
    if (isa == NEON_ISA) return neon_streams[dtype];
#endif
    return portable_streams[dtype];
}

static inline int64_t item_bytes(int dtype) { return dtype == FLOAT32 ? 4 : 2; }

/* Outputs `begin` to `end` of x (rows, k) times weight (n, k): y[r][j] = or, with `add`, += x[r] w[j] + b[j].
 * The rows of y are `y_stride` floats apart. */
static inline void product(int isa, int dtype, const void *weight, const float *bias, const float *x,
                           int64_t rows, int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride,
                           int add) {
    const dot_function *dots = functions_for(isa, dtype);
    const stream_function streams = streams_for(isa, dtype);
    const int64_t row_bytes = k * item_bytes(dtype);
    float sums[4];
    if (rows == 1) {
        int64_t quarter = (end - begin) / 4;
        for (int64_t j = begin; j < begin + quarter; j++) {
            streams((const char *)weight + j * row_bytes, quarter * row_bytes, x, k, sums);
            for (int64_t s = 0, i = j; s < 4; s++, i += quarter)
                y[i] = sums[s] + (bias ? bias[i] : 0) + (add ? y[i] : 0);
        }
        begin += 4 * quarter;
    }
    for (int64_t j = begin; j < end; j++)
        /* The second four rows find the weights in the first-level cache. */
        for (int64_t first = 0; first < rows; first += 4) {
            int64_t count = rows - first < 4 ? rows - first : 4;
            dots[count - 1]((const char *)weight + j * row_bytes, x + first * k, k, k, sums);
            for (int64_t r = 0; r < count; r++) {
                float *target = y + (first + r) * y_stride + j;
                *target = sums[r] + (bias ? bias[j] : 0) + (add ? *target : 0);
            }
        }
}

#endif
