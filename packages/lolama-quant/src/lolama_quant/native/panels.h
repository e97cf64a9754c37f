/* Products of many rows, for processors that multiply neither sixteen-bit floats nor bytes (AVX2).
 *
 * Such products are bound by arithmetic, so both factors are first brought into what is multiplied fastest:
 * weights of sixteen or thirty-two bits, and activations, into float32; int8 weights into integers of sixteen
 * bits, and activations into whole numbers of fifteen bits with a scale for each row, whose sums are exact. A
 * block of x then lies in the second-level cache and a panel of four weight rows in the first, and the rows of
 * x pass by a few at a time, with as many sums as there are registers.
 */
#ifndef LOLAMA_PANELS_H
#define LOLAMA_PANELS_H

#include <math.h>

#include "dot.h"

#if defined(__x86_64__)
#define HAS_PANELS 1

/* Inputs of a panel, and rows of a block of x. Rows are a little further apart than PANEL_DEPTH: at multiples
 * of 2048 bytes they would compete for the same places of the caches. */
#define PANEL_DEPTH 512
#define PANEL_ROWS 96
#define PANEL_STRIDE (PANEL_DEPTH + 16)

/* Rows of x that pass by together, and divide PANEL_ROWS: sums for them and four weights fill the registers. */
#define TOGETHER 3

/* The largest magnitude of activations as whole numbers: sums of PANEL_DEPTH products stay below 2^31. */
#define PANEL_LEVELS 16000.0f

/* What a thread multiplies: four rows of weights, then rows of x. */
typedef union {
    float floats[(4 + PANEL_ROWS) * PANEL_STRIDE];
    int16_t integers[(4 + PANEL_ROWS) * PANEL_STRIDE];
} Panel;

/* The products of the panel's weights with some rows of x, from `first` on: sums[row], over `depth` inputs. */
typedef void (*panel_function)(const Panel *panel, int64_t first, int64_t depth, __m128 *sums);

/* ---- sums of products ----------------------------------------------------------------------------- */

/* One body for both kinds; ROWS rows at a time. */
#define PANEL_SUMS(NAME, ITEMS, VEC, LANES, ZERO, LOAD, MULTIPLY, SUM, ROWS)                             \
    AVX2 static void NAME(const Panel *panel, int64_t first, int64_t depth, __m128 *sums) {              \
        VEC acc[ROWS][4];                                                                                \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int s = 0; s < 4; s++) acc[r][s] = ZERO;                                                \
        for (int64_t i = 0; i < depth; i += LANES)                                                       \
            for (int s = 0; s < 4; s++) {                                                                \
                VEC weights = LOAD(panel->ITEMS + s * PANEL_STRIDE + i);                                 \
                for (int r = 0; r < ROWS; r++) {                                                         \
                    VEC row = LOAD(panel->ITEMS + (4 + first + r) * PANEL_STRIDE + i);                   \
                    acc[r][s] = MULTIPLY(acc[r][s], weights, row);                                       \
                }                                                                                        \
            }                                                                                            \
        for (int r = 0; r < ROWS; r++) sums[r] = SUM(acc[r]);                                            \
    }

AVX2 static inline __m128 four_integer_sums(const __m256i *acc) {
    __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(acc[0], acc[1]), _mm256_hadd_epi32(acc[2], acc[3]));
    return _mm_cvtepi32_ps(_mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
}

#define MULTIPLY_FLOATS(sum, w, x) _mm256_fmadd_ps(w, x, sum)
#define FLOAT_SUMS(NAME, ROWS)                                                                           \
    PANEL_SUMS(NAME, floats, __m256, 8, _mm256_setzero_ps(), _mm256_load_ps, MULTIPLY_FLOATS,            \
               four_sums, ROWS)
FLOAT_SUMS(float_sums_1, 1)
FLOAT_SUMS(float_sums_2, 2)
FLOAT_SUMS(float_sums_3, 3)

#define LOAD_INTEGERS(p) _mm256_load_si256((const __m256i *)(p))
/* The sum is written out: gcc takes the products' register for it, and then moves it to where it belongs. An
   emulation without such registers defines its own. */
#ifndef ADD_IN_PLACE
#define ADD_IN_PLACE(sum, products) __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products))
#endif
AVX2 static inline __m256i add_products(__m256i sum, __m256i w, __m256i x) {
    __m256i products = _mm256_madd_epi16(w, x);
    ADD_IN_PLACE(sum, products);
    return sum;
}

#define INTEGER_SUMS(NAME, ROWS)                                                                         \
    PANEL_SUMS(NAME, integers, __m256i, 16, _mm256_setzero_si256(), LOAD_INTEGERS, add_products,         \
               four_integer_sums, ROWS)
INTEGER_SUMS(integer_sums_1, 1)
INTEGER_SUMS(integer_sums_2, 2)
INTEGER_SUMS(integer_sums_3, 3)

/* ---- bringing in ---------------------------------------------------------------------------------- */

/* `count` stored floats, and zeros up to `depth`. */
#define BRING(LOAD, BYTES)                                                                               \
    for (; i + 8 <= count; i += 8) _mm256_store_ps(to + i, LOAD((const char *)from + BYTES * i));

AVX2 static void bring_floats(const void *from, int dtype, float *to, int64_t count, int64_t depth) {
    int64_t i = 0;
    if (dtype == BFLOAT16) BRING(LOAD256_BFLOAT16, 2)
    else if (dtype == FLOAT16) BRING(LOAD256_FLOAT16, 2)
    else BRING(LOAD256_FLOAT32, 4)
    for (; i < count; i++) to[i] = weight_at(from, i, dtype);
    for (; i < depth; i++) to[i] = 0;
}

AVX2 static void bring_int8(const int8_t *from, int16_t *to, int64_t count, int64_t depth) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i];
    for (int64_t i = count; i < depth; i++) to[i] = 0;
}

/* What a row of x is divided by to become whole numbers; NaN if it has a NaN or an infinity. */
AVX2 static float row_scale(const float *x, int64_t k) {
    float most = 0, spoiled = 0;
    _Pragma("omp simd reduction(max : most)") for (int64_t i = 0; i < k; i++) {
        float size = fabsf(x[i]);
        most = size > most ? size : most;
    }
    _Pragma("omp simd reduction(+ : spoiled)") for (int64_t i = 0; i < k; i++) spoiled += x[i] * 0;
    return most / PANEL_LEVELS + spoiled;
}

AVX2 static void bring_rounded(const float *x, float scale, int16_t *to, int64_t count, int64_t depth) {
    /* So small a row, or one that has no numbers, is zero: the inverse of its scale would be infinite. */
    const float inverse = scale > 1e-34f ? 1 / scale : 0;
    for (int64_t i = 0; i < count; i++) to[i] = inverse != 0 ? (int16_t)(int32_t)rintf(x[i] * inverse) : 0;
    for (int64_t i = count; i < depth; i++) to[i] = 0;
}

/* ---- the product ---------------------------------------------------------------------------------- */

/* Four neighboring outputs of one row of x, of which `used` are there; y as in `product`. */
AVX2 static inline void store_four(float *y, __m128 results, int used, int add) {
    if (used == 4) {
        _mm_storeu_ps(y, add ? _mm_add_ps(results, _mm_loadu_ps(y)) : results);
        return;
    }
    float four[4];
    _mm_storeu_ps(four, results);
    for (int s = 0; s < used; s++) y[s] = four[s] + (add ? y[s] : 0);
}

/* As `product`, with weights of int8, too; `scales` are those of their rows. */
AVX2 static void panel_product(int dtype, const void *weight, const float *scales, const float *bias,
                               const float *x, int64_t rows, int64_t begin, int64_t end, int64_t k, float *y,
                               int64_t y_stride, int add) {
    static const panel_function floats[] = {NULL, float_sums_1, float_sums_2, float_sums_3};
    static const panel_function integers[] = {NULL, integer_sums_1, integer_sums_2, integer_sums_3};
    static _Thread_local Panel panel __attribute__((aligned(64)));
    const int whole = dtype == INT8, lanes = whole ? 16 : 8;
    const int64_t bytes = whole ? 1 : item_bytes(dtype);
    float row_scales[PANEL_ROWS];
    /* Blocks of about the same number of rows: each brings in all weights. */
    const int64_t blocks = (rows + PANEL_ROWS - 1) / PANEL_ROWS;
    const int64_t most = ((rows + blocks - 1) / blocks + TOGETHER - 1) / TOGETHER * TOGETHER;
    for (int64_t first = 0; first < rows; first += most) {
        const int64_t count = rows - first < most ? rows - first : most;
        const int64_t groups = (count + TOGETHER - 1) / TOGETHER;
        for (int64_t r = 0; r < count; r++) row_scales[r] = whole ? row_scale(x + (first + r) * k, k) : 1;
        for (int64_t i = 0; i < k; i += PANEL_DEPTH) {
            const int64_t inputs = k - i < PANEL_DEPTH ? k - i : PANEL_DEPTH;
            const int64_t depth = (inputs + lanes - 1) / lanes * lanes;
            const int more = add || i;
            for (int64_t r = 0; r < count; r++) {
                const float *from = x + (first + r) * k + i;
                const int64_t place = (4 + r) * PANEL_STRIDE;
                if (whole) bring_rounded(from, row_scales[r], panel.integers + place, inputs, depth);
                else bring_floats(from, FLOAT32, panel.floats + place, inputs, depth);
            }
            for (int64_t j = begin; j < end; j += 4) {
                const int used = end - j < 4 ? (int)(end - j) : 4;
                float four_scales[4] = {1, 1, 1, 1}, four_biases[4] = {0};
                for (int s = 0; s < used; s++) {
                    const char *from = (const char *)weight + ((j + s) * k + i) * bytes;
                    const int64_t place = s * PANEL_STRIDE;
                    if (whole) bring_int8((const int8_t *)from, panel.integers + place, inputs, depth);
                    else bring_floats(from, dtype, panel.floats + place, inputs, depth);
                    if (whole) four_scales[s] = scales[j + s];
                    if (bias && i == 0) four_biases[s] = bias[j + s];
                }
                const __m128 factors = _mm_loadu_ps(four_scales), biases = _mm_loadu_ps(four_biases);
                /* Memory brings the next panel's weights, a few lines at a time, while these are multiplied. */
                const char *next = (const char *)weight + ((j + 4) * k + i) * bytes;
                const int64_t lines = (inputs * bytes + 63) / 64, all = j + 8 <= end ? 4 * lines : 0;
                for (int64_t group = 0, line = 0; group < groups; group++) {
                    for (; line < all * (group + 1) / groups; line++)
                        _mm_prefetch(next + line / lines * k * bytes + line % lines * 64, _MM_HINT_T0);
                    const int64_t r = group * TOGETHER, some = count - r < TOGETHER ? count - r : TOGETHER;
                    __m128 sums[TOGETHER];
                    (whole ? integers : floats)[some](&panel, r, depth, sums);
                    for (int64_t t = 0; t < some; t++) {
                        const __m128 scale = _mm_mul_ps(factors, _mm_set1_ps(row_scales[r + t]));
                        store_four(y + (first + r + t) * y_stride + j, _mm_fmadd_ps(sums[t], scale, biases),
                                   used, more);
                    }
                }
            }
        }
    }
}

#else
#define HAS_PANELS 0
#endif

/* From this many rows on, panels are faster than dot products. */
#define PANEL_LEAST 8

/* Whether panels take a product of `rows` rows, by an instruction set of either kind. */
static inline int takes_panels(int is_avx2, int64_t rows) {
    return HAS_PANELS && is_avx2 && rows >= PANEL_LEAST;
}

/* As `product`, of any number of rows. */
static inline void float_product(int isa, int dtype, const void *weight, const float *bias, const float *x,
                                 int64_t rows, int64_t begin, int64_t end, int64_t k, float *y,
                                 int64_t y_stride, int add) {
#if HAS_PANELS
    if (takes_panels(isa == AVX2_ISA, rows)) {
        panel_product(dtype, weight, NULL, bias, x, rows, begin, end, k, y, y_stride, add);
        return;
    }
#endif
    product(isa, dtype, weight, bias, x, rows, begin, end, k, y, y_stride, add);
}

#endif
