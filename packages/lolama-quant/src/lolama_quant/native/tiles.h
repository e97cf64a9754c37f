/* Products of some rows of bfloat16 activations with bfloat16 weights, by the instruction that multiplies
 * pairs of bfloat16 and adds them in float32 (AVX512_BF16).
 *
 * With a few rows a product is no longer bound by memory, and not yet large enough for panels, which first bring
 * the weights into another order. */
#ifndef LOLAMA_TILES_H
#define LOLAMA_TILES_H

#include "bf16_panels.h"

#if HAS_TILES

/* Inputs that one pass takes. That much of four weight rows stays in the first-level cache while the rows of
 * x pass by. */
#define DEPTH 1024

/* Add `count` inputs (a multiple of 32) of four weight rows times ROWS (1 to 4) rows of x to
 * sums[row][weight]; rows are `k` apart. */
#define TILE_OF(NAME, ROWS)                                                                              \
    BF16 static void NAME(const uint16_t *w, const uint16_t *x, int64_t k, int64_t count,                \
                          __m512 sums[][4]) {                                                            \
        __m512 acc[ROWS][4];                                                                             \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int s = 0; s < 4; s++) acc[r][s] = sums[r][s];                                          \
        for (int64_t i = 0; i < count; i += 32) {                                                        \
            __m512bh weights[4];                                                                         \
            for (int s = 0; s < 4; s++) weights[s] = (__m512bh)_mm512_loadu_si512(w + s * k + i);        \
            for (int r = 0; r < ROWS; r++) {                                                             \
                __m512bh row = (__m512bh)_mm512_loadu_si512(x + r * k + i);                              \
                for (int s = 0; s < 4; s++) acc[r][s] = _mm512_dpbf16_ps(acc[r][s], weights[s], row);    \
            }                                                                                            \
        }                                                                                                \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int s = 0; s < 4; s++) sums[r][s] = acc[r][s];                                          \
    }

TILE_OF(tile_1, 1)
TILE_OF(tile_2, 2)
TILE_OF(tile_3, 3)
TILE_OF(tile_4, 4)

/* The same for the last inputs, fewer than 32, and any number of rows. */
BF16 static void tile_end(const uint16_t *w, const uint16_t *x, int64_t k, int64_t count, int64_t rows,
                          __m512 sums[][4]) {
    __mmask32 some = (__mmask32)((1u << count) - 1);
    for (int64_t r = 0; r < rows; r++)
        for (int s = 0; s < 4; s++)
            sums[r][s] = _mm512_dpbf16_ps(sums[r][s],
                                          (__m512bh)_mm512_maskz_loadu_epi16(some, w + s * k),
                                          (__m512bh)_mm512_maskz_loadu_epi16(some, x + r * k));
}

/* Outputs `begin` to `end` of x (rows, k) times weight (n, k), as `product`. If they are no multiple of four,
 * the last tile begins among outputs that are done, so there must be four. */
BF16 static void tile_product(const uint16_t *weight, const float *bias, const uint16_t *x, int64_t rows,
                              int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride, int add) {
    static void (*const tiles[4])(const uint16_t *, const uint16_t *, int64_t, int64_t, __m512[][4]) = {
        tile_1, tile_2, tile_3, tile_4};
    if (takes_bf16_panels(rows, k)) {
        bf16_panel_product(weight, bias, x, rows, begin, end, k, y, y_stride, add);
        return;
    }
    __m512 sums[16][4];
    for (int64_t next = begin; next < end; next += 4) {
        int64_t j = next + 4 <= end ? next : end - 4;
        for (int64_t first = 0; first < rows; first += 16) {
            int64_t count = rows - first < 16 ? rows - first : 16;
            memset(sums, 0, sizeof sums);
            const int64_t whole = k / 32 * 32;
            for (int64_t i = 0; i < whole; i += DEPTH) {
                int64_t depth = whole - i < DEPTH ? whole - i : DEPTH;
                for (int64_t r = 0; r < count; r += 4)
                    tiles[count - r < 4 ? count - r - 1 : 3](weight + j * k + i, x + (first + r) * k + i, k,
                                                             depth, sums + r);
            }
            if (whole < k)
                tile_end(weight + j * k + whole, x + first * k + whole, k, k - whole, count, sums);
            for (int64_t r = 0; r < count; r++)
                for (int64_t s = next - j; s < 4; s++) {
                    float *target = y + (first + r) * y_stride + j + s;
                    *target = _mm512_reduce_add_ps(sums[r][s]) + (bias ? bias[j + s] : 0) +
                              (add ? *target : 0);
                }
        }
    }
}

#endif

#endif
