/* Products of a few rows of int8 (VNNI): sixteen weight rows at a time are brought into registers, four bytes of each
 * after each other, and all rows of x pass by them there. So what is done for the weights is done once, and nothing has
 * to be added up across the lanes of a vector. Groups are added in the order of vnni_panels.h. */
#ifndef LOLAMA_VNNI_FEW_H
#define LOLAMA_VNNI_FEW_H

#include "transpose.h"
#include "vnni_panels.h"
#include "next_lines.h"

#if defined(__x86_64__)

#define FEW_OUTPUTS 16
#define FEW_MOST 16 /* rows; more are faster by panels */

/* A group of sixteen weight rows, raised by 128, with ROWS rows of x, whose values lie `padded` apart, added to sums. */
#define VNNI_FEW(NAME, VEC, ROWS)                                                                        \
    VNNI static inline __attribute__((always_inline)) void NAME(const VEC *weights, const Integers *x,   \
                                                                int64_t place, int64_t padded,           \
                                                                float (*sums)[FEW_OUTPUTS]) {            \
        /* Each sum waits for the one before it, so there are four of them or more. */                   \
        enum { PARTS = ROWS <= 2 ? 2 : 1 };                                                              \
        VEC acc[ROWS][PARTS];                                                                            \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int p = 0; p < PARTS; p++)                                                       \
                acc[r][p] = p ? _mm512_setzero_si512()                                                   \
                              : _mm512_set1_epi32(x->totals[(place + r * padded) / GROUP]);              \
        UNROLL for (int i = 0; i < GROUP / 4; i++)                                                       \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                int32_t four;                                                                            \
                memcpy(&four, x->values + place + r * padded + 4 * i, 4);                                \
                acc[r][i % PARTS] = _mm512_dpbusd_epi32(acc[r][i % PARTS], weights[i], _mm512_set1_epi32(four)); \
            }                                                                                            \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            if (PARTS == 2) acc[r][0] = _mm512_add_epi32(acc[r][0], acc[r][PARTS - 1]);                  \
            const __m512 scale = _mm512_set1_ps(x->scales[(place + r * padded) / GROUP]);                \
            const __m512 whole = _mm512_cvtepi32_ps(acc[r][0]);                                          \
            _mm512_store_ps(sums[r], _mm512_fmadd_ps(whole, scale, _mm512_load_ps(sums[r])));            \
        }                                                                                                \
    }
FOUR(VNNI_FEW, vnni_few, __m512i)

/* As `int8_product`, of 2 to FEW_MOST rows. */
VNNI static void vnni_few_product(const int8_t *weight, const float *scales, const float *bias, const Rounded *x,
                                  int64_t rows, int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride,
                                  int add) {
    float sums[FEW_MOST][FEW_OUTPUTS] __attribute__((aligned(64)));
    __m512i heavy[WIDE_BYTES / GROUP][GROUP / 4];
    for (int64_t j = begin; j < end; j += FEW_OUTPUTS) {
        const int64_t used = end - j < FEW_OUTPUTS ? end - j : FEW_OUTPUTS;
        NextLines next = {(const char *)weight + (j + FEW_OUTPUTS) * k, (const char *)weight + (j + 2 * FEW_OUTPUTS < end ? j + 2 * FEW_OUTPUTS : end) * k};
        memset(sums, 0, sizeof sums);
        for (int64_t at = 0; at < k; at += WIDE_BYTES) {
            const int64_t last = k - at < WIDE_BYTES ? k : at + WIDE_BYTES;
            for (int64_t i = at; i < last; i += GROUP) {
                const __mmask64 some = k - i < GROUP ? (1ull << (k - i)) - 1 : ~0ull;
                __m512i weights[16];
                ask_for(&next, FEW_OUTPUTS + 1);
                UNROLL for (int s = 0; s < 16; s++) {
                    const int8_t *row = weight + (j + (s < used ? s : 0)) * k + i;
                    weights[s] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(some, row), _mm512_set1_epi8(-128));
                }
                transpose(weights);
                int64_t r = 0;
                for (; r + 4 <= rows; r += 4) vnni_few_4(weights, &x->near, r * x->padded + i, x->padded, sums + r);
                if (rows - r == 3) vnni_few_3(weights, &x->near, r * x->padded + i, x->padded, sums + r);
                if (rows - r == 2) vnni_few_2(weights, &x->near, r * x->padded + i, x->padded, sums + r);
                if (rows - r == 1) vnni_few_1(weights, &x->near, r * x->padded + i, x->padded, sums + r);
                if (memchr(x->heavy + i / GROUP * x->rows, 1, (size_t)rows))
                    memcpy(heavy[(i - at) / GROUP], weights, sizeof weights);
            }
            for (int64_t i = at; i < last; i += GROUP)
                for (int64_t r = 0; r < rows; r++)
                    if (x->heavy[i / GROUP * x->rows + r])
                        vnni_few_1(heavy[(i - at) / GROUP], &x->rest, r * x->padded + i, x->padded, sums + r);
        }
        const __mmask16 there = (__mmask16)(0xffffu >> (16 - used));
        for (int64_t r = 0; r < rows; r++) {
            float *target = y + r * y_stride + j;
            __m512 result = _mm512_mul_ps(_mm512_load_ps(sums[r]), _mm512_maskz_loadu_ps(there, scales + j));
            if (bias) result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(there, bias + j));
            if (add) result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(there, target));
            _mm512_mask_storeu_ps(target, there, result);
        }
    }
}

#endif

#endif
