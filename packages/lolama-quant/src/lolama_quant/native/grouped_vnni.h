/* Products with grouped weights by AVX-512 with VNNI, which adds up products of bytes in fours, in lanes of 32 bits. */
#ifndef LOLAMA_GROUPED_VNNI_H
#define LOLAMA_GROUPED_VNNI_H

#include "grouped_rows.h"
#include "int8.h"

#if defined(__x86_64__)

#define LOAD512(from) _mm512_loadu_si512(from)

/* 64 codes of four bits as bytes, in the order of inputs. */
VNNI static inline __m512i vnni_chunk(const uint8_t *from) {
    const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)from));
    const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
    return _mm512_and_si512(_mm512_srlv_epi16(both, shifts), _mm512_set1_epi8(15));
}

/* 32 codes of eight bits. */
VNNI static inline __m512i vnni_wide(const int8_t *from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from));
}

/* Numbers `first` and `first + apart` of sixteen, in each lane of a half. */
VNNI static inline __m512i vnni_spread(__m512i sixteen, int first, int apart) {
    const __m512i halves = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(apart), 1);
    return _mm512_permutexvar_epi32(_mm512_add_epi32(halves, _mm512_set1_epi32(first)), sixteen);
}

/* ---- a few rows ----------------------------------------------------------------------------------- */

/* The sums of four vectors, over the lanes of their halves. */
VNNI static inline void vnni_halves(const __m512i *v, __m128i *two) {
    const __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i high = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    const __m256i first = _mm512_castsi512_si256(all), second = _mm512_extracti64x4_epi64(all, 1);
    two[0] = _mm_add_epi32(_mm256_castsi256_si128(first), _mm256_extracti128_si256(first, 1));
    two[1] = _mm_add_epi32(_mm256_castsi256_si128(second), _mm256_extracti128_si256(second, 1));
}

/* Sums of products of bytes, and of these times the scales of groups `first` and `first + 2`, added to `sums`. Four products
 * fit into sixteen bits, and are multiplied with the scale of their group as the lower half of a pair. */
VNNI static inline __m512i vnni_scaled(__m512i sums, __m512i codes, __m512i row, __m512i scales, int first) {
    const __m512i spread = vnni_spread(scales, first, 2);
    return _mm512_dpwssd_epi32(sums, _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, row), spread);
}

/* The lower codes of 64 bytes are those of groups 0 and 2 of four, the upper ones those of groups 1 and 3; activations are
 * brought into that order, which serves four weight rows. */
VNNI static inline void vnni_wholes_int4(const RowBlock *b, const BlockRows *x, int64_t place, __m128i *two) {
    const __m128i row_sums = _mm_loadu_si128((const __m128i *)(x->sums + place * SUMS_OF_BLOCK));
    const __m512i low = _mm512_set1_epi8(15);
    __m512i lower[2], upper[2], acc[4];
    __m128i minimums[4];
    UNROLL for (int c = 0; c < 2; c++) {
        const __m512i first = LOAD512(x->bytes + place * BLOCK + 128 * c);
        const __m512i second = LOAD512(x->bytes + place * BLOCK + 128 * c + 64);
        lower[c] = _mm512_inserti64x4(first, _mm512_castsi512_si256(second), 1);
        upper[c] = _mm512_inserti64x4(second, _mm512_extracti64x4_epi64(first, 1), 0);
    }
    UNROLL for (int s = 0; s < 4; s++) {
        const __m128i both = _mm_loadu_si128((const __m128i *)scales_of(b, s));
        const __m512i scales = _mm512_cvtepu8_epi32(both);
        minimums[s] = _mm_madd_epi16(_mm_cvtepu8_epi16(_mm_srli_si128(both, 8)), row_sums);
        acc[s] = _mm512_setzero_si512();
        UNROLL for (int c = 0; c < 2; c++) {
            const __m512i codes = LOAD512(codes_of(b, s) + 64 * c);
            const __m512i high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low);
            acc[s] = vnni_scaled(acc[s], _mm512_and_si512(codes, low), lower[c], scales, 4 * c);
            acc[s] = vnni_scaled(acc[s], high, upper[c], scales, 4 * c + 1);
        }
    }
    two[0] = lane_sums(acc);
    two[1] = _mm_hadd_epi32(_mm_hadd_epi32(minimums[0], minimums[1]), _mm_hadd_epi32(minimums[2], minimums[3]));
}

VNNI static inline void vnni_wholes_int4_32(const RowBlock *b, const BlockRows *x, int64_t place, int c, __m128i *two) {
    const __m512i row = LOAD512(x->bytes + place * BLOCK + 64 * c);
    __m512i acc[4];
    UNROLL for (int s = 0; s < 4; s++)
        acc[s] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), vnni_chunk(codes_of(b, s) + 32 * c), row);
    vnni_halves(acc, two);
}

VNNI static inline __m128i vnni_wholes_int8_16(const RowBlock *b, const BlockRows *x, int64_t place, int c) {
    const int16_t *values = x->pairs + place * BLOCK;
    __m512i acc[4];
    UNROLL for (int s = 0; s < 4; s++) {
        const __m512i scales = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)scales_of(b, s)));
        acc[s] = _mm512_setzero_si512();
        UNROLL for (int i = 64 * c; i < 64 * c + 64; i += 32) {
            /* Each scale twice in a lane. */
            const __m512i one = vnni_spread(scales, i / 16, 1), both = _mm512_packs_epi32(one, one);
            const __m512i codes = _mm512_mullo_epi16(vnni_wide((const int8_t *)codes_of(b, s) + i), both);
            acc[s] = _mm512_dpwssd_epi32(acc[s], codes, LOAD512(values + i));
        }
    }
    return lane_sums(acc);
}

VNNI static inline void vnni_wholes_int8_32(const RowBlock *b, const BlockRows *x, int64_t place, int c, __m128i *two) {
    UNROLL for (int h = 0; h < 2; h++) {
        const int i = 64 * c + 32 * h;
        const __m512i row = LOAD512(x->pairs + place * BLOCK + i);
        __m512i acc[4];
        UNROLL for (int s = 0; s < 4; s++)
            acc[s] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), vnni_wide((const int8_t *)codes_of(b, s) + i), row);
        two[h] = lane_sums(acc);
    }
}

#define vnni_two_scales avx2_two_scales
#define vnni_one_scale avx2_one_scale
#define vnni_ahead AHEAD_AVX512
ROW_BLOCKS(vnni, VNNI)

/* ---- panels --------------------------------------------------------------------------------------- */

VNNI static inline __attribute__((always_inline)) void store_sixteen(int32_t *to, const __m512i *v) {
    UNROLL for (int i = 0; i < 16; i++) _mm512_store_si512((__m512i *)to + i, v[i]);
}

VNNI static void vnni_codes4(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    const int64_t bytes = code_bytes(w->dtype, w->k), first = block * (BLOCK / 2);
    const int chunks = to->groups / 2;
    const uint8_t *codes[16];
    for (int s = 0; s < 16; s++) codes[s] = w->codes + panel_row(rows, s) * bytes + first;
    for (int c = 0; c < chunks; c++) {
        __m512i quads[16];
        UNROLL for (int s = 0; s < 16; s++) quads[s] = vnni_chunk(codes[s] + 32 * c);
        transpose(quads);
        store_sixteen(to->codes + 256 * c, quads);
    }
}

/* Scales and minimums of the groups of INT4, those of two groups in a lane. */
VNNI static void vnni_scales(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    __m512i both[16];
    UNROLL for (int s = 0; s < 16; s++) {
        const uint8_t *from = group_scales(w, panel_row(rows, s), block);
        both[s] = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
    }
    transpose(both);
    UNROLL for (int g = 0; g < SUMS_OF_BLOCK; g++) _mm512_store_si512((__m512i *)to->scales + g, both[g]);
    UNROLL for (int g = 0; g < SUMS_OF_BLOCK / 2; g++) {
        const __m512i second = _mm512_slli_epi32(both[SUMS_OF_BLOCK + 2 * g + 1], 16);
        _mm512_store_si512((__m512i *)to->minimums + g, _mm512_or_si512(both[SUMS_OF_BLOCK + 2 * g], second));
    }
}

VNNI static void vnni_codes8(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    const int64_t left = w->k - block * BLOCK;
    const int groups = to->groups, scaled = w->dtype == INT8_16;
    const int8_t *codes[16], *scales[16];
    for (int s = 0; s < 16; s++) {
        const int64_t row = panel_row(rows, s);
        codes[s] = (const int8_t *)w->codes + row * w->k + block * BLOCK;
        scales[s] = (const int8_t *)group_scales(w, row, block);
    }
    for (int g = 0; g < groups; g++) {
        const int64_t there = left - 32 * g;
        const __mmask32 some = there >= 32 ? ~0u : there > 0 ? (1u << there) - 1 : 0;
        __m512i wide[16];
        UNROLL for (int s = 0; s < 16; s++) {
            wide[s] = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(some, codes[s] + 32 * g));
            if (!scaled) continue;
            const __m512i first = _mm512_castsi256_si512(_mm256_set1_epi16(scales[s][2 * g]));
            wide[s] = _mm512_mullo_epi16(wide[s], _mm512_inserti64x4(first, _mm256_set1_epi16(scales[s][2 * g + 1]), 1));
        }
        transpose(wide);
        store_sixteen(to->codes + 256 * g, wide);
    }
}

VNNI static void vnni_bring(const Grouped *w, const PanelRows *rows, int64_t block, BlockPanel *to) {
    if (takes_bytes(w->dtype)) vnni_codes4(w, rows, block, to);
    else vnni_codes8(w, rows, block, to);
    if (w->dtype == INT4) vnni_scales(w, rows, block, to);
    bring_block_scales(w, rows, block, 16, to);
}

/* VNNI adds up to lanes. Sixteen products of them stay below 2^15: codes are 15 at most, and bytes 127. */
typedef __m512i vnni_ints;
typedef __m512 vnni_floats;
#ifndef MULTIPLY_PAIRS
#define MULTIPLY_PAIRS(sum, w, x) __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x))
#endif
#define vnni_ones() _mm512_set1_epi32(1)
#define vnni_bytes(codes, four) _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, four)
#define vnni_add_bytes(acc, codes, four) MULTIPLY_BYTES(acc, codes, four)
#define vnni_pairs(a, b) _mm512_dpwssd_epi32(_mm512_setzero_si512(), a, b)
#define vnni_add_pairs(acc, a, b) _mm512_dpwssd_epi32(acc, a, b)
#define vnni_add_pairs_in_place(acc, a, b) MULTIPLY_PAIRS(acc, a, b)

FOUR(QUADS, vnni_panel4, VNNI, _mm512, vnni, 16, 4)
FOUR(PAIRS, vnni_panel8, VNNI, _mm512, vnni, 16, 2)
MULTIPLY_PANEL(vnni_multiply_panel, TABLE(vnni_panel4), TABLE(vnni_panel8), 16)

static const PanelFunctions vnni_panels = {16, vnni_bring, vnni_multiply_panel};

#endif

#endif
