/* Products of one row with grouped weights, where these are: four weight rows at a time, from far apart (AVX2).
 *
 * Each byte is read once, and so memory is the limit. Whole numbers of a block, or of a group where each has a scale of
 * float16, are added up across the lanes before they are scaled, as the panels have them. */
#ifndef LOLAMA_GROUPED_ROWS_H
#define LOLAMA_GROUPED_ROWS_H

#include "grouped_panels.h"

#if defined(__x86_64__)

/* Up to so many rows, one after another, are faster than panels. */
#define ROWS_MOST 3

/* A block of four weight rows, which lie apart: codes and scales of groups by bytes, scales of blocks by numbers. */
typedef struct {
    const uint8_t *codes, *scales;
    const uint16_t *block_scales;
    int64_t codes_apart, scales_apart, block_scales_apart;
} RowBlock;

/* Room for what a last block lacks: zeros. */
typedef struct {
    uint8_t codes[4][BLOCK];
    uint16_t block_scales[4][2 * SUMS_OF_BLOCK];
} PaddedBlock;

/* The first block of rows `row`, `row + apart`, ... */
static inline RowBlock row_block(const Grouped *w, int64_t row, int64_t apart) {
    const int64_t codes = code_bytes(w->dtype, w->k), scales = scale_bytes(w->dtype, w->k);
    const int64_t count = block_scale_count(w->dtype, w->k);
    return (RowBlock){w->codes + row * codes, w->scales + row * scales, w->block_scales + row * count,
                      apart * codes, apart * scales, apart * count};
}

/* A block with `codes` bytes of codes and `count` scales in a row, and zeros behind these. */
static inline RowBlock padded_block(const RowBlock *b, int64_t codes, int64_t count, PaddedBlock *padded) {
    memset(padded, 0, sizeof *padded);
    for (int s = 0; s < 4; s++) {
        memcpy(padded->codes[s], b->codes + s * b->codes_apart, (size_t)codes);
        memcpy(padded->block_scales[s], b->block_scales + s * b->block_scales_apart, (size_t)count * 2);
    }
    return (RowBlock){padded->codes[0], b->scales, padded->block_scales[0], BLOCK, b->scales_apart, 2 * SUMS_OF_BLOCK};
}

/* The lanes of four sums, added up. */
AVX2 static inline __m128i four_wholes(const __m256i *acc) {
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(acc[0], acc[1]), _mm256_hadd_epi32(acc[2], acc[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/* Numbers `at` and `at + 1` of the block scales of four rows. */
AVX2 static inline void two_scales(const RowBlock *b, int64_t at, __m128 *first, __m128 *second) {
    uint32_t two[4];
    UNROLL for (int s = 0; s < 4; s++) memcpy(two + s, b->block_scales + s * b->block_scales_apart + at, 4);
    const __m256 both = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)two));
    const __m128 low = _mm256_castps256_ps128(both), high = _mm256_extractf128_ps(both, 1);
    *first = _mm_shuffle_ps(low, high, 0x88);
    *second = _mm_shuffle_ps(low, high, 0xdd);
}

#define LOAD(from) _mm256_loadu_si256((const __m256i *)(from))

/* Eight scales of a byte, each as two numbers of sixteen bits. */
AVX2 static inline __m256i twice_each(const uint8_t *from) {
    const __m256i places = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, /* */
                                            4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)from)), places);
}

AVX2 static inline __m128 row_int4(const RowBlock *b, const BlockRows *x, int64_t place) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m128i row_sums = _mm_loadu_si128((const __m128i *)(x->sums + place * SUMS_OF_BLOCK));
    const int8_t *values = x->bytes + place * BLOCK;
    int32_t scales[4][SUMS_OF_BLOCK]; /* a broadcast from memory costs no more than a load */
    __m256i acc[4];
    __m128i minimums[4];
    UNROLL for (int s = 0; s < 4; s++) {
        _mm256_storeu_si256((__m256i *)scales[s], twice_each(b->scales + s * b->scales_apart));
        const __m128i eight = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(b->scales + s * b->scales_apart + 8)));
        minimums[s] = _mm_madd_epi16(eight, row_sums);
        acc[s] = _mm256_setzero_si256();
    }
    __asm__("" : "+m"(scales)); /* or a compiler takes them out of registers, which costs more */
    UNROLL for (int c = 0; c < 4; c++) {
        const __m256i lower = LOAD(values + 64 * c), upper = LOAD(values + 64 * c + 32);
        UNROLL for (int s = 0; s < 4; s++) {
            const __m256i two = LOAD(b->codes + s * b->codes_apart + 32 * c), highs = _mm256_and_si256(_mm256_srli_epi16(two, 4), low);
            const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(two, low), lower);
            const __m256i second = _mm256_maddubs_epi16(highs, upper);
            ADD_IN_PLACE(acc[s], _mm256_madd_epi16(first, _mm256_set1_epi32(scales[s][2 * c])));
            ADD_IN_PLACE(acc[s], _mm256_madd_epi16(second, _mm256_set1_epi32(scales[s][2 * c + 1])));
        }
    }
    const __m128i off = _mm_hadd_epi32(_mm_hadd_epi32(minimums[0], minimums[1]), _mm_hadd_epi32(minimums[2], minimums[3]));
    __m128 of_scales, of_minimums;
    two_scales(b, 0, &of_scales, &of_minimums);
    return _mm_fnmadd_ps(of_minimums, _mm_cvtepi32_ps(off), _mm_mul_ps(of_scales, _mm_cvtepi32_ps(four_wholes(acc))));
}

AVX2 static inline __m128 row_int4_32(const RowBlock *b, const BlockRows *x, int64_t place) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    const int8_t *values = x->bytes + place * BLOCK;
    const int16_t *row_sums = x->sums + place * SUMS_OF_BLOCK;
    __m128 result = _mm_setzero_ps();
    for (int g = 0; g < SUMS_OF_BLOCK; g++) {
        const __m256i of_group = LOAD(values + 32 * g);
        __m256i acc[4];
        UNROLL for (int s = 0; s < 4; s++) {
            const __m256i two = LOAD(b->codes + s * b->codes_apart + g / 2 * 32);
            const __m256i codes = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(two, 4) : two, low);
            acc[s] = _mm256_madd_epi16(_mm256_maddubs_epi16(codes, of_group), ones);
        }
        __m128 of_scales, of_minimums;
        two_scales(b, 2 * g, &of_scales, &of_minimums);
        result = _mm_fmadd_ps(of_scales, _mm_cvtepi32_ps(four_wholes(acc)), result);
        result = _mm_fnmadd_ps(of_minimums, _mm_set1_ps(row_sums[g]), result);
    }
    return result;
}

/* Sixteen codes of eight bits. */
#define LOAD_CODES(from) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(from)))

AVX2 static inline __m128 row_int8_16(const RowBlock *b, const BlockRows *x, int64_t place) {
    const int16_t *values = x->pairs + place * BLOCK;
    uint16_t of_block[4];
    UNROLL for (int s = 0; s < 4; s++) of_block[s] = b->block_scales[s * b->block_scales_apart];
    const __m128 scale = _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)of_block));
    __m256i scales[4][2]; /* eight of them twice, in each half */
    UNROLL for (int s = 0; s < 4; s++) {
        const __m256i all = LOAD_CODES(b->scales + s * b->scales_apart);
        scales[s][0] = _mm256_permute4x64_epi64(all, 0x44);
        scales[s][1] = _mm256_permute4x64_epi64(all, 0xee);
    }
    __m128 result = _mm_setzero_ps();
    UNROLL for (int c = 0; c < BLOCK / WHOLE_PAIRS; c++) {
        __m256i acc[4];
        UNROLL for (int s = 0; s < 4; s++) {
            acc[s] = _mm256_setzero_si256();
            UNROLL for (int g = 4 * c; g < 4 * c + 4; g++) {
                const __m256i place_of = _mm256_set1_epi16((short)(0x0100 + 0x0202 * (g % 8)));
                const __m256i of_group = _mm256_shuffle_epi8(scales[s][g / 8], place_of);
                const __m256i codes = _mm256_mullo_epi16(LOAD_CODES(b->codes + s * b->codes_apart + 16 * g), of_group);
                ADD_IN_PLACE(acc[s], _mm256_madd_epi16(codes, LOAD(values + 16 * g)));
            }
        }
        result = _mm_fmadd_ps(scale, _mm_cvtepi32_ps(four_wholes(acc)), result);
    }
    return result;
}

AVX2 static inline __m128 row_int8_32(const RowBlock *b, const BlockRows *x, int64_t place) {
    const int16_t *values = x->pairs + place * BLOCK;
    __m128 result = _mm_setzero_ps();
    for (int pair = 0; pair < SUMS_OF_BLOCK / 2; pair++) {
        __m128 of_scales[2];
        two_scales(b, 2 * pair, of_scales, of_scales + 1);
        UNROLL for (int h = 0; h < 2; h++) {
            const int64_t i = 64 * pair + 32 * h;
            __m256i acc[4];
            UNROLL for (int s = 0; s < 4; s++)
                acc[s] = _mm256_add_epi32(_mm256_madd_epi16(LOAD_CODES(b->codes + s * b->codes_apart + i), LOAD(values + i)),
                                          _mm256_madd_epi16(LOAD_CODES(b->codes + s * b->codes_apart + i + 16), LOAD(values + i + 16)));
            result = _mm_fmadd_ps(of_scales[h], _mm_cvtepi32_ps(four_wholes(acc)), result);
        }
    }
    return result;
}

/* Four outputs of a row of x: those of `row`, `row + apart`, ... A block has so many bytes of codes and of scales of
 * groups, and SCALES scales of its own. */
#define ROW_PRODUCT(NAME, FIRST, HAS_REST, CODES, GROUPS, SCALES)                                        \
    AVX2 static __m128 NAME##_sums(const Grouped *w, const Blocked *x, int64_t r, int64_t row, int64_t apart) { \
        __m128 sums = _mm_setzero_ps();                                                                  \
        PaddedBlock padded;                                                                              \
        RowBlock block = row_block(w, row, apart);                                                       \
        const int64_t whole = w->k / BLOCK, all = blocks_of(w->k);                                       \
        for (int64_t b = 0; b < all; b++) {                                                              \
            const int64_t place = b * x->rows + r;                                                       \
            const float near = x->FIRST.scales[place], rest = HAS_REST ? x->rest.scales[place] : 0;      \
            if (b == whole)                                                                              \
                block = padded_block(&block, code_bytes(w->dtype, w->k) - b * CODES,                     \
                                     block_scale_count(w->dtype, w->k) - b * SCALES, &padded);           \
            if (near != 0) sums = _mm_fmadd_ps(NAME(&block, &x->FIRST, place), _mm_set1_ps(near), sums); \
            if (rest != 0) sums = _mm_fmadd_ps(NAME(&block, &x->rest, place), _mm_set1_ps(rest), sums);  \
            block.codes += CODES, block.scales += GROUPS, block.block_scales += SCALES;                  \
        }                                                                                                \
        return sums;                                                                                     \
    }
ROW_PRODUCT(row_int4, near, 1, BLOCK / 2, 16, 2)
ROW_PRODUCT(row_int4_32, near, 1, BLOCK / 2, 0, 2 * SUMS_OF_BLOCK)
ROW_PRODUCT(row_int8_16, fine, 0, BLOCK, 16, 1)
ROW_PRODUCT(row_int8_32, fine, 0, BLOCK, 0, SUMS_OF_BLOCK)

AVX2 static void rows_product(const Grouped *w, const float *bias, const Blocked *x, int64_t begin, int64_t end, float *y,
                              int64_t y_stride, int add) {
    static __m128 (*const sums_of[])(const Grouped *, const Blocked *, int64_t, int64_t, int64_t) = {
        row_int4_sums, row_int4_32_sums, row_int8_16_sums, row_int8_32_sums};
    const int64_t quarter = (end - begin) / 4;
    for (int64_t next = begin; next < end;) {
        /* What is left behind the last four goes one by one. */
        const int64_t done = next - begin, apart = done < 4 * quarter ? quarter : 0;
        const int64_t j = apart ? begin + done / 4 : next, used = apart ? 4 : 1;
        for (int64_t r = 0; r < x->rows; r++) {
            float four[4];
            _mm_storeu_ps(four, sums_of[w->dtype - INT4](w, x, r, j, apart));
            for (int64_t s = 0, output = j; s < used; s++, output += apart) {
                float *target = y + r * y_stride + output;
                *target = four[s] + (bias ? bias[output] : 0) + (add ? *target : 0);
            }
        }
        next += used;
    }
}

AVX2 static void avx2_grouped(const Grouped *w, const float *bias, const Blocked *x, int64_t begin, int64_t end, float *y,
                              int64_t y_stride, int add) {
    if (x->rows <= ROWS_MOST) {
        rows_product(w, bias, x, begin, end, y, y_stride, add);
        return;
    }
    int64_t most = PASSING_BYTES / w->k;
    most = (most < LEAST_PASSING ? LEAST_PASSING : most > MOST_PASSING ? MOST_PASSING : most) / 4 * 4;
    for (int64_t first = 0; first < x->rows; first += most) {
        const int64_t count = x->rows - first < most ? x->rows - first : most;
        panels_product(w, bias, x, first, count, begin, end, y, y_stride, add);
    }
}

#endif

/* Outputs `begin` to `end` of x times a grouped weight; y as in `product`. */
static inline void grouped_product(int isa, const Grouped *w, const float *bias, const Blocked *x, int64_t begin,
                                   int64_t end, float *y, int64_t y_stride, int add) {
#if defined(__x86_64__)
    if (isa != INT8_PORTABLE) {
        avx2_grouped(w, bias, x, begin, end, y, y_stride, add);
        return;
    }
#endif
    (void)isa;
    portable_grouped(w, bias, x, begin, end, y, y_stride, add);
}

#endif
