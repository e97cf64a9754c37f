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

/* The weights that come next, which memory brings some lines at a time while others are multiplied. */
typedef struct {
    const char *const *rows;
    int64_t at, lines, fetched;
} Ahead;

/* Ask for the next `count` lines, if there are so many. */
static inline void fetch(Ahead *ahead, int64_t count) {
    const int64_t left = ahead->lines - ahead->fetched, end = ahead->fetched + (count < left ? count : left);
    for (; ahead->fetched < end; ahead->fetched++)
        _mm_prefetch(ahead->rows[ahead->fetched / 4] + ahead->at + ahead->fetched % 4 * 64, _MM_HINT_T1);
}

/* Add `bytes` of inputs from `at` on of `count` rows of x, from `first` on, times weights to sums. */
typedef void (*wide_multiply)(const uint8_t *weights, const void *x, int64_t first, int64_t count, int64_t at,
                              int64_t bytes, float (*sums)[WIDE_OUTPUTS], Ahead *ahead);

/* Sixteen bytes of each of four weight rows that are four rows apart: the outputs of one vector whose number
 * leaves the same remainder. */
AVX512 static inline __m512i bring_quarter(const char *const *rows, int64_t i) {
    __m512i all = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(rows[0] + i)));
    for (int q = 1; q < 4; q++) {
        const __m128i row = _mm_loadu_si128((const __m128i *)(rows[4 * q] + i));
        all = _mm512_mask_broadcast_i32x4(all, (__mmask16)(0xf << 4 * q), row);
    }
    return all;
}

/* Sixteen bytes of each of sixteen weight rows, of whose bits some are flipped: four of each in four vectors. */
AVX512 static inline void bring_sixteen(const char *const *rows, int64_t i, __m512i flips, uint8_t *to) {
    __m512i quarters[4], pairs[4];
    UNROLL for (int q = 0; q < 4; q++) quarters[q] = _mm512_xor_si512(bring_quarter(rows + q, i), flips);
    UNROLL for (int q = 0; q < 4; q += 2) {
        pairs[q] = _mm512_unpacklo_epi32(quarters[q], quarters[q + 1]);
        pairs[q + 1] = _mm512_unpackhi_epi32(quarters[q], quarters[q + 1]);
    }
    UNROLL for (int h = 0; h < 2; h++, to += 8 * WIDE_OUTPUTS) {
        _mm512_store_si512(to, _mm512_unpacklo_epi64(pairs[h], pairs[h + 2]));
        _mm512_store_si512(to + 4 * WIDE_OUTPUTS, _mm512_unpackhi_epi64(pairs[h], pairs[h + 2]));
    }
}

/* `count` bytes of 64 weight rows, from `first` on, with the bits of `flip` turned over, and such zeros up to a
 * multiple of 64. */
AVX512 static void bring_weights(const char *const *rows, int64_t first, int64_t count, uint8_t flip,
                                 uint8_t *to) {
    const __m512i flips = _mm512_set1_epi8((char)flip);
    const int64_t whole = count / 16 * 16, padded = (count + 63) / 64 * 64;
    for (int v = 0; v < 4; v++, rows += 16) {
        for (int64_t i = 0; i < whole; i += 16) bring_sixteen(rows, first + i, flips, to + i * WIDE_OUTPUTS + 64 * v);
        for (int64_t i = whole; i < padded; i += 16) {
            char last[16][16] = {{0}};
            const char *copies[16];
            for (int r = 0; r < 16; r++) {
                copies[r] = last[r];
                if (i < count) memcpy(last[r], rows[r] + first + i, (size_t)(count - i < 16 ? count - i : 16));
            }
            bring_sixteen(copies, 0, flips, to + i * WIDE_OUTPUTS + 64 * v);
        }
    }
}

/* As `product`, of weight rows of `row_bytes`; `scales` of outputs or NULL. */
AVX512 static void wide_product(wide_multiply multiply, const void *weight, int64_t row_bytes, uint8_t flip,
                                const float *scales, const float *bias, const void *x, int64_t rows,
                                int64_t begin, int64_t end, float *y, int64_t y_stride, int add) {
    static _Thread_local WidePanel of_thread __attribute__((aligned(64)));
    WidePanel *const panel = &of_thread;
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
            memset(panel->sums, 0, (size_t)count * sizeof *panel->sums);
            for (int64_t i = 0; i < row_bytes; i += WIDE_BYTES) {
                const int64_t bytes = row_bytes - i < WIDE_BYTES ? row_bytes - i : WIDE_BYTES;
                const int64_t next = i + WIDE_BYTES < row_bytes ? i + WIDE_BYTES : WIDE_OUTPUTS * row_bytes;
                Ahead ahead = {weight_rows, next, j + 2 * WIDE_OUTPUTS <= end ? WIDE_OUTPUTS * 4 : 0, 0};
                bring_weights(weight_rows, i, bytes, flip, panel->weights);
                multiply(panel->weights, x, first, count, i, bytes, panel->sums, &ahead);
            }
            for (int64_t r = 0; r < count; r++)
                for (int64_t s = 0; s < used; s += 16) {
                    const __mmask16 there = used - s < 16 ? (__mmask16)((1u << (used - s)) - 1) : 0xffff;
                    float *target = y + (first + r) * y_stride + j + s;
                    __m512 result = _mm512_load_ps(panel->sums[r] + s);
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
