/* Products of many rows, for processors that multiply bytes (VNNI) or pairs of bfloat16 (AVX512_BF16) and add
 * them up in lanes of four bytes.
 *
 * Such products are bound by arithmetic, so weights are brought into the order in which those instructions take
 * them: four bytes of each of sixteen outputs after each other. Those of 64 outputs and 256 bytes of inputs lie
 * in the first-level cache, and rows of x pass by six at a time.
 */
#ifndef LOLAMA_WIDE_PANELS_H
#define LOLAMA_WIDE_PANELS_H

#include "panels.h"

#if defined(__x86_64__)

#define WIDE_OUTPUTS 64 /* four vectors of 16 */
#define WIDE_BYTES 256
#define WIDE_TOGETHER 6 /* with four vectors for each, sums fill the registers */
#define WIDE_ROWS (86 * WIDE_TOGETHER)

/* What a thread multiplies: weights [bytes / 4][outputs][4], and the sums of rows. */
typedef struct {
    uint8_t weights[WIDE_BYTES * WIDE_OUTPUTS];
    float sums[WIDE_ROWS][WIDE_OUTPUTS];
} WidePanel;

#define UNROLL _Pragma("GCC unroll 16")

/* The weights that come next, which memory brings a few lines at a time while others are multiplied. */
typedef struct {
    const char *const *rows;
    int64_t at, lines, fetched;
} Ahead;

/* Ask for lines in proportion to the rows that have passed by: `done` of `all`. */
static inline void fetch(Ahead *ahead, int64_t done, int64_t all) {
    for (; ahead->fetched * all < ahead->lines * done; ahead->fetched++)
        _mm_prefetch(ahead->rows[ahead->fetched / 4] + ahead->at + ahead->fetched % 4 * 64, _MM_HINT_T1);
}

/* Add `bytes` of inputs from `at` on of `count` rows of x, from `first` on, times weights to sums. */
typedef void (*wide_multiply)(const uint8_t *weights, const void *x, int64_t first, int64_t count, int64_t at,
                              int64_t bytes, float (*sums)[WIDE_OUTPUTS], Ahead *ahead);

/* Sixteen bytes of each of four weight rows that are four rows apart: the outputs of one vector whose number
 * leaves the same remainder. */
AVX512 static inline __m512i bring_quarter(const char *const *rows, int64_t i, __mmask16 some) {
    __m512i all = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(some, rows[0] + i));
    all = _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(some, rows[4] + i), 1);
    all = _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(some, rows[8] + i), 2);
    return _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(some, rows[12] + i), 3);
}

/* `count` bytes of 64 weight rows, from `first` on, with the bits of `flip` turned over, and such zeros up to a
 * multiple of 64. */
AVX512 static void bring_weights(const char *const *rows, int64_t first, int64_t count, uint8_t flip,
                                 uint8_t *to) {
    const __m512i flips = _mm512_set1_epi8((char)flip);
    const int64_t padded = (count + 63) / 64 * 64;
    for (int v = 0; v < 4; v++) {
        for (int64_t i = 0; i < padded; i += 16) {
            const int64_t left = count - i;
            const __mmask16 some = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
            __m512i quarters[4], pairs[4];
            for (int q = 0; q < 4; q++)
                quarters[q] = _mm512_xor_si512(bring_quarter(rows + 16 * v + q, first + i, some), flips);
            for (int q = 0; q < 4; q += 2) {
                pairs[q] = _mm512_unpacklo_epi32(quarters[q], quarters[q + 1]);
                pairs[q + 1] = _mm512_unpackhi_epi32(quarters[q], quarters[q + 1]);
            }
            uint8_t *place = to + i * WIDE_OUTPUTS + 64 * v;
            for (int h = 0; h < 2; h++, place += 8 * WIDE_OUTPUTS) {
                _mm512_store_si512(place, _mm512_unpacklo_epi64(pairs[h], pairs[h + 2]));
                _mm512_store_si512(place + 4 * WIDE_OUTPUTS, _mm512_unpackhi_epi64(pairs[h], pairs[h + 2]));
            }
        }
    }
}

/* As `product`, of weight rows of `row_bytes`; `scales` of outputs or NULL. */
AVX512 static void wide_product(wide_multiply multiply, const void *weight, int64_t row_bytes, uint8_t flip,
                                const float *scales, const float *bias, const void *x, int64_t rows,
                                int64_t begin, int64_t end, float *y, int64_t y_stride, int add) {
    static _Thread_local WidePanel panel __attribute__((aligned(64)));
    /* Blocks of about the same number of rows: each brings in all weights. */
    const int64_t blocks = (rows + WIDE_ROWS - 1) / WIDE_ROWS;
    const int64_t most = ((rows + blocks - 1) / blocks + WIDE_TOGETHER - 1) / WIDE_TOGETHER * WIDE_TOGETHER;
    for (int64_t first = 0; first < rows; first += most) {
        const int64_t count = rows - first < most ? rows - first : most;
        for (int64_t j = begin; j < end; j += WIDE_OUTPUTS) {
            const int64_t used = end - j < WIDE_OUTPUTS ? end - j : WIDE_OUTPUTS;
            const char *weight_rows[WIDE_OUTPUTS];
            for (int64_t s = 0; s < WIDE_OUTPUTS; s++)
                weight_rows[s] = (const char *)weight + (j + (s < used ? s : 0)) * row_bytes;
            memset(panel.sums, 0, (size_t)count * sizeof *panel.sums);
            for (int64_t i = 0; i < row_bytes; i += WIDE_BYTES) {
                const int64_t bytes = row_bytes - i < WIDE_BYTES ? row_bytes - i : WIDE_BYTES;
                const int64_t next = i + WIDE_BYTES < row_bytes ? i + WIDE_BYTES : WIDE_OUTPUTS * row_bytes;
                Ahead ahead = {weight_rows, next, j + 2 * WIDE_OUTPUTS <= end ? WIDE_OUTPUTS * 4 : 0, 0};
                bring_weights(weight_rows, i, bytes, flip, panel.weights);
                multiply(panel.weights, x, first, count, i, bytes, panel.sums, &ahead);
            }
            for (int64_t r = 0; r < count; r++)
                for (int64_t s = 0; s < used; s += 16) {
                    const __mmask16 there = used - s < 16 ? (__mmask16)((1u << (used - s)) - 1) : 0xffff;
                    float *target = y + (first + r) * y_stride + j + s;
                    __m512 result = _mm512_load_ps(panel.sums[r] + s);
                    if (scales) result = _mm512_mul_ps(result, _mm512_maskz_loadu_ps(there, scales + j + s));
                    if (bias) result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(there, bias + j + s));
                    if (add) result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(there, target));
                    _mm512_mask_storeu_ps(target, there, result);
                }
        }
    }
}

#endif

#endif
