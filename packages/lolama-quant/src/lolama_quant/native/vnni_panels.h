/* Products of many rows of int8 (VNNI): see wide_panels.h. The groups of activations keep their scales: adding
 * one group's sums to the others is little beside the 16 products before it. */
#ifndef LOLAMA_VNNI_PANELS_H
#define LOLAMA_VNNI_PANELS_H

#include "rounded.h"
#include "wide_panels.h"

#if defined(__x86_64__)

/* Written out for gcc, which takes another register for the result, and then runs out of them. An emulation
   without such registers defines its own. */
#ifndef MULTIPLY_BYTES
#define MULTIPLY_BYTES(sum, w, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x))
#endif

/* `groups` of ROWS rows of x from `places` on times the panel's weights, added to their sums. Half of the outputs
 * at a time: what is summed up whole, and what scales were multiplied with, then stays in registers. At each group
 * some lines of the next weights are asked for: many at once would wait for each other. */
#define VNNI_SUMS(NAME, ROWS)                                                                            \
    VNNI static void NAME(const uint8_t *weights, const Integers *x, const int64_t *places,              \
                          int64_t groups, float *const *sums, Ahead *ahead, int64_t lines) {             \
        for (int first = 0; first < 4; first += 2) {                                                     \
            const uint8_t *w = weights + 64 * first;                                                     \
            __m512 scaled[ROWS][2];                                                                      \
            UNROLL for (int r = 0; r < ROWS; r++)                                                        \
                UNROLL for (int v = 0; v < 2; v++)                                                       \
                    scaled[r][v] = _mm512_load_ps(sums[r] + 16 * (first + v));                           \
            for (int64_t g = 0; g < groups; g++, w += GROUP * WIDE_OUTPUTS) {                            \
                const int8_t *values[ROWS];                                                              \
                __m512i acc[ROWS][2];                                                                    \
                fetch(ahead, lines);                                                                     \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    __m512i total = _mm512_set1_epi32(x->totals[places[r] / GROUP + g]);                 \
                    values[r] = x->values + places[r] + g * GROUP;                                       \
                    UNROLL for (int v = 0; v < 2; v++) acc[r][v] = total;                                \
                }                                                                                        \
                UNROLL for (int i = 0; i < GROUP; i += 4) {                                              \
                    __m512i fours[2];                                                                    \
                    UNROLL for (int v = 0; v < 2; v++)                                                   \
                        fours[v] = _mm512_load_si512(w + i * WIDE_OUTPUTS + 64 * v);                     \
                    UNROLL for (int r = 0; r < ROWS; r++) {                                              \
                        int32_t four;                                                                    \
                        memcpy(&four, values[r] + i, 4);                                                 \
                        __m512i row = _mm512_set1_epi32(four);                                           \
                        UNROLL for (int v = 0; v < 2; v++) MULTIPLY_BYTES(acc[r][v], fours[v], row);     \
                    }                                                                                    \
                }                                                                                        \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    __m512 scale = _mm512_set1_ps(x->scales[places[r] / GROUP + g]);                     \
                    UNROLL for (int v = 0; v < 2; v++)                                                   \
                        scaled[r][v] =                                                                   \
                            _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][v]), scale, scaled[r][v]);         \
                }                                                                                        \
            }                                                                                            \
            UNROLL for (int r = 0; r < ROWS; r++)                                                        \
                UNROLL for (int v = 0; v < 2; v++)                                                       \
                    _mm512_store_ps(sums[r] + 16 * (first + v), scaled[r][v]);                           \
        }                                                                                                \
    }
VNNI_SUMS(vnni_sums_1, 1)
VNNI_SUMS(vnni_sums_2, 2)
VNNI_SUMS(vnni_sums_3, 3)
VNNI_SUMS(vnni_sums_4, 4)
VNNI_SUMS(vnni_sums_5, 5)
VNNI_SUMS(vnni_sums_6, 6)

/* Rows of x that wait until there are enough of them to pass by `groups` of weights together, and how many lines are
 * asked for at each group. */
typedef struct {
    const Integers *x;
    int64_t groups, lines, places[WIDE_TOGETHER], count;
    float *sums[WIDE_TOGETHER];
    Ahead *ahead;
} Waiting;

/* Those that wait pass by. */
static void vnni_pass(Waiting *rows, const uint8_t *weights) {
    static void (*const sums[])(const uint8_t *, const Integers *, const int64_t *, int64_t, float *const *, Ahead *,
                                int64_t) = {NULL,        vnni_sums_1, vnni_sums_2, vnni_sums_3,
                                            vnni_sums_4, vnni_sums_5, vnni_sums_6};
    if (rows->count)
        sums[rows->count](weights, rows->x, rows->places, rows->groups, rows->sums, rows->ahead, rows->lines);
    rows->count = 0;
}

/* One more; the sixth takes all of them along. */
static inline void vnni_wait(Waiting *rows, int64_t place, float *sums, const uint8_t *weights) {
    rows->places[rows->count] = place;
    rows->sums[rows->count++] = sums;
    if (rows->count == WIDE_TOGETHER) vnni_pass(rows, weights);
}

static void vnni_multiply(const uint8_t *weights, const void *rounded, int64_t first, int64_t count, int64_t at,
                          int64_t bytes, float (*sums)[WIDE_OUTPUTS], Ahead *ahead) {
    const Rounded *x = (const Rounded *)rounded;
    const int64_t place = first * x->padded + at, groups = (bytes + GROUP - 1) / GROUP;
    const int64_t turns = (count + WIDE_TOGETHER - 1) / WIDE_TOGETHER * groups * 2;
    Waiting near = {.x = &x->near, .groups = groups, .lines = (ahead->lines + turns - 1) / turns, .ahead = ahead};
    for (int64_t r = 0; r < count; r++) vnni_wait(&near, place + r * x->padded, sums[r], weights);
    vnni_pass(&near, weights);
    Waiting rest = {.x = &x->rest, .groups = 1, .ahead = ahead};
    for (int64_t g = 0; g < groups; g++) {
        const uint8_t *w = weights + g * GROUP * WIDE_OUTPUTS, *heavy = x->heavy + (at / GROUP + g) * x->rows + first;
        for (int64_t r = 0; r < count; r += 8) { /* eight flags at once, and the lowest of those that are set */
            uint64_t flags = 0;
            memcpy(&flags, heavy + r, (size_t)(count - r < 8 ? count - r : 8));
            for (; flags; flags &= flags - 1) {
                const int64_t row = r + __builtin_ctzll(flags) / 8;
                vnni_wait(&rest, place + row * x->padded + g * GROUP, sums[row], w);
            }
        }
        vnni_pass(&rest, w);
    }
}

/* As `int8_product`. Weights are raised by 128, since the instruction takes one factor without a sign. */
static inline void vnni_panel_product(const int8_t *weight, const float *scales, const float *bias,
                                      const Rounded *x, int64_t rows, int64_t begin, int64_t end, int64_t k,
                                      float *y, int64_t y_stride, int add) {
    wide_product(vnni_multiply, weight, k, 0x80, scales, bias, x, rows, begin, end, y, y_stride, add);
}

#endif

#endif
