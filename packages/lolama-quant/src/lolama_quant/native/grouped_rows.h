/* Products of a few rows with grouped weights, where these are: four weight rows at a time, from far apart.
 *
 * Each byte is read once for one row, and so memory is the limit. An instruction set supplies the sums of whole numbers of
 * a block, or of a group where each has a scale of float16, one lane for each weight row. What is done in float32 is the
 * same for all, and as the panels have it. */
#ifndef LOLAMA_GROUPED_ROWS_H
#define LOLAMA_GROUPED_ROWS_H

#include "grouped_panels.h"

#if defined(__x86_64__)
typedef __m128i Wholes;
typedef __m128 Floats;
#define FLOATS_OF(wholes) _mm_cvtepi32_ps(wholes)
#define FLOATS_ALL(value) _mm_set1_ps(value)
#define FLOATS_TIMES(a, b) _mm_mul_ps(a, b)
#define FLOATS_ADD(a, b, sum) _mm_fmadd_ps(a, b, sum)
#define FLOATS_TAKE(a, b, sum) _mm_fnmadd_ps(a, b, sum)
#define FLOATS_STORE(to, floats) _mm_storeu_ps(to, floats)
#elif defined(__aarch64__)
typedef int32x4_t Wholes;
typedef float32x4_t Floats;
#define FLOATS_OF(wholes) vcvtq_f32_s32(wholes)
#define FLOATS_ALL(value) vdupq_n_f32(value)
#define FLOATS_TIMES(a, b) vmulq_f32(a, b)
#define FLOATS_ADD(a, b, sum) vfmaq_f32(sum, a, b)
#define FLOATS_TAKE(a, b, sum) vfmsq_f32(sum, a, b)
#define FLOATS_STORE(to, floats) vst1q_f32(to, floats)
#endif

#if defined(__x86_64__) || defined(__aarch64__)

/* A block of four weight rows, which lie apart: codes and scales of groups by bytes, scales of blocks by numbers. */
typedef struct {
    const uint8_t *codes, *scales;
    const uint16_t *block_scales;
    int64_t codes_apart, scales_apart, block_scales_apart;
} RowBlock;

static inline const uint8_t *codes_of(const RowBlock *b, int s) { return b->codes + s * b->codes_apart; }
static inline const uint8_t *scales_of(const RowBlock *b, int s) { return b->scales + s * b->scales_apart; }
static inline const uint16_t *block_scales_of(const RowBlock *b, int s) { return b->block_scales + s * b->block_scales_apart; }

/* Room for what a last block lacks: zeros. */
typedef struct {
    uint8_t codes[4][BLOCK];
    uint16_t block_scales[4][2 * SUMS_OF_BLOCK];
} PaddedBlock;

/* The first block of rows `row`, `row + apart`, ... */
static inline RowBlock row_block(const Grouped *w, int64_t row, int64_t apart) {
    const int64_t codes = code_bytes(w->dtype, w->k), count = block_scale_count(w->dtype, w->k);
    return (RowBlock){w->codes + row * codes, group_scales(w, row, 0), w->block_scales + row * count,
                      apart * codes, apart * scale_bytes(w->dtype, w->k), apart * count};
}

/* A block with `codes` bytes of codes and `count` scales in a row, and zeros behind these. */
static inline RowBlock padded_block(const RowBlock *b, int64_t codes, int64_t count, PaddedBlock *padded) {
    memset(padded, 0, sizeof *padded);
    for (int s = 0; s < 4; s++) {
        memcpy(padded->codes[s], codes_of(b, s), (size_t)codes);
        memcpy(padded->block_scales[s], block_scales_of(b, s), (size_t)count * 2);
    }
    return (RowBlock){padded->codes[0], b->scales, padded->block_scales[0], BLOCK, b->scales_apart, 2 * SUMS_OF_BLOCK};
}

/* Four outputs of one row of x, those of `row`, `row + apart`, ..., added to nothing. */
typedef void (*rows_function)(const Grouped *w, const Blocked *x, int64_t r, int64_t row, int64_t apart, float *four);

/* The rows of x that are multiplied, and by which functions, of INT4 and those behind it. */
static void rows_product(const rows_function *functions, const Grouped *w, const float *bias, const Blocked *x, int64_t first,
                         int64_t count, int64_t begin, int64_t end, float *y, int64_t y_stride, int add) {
    const int64_t quarter = (end - begin) / 4;
    for (int64_t next = begin; next < end;) {
        /* What is left behind the last four goes one by one. */
        const int64_t done = next - begin, apart = done < 4 * quarter ? quarter : 0;
        const int64_t j = apart ? begin + done / 4 : next, used = apart ? 4 : 1;
        for (int64_t r = first; r < first + count; r++) {
            float four[4];
            functions[w->dtype - INT4](w, x, r, j, apart, four);
            for (int64_t s = 0, output = j; s < used; s++, output += apart) {
                float *target = y + r * y_stride + output;
                *target = four[s] + (bias ? bias[output] : 0) + (add ? *target : 0);
            }
        }
        next += used;
    }
}

/* A block of four weight rows times that of a row of x, of each format. MY has
 *     wholes_int4(b, x, place, two)      the sums of the block with the scales of groups, and of its minimums
 *     wholes_int4_32(b, x, place, c, two)  those of groups 2 c and 2 c + 1, and so
 *     wholes_int8_32(b, x, place, c, two)
 *     wholes_int8_16(b, x, place, c)     the sum of WHOLE_PAIRS inputs with the scales of groups
 *     two_scales(b, at, one, two)        block scales `at` and `at + 1` of the four rows, and
 *     one_scale(b)                       the first
 *     ahead                              how far ahead it asks for codes, in bytes; 0: it does not */
#define ROW_BLOCKS(MY, TARGET)                                                                           \
    TARGET static inline Floats MY##_block_int4(const RowBlock *b, const BlockRows *x, int64_t place) {  \
        Wholes whole[2];                                                                                 \
        Floats scale, minimum;                                                                           \
        MY##_wholes_int4(b, x, place, whole);                                                            \
        MY##_two_scales(b, 0, &scale, &minimum);                                                         \
        return FLOATS_TAKE(minimum, FLOATS_OF(whole[1]), FLOATS_TIMES(scale, FLOATS_OF(whole[0])));      \
    }                                                                                                    \
    TARGET static inline Floats MY##_block_int4_32(const RowBlock *b, const BlockRows *x, int64_t place) { \
        const int16_t *row_sums = x->sums + place * SUMS_OF_BLOCK;                                       \
        Floats result = FLOATS_ALL(0);                                                                   \
        for (int c = 0; c < SUMS_OF_BLOCK / 2; c++) {                                                    \
            Wholes whole[2];                                                                             \
            MY##_wholes_int4_32(b, x, place, c, whole);                                                  \
            UNROLL for (int h = 0; h < 2; h++) {                                                         \
                Floats scale, minimum;                                                                   \
                MY##_two_scales(b, 4 * c + 2 * h, &scale, &minimum);                                     \
                result = FLOATS_ADD(scale, FLOATS_OF(whole[h]), result);                                 \
                result = FLOATS_TAKE(minimum, FLOATS_ALL(row_sums[2 * c + h]), result);                  \
            }                                                                                            \
        }                                                                                                \
        return result;                                                                                   \
    }                                                                                                    \
    TARGET static inline Floats MY##_block_int8_16(const RowBlock *b, const BlockRows *x, int64_t place) { \
        const Floats scale = MY##_one_scale(b);                                                          \
        Floats result = FLOATS_ALL(0);                                                                   \
        UNROLL for (int c = 0; c < BLOCK / WHOLE_PAIRS; c++)                                             \
            result = FLOATS_ADD(scale, FLOATS_OF(MY##_wholes_int8_16(b, x, place, c)), result);          \
        return result;                                                                                   \
    }                                                                                                    \
    TARGET static inline Floats MY##_block_int8_32(const RowBlock *b, const BlockRows *x, int64_t place) { \
        Floats result = FLOATS_ALL(0);                                                                   \
        for (int c = 0; c < SUMS_OF_BLOCK / 2; c++) {                                                    \
            Wholes whole[2];                                                                             \
            Floats scale[2];                                                                             \
            MY##_wholes_int8_32(b, x, place, c, whole);                                                  \
            MY##_two_scales(b, 2 * c, scale, scale + 1);                                                 \
            UNROLL for (int h = 0; h < 2; h++) result = FLOATS_ADD(scale[h], FLOATS_OF(whole[h]), result); \
        }                                                                                                \
        return result;                                                                                   \
    }                                                                                                    \
    ROW_PRODUCT(MY, int4, TARGET, near, 1, BLOCK / 2, 16, 2)                                             \
    ROW_PRODUCT(MY, int4_32, TARGET, near, 1, BLOCK / 2, 0, 2 * SUMS_OF_BLOCK)                           \
    ROW_PRODUCT(MY, int8_16, TARGET, fine, 0, BLOCK, 16, 1)                                              \
    ROW_PRODUCT(MY, int8_32, TARGET, fine, 0, BLOCK, 0, SUMS_OF_BLOCK)                                   \
    static const rows_function MY##_rows[] = {MY##_row_int4, MY##_row_int4_32, MY##_row_int8_16, MY##_row_int8_32};

/* A block has so many bytes of codes and of scales of groups, and SCALES scales of its own. */
#define ROW_PRODUCT(MY, FORMAT, TARGET, FIRST, HAS_REST, CODES, GROUPS, SCALES)                          \
    TARGET static void MY##_row_##FORMAT(const Grouped *w, const Blocked *x, int64_t r, int64_t row, int64_t apart, \
                                         float *four) {                                                  \
        Floats sums = FLOATS_ALL(0);                                                                     \
        PaddedBlock padded;                                                                              \
        RowBlock block = row_block(w, row, apart);                                                       \
        const int64_t whole = w->k / BLOCK, all = blocks_of(w->k);                                       \
        for (int64_t b = 0; b < all; b++) {                                                              \
            const int64_t place = b * x->rows + r;                                                       \
            const float near = x->FIRST.scales[place], rest = HAS_REST ? x->rest.scales[place] : 0;      \
            if (b == whole)                                                                              \
                block = padded_block(&block, code_bytes(w->dtype, w->k) - b * CODES,                     \
                                     block_scale_count(w->dtype, w->k) - b * SCALES, &padded);           \
            if (MY##_ahead) ask_for_four(block.codes + MY##_ahead, block.codes_apart, CODES);            \
            if (near != 0) sums = FLOATS_ADD(MY##_block_##FORMAT(&block, &x->FIRST, place), FLOATS_ALL(near), sums); \
            if (rest != 0) sums = FLOATS_ADD(MY##_block_##FORMAT(&block, &x->rest, place), FLOATS_ALL(rest), sums); \
            block.codes += CODES, block.block_scales += SCALES;                                          \
            if (GROUPS) block.scales += GROUPS;                                                          \
        }                                                                                                \
        FLOATS_STORE(four, sums);                                                                        \
    }

#endif

#if defined(__x86_64__)

/* The lanes of four sums, added up. */
AVX2 static inline __m128i four_wholes(const __m256i *acc) {
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(acc[0], acc[1]), _mm256_hadd_epi32(acc[2], acc[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/* Numbers `at` and `at + 1` of the block scales of four rows. */
AVX2 static inline void avx2_two_scales(const RowBlock *b, int64_t at, __m128 *first, __m128 *second) {
    uint32_t two[4];
    UNROLL for (int s = 0; s < 4; s++) memcpy(two + s, block_scales_of(b, s) + at, 4);
    const __m256 both = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)two));
    const __m128 low = _mm256_castps256_ps128(both), high = _mm256_extractf128_ps(both, 1);
    *first = _mm_shuffle_ps(low, high, 0x88);
    *second = _mm_shuffle_ps(low, high, 0xdd);
}

AVX2 static inline __m128 avx2_one_scale(const RowBlock *b) {
    const uint16_t four[4] = {*block_scales_of(b, 0), *block_scales_of(b, 1), *block_scales_of(b, 2), *block_scales_of(b, 3)};
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)four));
}

#define LOAD(from) _mm256_loadu_si256((const __m256i *)(from))

/* Eight scales of a byte, each as two numbers of sixteen bits. */
AVX2 static inline __m256i twice_each(const uint8_t *from) {
    const __m256i places = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, /* */
                                            4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)from)), places);
}

AVX2 static inline void avx2_wholes_int4(const RowBlock *b, const BlockRows *x, int64_t place, __m128i *two) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m128i row_sums = _mm_loadu_si128((const __m128i *)(x->sums + place * SUMS_OF_BLOCK));
    const int8_t *values = x->bytes + place * BLOCK;
    int32_t scales[4][SUMS_OF_BLOCK]; /* a broadcast from memory costs no more than a load */
    __m256i acc[4];
    __m128i minimums[4];
    UNROLL for (int s = 0; s < 4; s++) {
        _mm256_storeu_si256((__m256i *)scales[s], twice_each(scales_of(b, s)));
        minimums[s] = _mm_madd_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(scales_of(b, s) + 8))), row_sums);
        acc[s] = _mm256_setzero_si256();
    }
    __asm__("" : "+m"(scales)); /* or a compiler takes them out of registers, which costs more */
    UNROLL for (int c = 0; c < 4; c++) {
        const __m256i lower = LOAD(values + 64 * c), upper = LOAD(values + 64 * c + 32);
        UNROLL for (int s = 0; s < 4; s++) {
            const __m256i codes = LOAD(codes_of(b, s) + 32 * c);
            const __m256i lows = _mm256_maddubs_epi16(_mm256_and_si256(codes, low), lower);
            const __m256i highs = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 4), low), upper);
            ADD_IN_PLACE(acc[s], _mm256_madd_epi16(lows, _mm256_set1_epi32(scales[s][2 * c])));
            ADD_IN_PLACE(acc[s], _mm256_madd_epi16(highs, _mm256_set1_epi32(scales[s][2 * c + 1])));
        }
    }
    two[0] = four_wholes(acc);
    two[1] = _mm_hadd_epi32(_mm_hadd_epi32(minimums[0], minimums[1]), _mm_hadd_epi32(minimums[2], minimums[3]));
}

AVX2 static inline void avx2_wholes_int4_32(const RowBlock *b, const BlockRows *x, int64_t place, int c, __m128i *two) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    UNROLL for (int h = 0; h < 2; h++) {
        const __m256i of_group = LOAD(x->bytes + place * BLOCK + 64 * c + 32 * h);
        __m256i acc[4];
        UNROLL for (int s = 0; s < 4; s++) {
            const __m256i codes = LOAD(codes_of(b, s) + 32 * c);
            const __m256i half = _mm256_and_si256(h ? _mm256_srli_epi16(codes, 4) : codes, low);
            acc[s] = _mm256_madd_epi16(_mm256_maddubs_epi16(half, of_group), ones);
        }
        two[h] = four_wholes(acc);
    }
}

/* Sixteen codes of eight bits. */
#define LOAD_CODES(from) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(from)))

AVX2 static inline __m128i avx2_wholes_int8_16(const RowBlock *b, const BlockRows *x, int64_t place, int c) {
    const int16_t *values = x->pairs + place * BLOCK;
    __m256i acc[4];
    UNROLL for (int s = 0; s < 4; s++) {
        const __m256i all = LOAD_CODES(scales_of(b, s)); /* eight of them twice, in each half */
        const __m256i scales = c < 2 ? _mm256_permute4x64_epi64(all, 0x44) : _mm256_permute4x64_epi64(all, 0xee);
        acc[s] = _mm256_setzero_si256();
        UNROLL for (int g = 4 * c; g < 4 * c + 4; g++) {
            const __m256i place_of = _mm256_set1_epi16((short)(0x0100 + 0x0202 * (g % 8)));
            const __m256i codes = _mm256_mullo_epi16(LOAD_CODES(codes_of(b, s) + 16 * g), _mm256_shuffle_epi8(scales, place_of));
            ADD_IN_PLACE(acc[s], _mm256_madd_epi16(codes, LOAD(values + 16 * g)));
        }
    }
    return four_wholes(acc);
}

AVX2 static inline void avx2_wholes_int8_32(const RowBlock *b, const BlockRows *x, int64_t place, int c, __m128i *two) {
    const int16_t *values = x->pairs + place * BLOCK;
    UNROLL for (int h = 0; h < 2; h++) {
        const int i = 64 * c + 32 * h;
        __m256i acc[4];
        UNROLL for (int s = 0; s < 4; s++)
            acc[s] = _mm256_add_epi32(_mm256_madd_epi16(LOAD_CODES(codes_of(b, s) + i), LOAD(values + i)),
                                      _mm256_madd_epi16(LOAD_CODES(codes_of(b, s) + i + 16), LOAD(values + i + 16)));
        two[h] = four_wholes(acc);
    }
}

#define avx2_ahead 0
ROW_BLOCKS(avx2, AVX2)

#endif

#endif
