/* Products of many rows of int8, for processors that multiply four bytes with four and add them up (VNNI).
 *
 * Such products are bound by arithmetic, so weights are brought into the order in which the instruction takes
 * them: for four inputs, the bytes of sixteen outputs after each other. Those of 64 outputs and 256 inputs lie
 * in the first-level cache, and rows of x pass by six at a time. The groups of activations keep their scales:
 * adding one group's sums to the others is little beside the 16 products before it.
 */
#ifndef LOLAMA_VNNI_PANELS_H
#define LOLAMA_VNNI_PANELS_H

#include "rounded.h"

#if defined(__x86_64__)

#define VNNI_OUTPUTS 64 /* four vectors of 16 */
#define VNNI_DEPTH (4 * GROUP)
#define VNNI_TOGETHER 6 /* with four vectors for each, sums fill the registers */
#define VNNI_ROWS (86 * VNNI_TOGETHER)

/* What a thread multiplies: weights [inputs / 4][outputs][4], raised by 128; and the sums of rows. */
typedef struct {
    uint8_t weights[VNNI_DEPTH * VNNI_OUTPUTS];
    float sums[VNNI_ROWS][VNNI_OUTPUTS];
} VnniPanel;

#define UNROLL _Pragma("GCC unroll 8")

/* Written out for gcc, which takes another register for the result, and then runs out of them. An emulation
   without such registers defines its own. */
#ifndef MULTIPLY_BYTES
#define MULTIPLY_BYTES(sum, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x))
#endif

/* The groups of ROWS rows of x at `places` times the panel's weights, added to their sums. */
#define VNNI_SUMS(NAME, ROWS)                                                                            \
    VNNI static void NAME(const uint8_t *w, const Integers *x, const int64_t *places,                    \
                          float *const *sums) {                                                          \
        const int8_t *values[ROWS];                                                                      \
        __m512i acc[ROWS][4];                                                                            \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            __m512i total = _mm512_set1_epi32(x->totals[places[r] / GROUP]);                             \
            values[r] = x->values + places[r];                                                           \
            UNROLL for (int v = 0; v < 4; v++) acc[r][v] = total;                                        \
        }                                                                                                \
        for (int i = 0; i < GROUP; i += 4) {                                                             \
            __m512i weights[4];                                                                          \
            UNROLL for (int v = 0; v < 4; v++)                                                           \
                weights[v] = _mm512_load_si512(w + i * VNNI_OUTPUTS + 64 * v);                           \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                int32_t four;                                                                            \
                memcpy(&four, values[r] + i, 4);                                                         \
                __m512i row = _mm512_set1_epi32(four);                                                   \
                UNROLL for (int v = 0; v < 4; v++) MULTIPLY_BYTES(acc[r][v], weights[v], row);           \
            }                                                                                            \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            __m512 scale = _mm512_set1_ps(x->scales[places[r] / GROUP]);                                 \
            UNROLL for (int v = 0; v < 4; v++) {                                                         \
                float *sum = sums[r] + 16 * v;                                                           \
                __m512 wide = _mm512_cvtepi32_ps(acc[r][v]);                                             \
                _mm512_store_ps(sum, _mm512_fmadd_ps(wide, scale, _mm512_load_ps(sum)));                 \
            }                                                                                            \
        }                                                                                                \
    }
VNNI_SUMS(vnni_sums_1, 1)
VNNI_SUMS(vnni_sums_2, 2)
VNNI_SUMS(vnni_sums_3, 3)
VNNI_SUMS(vnni_sums_4, 4)
VNNI_SUMS(vnni_sums_5, 5)
VNNI_SUMS(vnni_sums_6, 6)

/* Sixteen bytes of each of four weight rows that are four rows apart: the outputs of one vector whose number
 * leaves the same remainder. */
VNNI static inline __m512i bring_quarter(const int8_t *const *rows, int64_t i, __mmask16 some) {
    __m512i all = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(some, rows[0] + i));
    all = _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(some, rows[4] + i), 1);
    all = _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(some, rows[8] + i), 2);
    return _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(some, rows[12] + i), 3);
}

/* `count` inputs of 64 weight rows, from `first` on, and zeros up to whole groups. */
VNNI static void bring_weights(const int8_t *const *rows, int64_t first, int64_t count, uint8_t *to) {
    const __m512i raise = _mm512_set1_epi8(-128);
    const int64_t padded = (count + GROUP - 1) / GROUP * GROUP;
    for (int v = 0; v < 4; v++) {
        for (int64_t i = 0; i < padded; i += 16) {
            const int64_t left = count - i;
            const __mmask16 some = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
            __m512i quarters[4], pairs[4];
            for (int q = 0; q < 4; q++)
                quarters[q] = _mm512_xor_si512(bring_quarter(rows + 16 * v + q, first + i, some), raise);
            for (int q = 0; q < 4; q += 2) {
                pairs[q] = _mm512_unpacklo_epi32(quarters[q], quarters[q + 1]);
                pairs[q + 1] = _mm512_unpackhi_epi32(quarters[q], quarters[q + 1]);
            }
            uint8_t *place = to + i * VNNI_OUTPUTS + 64 * v;
            for (int h = 0; h < 2; h++, place += 8 * VNNI_OUTPUTS) {
                _mm512_store_si512(place, _mm512_unpacklo_epi64(pairs[h], pairs[h + 2]));
                _mm512_store_si512(place + 4 * VNNI_OUTPUTS, _mm512_unpackhi_epi64(pairs[h], pairs[h + 2]));
            }
        }
    }
}

static void (*const vnni_sums[])(const uint8_t *, const Integers *, const int64_t *, float *const *) = {
    NULL, vnni_sums_1, vnni_sums_2, vnni_sums_3, vnni_sums_4, vnni_sums_5, vnni_sums_6};

/* One group of `rows` rows of x, the first at `place`, times weights, added to sums: of all rows, or of those
 * whose scale is not zero. */
static void vnni_group_sums(const uint8_t *w, const Integers *x, int64_t place, int64_t padded, int64_t rows,
                            int all, float (*sums)[VNNI_OUTPUTS]) {
    int64_t places[VNNI_TOGETHER], waiting = 0;
    float *targets[VNNI_TOGETHER];
    for (int64_t r = 0; r < rows; r++, place += padded) {
        places[waiting] = place;
        targets[waiting] = sums[r];
        waiting += all || x->scales[place / GROUP] != 0;
        if (waiting < VNNI_TOGETHER) continue;
        vnni_sums[VNNI_TOGETHER](w, x, places, targets);
        waiting = 0;
    }
    if (waiting) vnni_sums[waiting](w, x, places, targets);
}

/* As `int8_product`. */
VNNI static void vnni_panel_product(const int8_t *weight, const float *weight_scales, const float *bias,
                                    const Rounded *x, int64_t rows, int64_t begin, int64_t end, int64_t k,
                                    float *y, int64_t y_stride, int add) {
    static _Thread_local VnniPanel panel __attribute__((aligned(64)));
    /* Blocks of about the same number of rows: each brings in all weights. */
    const int64_t blocks = (rows + VNNI_ROWS - 1) / VNNI_ROWS;
    const int64_t most = ((rows + blocks - 1) / blocks + VNNI_TOGETHER - 1) / VNNI_TOGETHER * VNNI_TOGETHER;
    for (int64_t first = 0; first < rows; first += most) {
        const int64_t count = rows - first < most ? rows - first : most;
        for (int64_t j = begin; j < end; j += VNNI_OUTPUTS) {
            const int64_t used = end - j < VNNI_OUTPUTS ? end - j : VNNI_OUTPUTS;
            const int8_t *weight_rows[VNNI_OUTPUTS];
            for (int64_t s = 0; s < VNNI_OUTPUTS; s++) weight_rows[s] = weight + (j + (s < used ? s : 0)) * k;
            memset(panel.sums, 0, (size_t)count * sizeof *panel.sums);
            for (int64_t i = 0; i < k; i += VNNI_DEPTH) {
                const int64_t inputs = k - i < VNNI_DEPTH ? k - i : VNNI_DEPTH;
                bring_weights(weight_rows, i, inputs, panel.weights);
                /* Memory brings the next weights, a few lines at a time, while these are multiplied. */
                const int64_t ahead = i + VNNI_DEPTH < k ? i + VNNI_DEPTH : VNNI_OUTPUTS * k;
                const int64_t lines = j + 2 * VNNI_OUTPUTS <= end ? VNNI_OUTPUTS * VNNI_DEPTH / 64 : 0;
                for (int64_t r = 0, line = 0; r < count; r += VNNI_TOGETHER) {
                    const int64_t some = count - r < VNNI_TOGETHER ? count - r : VNNI_TOGETHER;
                    for (; line * count < lines * (r + some); line++)
                        _mm_prefetch((const char *)weight_rows[line / 4] + ahead + line % 4 * 64, _MM_HINT_T1);
                    const int64_t place = (first + r) * x->padded + i;
                    for (int64_t g = 0; g < inputs; g += GROUP)
                        vnni_group_sums(panel.weights + g * VNNI_OUTPUTS, &x->near, place + g, x->padded, some,
                                        1, panel.sums + r);
                }
                const int64_t place = first * x->padded + i;
                for (int64_t g = 0; g < inputs; g += GROUP)
                    vnni_group_sums(panel.weights + g * VNNI_OUTPUTS, &x->rest, place + g, x->padded, count, 0,
                                    panel.sums);
            }
            for (int64_t r = 0; r < count; r++)
                for (int64_t s = 0; s < used; s += 16) {
                    const __mmask16 there = used - s < 16 ? (__mmask16)((1u << (used - s)) - 1) : 0xffff;
                    float *target = y + (first + r) * y_stride + j + s;
                    __m512 result = _mm512_mul_ps(_mm512_load_ps(panel.sums[r] + s),
                                                  _mm512_maskz_loadu_ps(there, weight_scales + j + s));
                    if (bias) result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(there, bias + j + s));
                    if (add) result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(there, target));
                    _mm512_mask_storeu_ps(target, there, result);
                }
        }
    }
}

/* Whether these panels take the product of so many rows. */
static inline int takes_vnni_panels(int is_vnni, int64_t rows) { return is_vnni && rows >= PANEL_LEAST; }

#else
static inline int takes_vnni_panels(int is_vnni, int64_t rows) { return (void)is_vnni, (void)rows, 0; }
#endif

#endif
