/* Sums of products of four weight rows with some rows of x, by AVX2 and AVX-512.
 *
 * A sum runs along the inputs, in as many lanes as a vector has. So that of a row does not depend on the rows beside
 * it. */
#ifndef LOLAMA_ROW_SUMS_H
#define LOLAMA_ROW_SUMS_H

#include "dot.h"

#if defined(__x86_64__)
/* Inputs and weight rows of a panel, rows of a block of x, and how many of them pass by together: sums for these and
 * four weights fill the registers. Rows are a little further apart than there are inputs: at multiples of 2048 bytes
 * they would compete for the same places of the caches. */
#define DEPTH_AVX2 512
#define OUTPUTS_AVX2 8
#define ROWS_AVX2 144
#define APART_AVX2 (DEPTH_AVX2 + 16)
#define TOGETHER_AVX2 3
#define DEPTH_AVX512 1024
#define OUTPUTS_AVX512 4
#define ROWS_AVX512 192
#define APART_AVX512 (DEPTH_AVX512 + 16)
#define TOGETHER_AVX512 6
#define PANEL_OUTPUTS OUTPUTS_AVX2
#define PANEL_ITEMS ((OUTPUTS_AVX512 + ROWS_AVX512) * APART_AVX512)

/* The products of four weight rows, `gap` items apart, with some rows of x, `stride` apart: sums[row], over `depth`
 * inputs. */
typedef void (*sums_function)(const void *weights, int64_t gap, const void *x, int64_t stride, int64_t depth,
                              __m128 *sums);

#define ROW_SUMS_STEP(W, GAP, X, STRIDE, LOADW, LOADX, MULTIPLY, VEC, ROWS)                              \
    UNROLL for (int s = 0; s < 4; s++) {                                                                 \
        VEC weight = LOADW((W) + s * (GAP));                                                             \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            acc[r][s] = MULTIPLY(acc[r][s], weight, LOADX((X) + r * (STRIDE)));                          \
    }

/* One body for all of them; ROWS rows at a time. In a panel, rows are all APART items apart, and whole vectors long;
 * elsewhere APART is 0, and zeros stand for what a last vector lacks. */
#define ROW_SUMS(NAME, TARGET, WEIGHT, ITEM, VEC, LANES, ZERO, LOADW, LOADX, MULTIPLY, SUM, APART, ROWS) \
    TARGET static void NAME(const void *weights, int64_t gap, const void *rows, int64_t stride,          \
                            int64_t depth, __m128 *sums) {                                               \
        const WEIGHT *w = (const WEIGHT *)weights;                                                       \
        const ITEM *x = (const ITEM *)rows;                                                              \
        VEC acc[ROWS][4];                                                                                \
        int64_t i = 0;                                                                                   \
        if (APART) gap = stride = APART;                                                                 \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int s = 0; s < 4; s++) acc[r][s] = ZERO;                                         \
        _Pragma("GCC unroll 2") for (; i + LANES <= depth; i += LANES)                                   \
            ROW_SUMS_STEP(w + i, gap, x + i, stride, LOADW, LOADX, MULTIPLY, VEC, ROWS)                  \
        if (!APART && i < depth) {                                                                       \
            WEIGHT last[4][LANES] = {{0}};                                                               \
            ITEM last_x[ROWS][LANES] = {{0}};                                                            \
            const size_t left = (size_t)(depth - i);                                                     \
            for (int s = 0; s < 4; s++) memcpy(last[s], w + s * gap + i, left * sizeof *w);              \
            for (int r = 0; r < ROWS; r++) memcpy(last_x[r], x + r * stride + i, left * sizeof *x);      \
            ROW_SUMS_STEP(last[0], LANES, last_x[0], LANES, LOADW, LOADX, MULTIPLY, VEC, ROWS)           \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++) sums[r] = SUM(acc[r]);                                     \
    }

AVX2 static inline __m128 four_integer_sums(const __m256i *acc) {
    __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(acc[0], acc[1]), _mm256_hadd_epi32(acc[2], acc[3]));
    return _mm_cvtepi32_ps(_mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
}

/* The lanes of four sums, added up. */
AVX512 static inline __m128 four_wide_sums(const __m512 *acc) {
    __m256 halves[4];
    for (int t = 0; t < 4; t++) {
        __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(acc[t]), 1));
        halves[t] = _mm256_add_ps(_mm512_castps512_ps256(acc[t]), upper);
    }
    return four_sums(halves);
}

#define MULTIPLY_FLOATS(sum, w, x) _mm256_fmadd_ps(w, x, sum)
#define MULTIPLY_WIDE(sum, w, x) _mm512_fmadd_ps(w, x, sum)
#define FLOAT_SUMS(NAME, WEIGHT, LOAD, APART, ROWS)                                                      \
    ROW_SUMS(NAME, AVX2, WEIGHT, float, __m256, 8, _mm256_setzero_ps(), LOAD, _mm256_loadu_ps,           \
             MULTIPLY_FLOATS, four_sums, APART, ROWS)
#define WIDE_SUMS(NAME, WEIGHT, LOAD, APART, ROWS)                                                       \
    ROW_SUMS(NAME, AVX512, WEIGHT, float, __m512, 16, _mm512_setzero_ps(), LOAD, _mm512_loadu_ps,        \
             MULTIPLY_WIDE, four_wide_sums, APART, ROWS)
#define THREE(MAKE, NAME, ...)                                                                           \
    MAKE(NAME##_1, __VA_ARGS__, 1)                                                                       \
    MAKE(NAME##_2, __VA_ARGS__, 2)                                                                       \
    MAKE(NAME##_3, __VA_ARGS__, 3)
#define TABLE3(NAME) {NULL, NAME##_1, NAME##_2, NAME##_3}
#define TABLE4(NAME) {NULL, NAME##_1, NAME##_2, NAME##_3, NAME##_4}

THREE(FLOAT_SUMS, avx2_sums_float32, float, LOAD256_FLOAT32, 0)
THREE(FLOAT_SUMS, avx2_sums_bfloat16, uint16_t, LOAD256_BFLOAT16, 0)
THREE(FLOAT_SUMS, avx2_sums_float16, uint16_t, LOAD256_FLOAT16, 0)
THREE(FLOAT_SUMS, avx2_sums_panel, float, LOAD256_FLOAT32, APART_AVX2)
FOUR(WIDE_SUMS, avx512_sums_float32, float, LOAD512_FLOAT32, 0)
FOUR(WIDE_SUMS, avx512_sums_bfloat16, uint16_t, LOAD512_BFLOAT16, 0)
FOUR(WIDE_SUMS, avx512_sums_float16, uint16_t, LOAD512_FLOAT16, 0)
FOUR(WIDE_SUMS, avx512_sums_panel, float, LOAD512_FLOAT32, APART_AVX512)
WIDE_SUMS(avx512_sums_panel_5, float, LOAD512_FLOAT32, APART_AVX512, 5)
WIDE_SUMS(avx512_sums_panel_6, float, LOAD512_FLOAT32, APART_AVX512, 6)

#define LOAD_BYTES(p) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p)))
#define LOAD_INTEGERS(p) _mm256_loadu_si256((const __m256i *)(p))
/* The sum is written out: gcc takes the products' register for it, and then moves it to where it belongs. An
   emulation without such registers defines its own. */
#ifndef ADD_IN_PLACE
#define ADD_IN_PLACE(sum, products) __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products))
#define ADD_PAIRS_IN_PLACE(sum, products) __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products))
#endif
AVX2 static inline __m256i add_products(__m256i sum, __m256i w, __m256i x) {
    __m256i products = _mm256_madd_epi16(w, x);
    ADD_IN_PLACE(sum, products);
    return sum;
}

#define INTEGER_SUMS(NAME, WEIGHT, LOAD, APART, ROWS)                                                    \
    ROW_SUMS(NAME, AVX2, WEIGHT, int16_t, __m256i, 16, _mm256_setzero_si256(), LOAD, LOAD_INTEGERS,      \
             add_products, four_integer_sums, APART, ROWS)
THREE(INTEGER_SUMS, avx2_sums_bytes, int8_t, LOAD_BYTES, 0)
THREE(INTEGER_SUMS, avx2_sums_integers, int16_t, LOAD_INTEGERS, APART_AVX2)

/* The sums of a kind of weights: `stored` ones, and those that were brought into a panel, each from one row on. */
typedef struct {
    sums_function stored[5], brought[7];
    int64_t together, outputs, rows, depth, apart;
    int lanes;
} Sums;

#define AVX2_SIZES TOGETHER_AVX2, OUTPUTS_AVX2, ROWS_AVX2, DEPTH_AVX2, APART_AVX2
#define AVX512_SIZES TOGETHER_AVX512, OUTPUTS_AVX512, ROWS_AVX512, DEPTH_AVX512, APART_AVX512
static inline const Sums *panel_sums(int isa, int dtype) {
    static const Sums avx2_floats[] = {
        {TABLE3(avx2_sums_float32), TABLE3(avx2_sums_panel), AVX2_SIZES, 8},
        {TABLE3(avx2_sums_bfloat16), TABLE3(avx2_sums_panel), AVX2_SIZES, 8},
        {TABLE3(avx2_sums_float16), TABLE3(avx2_sums_panel), AVX2_SIZES, 8},
    };
#define WIDE_TABLE                                                                                       \
    {NULL, avx512_sums_panel_1, avx512_sums_panel_2, avx512_sums_panel_3, avx512_sums_panel_4,           \
     avx512_sums_panel_5, avx512_sums_panel_6}
    static const Sums avx512_floats[] = {
        {TABLE4(avx512_sums_float32), WIDE_TABLE, AVX512_SIZES, 16},
        {TABLE4(avx512_sums_bfloat16), WIDE_TABLE, AVX512_SIZES, 16},
        {TABLE4(avx512_sums_float16), WIDE_TABLE, AVX512_SIZES, 16},
    };
    static const Sums bytes = {TABLE3(avx2_sums_bytes), TABLE3(avx2_sums_integers), AVX2_SIZES, 16};
    return dtype == INT8 ? &bytes : (isa == AVX512_ISA ? avx512_floats : avx2_floats) + dtype;
}

#endif

#endif
