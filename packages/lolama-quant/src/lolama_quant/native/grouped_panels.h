/* Products with grouped weights, eight outputs at a time in the lanes of a vector (AVX2).
 *
 * A block of eight weight rows is brought into a panel, as what is multiplied fastest: quads of bytes for INT4, pairs of
 * sixteen bits for other formats. All rows of x pass by it while it lies in the first-level cache. With one row, INT4 is
 * multiplied where it is. */
#ifndef LOLAMA_GROUPED_PANELS_H
#define LOLAMA_GROUPED_PANELS_H

#include "grouped.h"
#include "next_lines.h"

#if defined(__x86_64__)

#define OUTPUTS 8 /* of a panel */

/* Rows of x that pass by the panels of all outputs before others do: as many as fit into the second-level cache, and
 * no fewer than make bringing cheap. */
#define PASSING_BYTES (256 << 10)
#define LEAST_PASSING 32
#define MOST_PASSING 512

/* A block of eight outputs. */
typedef struct {
    __m256i codes[BLOCK / 2];             /* quads: BLOCK / 4 of them; pairs: BLOCK / 2 */
    __m256i scales[SUMS_OF_BLOCK];        /* INT4: the scale of each group, twice for each output */
    __m256i minimums[SUMS_OF_BLOCK / 2];  /* INT4: those of two groups */
    __m256 block_scales[SUMS_OF_BLOCK];   /* INT4, INT8_16: one; others: of each group */
    __m256 block_minimums[SUMS_OF_BLOCK];
    int groups;                           /* of 32 inputs, an even number */
} BlockPanel;

/* Eight rows of eight numbers of 32 bits become columns. */
AVX2 static inline __attribute__((always_inline)) void transpose_eight(__m256i *v) {
    __m256i a[8], b[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x20);
        v[4 + i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x31);
    }
}

/* ---- bringing in ---------------------------------------------------------------------------------- */

/* Which rows a panel has: `used` from `first` on; the first stands for those that lack. */
typedef struct {
    int64_t first, used;
} PanelRows;
static inline int64_t panel_row(const PanelRows *p, int s) { return p->first + (s < p->used ? s : 0); }

AVX2 static void bring_codes4(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    const int64_t bytes = code_bytes(w->dtype, w->k);
    const __m256i low = _mm256_set1_epi8(15);
    for (int c = 0; c < to->groups / 2; c++) {
        __m256i lower[8], upper[8];
        UNROLL for (int s = 0; s < 8; s++) {
            const uint8_t *from = w->codes + panel_row(rows, s) * bytes + block * (BLOCK / 2) + 32 * c;
            const __m256i both = _mm256_loadu_si256((const __m256i *)from);
            lower[s] = _mm256_and_si256(both, low);
            upper[s] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        }
        transpose_eight(lower);
        transpose_eight(upper);
        memcpy(to->codes + 16 * c, lower, sizeof lower);
        memcpy(to->codes + 16 * c + 8, upper, sizeof upper);
    }
}

/* Sixteen codes of a row, and zeros behind the last. */
AVX2 static inline __m256i codes8(const int8_t *from, int64_t left) {
    if (left >= 16) return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
    int8_t some[16] = {0};
    if (left > 0) memcpy(some, from, (size_t)left);
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)some));
}

AVX2 static void bring_codes8(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    const int64_t left = w->k - block * BLOCK, scales = scale_bytes(w->dtype, w->k);
    for (int g = 0; g < 2 * to->groups; g++) {
        __m256i wide[8];
        UNROLL for (int s = 0; s < 8; s++) {
            const int64_t row = panel_row(rows, s);
            wide[s] = codes8((const int8_t *)w->codes + row * w->k + block * BLOCK + 16 * g, left - 16 * g);
            if (w->dtype == INT8_16) {
                const int8_t scale = ((const int8_t *)w->scales)[row * scales + 16 * block + g];
                wide[s] = _mm256_mullo_epi16(wide[s], _mm256_set1_epi16(scale));
            }
        }
        transpose_eight(wide);
        memcpy(to->codes + 8 * g, wide, sizeof wide);
    }
}

/* Scales and minimums of the groups of INT4. */
AVX2 static void bring_scales(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    __m256i scales[8], minimums[8];
    UNROLL for (int s = 0; s < 8; s++) {
        const uint8_t *from = w->scales + panel_row(rows, s) * scale_bytes(INT4, w->k) + 16 * block;
        const __m128i both = _mm_loadu_si128((const __m128i *)from);
        const __m256i one = _mm256_cvtepu8_epi32(both);
        scales[s] = _mm256_or_si256(one, _mm256_slli_epi32(one, 16));
        minimums[s] = _mm256_castsi128_si256(_mm_cvtepu8_epi16(_mm_srli_si128(both, 8)));
    }
    transpose_eight(scales);
    transpose_eight(minimums);
    memcpy(to->scales, scales, sizeof to->scales);
    memcpy(to->minimums, minimums, sizeof to->minimums);
}

AVX2 static void bring_block_scales(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    const int64_t count = block_scale_count(w->dtype, w->k);
    const int parts = takes_bytes(w->dtype) ? 2 : 1;
    const int whole = w->dtype == INT4 || w->dtype == INT8_16;
    const int64_t first = (whole ? block : block * SUMS_OF_BLOCK) * parts;
    float found[2 * SUMS_OF_BLOCK][8] = {{0}};
    for (int s = 0; s < 8; s++) {
        const uint16_t *from = w->block_scales + panel_row(rows, s) * count + first;
        const int64_t most = whole ? parts : count - first < parts * SUMS_OF_BLOCK ? count - first : parts * SUMS_OF_BLOCK;
        for (int64_t i = 0; i < most; i++) found[i][s] = _cvtsh_ss(from[i]);
    }
    for (int g = 0; g < (whole ? 1 : SUMS_OF_BLOCK); g++) {
        to->block_scales[g] = _mm256_loadu_ps(found[parts * g]);
        if (parts == 2) to->block_minimums[g] = _mm256_loadu_ps(found[2 * g + 1]);
    }
}

AVX2 static void bring_block(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    const int64_t left = w->k - block * BLOCK;
    to->groups = left < BLOCK ? (int)((left + 63) / 64 * 2) : SUMS_OF_BLOCK;
    if (takes_bytes(w->dtype)) bring_codes4(w, rows, block, to);
    else bring_codes8(w, rows, block, to);
    if (w->dtype == INT4) bring_scales(w, rows, block, to);
    bring_block_scales(w, rows, block, to);
}

/* ---- multiplying ---------------------------------------------------------------------------------- */

static inline int32_t four_bytes(const void *from) {
    int32_t four;
    memcpy(&four, from, 4);
    return four;
}

/* A panel times ROWS rows of x from `place` on, added to their sums. Rows whose scale is zero get nothing, or what is
 * not a number would come of what they hold. */
#define ADD_TIMES(R, RESULT)                                                                             \
    if (x->scales[place + (R)] != 0)                                                                     \
        sums[R] = _mm256_fmadd_ps(RESULT, _mm256_set1_ps(x->scales[place + (R)]), sums[R]);

/* Products of eight quads stay below 2^15: codes are 15 at most, and bytes 127. */
#define QUADS(NAME, VEC, ROWS)                                                                           \
    AVX2 static void NAME(const BlockPanel *p, int dtype, const BlockRows *x, int64_t place, VEC *sums) { \
        const int8_t *rows = x->bytes + place * BLOCK;                                                   \
        const int16_t *row_sums = x->sums + place * SUMS_OF_BLOCK;                                       \
        __m256i whole[ROWS];                                                                             \
        VEC results[ROWS];                                                                               \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            whole[r] = _mm256_setzero_si256(), results[r] = _mm256_setzero_ps();                         \
        for (int g = 0; g < p->groups; g++) {                                                            \
            __m256i acc[ROWS];                                                                           \
            const __m256i *codes = p->codes + 8 * g;                                                     \
            UNROLL for (int i = 0; i < 8; i++)                                                           \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    const __m256i four = _mm256_set1_epi32(four_bytes(rows + r * BLOCK + 32 * g + 4 * i)); \
                    const __m256i products = _mm256_maddubs_epi16(codes[i], four);                       \
                    if (i) ADD_PAIRS_IN_PLACE(acc[r], products);                                         \
                    else acc[r] = products;                                                              \
                }                                                                                        \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                if (dtype == INT4) {                                                                     \
                    whole[r] = _mm256_add_epi32(whole[r], _mm256_madd_epi16(acc[r], p->scales[g]));      \
                    continue;                                                                            \
                }                                                                                        \
                const VEC one = _mm256_cvtepi32_ps(_mm256_madd_epi16(acc[r], _mm256_set1_epi16(1)));     \
                const VEC off = _mm256_set1_ps(row_sums[r * SUMS_OF_BLOCK + g]);                         \
                results[r] = _mm256_fmadd_ps(p->block_scales[g], one, results[r]);                       \
                results[r] = _mm256_fnmadd_ps(p->block_minimums[g], off, results[r]);                    \
            }                                                                                            \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            if (dtype == INT4) {                                                                         \
                __m256i off = _mm256_setzero_si256();                                                    \
                UNROLL for (int g = 0; g < SUMS_OF_BLOCK / 2; g++) {                                     \
                    const __m256i two = _mm256_set1_epi32(four_bytes(row_sums + r * SUMS_OF_BLOCK + 2 * g)); \
                    off = _mm256_add_epi32(off, _mm256_madd_epi16(p->minimums[g], two));                 \
                }                                                                                        \
                const VEC scaled = _mm256_mul_ps(p->block_scales[0], _mm256_cvtepi32_ps(whole[r]));      \
                results[r] = _mm256_fnmadd_ps(p->block_minimums[0], _mm256_cvtepi32_ps(off), scaled);    \
            }                                                                                            \
            ADD_TIMES(r, results[r])                                                                     \
        }                                                                                                \
    }

/* Pairs of INT8_16 come in multiplied with the scale of their group, and are added up WHOLE_PAIRS at a time. */
#define PAIRS(NAME, VEC, ROWS)                                                                           \
    AVX2 static void NAME(const BlockPanel *p, int dtype, const BlockRows *x, int64_t place, VEC *sums) { \
        const int16_t *rows = x->pairs + place * BLOCK;                                                  \
        __m256i acc[ROWS];                                                                               \
        VEC results[ROWS];                                                                               \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            acc[r] = _mm256_setzero_si256(), results[r] = _mm256_setzero_ps();                           \
        for (int g = 0; g < p->groups; g++) {                                                            \
            const __m256i *codes = p->codes + 16 * g;                                                    \
            UNROLL for (int i = 0; i < 16; i++)                                                          \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    const __m256i two = _mm256_set1_epi32(four_bytes(rows + r * BLOCK + 32 * g + 2 * i)); \
                    const __m256i products = _mm256_madd_epi16(codes[i], two);                           \
                    ADD_IN_PLACE(acc[r], products);                                                      \
                }                                                                                        \
            if (dtype == INT8_16 && g % 2 == 0) continue;                                                \
            const VEC scales = p->block_scales[dtype == INT8_16 ? 0 : g];                                \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                results[r] = _mm256_fmadd_ps(scales, _mm256_cvtepi32_ps(acc[r]), results[r]);            \
                acc[r] = _mm256_setzero_si256();                                                         \
            }                                                                                            \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++) { ADD_TIMES(r, results[r]) }                               \
    }

FOUR(QUADS, quads, __m256)
FOUR(PAIRS, pairs, __m256)

typedef void (*panel_function)(const BlockPanel *, int, const BlockRows *, int64_t, __m256 *);

/* `count` rows from `place` on. */
AVX2 static void multiply_panel(const BlockPanel *p, int dtype, const BlockRows *x, int64_t place, int64_t count,
                                __m256 *sums) {
    static const panel_function functions[2][4] = {TABLE(pairs), TABLE(quads)};
    const panel_function *of = functions[takes_bytes(dtype)];
    for (int64_t r = 0; r < count; r += 4) of[count - r < 4 ? count - r - 1 : 3](p, dtype, x, place + r, sums + r);
}

/* ---- the product ---------------------------------------------------------------------------------- */

/* Eight sums of a row go to `used` outputs. */
AVX2 static inline void store_outputs(float *y, __m256 sums, const float *bias, int64_t used, int add) {
    float eight[8];
    _mm256_storeu_ps(eight, sums);
    for (int64_t s = 0; s < used; s++) y[s] = eight[s] + (bias ? bias[s] : 0) + (add ? y[s] : 0);
}

/* Rows `first` to `first + count` of x by way of panels. */
AVX2 static void panels_product(const Grouped *w, const float *bias, const Blocked *x, int64_t first, int64_t count,
                                int64_t begin, int64_t end, float *y, int64_t y_stride, int add) {
    __m256 sums[MOST_PASSING];
    BlockPanel panel;
    const int64_t blocks = blocks_of(w->k);
    for (int64_t j = begin; j < end; j += OUTPUTS) {
        const PanelRows rows = {j, end - j < OUTPUTS ? end - j : OUTPUTS};
        for (int64_t r = 0; r < count; r++) sums[r] = _mm256_setzero_ps();
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t place = b * x->rows + first;
            bring_block(w, &rows, b, &panel);
            if (!takes_bytes(w->dtype)) {
                multiply_panel(&panel, w->dtype, &x->fine, place, count, sums);
                continue;
            }
            multiply_panel(&panel, w->dtype, &x->near, place, count, sums);
            for (int64_t r = 0; r < count; r++)
                if (x->rest.scales[place + r] != 0) multiply_panel(&panel, w->dtype, &x->rest, place + r, 1, sums + r);
        }
        for (int64_t r = 0; r < count; r++)
            store_outputs(y + (first + r) * y_stride + j, sums[r], bias ? bias + j : NULL, rows.used, add);
    }
}

#endif

#endif
