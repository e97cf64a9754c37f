/* Products of whole numbers for int8_attention.h: sixteen bits with the codes of keys and values. Exact, so that they
 * are the same on every processor and in any order. */
#ifndef LOLAMA_INT8_TILES_H
#define LOLAMA_INT8_TILES_H

#include "int8.h"
#include "int8_cache.h"

#define TOGETHER_KEYS 16
#define MOST_VALUES 128 /* that are weighed together, and from the weights of a query to those of the next */

/* The largest whole number of sixteen bits. Sums of its products with codes fit 32 bits for heads of 512 numbers. */
#define WHOLE 32767

/* Numbers of a head, and zeros up to a multiple of what vectors hold. */
static inline int64_t padded_head(int64_t hd) { return (hd + 63) / 64 * 64; }

/* x (n) as whole multiples of a scale, which is returned; NaN if anything in x is not finite. */
#define TO_WHOLE(NAME, TARGET)                                                                           \
    TARGET static float NAME##_whole(const float *x, int64_t n, int16_t *to) {                           \
        float most = 0, spoiled = 0;                                                                     \
        _Pragma("omp simd reduction(max : most)") for (int64_t i = 0; i < n; i++) {                      \
            float size = fabsf(x[i]);                                                                    \
            most = size > most ? size : most;                                                            \
        }                                                                                                \
        _Pragma("omp simd reduction(+ : spoiled)") for (int64_t i = 0; i < n; i++) spoiled += x[i] * 0;   \
        /* So small a vector is zero: the inverse of its scale would be infinite. */                     \
        const float inverse = spoiled == 0 && most > 1e-30f ? WHOLE / most : 0;                          \
        for (int64_t i = 0; i < n; i++) to[i] = inverse != 0 ? (int16_t)(int32_t)rintf(x[i] * inverse) : 0; \
        return spoiled != 0 ? NAN : inverse != 0 ? most / WHOLE : 0;                                     \
    }
TO_WHOLE(portable, )
#if defined(__x86_64__)
TO_WHOLE(avx512, AVX512)
TO_WHOLE(avx2, AVX2)
#endif

/* ---- any processor -------------------------------------------------------------------------------- */

static void portable_whole_scores(const char *keys, const float *of_keys, int64_t width, int64_t hd,
                                  const int16_t *queries, const float *scales, int64_t count, float *scores,
                                  int64_t stride) {
    for (int64_t t = 0; t < width; t++) {
        const int8_t *codes = (const int8_t *)keys + t * (hd + SCALE_BYTES);
        for (int64_t q = 0; q < count; q++) {
            int32_t sum = 0;
            for (int64_t c = 0; c < hd; c++) sum += codes[c] * queries[q * padded_head(hd) + c];
            scores[q * stride + t] = (float)sum * of_keys[t] * scales[q];
        }
    }
}

static void portable_sums_of_values(const char *values, int64_t width, int64_t hd, const int16_t *weights,
                                    const float *scales, int64_t count, int32_t *sums, float *out) {
    for (int64_t q = 0; q < count; q++) {
        memset(sums, 0, (size_t)hd * sizeof *sums);
        for (int64_t t = 0; t < width; t++) {
            const int8_t *codes = (const int8_t *)values + t * (hd + SCALE_BYTES);
            for (int64_t c = 0; c < hd; c++) sums[c] += codes[c] * weights[q * MOST_VALUES + t];
        }
        for (int64_t c = 0; c < hd; c++) out[q * padded_head(hd) + c] += (float)sums[c] * scales[q];
    }
}

/* ---- vector units --------------------------------------------------------------------------------- */

/* out[r] += scales[r] * sum over t of weights[r][t] * values[t], for ROWS rows. Values are `brought`: two neighbors
 * after each other, column by column. */
#define PAIR_SUMS_OF_VALUES(NAME, TARGET, VEC, LANES, ZERO, LOAD, SET1, MULTIPLY, ADD_SCALED, ROWS)      \
    TARGET static void NAME(const int16_t *pairs, int64_t width, int64_t hd, const int16_t *weights,     \
                            const float *scales, float *out) {                                           \
        const int64_t padded = padded_head(hd);                                                          \
        for (int64_t c = 0; c < hd; c += 2 * LANES) {                                                    \
            VEC acc[ROWS][2];                                                                            \
            UNROLL for (int r = 0; r < ROWS; r++) acc[r][0] = ZERO, acc[r][1] = ZERO;                    \
            for (int64_t t = 0; t < width; t += 2) {                                                     \
                const int16_t *place = pairs + t * padded + 2 * c;                                       \
                const VEC low = LOAD((const void *)place), high = LOAD((const void *)(place + 2 * LANES)); \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    int32_t two;                                                                         \
                    memcpy(&two, weights + r * MOST_VALUES + t, 4);                                       \
                    const VEC both = SET1(two);                                                          \
                    acc[r][0] = MULTIPLY(acc[r][0], low, both);                                          \
                    acc[r][1] = MULTIPLY(acc[r][1], high, both);                                         \
                }                                                                                        \
            }                                                                                            \
            UNROLL for (int r = 0; r < ROWS; r++)                                                        \
                UNROLL for (int u = 0; u < 2; u++)                                                       \
                    ADD_SCALED(out + r * padded + c + u * LANES, acc[r][u], scales[r]);                  \
        }                                                                                                \
    }

#if defined(__x86_64__)

#define LOAD_256I(p) _mm256_loadu_si256((const __m256i *)(p))
AVX2 static inline void add_scaled_256(float *to, __m256i sums, float scale) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(scale));
    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), scaled));
}
#define AVX2_SUMS_OF_VALUES(NAME, VEC, ROWS)                                                             \
    PAIR_SUMS_OF_VALUES(NAME, AVX2, VEC, 8, _mm256_setzero_si256(), LOAD_256I, _mm256_set1_epi32,        \
                        add_products, add_scaled_256, ROWS)
FOUR(AVX2_SUMS_OF_VALUES, avx2_sums_of_values, __m256i)

/* Two neighbors of `width` values after each other, column by column: sixteen columns are the lower four of each
 * eight, and then the others. */
AVX2 static void avx2_bring_values(const char *values, int64_t width, int64_t hd, int16_t *pairs) {
    for (int64_t t = 0; t < width; t += 2)
        for (int64_t c = 0; c < hd; c += 16) {
            int8_t codes[2][16] = {{0}};
            const size_t some = (size_t)(hd - c < 16 ? hd - c : 16);
            memcpy(codes[0], values + t * (hd + SCALE_BYTES) + c, some);
            if (t + 1 < width) memcpy(codes[1], values + (t + 1) * (hd + SCALE_BYTES) + c, some);
            const __m256i one = LOAD_BYTES(codes[0]), other = LOAD_BYTES(codes[1]);
            __m256i *to = (__m256i *)(pairs + t * padded_head(hd) + 2 * c);
            _mm256_storeu_si256(to, _mm256_unpacklo_epi16(one, other));
            _mm256_storeu_si256(to + 1, _mm256_unpackhi_epi16(one, other));
        }
}

AVX2 static void avx2_whole_scores(const char *keys, const float *of_keys, int64_t width, int64_t hd,
                                   const int16_t *queries, const float *scales, int64_t count, float *scores,
                                   int64_t stride) {
    static const sums_function some[] = TABLE3(avx2_sums_bytes);
    const int64_t bytes = hd + SCALE_BYTES, padded = padded_head(hd);
    for (int64_t t = 0; t < width; t += 4) {
        char last[4 * (512 + SCALE_BYTES)];
        const char *four = keys + t * bytes;
        if (width - t < 4) {
            memset(last, 0, (size_t)(4 * bytes));
            four = (const char *)memcpy(last, four, (size_t)((width - t) * bytes));
        }
        for (int64_t q = 0; q < count; q += TOGETHER_AVX2) {
            const int64_t rows = count - q < TOGETHER_AVX2 ? count - q : TOGETHER_AVX2;
            __m128 sums[TOGETHER_AVX2];
            some[rows](four, bytes, queries + q * padded, padded, hd, sums);
            for (int64_t r = 0; r < rows; r++) {
                const __m128 scaled = _mm_mul_ps(sums[r], _mm_loadu_ps(of_keys + t));
                _mm_storeu_ps(scores + (q + r) * stride + t, _mm_mul_ps(scaled, _mm_set1_ps(scales[q + r])));
            }
        }
    }
}

VNNI static inline void add_scaled_512(float *to, __m512i sums, float scale) {
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(scale));
    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), scaled));
}
#define VNNI_SUMS_OF_VALUES(NAME, VEC, ROWS)                                                             \
    PAIR_SUMS_OF_VALUES(NAME, VNNI, VEC, 16, _mm512_setzero_si512(), _mm512_loadu_si512, _mm512_set1_epi32, \
                        _mm512_dpwssd_epi32, add_scaled_512, ROWS)
FOUR(VNNI_SUMS_OF_VALUES, vnni_sums_of_values, __m512i)

/* As avx2_bring_values, with groups of 32 columns. */
VNNI static void vnni_bring_values(const char *values, int64_t width, int64_t hd, int16_t *pairs) {
    for (int64_t c = 0; c < hd; c += 32) {
        const __mmask32 some = hd - c < 32 ? (1u << (hd - c)) - 1 : ~0u;
        for (int64_t t = 0; t < width; t += 2) {
            const char *place = values + t * (hd + SCALE_BYTES) + c;
            const __mmask32 both = t + 1 < width ? some : 0;
            const __m512i one = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(some, place));
            const __m512i other = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(both, place + hd + SCALE_BYTES));
            int16_t *to = pairs + t * padded_head(hd) + 2 * c;
            _mm512_storeu_si512(to, _mm512_unpacklo_epi16(one, other));
            _mm512_storeu_si512(to + 32, _mm512_unpackhi_epi16(one, other));
        }
    }
}

/* Sixteen rows of sixteen numbers of 32 bits become columns. */
VNNI static inline __attribute__((always_inline)) void transpose(__m512i *rows) {
    __m512i a[16], b[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    /* A quarter of b[4 i + j] has a column of rows 4 i to 4 i + 3: quarter l the column 4 l + j. */
    UNROLL for (int j = 0; j < 4; j++) {
        const __m512i even = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88), odd = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
        const __m512i even_below = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        const __m512i odd_below = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
        rows[j] = _mm512_shuffle_i32x4(even, even_below, 0x88);
        rows[4 + j] = _mm512_shuffle_i32x4(odd, odd_below, 0x88);
        rows[8 + j] = _mm512_shuffle_i32x4(even, even_below, 0xdd);
        rows[12 + j] = _mm512_shuffle_i32x4(odd, odd_below, 0xdd);
    }
}

/* Sixteen keys, `count` of which are there, side by side: of each four numbers the first and third, and then the second
 * and fourth, as order_query has those of queries. */
VNNI static void vnni_bring_keys(const char *keys, int64_t count, int64_t hd, int16_t *pairs) {
    for (int64_t c = 0; c < hd; c += 64) {
        const __mmask64 some = hd - c < 64 ? (1ull << (hd - c)) - 1 : ~0ull;
        __m512i rows[16];
        UNROLL for (int s = 0; s < 16; s++)
            rows[s] = _mm512_maskz_loadu_epi8(some, keys + (s < count ? s : 0) * (hd + SCALE_BYTES) + c);
        transpose(rows);
        UNROLL for (int s = 0; s < 16; s++) {
            int16_t *to = pairs + (c / 4 + s) * 64;
            _mm512_storeu_si512(to, _mm512_srai_epi16(_mm512_slli_epi16(rows[s], 8), 8));
            _mm512_storeu_si512(to + 32, _mm512_srai_epi16(rows[s], 8));
        }
    }
}

/* Written out: gcc moves sums that it adds to. An emulation without such registers defines its own. */
#ifndef MULTIPLY_PAIRS
#define MULTIPLY_PAIRS(sum, w, x) __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x))
#endif

/* scores[r] of sixteen keys that were brought. */
#define VNNI_SCORES(NAME, VEC, ROWS)                                                                     \
    VNNI static void NAME(const int16_t *pairs, int64_t quads, const int16_t *queries, int64_t padded,   \
                          VEC of_keys, const float *scales, float *scores, int64_t stride) {             \
        __m512i acc[ROWS][2];                                                                            \
        UNROLL for (int r = 0; r < ROWS; r++) acc[r][0] = acc[r][1] = _mm512_setzero_si512();            \
        for (int64_t i = 0; i < quads; i++)                                                              \
            UNROLL for (int u = 0; u < 2; u++) {                                                         \
                const __m512i keys = _mm512_loadu_si512(pairs + (2 * i + u) * 32);                       \
                UNROLL for (int r = 0; r < ROWS; r++) {                                                  \
                    int32_t two;                                                                         \
                    memcpy(&two, queries + r * padded + 4 * i + 2 * u, 4);                               \
                    MULTIPLY_PAIRS(acc[r][u], keys, _mm512_set1_epi32(two));                             \
                }                                                                                        \
            }                                                                                            \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                          \
            const __m512 sums = _mm512_cvtepi32_ps(_mm512_add_epi32(acc[r][0], acc[r][1]));              \
            const __m512 scaled = _mm512_mul_ps(sums, of_keys);                                          \
            _mm512_storeu_ps(scores + r * stride, _mm512_mul_ps(scaled, _mm512_set1_ps(scales[r])));     \
        }                                                                                                \
    }
FOUR(VNNI_SCORES, vnni_scores, __m512)

VNNI static void vnni_whole_scores(const char *keys, const float *of_keys, int64_t width, int64_t hd,
                                   const int16_t *queries, const float *scales, int64_t count,
                                   const char *const *ahead, int16_t *pairs, float *scores, int64_t stride) {
    static void (*const some[])(const int16_t *, int64_t, const int16_t *, int64_t, __m512, const float *, float *,
                                int64_t) = TABLE(vnni_scores);
    const int64_t bytes = hd + SCALE_BYTES, padded = padded_head(hd);
    for (int64_t t = 0; t < width; t += 16) {
        const int64_t left = width - t < 16 ? width - t : 16;
        const char *sixteen = keys + t * bytes;
        for (int64_t i = 0; i < left * bytes; i += 64)
            _mm_prefetch(ahead[0] + t * bytes + i, _MM_HINT_T1), _mm_prefetch(ahead[1] + t * bytes + i, _MM_HINT_T1);
        vnni_bring_keys(sixteen, left, hd, pairs);
        for (int64_t q = 0; q < count; q += 4)
            some[(count - q < 4 ? count - q : 4) - 1](pairs, (hd + 3) / 4, queries + q * padded, padded,
                                                      _mm512_loadu_ps(of_keys + t), scales + q, scores + q * stride + t,
                                                      stride);
    }
}

#endif

/* ---- choosing ------------------------------------------------------------------------------------- */

/* A query in the order in which these products take it. */
static inline void order_query(int isa, int16_t *query, int64_t padded) {
    if (isa != INT8_VNNI) return;
    for (int64_t c = 0; c < padded; c += 4) {
        const int16_t second = query[c + 1];
        query[c + 1] = query[c + 2], query[c + 2] = second;
    }
}

/* Where in `out` of whole_weighted_sum a column is. */
static inline int64_t column_at(int isa, int64_t column) {
    const int64_t lanes = isa == INT8_VNNI ? 16 : isa == INT8_AVX2 ? 8 : 0; /* of a vector of pairs */
    if (!lanes) return column;
    const int64_t place = column % (2 * lanes);
    return column - place + place % 8 / 4 * lanes + place / 8 * 4 + place % 4;
}

/* scores[q][t] of `count` queries and `width` keys, with the scales of both, rows `stride` apart; up to the next
 * multiple of sixteen they may be anything. What comes next, from `ahead` on, is
 * asked for from memory. `pairs` has room for TOGETHER_KEYS padded keys. */
static void whole_scores(int isa, const char *keys, const float *of_keys, int64_t width, int64_t hd,
                         const int16_t *queries, const float *scales, int64_t count, const char *const *ahead, int16_t *pairs,
                         float *scores, int64_t stride) {
#if defined(__x86_64__)
    if (isa == INT8_VNNI) {
        vnni_whole_scores(keys, of_keys, width, hd, queries, scales, count, ahead, pairs, scores, stride);
        return;
    }
    if (isa == INT8_AVX2) {
        avx2_whole_scores(keys, of_keys, width, hd, queries, scales, count, scores, stride);
        return;
    }
#endif
    (void)isa, (void)pairs, (void)ahead;
    portable_whole_scores(keys, of_keys, width, hd, queries, scales, count, scores, stride);
}

/* out[q] += scales[q] * sum over t of weights[q][t] * values[t]. `pairs` has room for MOST_VALUES padded values. */
static void whole_weighted_sum(int isa, const char *values, int64_t width, int64_t hd, const int16_t *weights,
                               const float *scales, int64_t count, int16_t *pairs, float *out) {
#if defined(__x86_64__)
    typedef void (*sums_of_values)(const int16_t *, int64_t, int64_t, const int16_t *, const float *, float *);
    static const sums_of_values vnni[] = TABLE(vnni_sums_of_values), avx2[] = TABLE(avx2_sums_of_values);
    if (isa == INT8_VNNI || isa == INT8_AVX2) {
        (isa == INT8_VNNI ? vnni_bring_values : avx2_bring_values)(values, width, hd, pairs);
        for (int64_t q = 0; q < count; q += 4)
            (isa == INT8_VNNI ? vnni : avx2)[(count - q < 4 ? count - q : 4) - 1](
                pairs, width, hd, weights + q * MOST_VALUES, scales + q, out + q * padded_head(hd));
        return;
    }
#endif
    (void)isa;
    portable_sums_of_values(values, width, hd, weights, scales, count, (int32_t *)pairs, out);
}

#endif
