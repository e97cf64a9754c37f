/* Activations that are rounded to int8, for products with int8 weights.
 *
 * They are rounded in groups of 64 with a scale for each, so that one large value costs the precision of its
 * neighbors alone; and where one stands out of its group, what rounding left over is rounded again, and
 * multiplied too. Within a group sums are whole numbers, exact on every processor; groups are added in
 * float32.
 */
#ifndef LOLAMA_ROUNDED_H
#define LOLAMA_ROUNDED_H

#include <math.h>

#include "panels.h"

#define GROUP 64

/* A group whose largest value is more than this many times its root mean square is rounded twice. So are 3 %
 * of what is normally distributed, and a quarter of what models multiply. Without it two of three
 * differences that int8 makes would come from activations; with it, hardly any. */
#define HEAVY 3.5f

/* Rows of whole numbers, `padded` apart; zeros follow the last. Groups whose scale is zero may hold anything.
 *
 * `totals` holds -128 times the sum of each group: VNNI multiplies unsigned with signed bytes, so weights come in
 * raised by 128, and a group's sum has that much too much. */
typedef struct {
    float *scales;    /* (rows, padded / GROUP) */
    int32_t *totals;  /* (rows, padded / GROUP) */
    int8_t *values;   /* (rows, padded) */
} Integers;

/* `exact` (rows, k), rounded: what it is nearest to, and the rest of heavy groups, which are marked in `heavy`
 * (groups of a row, rows). `padded` is a multiple of GROUP. AVX2 takes `whole` rows instead: see panels.h. */
typedef struct {
    const float *exact;
    int64_t rows, padded;
    Integers near, rest;
    uint8_t *heavy;
#if HAS_PANELS
    WholeRows whole;
#endif
} Rounded;

static inline int64_t rounded_bytes(int64_t rows, int64_t k) {
    int64_t padded = (k + GROUP - 1) / GROUP * GROUP;
    return 2 * rows * (padded / GROUP * 8 + padded) + (rows * padded / GROUP + 3) / 4 * 4;
}

/* One group, as whole multiples of most / 127. */
#define ROUND_BY(NAME, TARGET)                                                                           \
    TARGET static inline void NAME(const float *x, float most, const Integers *to, int64_t place) {      \
        /* So small a group is zero: the inverse of its scale would be infinite. */                      \
        const float inverse = most > 1e-30f ? 127 / most : 0;                                            \
        int32_t whole[GROUP], total = 0;                                                                 \
        for (int i = 0; i < GROUP; i++) whole[i] = inverse != 0 ? (int32_t)rintf(x[i] * inverse) : 0;    \
        for (int i = 0; i < GROUP; i++) to->values[place + i] = (int8_t)whole[i];                        \
        for (int i = 0; i < GROUP; i++) total += whole[i];                                               \
        to->totals[place / GROUP] = -128 * total;                                                        \
        to->scales[place / GROUP] = inverse != 0 ? most / 127 : 0;                                       \
    }

/* One group; a NaN or an infinity in it makes its scale NaN. */
#define ROUND_GROUP(NAME, TARGET, BY)                                                                    \
    TARGET static void NAME(const float *x, const Rounded *to, int64_t place) {                          \
        float most = 0, squares = 0, spoiled = 0, rest[GROUP];                                           \
        _Pragma("omp simd reduction(max : most)") for (int i = 0; i < GROUP; i++) {                      \
            float size = fabsf(x[i]);                                                                    \
            most = size > most ? size : most;                                                            \
        }                                                                                                \
        _Pragma("omp simd reduction(+ : spoiled, squares)") for (int i = 0; i < GROUP; i++) {            \
            spoiled += x[i] * 0;                                                                         \
            squares += x[i] * x[i];                                                                      \
        }                                                                                                \
        BY(x, spoiled == 0 ? most : 0, &to->near, place);                                                \
        const float scale = to->near.scales[place / GROUP];                                              \
        to->near.scales[place / GROUP] = scale + spoiled;                                                \
        to->rest.scales[place / GROUP] = 0;                                                              \
        if (scale == 0 || !(most > HEAVY * sqrtf(squares / GROUP))) return;                              \
        const int8_t *near = to->near.values + place;                                                    \
        for (int i = 0; i < GROUP; i++) rest[i] = fmaf(-(float)near[i], scale, x[i]);                    \
        most = 0;                                                                                        \
        _Pragma("omp simd reduction(max : most)") for (int i = 0; i < GROUP; i++) {                      \
            float size = fabsf(rest[i]);                                                                 \
            most = size > most ? size : most;                                                            \
        }                                                                                                \
        BY(rest, most, &to->rest, place);                                                                \
    }

/* What multiplies whole numbers; INSTRUCTION_SETS has another, since bytes need other instructions. */
enum { INT8_PORTABLE = 0, INT8_AVX2 = 1, INT8_VNNI = 2, INT8_NEON = 3, INT8_NEON_DOT = 4 };

ROUND_BY(portable_round_by, )
ROUND_GROUP(portable_round, , portable_round_by)
#if defined(__x86_64__)
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,fma,f16c")))
ROUND_BY(vnni_round_by, VNNI)
ROUND_GROUP(vnni_round, VNNI, vnni_round_by)
#endif

/* Where x (rows, k) is to be rounded for products by `isa`: in `memory`, which has rounded_bytes(rows, k). */
static inline Rounded rounded_in(int isa, const float *x, int64_t rows, int64_t k, void *memory) {
    Rounded to = {.exact = x, .rows = rows, .padded = (k + GROUP - 1) / GROUP * GROUP};
    const int64_t groups = rows * to.padded / GROUP;
#if HAS_PANELS
    if (isa == INT8_AVX2) {
        to.whole = (WholeRows){(int16_t *)((float *)memory + rows), (float *)memory, to.padded};
        return to;
    }
#endif
    (void)isa;
    to.near.scales = (float *)memory;
    to.rest.scales = to.near.scales + groups;
    to.near.totals = (int32_t *)(to.rest.scales + groups);
    to.rest.totals = to.near.totals + groups;
    to.near.values = (int8_t *)(to.rest.totals + groups);
    to.rest.values = to.near.values + rows * to.padded;
    to.heavy = (uint8_t *)to.rest.values + rows * to.padded;
    return to;
}

/* Round rows `begin` to `end`. */
static inline void round_rows(int isa, const Rounded *to, int64_t begin, int64_t end, int64_t k) {
    void (*round_group)(const float *, const Rounded *, int64_t) = portable_round;
#if HAS_PANELS
    if (isa == INT8_AVX2) {
        for (int64_t r = begin; r < end; r++) round_row(to->exact, &to->whole, r, k);
        return;
    }
    if (isa == INT8_VNNI) round_group = vnni_round;
#endif
    (void)isa;
    float last[GROUP];
    for (int64_t r = begin; r < end; r++)
        for (int64_t i = 0; i < k; i += GROUP) {
            const float *group = to->exact + r * k + i;
            if (k - i < GROUP) {
                memset(last, 0, sizeof last);
                memcpy(last, group, (size_t)(k - i) * 4);
                group = last;
            }
            const int64_t place = r * to->padded + i;
            round_group(group, to, place);
            to->heavy[i / GROUP * to->rows + r] = to->rest.scales[place / GROUP] != 0;
        }
}

#endif
