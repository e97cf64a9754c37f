/* Weights as small whole numbers with a scale for each group of inputs, and activations that are rounded to meet them.
 *
 * lolama_core/protocols/grouped.py says what is stored of each format. Inputs are taken in blocks of 256. Within a
 * block sums are whole numbers, and so exact on every processor and in every order; blocks are added in float32, one
 * after another, so that an output of a row is the same, bit for bit, whatever rows are beside it. */
#ifndef LOLAMA_GROUPED_H
#define LOLAMA_GROUPED_H

#include "rounded.h"

#define BLOCK 256
#define SUMMED 32 /* inputs whose activations are added up, for minimums */
#define SUMS_OF_BLOCK (BLOCK / SUMMED)

/* Formats, behind FLOAT32 to INT8. */
enum { INT4 = 4, INT4_32 = 5, INT8_16 = 6, INT8_32 = 7 };

static inline int is_grouped(int dtype) { return dtype >= INT4; }

/* A weight (outputs, k), row by row: codes, scales of groups if the format has some, scales of blocks in float16. */
typedef struct {
    int dtype;
    const uint8_t *codes, *scales;
    const uint16_t *block_scales;
    int64_t k;
} Grouped;

static inline int64_t blocks_of(int64_t k) { return (k + BLOCK - 1) / BLOCK; }
static inline int64_t code_bytes(int dtype, int64_t k) { return dtype == INT4 || dtype == INT4_32 ? (k + 63) / 64 * 32 : k; }
static inline int64_t scale_bytes(int dtype, int64_t k) { return dtype == INT4 || dtype == INT8_16 ? 16 * blocks_of(k) : 0; }

/* Numbers of float16 in a row of block scales. */
static inline int64_t block_scale_count(int dtype, int64_t k) {
    if (dtype == INT4) return 2 * blocks_of(k);
    if (dtype == INT8_16) return blocks_of(k);
    return (dtype == INT4_32 ? 2 : 1) * ((k + 31) / 32);
}

/* The scales of a block's groups, or NULL where groups have none. */
static inline const uint8_t *group_scales(const Grouped *w, int64_t row, int64_t block) {
    return w->scales ? w->scales + row * scale_bytes(w->dtype, w->k) + 16 * block : NULL;
}

/* What a row's products are made with is in one place here, for any processor: the code, the whole number that it is
 * multiplied with, and that which is taken off, of an input of a row. */
static inline int code_at(const Grouped *w, int64_t row, int64_t i) {
    const uint8_t *codes = w->codes + row * code_bytes(w->dtype, w->k);
    if (w->dtype == INT8_16 || w->dtype == INT8_32) return ((const int8_t *)codes)[i];
    const int both = codes[i / 64 * 32 + i % 32];
    return i % 64 < 32 ? both & 15 : both >> 4;
}

/* ---- activations ---------------------------------------------------------------------------------- */

/* A block whose largest value is more than this many times its root mean square is rounded twice where it is rounded
 * to bytes. */
#define HEAVY_BLOCK 8.0f

/* The largest magnitude of a whole number of sixteen bits: sums of 64 inputs with INT8_16 stay below 2^31, whatever its
 * codes and scales are, so they are added up in float32 after as many. */
#define BLOCK_LEVELS 2000
#define WHOLE_PAIRS 64

/* Rows of x as whole numbers, block after block: (blocks, rows, BLOCK), zeros behind the last input; what they are
 * multiplied with; and their sums. A scale of zero means that there is nothing. */
typedef struct {
    int8_t *bytes;  /* these, */
    int16_t *pairs; /* or these */
    int16_t *sums;  /* of bytes, (blocks, rows, SUMS_OF_BLOCK) */
    float *scales;  /* (blocks, rows) */
} BlockRows;

/* What codes of four bits are multiplied with, bytes that are `near` and the `rest` of heavy blocks, and what those of
 * eight bits are, pairs of `fine` numbers. */
typedef struct {
    const float *exact;
    int64_t rows, k;
    BlockRows near, rest, fine;
} Blocked;

/* Which of them a format takes. */
enum { TAKES_BYTES = 1, TAKES_PAIRS = 2 };
static inline int takes_bytes(int dtype) { return dtype == INT4 || dtype == INT4_32; }
static inline int taken_by(int dtype) { return takes_bytes(dtype) ? TAKES_BYTES : is_grouped(dtype) ? TAKES_PAIRS : 0; }

static inline int64_t blocked_bytes(int64_t rows, int64_t k, int taken) {
    const int64_t all = rows * blocks_of(k);
    return (taken & TAKES_BYTES ? all * 2 * (4 + 2 * SUMS_OF_BLOCK + BLOCK) : 0) +
           (taken & TAKES_PAIRS ? all * (4 + 2 * BLOCK) : 0);
}

static inline Blocked blocked_in(const float *x, int64_t rows, int64_t k, int taken, void *memory) {
    Blocked to = {.exact = x, .rows = rows, .k = k};
    const int64_t all = rows * blocks_of(k);
    char *next = (char *)memory;
#define TAKE(MEMBER, TYPE, COUNT) to.MEMBER = (TYPE *)next, next += (COUNT) * (int64_t)sizeof(TYPE)
    if (taken & TAKES_BYTES) {
        TAKE(near.scales, float, all);
        TAKE(rest.scales, float, all);
        TAKE(near.sums, int16_t, all * SUMS_OF_BLOCK);
        TAKE(rest.sums, int16_t, all * SUMS_OF_BLOCK);
    }
    if (taken & TAKES_PAIRS) {
        TAKE(fine.scales, float, all);
        TAKE(fine.pairs, int16_t, all * BLOCK);
    }
    if (taken & TAKES_BYTES) {
        TAKE(near.bytes, int8_t, all * BLOCK);
        TAKE(rest.bytes, int8_t, all * BLOCK);
    }
#undef TAKE
    return to;
}

/* One block as whole multiples of most / LEVELS. */
#define BLOCK_BY(NAME, TARGET, TYPE, LEVELS, VALUES)                                                     \
    TARGET static inline void NAME(const float *x, float most, const BlockRows *to, int64_t place) {     \
        /* So small a block is zero: the inverse of its scale would be infinite. */                      \
        const float inverse = most > 1e-30f ? LEVELS / most : 0;                                         \
        TYPE *values = to->VALUES + place * BLOCK;                                                       \
        int32_t whole[BLOCK];                                                                            \
        for (int i = 0; i < BLOCK; i++) whole[i] = inverse != 0 ? (int32_t)rintf(x[i] * inverse) : 0;    \
        for (int i = 0; i < BLOCK; i++) values[i] = (TYPE)whole[i];                                      \
        to->scales[place] = inverse != 0 ? most / LEVELS : 0;                                            \
        for (int g = 0; to->sums && g < SUMS_OF_BLOCK; g++) {                                            \
            int32_t sum = 0;                                                                             \
            for (int i = 0; i < SUMMED; i++) sum += whole[g * SUMMED + i];                               \
            to->sums[place * SUMS_OF_BLOCK + g] = (int16_t)sum;                                          \
        }                                                                                                \
    }

/* One block of a row, in the forms that are `taken`; a NaN or an infinity in it makes its scales NaN. */
#define ROUND_BLOCK(NAME, TARGET)                                                                        \
    BLOCK_BY(NAME##_bytes, TARGET, int8_t, 127, bytes)                                                   \
    BLOCK_BY(NAME##_pairs, TARGET, int16_t, BLOCK_LEVELS, pairs)                                         \
    TARGET static void NAME(const float *x, const Blocked *to, int taken, int64_t place) {               \
        float most = 0, spoiled = 0, rest[BLOCK], squares[8] = {0};                                      \
        _Pragma("omp simd reduction(max : most)") for (int i = 0; i < BLOCK; i++) {                      \
            float size = fabsf(x[i]);                                                                    \
            most = size > most ? size : most;                                                            \
        }                                                                                                \
        _Pragma("omp simd reduction(+ : spoiled)") for (int i = 0; i < BLOCK; i++) spoiled += x[i] * 0;  \
        /* In one order on every processor. */                                                           \
        for (int i = 0; i < BLOCK; i += 8)                                                               \
            for (int l = 0; l < 8; l++) squares[l] += x[i + l] * x[i + l];                               \
        for (int l = 1; l < 8; l++) squares[0] += squares[l];                                            \
        if (spoiled != 0) most = 0;                                                                      \
        if (taken & TAKES_PAIRS) {                                                                       \
            NAME##_pairs(x, most, &to->fine, place);                                                     \
            to->fine.scales[place] += spoiled;                                                           \
        }                                                                                                \
        if (!(taken & TAKES_BYTES)) return;                                                              \
        NAME##_bytes(x, most, &to->near, place);                                                         \
        const float scale = to->near.scales[place];                                                      \
        to->near.scales[place] += spoiled;                                                               \
        to->rest.scales[place] = 0;                                                                      \
        if (scale == 0 || !(most > HEAVY_BLOCK * sqrtf(squares[0] / BLOCK))) return;                     \
        const int8_t *near = to->near.bytes + place * BLOCK;                                             \
        for (int i = 0; i < BLOCK; i++) rest[i] = fmaf(-(float)near[i], scale, x[i]);                    \
        most = 0;                                                                                        \
        _Pragma("omp simd reduction(max : most)") for (int i = 0; i < BLOCK; i++) {                      \
            float size = fabsf(rest[i]);                                                                 \
            most = size > most ? size : most;                                                            \
        }                                                                                                \
        NAME##_bytes(rest, most, &to->rest, place);                                                      \
    }

ROUND_BLOCK(portable_round_block, )
#if defined(__x86_64__)
ROUND_BLOCK(avx2_round_block, AVX2)
#endif

/* Round rows `begin` to `end`. */
static inline void round_blocks(int isa, const Blocked *to, int taken, int64_t begin, int64_t end) {
    void (*round)(const float *, const Blocked *, int, int64_t) = portable_round_block;
#if defined(__x86_64__)
    if (isa != INT8_PORTABLE) round = avx2_round_block;
#endif
    (void)isa;
    float last[BLOCK];
    for (int64_t r = begin; r < end; r++)
        for (int64_t b = 0; b < blocks_of(to->k); b++) {
            const float *block = to->exact + r * to->k + b * BLOCK;
            const int64_t left = to->k - b * BLOCK;
            if (left < BLOCK) {
                memset(last, 0, sizeof last);
                memcpy(last, block, (size_t)left * 4);
                block = last;
            }
            round(block, to, taken, b * to->rows + r);
        }
}

/* ---- the product, on any processor ---------------------------------------------------------------- */

/* A block of a weight row times a block of x, in the order that all processors keep. */
static float portable_block(const Grouped *w, int64_t row, int64_t block, const BlockRows *x, int64_t place) {
    const int64_t first = block * BLOCK, count = w->k - first < BLOCK ? w->k - first : BLOCK;
    const uint8_t *scales = group_scales(w, row, block);
    const uint16_t *of_row = w->block_scales + row * block_scale_count(w->dtype, w->k);
    const int size = w->dtype == INT8_16 ? 16 : 32, whole = w->dtype == INT4 || w->dtype == INT8_16;
    const float block_scale = whole ? widen_float16(of_row[w->dtype == INT4 ? 2 * block : block]) : 0;
    float result = 0;
    int32_t sum = 0, off = 0;
    for (int64_t g = 0; g * size < count; g++) {
        int32_t products = 0;
        for (int64_t i = g * size; i < (g + 1) * size && i < count; i++) {
            const int64_t at = place * BLOCK + i;
            products += code_at(w, row, first + i) * (x->bytes ? x->bytes[at] : x->pairs[at]);
        }
        const int64_t summed = place * SUMS_OF_BLOCK + g * size / SUMMED;
        if (w->dtype == INT4) {
            sum += scales[g] * products;
            off += scales[8 + g] * x->sums[summed];
        } else if (w->dtype == INT8_16) {
            sum += ((const int8_t *)scales)[g] * products;
            if ((g + 1) * size % WHOLE_PAIRS && (g + 1) * size < count) continue;
            result = fmaf(block_scale, (float)sum, result);
            sum = 0;
        } else {
            const int64_t at = block * SUMS_OF_BLOCK + g;
            const float scale = widen_float16(of_row[w->dtype == INT4_32 ? 2 * at : at]);
            result = fmaf(scale, (float)products, result);
            if (w->dtype == INT4_32)
                result = fmaf(-widen_float16(of_row[2 * at + 1]), (float)x->sums[summed], result);
        }
    }
    if (w->dtype != INT4) return result;
    return fmaf(-widen_float16(of_row[2 * block + 1]), (float)off, block_scale * (float)sum);
}

static void portable_grouped(const Grouped *w, const float *bias, const Blocked *x, int64_t begin, int64_t end, float *y,
                             int64_t y_stride, int add) {
    for (int64_t j = begin; j < end; j++)
        for (int64_t r = 0; r < x->rows; r++) {
            float sum = 0;
            for (int64_t b = 0; b < blocks_of(w->k); b++) {
                const int64_t place = b * x->rows + r;
                const BlockRows *of = takes_bytes(w->dtype) ? &x->near : &x->fine;
                if (of->scales[place] != 0) sum = fmaf(of->scales[place], portable_block(w, j, b, of, place), sum);
                if (takes_bytes(w->dtype) && x->rest.scales[place] != 0)
                    sum = fmaf(x->rest.scales[place], portable_block(w, j, b, &x->rest, place), sum);
            }
            float *target = y + r * y_stride + j;
            *target = sum + (bias ? bias[j] : 0) + (add ? *target : 0);
        }
}

#endif
