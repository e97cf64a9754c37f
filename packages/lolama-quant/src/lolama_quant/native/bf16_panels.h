/* Products of many rows of bfloat16 activations with bfloat16 weights (AVX512_BF16): see wide_panels.h. */
#ifndef LOLAMA_BF16_PANELS_H
#define LOLAMA_BF16_PANELS_H

#include "wide_panels.h"

#if defined(__x86_64__) && (!defined(__clang__) || __clang_major__ >= 9)
#define HAS_TILES 1

#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

static inline int has_tiles(void) {
    __builtin_cpu_init();
    return best_isa() == AVX512_ISA && __builtin_cpu_supports("avx512bf16");
}

/* float32 to bfloat16, to nearest, ties to even. */
BF16 static inline void narrow(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 some = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        __m256i pairs = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x + i));
        _mm256_mask_storeu_epi16(y + i, some, pairs);
    }
}

/* From this many rows on, bringing the weights into another order pays. */
#define WIDE_LEAST 48

/* `bytes` of inputs of ROWS rows of x, `stride` apart, times the panel's weights, added to sums. */
#define PAIR_SUMS(NAME, ROWS)                                                                            \
    BF16 static void NAME(const uint8_t *w, const uint16_t *x, int64_t stride, int64_t bytes,            \
                          float (*sums)[WIDE_OUTPUTS]) {                                                 \
        __m512 acc[ROWS][4];                                                                             \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int v = 0; v < 4; v++) acc[r][v] = _mm512_load_ps(sums[r] + 16 * v);             \
        for (int64_t i = 0; i < bytes; i += 4) {                                                         \
            __m512i weights[4];                                                                          \
            UNROLL for (int v = 0; v < 4; v++)                                                           \
                weights[v] = _mm512_load_si512(w + i * WIDE_OUTPUTS + 64 * v);                           \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                int32_t two;                                                                             \
                memcpy(&two, x + r * stride + i / 2, 4);                                                 \
                __m512i row = _mm512_set1_epi32(two);                                                    \
                UNROLL for (int v = 0; v < 4; v++)                                                       \
                    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc[r][v]) : "v"(weights[v]), "v"(row));       \
            }                                                                                            \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int v = 0; v < 4; v++) _mm512_store_ps(sums[r] + 16 * v, acc[r][v]);             \
    }
PAIR_SUMS(pair_sums_1, 1)
PAIR_SUMS(pair_sums_2, 2)
PAIR_SUMS(pair_sums_3, 3)
PAIR_SUMS(pair_sums_4, 4)
PAIR_SUMS(pair_sums_5, 5)
PAIR_SUMS(pair_sums_6, 6)

/* As `pair_sums_6`, of any number of rows. */
static inline void pair_sums(const uint8_t *w, const uint16_t *x, int64_t stride, int64_t bytes, int64_t rows,
                             float (*sums)[WIDE_OUTPUTS]) {
    static void (*const some[])(const uint8_t *, const uint16_t *, int64_t, int64_t, float (*)[WIDE_OUTPUTS]) = {
        NULL, pair_sums_1, pair_sums_2, pair_sums_3, pair_sums_4, pair_sums_5, pair_sums_6};
    for (int64_t r = 0; r < rows; r += WIDE_TOGETHER)
        some[rows - r < WIDE_TOGETHER ? rows - r : WIDE_TOGETHER](w, x + r * stride, stride, bytes, sums + r);
}

/* Rows of bfloat16, `k` apart. */
typedef struct {
    const uint16_t *values;
    int64_t k;
} Pairs;

static void pair_multiply(const uint8_t *weights, const void *pairs, int64_t first, int64_t count, int64_t at,
                          int64_t bytes, float (*sums)[WIDE_OUTPUTS], Ahead *ahead) {
    const Pairs *x = (const Pairs *)pairs;
    for (int64_t r = 0; r < count; r += WIDE_TOGETHER) {
        const int64_t some = count - r < WIDE_TOGETHER ? count - r : WIDE_TOGETHER;
        fetch(ahead, (ahead->lines * some + count - 1) / count);
        pair_sums(weights, x->values + (first + r) * x->k + at / 2, x->k, bytes, some, sums + r);
    }
}

/* As `product`. */
static inline void bf16_panel_product(const uint16_t *weight, const float *bias, const uint16_t *x,
                                      int64_t rows, int64_t begin, int64_t end, int64_t k, float *y,
                                      int64_t y_stride, int add) {
    const Pairs pairs = {x, k};
    wide_product(pair_multiply, weight, 2 * k, 0, NULL, bias, &pairs, rows, begin, end, y, y_stride, add);
}

/* Whether these panels take a product of this size. */
static inline int takes_bf16_panels(int64_t rows, int64_t k) { return rows >= WIDE_LEAST && k % 2 == 0; }

#else
#define HAS_TILES 0
static inline int has_tiles(void) { return 0; }
#endif

#endif
