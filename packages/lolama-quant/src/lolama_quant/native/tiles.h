/* Products of some rows of bfloat16 activations with bfloat16 weights, by the instruction that multiplies
 * pairs of bfloat16 and adds them in float32 (AVX512_BF16).
 *
 * With a few rows a product is no longer bound by memory, and not yet large enough for panels, which first bring
 * the weights into another order. */
#ifndef LOLAMA_TILES_H
#define LOLAMA_TILES_H

#include "bf16_panels.h"

#if HAS_TILES

/* Inputs that a pass takes. That much of four weight rows stays in the first-level cache while the rows of x pass by,
 * six at a time: with four vectors for each, sums fill the registers. */
#define DEPTH 1024
#define TOGETHER WIDE_TOGETHER
#define TILE_ROWS (8 * TOGETHER)

/* Four weight rows, `gap` items apart, and the part of their `k` inputs that a pass takes: `count`, which start or end
 * the row or do not. Those of the rows behind the four are asked for meanwhile: behind `from` to `to`. */
typedef struct {
    const uint16_t *weights;
    int64_t gap, k, count;
    int starts, ends;
    int64_t from, to;
} Tile;

/* The sums of the lanes of four vectors. */
BF16 static inline __m128 four_lane_sums(const __m512 *v) {
    __m512 halves[2];
    UNROLL for (int i = 0; i < 2; i++)
        halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                                  _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
    __m512 fours = _mm512_add_ps(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88),
                                 _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd));
    fours = _mm512_add_ps(fours, _mm512_permute_ps(fours, 0x4e));
    fours = _mm512_add_ps(fours, _mm512_permute_ps(fours, 0xb1));
    return _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, fours));
}

#define TILE_STEP(LOAD)                                                                                  \
    do {                                                                                                 \
        UNROLL for (int s = 0; s < 4; s++) weights[s] = LOAD(w + s * t->gap + i);                        \
        UNROLL for (int r = 0; r < rows; r++) {                                                          \
            const __m512i row = LOAD(x + r * t->k + i);                                                  \
            UNROLL for (int s = 0; s < 4; s++)                                                           \
                __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc[r][s]) : "v"(weights[s]), "v"(row));           \
        }                                                                                                \
    } while (0)
#define LOAD_SOME(p) _mm512_maskz_loadu_epi16(some, p)

/* The inputs of a tile times ROWS (1 to 6) rows of x: found[row], once they end; `sums` are kept until then. */
#define TILE_OF(NAME, ROWS)                                                                              \
    BF16 static void NAME(const Tile *t, const uint16_t *x, __m512 (*sums)[4], __m128 *found) {          \
        enum { rows = ROWS };                                                                            \
        const uint16_t *w = t->weights;                                                                  \
        __m512 acc[ROWS][4];                                                                             \
        __m512i weights[4];                                                                              \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int s = 0; s < 4; s++) acc[r][s] = t->starts ? _mm512_setzero_ps() : sums[r][s]; \
        int64_t i = 0;                                                                                   \
        for (; i + 32 <= t->count; i += 32) {                                                            \
            for (int64_t s = t->from; s < t->to; s++)                                                    \
                _mm_prefetch((const char *)(w + s * t->gap + t->k + i), _MM_HINT_T1);                    \
            TILE_STEP(_mm512_loadu_si512);                                                               \
        }                                                                                                \
        if (i < t->count) {                                                                              \
            const __mmask32 some = (__mmask32)((1u << (t->count - i)) - 1);                              \
            TILE_STEP(LOAD_SOME);                                                                        \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            if (t->ends) found[r] = four_lane_sums(acc[r]);                                              \
            else UNROLL for (int s = 0; s < 4; s++) sums[r][s] = acc[r][s];                              \
        }                                                                                                \
    }

TILE_OF(tile_1, 1)
TILE_OF(tile_2, 2)
TILE_OF(tile_3, 3)
TILE_OF(tile_4, 4)
TILE_OF(tile_5, 5)
TILE_OF(tile_6, 6)

/* Four outputs of each row of x, from `output` on and `apart`, but for the first `done`; `more` are apart behind them.
 * A row has `parts` that lie one after another, whose outputs are added up. */
BF16 static void tile_outputs(const uint16_t *weight, const float *bias, const uint16_t *x, int64_t rows, int parts,
                              int64_t output, int64_t apart, int64_t done, int more, int64_t k, float *y,
                              int64_t y_stride, int add) {
    static void (*const tiles[])(const Tile *, const uint16_t *, __m512 (*)[4], __m128 *) = {
        NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
    __m512 sums[TILE_ROWS][4];
    __m128 found[TILE_ROWS];
    const int64_t all = rows * parts, passes = (all + TOGETHER - 1) / TOGETHER;
    for (int64_t i = 0; i < k; i += DEPTH) {
        const int64_t count = k - i < DEPTH ? k - i : DEPTH;
        Tile tile = {weight + output * k + i, apart * k, k, count, i == 0, i + count == k, 0, 0};
        for (int64_t pass = 0, first = 0; pass < passes; pass++, first += TOGETHER) {
            if (more) tile.from = 4 * pass / passes, tile.to = 4 * (pass + 1) / passes;
            tiles[all - first < TOGETHER ? all - first : TOGETHER](&tile, x + first * k + i, sums + first,
                                                                   found + first);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        float four[4];
        _mm_storeu_ps(four, parts == 1 ? found[r] : _mm_add_ps(found[2 * r], found[2 * r + 1]));
        for (int64_t s = done, j = output + s * apart; s < 4; s++, j += apart) {
            float *target = y + r * y_stride + j;
            *target = four[s] + (bias ? bias[j] : 0) + (add ? *target : 0);
        }
    }
}

/* Outputs `begin` to `end` of x (rows, parts, k) times weight (n, k), as `product`, in one order of additions for any
 * number of rows: four streams of weights from far apart. If outputs are no multiple of four, the last tile begins among
 * those that are done, so there must be four. */
BF16 static void tiled_rows(const uint16_t *weight, const float *bias, const uint16_t *x, int64_t rows, int parts,
                            int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride, int add) {
    const int64_t quarter = (end - begin) / 4, left = (end - begin) % 4, most = TILE_ROWS / parts;
    for (int64_t first = 0; first < rows; first += most, x += TILE_ROWS * k, y += most * y_stride) {
        const int64_t count = rows - first < most ? rows - first : most;
        for (int64_t n = 0; n < quarter; n++)
            tile_outputs(weight, bias, x, count, parts, begin + n, quarter, 0, n + 1 < quarter, k, y, y_stride, add);
        if (left) tile_outputs(weight, bias, x, count, parts, end - 4, 1, 4 - left, 0, k, y, y_stride, add);
    }
}

/* The same of one part, by the fastest means. */
BF16 static void tile_product(const uint16_t *weight, const float *bias, const uint16_t *x, int64_t rows,
                              int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride, int add) {
    if (takes_bf16_panels(rows, k)) bf16_panel_product(weight, bias, x, rows, begin, end, k, y, y_stride, add);
    else tiled_rows(weight, bias, x, rows, 1, begin, end, k, y, y_stride, add);
}

/* Rows `begin` to `end` of x (rows, k) as sums of two parts of bfloat16, (rows, 2, k), which have twice as many digits
 * as one. */
BF16 static inline void take_parts(const float *x, int64_t begin, int64_t end, int64_t k, uint16_t *parts) {
    for (int64_t r = begin; r < end; r++) {
        uint16_t *near = parts + 2 * r * k;
        narrow(x + r * k, near, k);
        for (int64_t i = 0; i < k; i += 16) {
            const __mmask16 some = k - i < 16 ? (__mmask16)((1u << (k - i)) - 1) : 0xffff;
            const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, near + i));
            const __m512 rest = _mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + r * k + i),
                                              _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
            _mm256_mask_storeu_epi16(near + k + i, some, (__m256i)_mm512_cvtneps_pbh(rest));
        }
    }
}

/* As `product`, with x in two parts, in one order of additions for any number of rows. */
static inline void parts_product(const uint16_t *weight, const float *bias, const uint16_t *parts, int64_t rows,
                                 int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride) {
    tiled_rows(weight, bias, parts, rows, 2, begin, end, k, y, y_stride, 0);
}

#else

static inline void take_parts(const float *x, int64_t begin, int64_t end, int64_t k, uint16_t *parts) {
    (void)x, (void)begin, (void)end, (void)k, (void)parts;
}

static inline void parts_product(const uint16_t *weight, const float *bias, const uint16_t *parts, int64_t rows,
                                 int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride) {
    (void)weight, (void)bias, (void)parts, (void)rows, (void)begin, (void)end, (void)k, (void)y, (void)y_stride;
}

#endif

#endif
