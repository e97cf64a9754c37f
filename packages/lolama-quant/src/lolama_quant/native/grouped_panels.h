/* Products with grouped weights, as many outputs at a time as a vector has lanes: eight with AVX2, sixteen with AVX-512
 * (grouped_vnni.h).
 *
 * A block of as many weight rows is brought into a panel, as what is multiplied fastest: quads of bytes for codes of four
 * bits, pairs of sixteen bits for those of eight. All rows of x pass by it while it lies in the first-level cache. */
#ifndef LOLAMA_GROUPED_PANELS_H
#define LOLAMA_GROUPED_PANELS_H

#include "grouped.h"
#include "next_lines.h"

#define MOST_PASSING 512 /* rows of x that pass by the panels of all outputs before others do */

#if defined(__x86_64__)

#define MOST_OUTPUTS 16 /* of a panel */

/* A block of some outputs, as vectors that have a lane for each. */
typedef struct {
    int32_t codes[BLOCK / 2 * MOST_OUTPUTS];         /* quads: half of it; pairs */
    int32_t scales[SUMS_OF_BLOCK * MOST_OUTPUTS];    /* INT4: the scale of each group, as `multiply` takes it */
    int32_t minimums[SUMS_OF_BLOCK / 2 * MOST_OUTPUTS]; /* INT4: those of two groups together */
    float block_scales[SUMS_OF_BLOCK * MOST_OUTPUTS]; /* INT4, INT8_16: one; others: of each group */
    float block_minimums[SUMS_OF_BLOCK * MOST_OUTPUTS];
    int groups; /* of 32 inputs, an even number */
} __attribute__((aligned(64))) BlockPanel;

/* Which rows a panel has: `used` from `first` on; the first stands for those that lack. */
typedef struct {
    int64_t first, used;
} PanelRows;
static inline int64_t panel_row(const PanelRows *p, int s) { return p->first + (s < p->used ? s : 0); }

/* What an instruction set supplies: a panel of so many outputs, codes and scales of groups brought into it, and `count`
 * rows of x from `place` on times it, added to their sums. */
typedef struct {
    int64_t outputs;
    void (*bring)(const Grouped *, const PanelRows *, int64_t block, BlockPanel *);
    void (*multiply)(const BlockPanel *, int dtype, const BlockRows *, int64_t place, int64_t count, float *sums);
} PanelFunctions;

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

AVX2 static inline __attribute__((always_inline)) void store_eight(int32_t *to, const __m256i *v) {
    UNROLL for (int i = 0; i < 8; i++) _mm256_store_si256((__m256i *)to + i, v[i]);
}

/* ---- bringing in ---------------------------------------------------------------------------------- */

AVX2 static void bring_codes4(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    const int64_t bytes = code_bytes(w->dtype, w->k);
    const int chunks = to->groups / 2;
    const __m256i low = _mm256_set1_epi8(15);
    const uint8_t *codes[8];
    for (int s = 0; s < 8; s++) codes[s] = w->codes + panel_row(rows, s) * bytes + block * (BLOCK / 2);
    for (int c = 0; c < chunks; c++) {
        __m256i lower[8], upper[8];
        UNROLL for (int s = 0; s < 8; s++) {
            const __m256i both = _mm256_loadu_si256((const __m256i *)(codes[s] + 32 * c));
            lower[s] = _mm256_and_si256(both, low);
            upper[s] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        }
        transpose_eight(lower);
        transpose_eight(upper);
        store_eight(to->codes + 128 * c, lower);
        store_eight(to->codes + 128 * c + 64, upper);
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
    const int64_t left = w->k - block * BLOCK;
    const int groups = 2 * to->groups, scaled = w->dtype == INT8_16;
    const int8_t *codes[8], *scales[8];
    for (int s = 0; s < 8; s++) {
        const int64_t row = panel_row(rows, s);
        codes[s] = (const int8_t *)w->codes + row * w->k + block * BLOCK;
        scales[s] = (const int8_t *)group_scales(w, row, block);
    }
    for (int g = 0; g < groups; g++) {
        __m256i wide[8];
        UNROLL for (int s = 0; s < 8; s++) {
            wide[s] = codes8(codes[s] + 16 * g, left - 16 * g);
            if (scaled) wide[s] = _mm256_mullo_epi16(wide[s], _mm256_set1_epi16(scales[s][g]));
        }
        transpose_eight(wide);
        store_eight(to->codes + 64 * g, wide);
    }
}

/* Scales and minimums of the groups of INT4, scales twice for each output. */
AVX2 static void bring_scales(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    __m256i scales[8], minimums[8];
    UNROLL for (int s = 0; s < 8; s++) {
        const __m128i both = _mm_loadu_si128((const __m128i *)group_scales(w, panel_row(rows, s), block));
        const __m256i one = _mm256_cvtepu8_epi32(both);
        scales[s] = _mm256_or_si256(one, _mm256_slli_epi32(one, 16));
        minimums[s] = _mm256_castsi128_si256(_mm_cvtepu8_epi16(_mm_srli_si128(both, 8)));
    }
    transpose_eight(scales);
    transpose_eight(minimums);
    store_eight(to->scales, scales);
    store_eight(to->minimums, minimums); /* four of them, and zeros */
}

/* Scales and minimums of blocks, or of groups where those are blocks. */
AVX2 static inline __attribute__((always_inline)) void bring_block_scales(const Grouped *w, const PanelRows *rows,
                                                                          int64_t block, int outputs, BlockPanel *to) {
    const int64_t count = block_scale_count(w->dtype, w->k);
    const int parts = takes_bytes(w->dtype) ? 2 : 1, groups = scale_bytes(w->dtype, w->k) ? 1 : SUMS_OF_BLOCK;
    const int64_t first = block * groups * parts, all = groups * parts, there = count - first < all ? count - first : all;
    uint16_t found[2 * SUMS_OF_BLOCK][MOST_OUTPUTS];
    if (there < all) memset(found, 0, sizeof found);
    for (int s = 0; s < outputs; s++) {
        const uint16_t *from = w->block_scales + panel_row(rows, s) * count + first;
        for (int64_t i = 0; i < there; i++) found[i][s] = from[i];
    }
    for (int g = 0; g < groups; g++)
        for (int s = 0; s < outputs; s += 8) {
            const __m128i *eight = (const __m128i *)(found[parts * g] + s);
            _mm256_storeu_ps(to->block_scales + g * outputs + s, _mm256_cvtph_ps(_mm_loadu_si128(eight)));
            if (parts == 1) continue;
            eight = (const __m128i *)(found[2 * g + 1] + s);
            _mm256_storeu_ps(to->block_minimums + g * outputs + s, _mm256_cvtph_ps(_mm_loadu_si128(eight)));
        }
}

AVX2 static void avx2_bring(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    if (takes_bytes(w->dtype)) bring_codes4(w, rows, block, to);
    else bring_codes8(w, rows, block, to);
    if (w->dtype == INT4) bring_scales(w, rows, block, to);
    bring_block_scales(w, rows, block, 8, to);
}

/* ---- multiplying ---------------------------------------------------------------------------------- */

static inline int32_t four_bytes(const void *from) {
    int32_t four;
    memcpy(&four, from, 4);
    return four;
}

/* A panel times ROWS rows of x from `place` on, added to their sums. MM is what intrinsics begin with, `_mm256` or
 * `_mm512`, MY what the few begin with that differ, and LANES the numbers of a vector. Rows whose scale is zero get nothing, or what is not a number would come of what
 * they hold. */
#define ADD_TIMES(MM, MY, LANES, R, RESULT)                                                              \
    if (x->scales[place + (R)] != 0) {                                                                   \
        const MY##_floats old = MM##_loadu_ps(sums + LANES * (R)), times = MM##_set1_ps(x->scales[place + (R)]); \
        MM##_storeu_ps(sums + LANES * (R), MM##_fmadd_ps(RESULT, times, old));                           \
    }

/* PART quads are added up as they fit into sixteen bits, and then multiplied with the scale of their group. */
#define QUADS(NAME, TARGET, MM, MY, LANES, PART, ROWS)                                                   \
    TARGET static void NAME(const BlockPanel *p, int dtype, const BlockRows *x, int64_t place, float *sums) { \
        const int8_t *rows = x->bytes + place * BLOCK;                                                   \
        const int16_t *row_sums = x->sums + place * SUMS_OF_BLOCK;                                       \
        MY##_ints whole[ROWS];                                                                           \
        MY##_floats results[ROWS];                                                                       \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            whole[r] = MM##_set1_epi32(0), results[r] = MM##_setzero_ps();                               \
        for (int g = 0; g < p->groups; g++) {                                                            \
            MY##_ints acc[ROWS];                                                                         \
            const MY##_ints *codes = (const MY##_ints *)p->codes + 8 * g;                                \
            const MY##_ints scales = dtype == INT4 ? ((const MY##_ints *)p->scales)[g] : MY##_ones();    \
            UNROLL for (int i = 0; i < 8; i++)                                                           \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    const MY##_ints four = MM##_set1_epi32(four_bytes(rows + r * BLOCK + 32 * g + 4 * i)); \
                    if (i % PART == 0) acc[r] = MY##_bytes(codes[i], four);                              \
                    else MY##_add_bytes(acc[r], codes[i], four);                                         \
                    if (i % PART == PART - 1)                                                            \
                        whole[r] = dtype == INT4 || i >= PART ? MY##_add_pairs(whole[r], acc[r], scales) \
                                                              : MY##_pairs(acc[r], scales);              \
                }                                                                                        \
            if (dtype == INT4) continue;                                                                 \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                const MY##_floats scale = MM##_loadu_ps(p->block_scales + LANES * g);                    \
                const MY##_floats minimum = MM##_loadu_ps(p->block_minimums + LANES * g);                \
                const MY##_floats off = MM##_set1_ps(row_sums[r * SUMS_OF_BLOCK + g]);                   \
                results[r] = MM##_fmadd_ps(scale, MM##_cvtepi32_ps(whole[r]), results[r]);               \
                results[r] = MM##_fnmadd_ps(minimum, off, results[r]);                                   \
            }                                                                                            \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            if (dtype == INT4) {                                                                         \
                MY##_ints off = MM##_set1_epi32(0);                                                      \
                UNROLL for (int g = 0; g < SUMS_OF_BLOCK / 2; g++) {                                     \
                    const MY##_ints two = MM##_set1_epi32(four_bytes(row_sums + r * SUMS_OF_BLOCK + 2 * g)); \
                    off = MY##_add_pairs(off, ((const MY##_ints *)p->minimums)[g], two);                 \
                }                                                                                        \
                const MY##_floats scaled = MM##_mul_ps(MM##_loadu_ps(p->block_scales), MM##_cvtepi32_ps(whole[r])); \
                results[r] = MM##_fnmadd_ps(MM##_loadu_ps(p->block_minimums), MM##_cvtepi32_ps(off), scaled); \
            }                                                                                            \
            ADD_TIMES(MM, MY, LANES, r, results[r])                                                      \
        }                                                                                                \
    }

/* Pairs of INT8_16 come in multiplied with the scale of their group, and are added up WHOLE_PAIRS at a time, in PARTS sums
 * that do not wait for each other. */
#define PAIRS(NAME, TARGET, MM, MY, LANES, PARTS, ROWS)                                                  \
    TARGET static void NAME(const BlockPanel *p, int dtype, const BlockRows *x, int64_t place, float *sums) { \
        const int16_t *rows = x->pairs + place * BLOCK;                                                  \
        MY##_ints acc[ROWS][PARTS];                                                                      \
        MY##_floats results[ROWS];                                                                       \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            UNROLL for (int i = 0; i < PARTS; i++) acc[r][i] = MM##_set1_epi32(0);                       \
            results[r] = MM##_setzero_ps();                                                              \
        }                                                                                                \
        for (int g = 0; g < p->groups; g++) {                                                            \
            const MY##_ints *codes = (const MY##_ints *)p->codes + 16 * g;                               \
            UNROLL for (int i = 0; i < 16; i++)                                                          \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    const MY##_ints two = MM##_set1_epi32(four_bytes(rows + r * BLOCK + 32 * g + 2 * i)); \
                    MY##_add_pairs_in_place(acc[r][i % PARTS], codes[i], two);                           \
                }                                                                                        \
            if (dtype == INT8_16 && g % 2 == 0) continue;                                                \
            const MY##_floats scales = MM##_loadu_ps(p->block_scales + (dtype == INT8_16 ? 0 : LANES * g)); \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                MY##_ints all = acc[r][0];                                                               \
                UNROLL for (int i = 1; i < PARTS; i++) all = MM##_add_epi32(all, acc[r][i]);             \
                UNROLL for (int i = 0; i < PARTS; i++) acc[r][i] = MM##_set1_epi32(0);                   \
                results[r] = MM##_fmadd_ps(scales, MM##_cvtepi32_ps(all), results[r]);                   \
            }                                                                                            \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++) { ADD_TIMES(MM, MY, LANES, r, results[r]) }                \
    }

/* `count` rows from `place` on. */
#define MULTIPLY_PANEL(NAME, QUADS_TABLE, PAIRS_TABLE, LANES)                                            \
    static void NAME(const BlockPanel *p, int dtype, const BlockRows *x, int64_t place, int64_t count, float *sums) { \
        typedef void (*panel_function)(const BlockPanel *, int, const BlockRows *, int64_t, float *);    \
        static const panel_function functions[2][4] = {PAIRS_TABLE, QUADS_TABLE};                        \
        const panel_function *of = functions[takes_bytes(dtype)];                                        \
        for (int64_t r = 0; r < count; r += 4)                                                           \
            of[count - r < 4 ? count - r - 1 : 3](p, dtype, x, place + r, sums + LANES * r);             \
    }

/* AVX2 adds up to halves of a lane. Eight products of them stay below 2^15: codes are 15 at most, and bytes 127. */
typedef __m256i avx2_ints;
typedef __m256 avx2_floats;
#define avx2_ones() _mm256_set1_epi16(1)
#define avx2_bytes(codes, four) _mm256_maddubs_epi16(codes, four)
#define avx2_add_bytes(acc, codes, four)                                                                 \
    do {                                                                                                 \
        const __m256i products = avx2_bytes(codes, four);                                                \
        ADD_PAIRS_IN_PLACE(acc, products);                                                               \
    } while (0)
#define avx2_pairs(a, b) _mm256_madd_epi16(a, b)
#define avx2_add_pairs(acc, a, b) _mm256_add_epi32(acc, avx2_pairs(a, b))
#define avx2_add_pairs_in_place(acc, a, b)                                                               \
    do {                                                                                                 \
        const __m256i products = avx2_pairs(a, b);                                                       \
        ADD_IN_PLACE(acc, products);                                                                     \
    } while (0)

FOUR(QUADS, avx2_panel4, AVX2, _mm256, avx2, 8, 8)
FOUR(PAIRS, avx2_panel8, AVX2, _mm256, avx2, 8, 1)
MULTIPLY_PANEL(avx2_multiply_panel, TABLE(avx2_panel4), TABLE(avx2_panel8), 8)

static const PanelFunctions avx2_panels = {8, avx2_bring, avx2_multiply_panel};

/* ---- the product ---------------------------------------------------------------------------------- */

/* Rows `first` to `first + count` of x by way of panels. */
static void panels_product(const PanelFunctions *of, const Grouped *w, const float *bias, const Blocked *x, int64_t first,
                           int64_t count, int64_t begin, int64_t end, float *y, int64_t y_stride, int add) {
    const int64_t blocks = blocks_of(w->k), outputs = of->outputs, bytes = code_bytes(w->dtype, w->k);
    float sums[MOST_PASSING * MOST_OUTPUTS];
    BlockPanel panel;
    for (int64_t j = begin; j < end; j += outputs) {
        const PanelRows rows = {j, end - j < outputs ? end - j : outputs};
        memset(sums, 0, (size_t)(count * outputs) * sizeof *sums);
        /* Codes of the next panel, line by line: memory is slow to bring those of neighboring rows in turns. */
        NextLines next = {(const char *)w->codes + (j + outputs) * bytes, (const char *)w->codes + end * bytes};
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t place = b * x->rows + first, left = w->k - b * BLOCK;
            panel.groups = left < BLOCK ? (int)((left + 63) / 64 * 2) : SUMS_OF_BLOCK;
            of->bring(w, &rows, b, &panel);
            ask_for(&next, outputs * code_bytes(w->dtype, BLOCK) / 64);
            of->multiply(&panel, w->dtype, takes_bytes(w->dtype) ? &x->near : &x->fine, place, count, sums);
            for (int64_t r = 0; takes_bytes(w->dtype) && r < count; r++)
                if (x->rest.scales[place + r] != 0)
                    of->multiply(&panel, w->dtype, &x->rest, place + r, 1, sums + r * outputs);
        }
        for (int64_t r = 0; r < count; r++)
            for (int64_t s = 0; s < rows.used; s++) {
                float *target = y + (first + r) * y_stride + j + s;
                *target = sums[r * outputs + s] + (bias ? bias[j + s] : 0) + (add ? *target : 0);
            }
    }
}

#endif

#endif
