/* Products of whole numbers for int8_attention.h: sixteen bits with the codes of keys and values. Exact, so that they
 * are the same on every processor and in any order. */
#ifndef LOLAMA_INT8_TILES_H
#define LOLAMA_INT8_TILES_H

#include "vnni_tiles.h"

/* The largest whole number of two signed bytes. Sums of its products with codes fit 32 bits for heads of 512 numbers. */
#define WHOLE 32639

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
AVX2 static void avx2_bring_values(const char *values, int64_t width, int64_t hd, const char *ahead, int16_t *pairs) {
    const int64_t bytes = hd + SCALE_BYTES;
    NextLines next = {ahead, ahead + width * bytes};
    for (int64_t t = 0; t < width; t += 2) {
        ask_for(&next, bytes / 32 + 1);
        for (int64_t c = 0; c < hd; c += 16) {
            const char *place = values + t * bytes + c, *below = place + bytes;
            int8_t codes[2][16] = {{0}};
            if (hd - c < 16 || t + 1 == width) {
                const size_t some = (size_t)(hd - c < 16 ? hd - c : 16);
                memcpy(codes[0], place, some);
                if (t + 1 < width) memcpy(codes[1], below, some);
                place = (const char *)codes[0], below = (const char *)codes[1];
            }
            const __m256i one = LOAD_BYTES(place), other = LOAD_BYTES(below);
            __m256i *to = (__m256i *)(pairs + t * padded_head(hd) + 2 * c);
            _mm256_storeu_si256(to, _mm256_unpacklo_epi16(one, other));
            _mm256_storeu_si256(to + 1, _mm256_unpackhi_epi16(one, other));
        }
    }
}

AVX2 static void avx2_whole_scores(const char *keys, const float *of_keys, int64_t width, int64_t hd,
                                   const int16_t *queries, const float *scales, int64_t count, const char *ahead,
                                   float *scores, int64_t stride) {
    static const sums_function some[] = TABLE3(avx2_sums_bytes);
    const int64_t bytes = hd + SCALE_BYTES, padded = padded_head(hd);
    NextLines next = {ahead, ahead + width * bytes};
    for (int64_t t = 0; t < width; t += 4) {
        ask_for(&next, bytes / 16 + 1);
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

#endif

/* ---- choosing ------------------------------------------------------------------------------------- */

/* A query (padded) of whole numbers as these products take it, and two numbers that they need of it. */
static inline void order_query(int isa, int16_t *query, int64_t padded, int32_t *totals) {
#if defined(__x86_64__)
    if (isa == INT8_VNNI) take_apart(query, padded, totals);
#else
    (void)isa, (void)query, (void)padded, (void)totals;
#endif
}

/* Where in `out` of whole_weighted_sum a column is. */
static inline int64_t column_at(int isa, int64_t column) {
    if (isa == INT8_VNNI) return column / 64 * 64 + column % 16 / 4 * 16 + column % 64 / 16 * 4 + column % 4;
    if (isa == INT8_AVX2) return column / 16 * 16 + column % 8 / 4 * 8 + column % 16 / 8 * 4 + column % 4;
    return column;
}

/* scores[q][t] of `count` queries and `width` keys, with the scales of both, rows `stride` apart; up to the next
 * multiple of TOGETHER_KEYS they may be anything, and so may scales of keys. As many keys from `ahead` on are asked for
 * from memory. `brought` has room for as many padded keys. */
static void whole_scores(int isa, const char *keys, const float *of_keys, int64_t width, int64_t hd,
                         const int16_t *queries, const int32_t *totals, const float *scales, int64_t count,
                         const char *ahead, void *brought, float *scores, int64_t stride) {
#if defined(__x86_64__)
    if (isa == INT8_VNNI) {
        vnni_whole_scores(keys, of_keys, width, hd, (const int8_t *)queries, totals, scales, count, ahead,
                          (uint8_t *)brought, scores, stride);
        return;
    }
    if (isa == INT8_AVX2) {
        avx2_whole_scores(keys, of_keys, width, hd, queries, scales, count, ahead, scores, stride);
        return;
    }
#endif
    (void)isa, (void)brought, (void)ahead, (void)totals;
    portable_whole_scores(keys, of_keys, width, hd, queries, scales, count, scores, stride);
}

/* out[q] += scales[q] * sum over t of weights[q][at + t] * values[t]. As many values from `ahead` on are asked for from
 * memory. `brought` has room for MOST_VALUES padded values of sixteen bits. */
static void whole_weighted_sum(int isa, const char *values, int64_t width, int64_t hd, const int16_t *weights,
                               int64_t at, const float *scales, int64_t count, const char *ahead, void *brought,
                               float *out) {
#if defined(__x86_64__)
    if (isa == INT8_VNNI) {
        vnni_weighted_sum(values, width, hd, (const uint8_t *)weights + at, scales, count, ahead, (uint8_t *)brought, out);
        return;
    }
    if (isa == INT8_AVX2) {
        static void (*const some[])(const int16_t *, int64_t, int64_t, const int16_t *, const float *,
                                    float *) = TABLE(avx2_sums_of_values);
        avx2_bring_values(values, width, hd, ahead, (int16_t *)brought);
        for (int64_t q = 0; q < count; q += 4)
            some[(count - q < 4 ? count - q : 4) - 1]((const int16_t *)brought, width, hd, weights + q * MOST_VALUES + at,
                                                      scales + q, out + q * padded_head(hd));
        return;
    }
#endif
    (void)isa, (void)ahead;
    portable_sums_of_values(values, width, hd, weights + at, scales, count, (int32_t *)brought, out);
}

#endif
