/* Products of whole numbers for int8_attention.h by VNNI, which multiplies four bytes with four others and adds them
 * up. Whole numbers of sixteen bits are taken apart into two bytes, `high` and `low`, each of which is multiplied. */
#ifndef LOLAMA_VNNI_TILES_H
#define LOLAMA_VNNI_TILES_H

#include "elementwise.h"
#include "int8.h"
#include "int8_cache.h"
#include "next_lines.h"
#include "transpose.h"

#define TOGETHER_KEYS 64
#define MOST_VALUES 128 /* that are weighed together, and from the weights of a query to those of the next */

/* Numbers of a head, and zeros up to a multiple of what vectors hold. */
static inline int64_t padded_head(int64_t hd) { return (hd + 63) / 64 * 64; }

#if defined(__x86_64__)

/* n whole numbers become their high bytes, and behind these the low ones, which are signed. What 128 times their sums
 * are goes to `totals`, since keys come in raised by 128. */
static void take_apart(int16_t *whole, int64_t n, int32_t *totals) {
    int8_t bytes[2][512];
    totals[0] = totals[1] = 0;
    for (int64_t i = 0; i < n; i++) {
        bytes[0][i] = (int8_t)((whole[i] + 128) >> 8), bytes[1][i] = (int8_t)(whole[i] & 255);
        totals[0] += 128 * bytes[0][i], totals[1] += 128 * bytes[1][i];
    }
    memcpy(whole, bytes[0], (size_t)n), memcpy((int8_t *)whole + n, bytes[1], (size_t)n);
}

/* Sixteen keys, `count` of which are there, side by side and raised by 128: of each the first four numbers, then the
 * next four. Sixteen keys have padded_head(hd) / 4 such rows, `stride` bytes apart. */
VNNI static void vnni_bring_keys(const char *keys, int64_t count, int64_t hd, uint8_t *brought, int64_t stride) {
    for (int64_t c = 0; c < hd; c += 64) {
        const __mmask64 some = hd - c < 64 ? (1ull << (hd - c)) - 1 : ~0ull;
        __m512i rows[16];
        UNROLL for (int s = 0; s < 16; s++) {
            const char *key = keys + (s < count ? s : 0) * (hd + SCALE_BYTES) + c;
            rows[s] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(some, key), _mm512_set1_epi8(-128));
        }
        transpose(rows);
        UNROLL for (int s = 0; s < 16; s++) _mm512_storeu_si512(brought + (c / 4 + s) * stride, rows[s]);
    }
}

/* scores[r] of TOGETHER_KEYS keys that were brought. */
#define VNNI_SCORES(NAME, VEC, ROWS)                                                                     \
    VNNI static void NAME(const uint8_t *brought, int64_t padded, const int8_t *queries, const int32_t *totals, \
                          const float *of_keys, const float *scales, float *scores, int64_t stride,      \
                          NextLines *next, int64_t lines) {                                              \
        VEC acc[2 * ROWS][4];                                                                            \
        UNROLL for (int r = 0; r < 2 * ROWS; r++)                                                        \
            UNROLL for (int u = 0; u < 4; u++) acc[r][u] = _mm512_set1_epi32(-totals[r]);                \
        for (int64_t c = 0; c < padded; c += 4) {                                                        \
            ask_for(next, lines);                                                                        \
            VEC keys[4];                                                                                 \
            UNROLL for (int u = 0; u < 4; u++) keys[u] = _mm512_loadu_si512(brought + c * TOGETHER_KEYS + 64 * u); \
            UNROLL for (int r = 0; r < 2 * ROWS; r++) {                                                  \
                int32_t four;                                                                            \
                memcpy(&four, queries + r * padded + c, 4);                                              \
                const VEC row = _mm512_set1_epi32(four);                                                 \
                UNROLL for (int u = 0; u < 4; u++) MULTIPLY_BYTES(acc[r][u], keys[u], row);              \
            }                                                                                            \
        }                                                                                                \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int u = 0; u < 4; u++) {                                                         \
                const VEC high = _mm512_slli_epi32(acc[2 * r][u], 8);                                    \
                const __m512 sums = _mm512_cvtepi32_ps(_mm512_add_epi32(high, acc[2 * r + 1][u]));       \
                const __m512 scaled = _mm512_mul_ps(sums, _mm512_loadu_ps(of_keys + 16 * u));            \
                _mm512_storeu_ps(scores + r * stride + 16 * u, _mm512_mul_ps(scaled, _mm512_set1_ps(scales[r]))); \
            }                                                                                            \
    }
VNNI_SCORES(vnni_scores_1, __m512i, 1)
VNNI_SCORES(vnni_scores_2, __m512i, 2)

VNNI static void vnni_whole_scores(const char *keys, const float *of_keys, int64_t width, int64_t hd,
                                   const int8_t *queries, const int32_t *totals, const float *scales, int64_t count,
                                   const char *ahead, uint8_t *brought, float *scores, int64_t stride) {
    const int64_t bytes = hd + SCALE_BYTES, padded = padded_head(hd);
    NextLines next = {ahead, ahead + width * bytes};
    const int64_t turns = (width + TOGETHER_KEYS - 1) / TOGETHER_KEYS * ((count + 1) / 2) * (padded / 4);
    const int64_t lines = (width * bytes / 64 + turns) / turns;
    for (int64_t t = 0; t < width; t += TOGETHER_KEYS) {
        for (int64_t s = t; s < t + TOGETHER_KEYS && s < width; s += 16)
            vnni_bring_keys(keys + s * bytes, width - s, hd, brought + (s - t) * 4, 4 * TOGETHER_KEYS);
        for (int64_t q = 0; q < count; q += 2)
            (count - q < 2 ? vnni_scores_1 : vnni_scores_2)(brought, padded, queries + 2 * q * padded, totals + 2 * q,
                                                            of_keys + t, scales + q, scores + q * stride + t, stride,
                                                            &next, lines);
    }
}

/* Four neighbors of `width` values after each other, column by column: 64 columns are the first four of each sixteen,
 * then the next four. */
VNNI static void vnni_bring_values(const char *values, int64_t width, int64_t hd, uint8_t *brought) {
    const int64_t bytes = hd + SCALE_BYTES;
    for (int64_t c = 0; c < hd; c += 64) {
        const __mmask64 some = hd - c < 64 ? (1ull << (hd - c)) - 1 : ~0ull;
        for (int64_t t = 0; t < width; t += 4) {
            __m512i rows[4], pairs[4];
            UNROLL for (int s = 0; s < 4; s++) {
                const __mmask64 there = t + s < width ? some : 0;
                rows[s] = _mm512_maskz_loadu_epi8(there, values + (t + s) * bytes + c);
            }
            UNROLL for (int s = 0; s < 4; s += 2) {
                pairs[s / 2] = _mm512_unpacklo_epi8(rows[s], rows[s + 1]);
                pairs[2 + s / 2] = _mm512_unpackhi_epi8(rows[s], rows[s + 1]);
            }
            uint8_t *to = brought + t * padded_head(hd) + 4 * c;
            UNROLL for (int half = 0; half < 2; half++) {
                _mm512_storeu_si512(to + 128 * half, _mm512_unpacklo_epi16(pairs[2 * half], pairs[2 * half + 1]));
                _mm512_storeu_si512(to + 128 * half + 64, _mm512_unpackhi_epi16(pairs[2 * half], pairs[2 * half + 1]));
            }
        }
    }
}

/* out[r] += scales[r] * sum over t of weights[r][t] * values[t], for ROWS rows. */
#define VNNI_SUMS_OF_VALUES(NAME, VEC, ROWS)                                                             \
    VNNI static void NAME(const uint8_t *brought, int64_t width, int64_t padded, const uint8_t *weights, \
                          const float *scales, float *out, NextLines *next, int64_t lines) {             \
        for (int64_t c = 0; c < padded; c += 32) {                                                       \
            VEC acc[2 * ROWS][2];                                                                        \
            UNROLL for (int r = 0; r < 2 * ROWS; r++)                                                    \
                UNROLL for (int u = 0; u < 2; u++) acc[r][u] = _mm512_setzero_si512();                   \
            for (int64_t t = 0; t < width; t += 4) {                                                     \
                ask_for(next, lines);                                                                    \
                VEC values[2];                                                                           \
                UNROLL for (int u = 0; u < 2; u++)                                                       \
                    values[u] = _mm512_loadu_si512(brought + t * padded + 4 * c + 64 * u);                \
                UNROLL for (int r = 0; r < 2 * ROWS; r++) {                                              \
                    int32_t four;                                                                        \
                    memcpy(&four, weights + r * MOST_VALUES + t, 4);                                     \
                    const VEC row = _mm512_set1_epi32(four);                                             \
                    UNROLL for (int u = 0; u < 2; u++) MULTIPLY_BYTES(acc[r][u], row, values[u]);        \
                }                                                                                        \
            }                                                                                            \
            UNROLL for (int r = 0; r < ROWS; r++)                                                        \
                UNROLL for (int u = 0; u < 2; u++) {                                                     \
                    const VEC high = _mm512_slli_epi32(acc[2 * r][u], 8);                                \
                    const __m512 sums = _mm512_cvtepi32_ps(_mm512_add_epi32(high, acc[2 * r + 1][u]));   \
                    float *to = out + r * padded + c + 16 * u;                                           \
                    _mm512_storeu_ps(to, _mm512_fmadd_ps(sums, _mm512_set1_ps(scales[r]), _mm512_loadu_ps(to))); \
                }                                                                                        \
        }                                                                                                \
    }
FOUR(VNNI_SUMS_OF_VALUES, vnni_sums_of_values, __m512i)

VNNI static void vnni_weighted_sum(const char *values, int64_t width, int64_t hd, const uint8_t *weights,
                                   const float *scales, int64_t count, const char *ahead, uint8_t *brought, float *out) {
    static void (*const some[])(const uint8_t *, int64_t, int64_t, const uint8_t *, const float *, float *, NextLines *,
                                int64_t) = TABLE(vnni_sums_of_values);
    const int64_t bytes = hd + SCALE_BYTES, padded = padded_head(hd);
    NextLines next = {ahead, ahead + width * bytes};
    const int64_t turns = (width + 3) / 4 * ((count + 3) / 4) * (padded / 32);
    const int64_t lines = (width * bytes / 64 + turns) / turns;
    vnni_bring_values(values, width, hd, brought);
    for (int64_t q = 0; q < count; q += 4)
        some[(count - q < 4 ? count - q : 4) - 1](brought, width, padded, weights + 2 * q * MOST_VALUES, scales + q,
                                                  out + q * padded, &next, lines);
}

/* e^x within 1e-7 of itself, of x from -87 on; NaN of NaN. */
VNNI static inline __m512 vnni_exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
    const __m512 magic = _mm512_set1_ps(12582912.0f); /* adding it leaves no fraction */
    const __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), magic), magic);
    const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147181f), x);
    __m512 p = _mm512_set1_ps(0.00829765478f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.041915382f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.166675747f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.499988949f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.999999692f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.00000007f));
    return _mm512_scalef_ps(p, n);
}

/* Of sixteen positions from `t` on those from `first` to `last`. */
static inline __mmask16 seen_of(int32_t t, int32_t first, int32_t last) {
    const int32_t from = first > t ? first - t : 0, to = last - t < 16 ? last - t : 16;
    return from < to ? (__mmask16)((0xffffu << from) & (0xffffu >> (16 - to))) : 0;
}

/* Sixteen bits of each of 64 whole numbers, taken apart. */
VNNI static inline void take_weights_apart(const __m512i *whole, uint8_t *weights) {
    __m512i pairs[2], bytes[2];
    UNROLL for (int u = 0; u < 2; u++) pairs[u] = _mm512_packus_epi32(whole[2 * u], whole[2 * u + 1]);
    bytes[0] = _mm512_packus_epi16(_mm512_srli_epi16(pairs[0], 8), _mm512_srli_epi16(pairs[1], 8));
    const __m512i low = _mm512_set1_epi16(255);
    bytes[1] = _mm512_packus_epi16(_mm512_and_si512(pairs[0], low), _mm512_and_si512(pairs[1], low));
    /* `pack` takes four of each in turn. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    UNROLL for (int u = 0; u < 2; u++)
        _mm512_storeu_si512(weights + u * MOST_VALUES, _mm512_permutexvar_epi32(order, bytes[u]));
}

/* Scores of a tile, which a query sees from `first` to `last`, become weights of values with these scales, taken apart;
 * their own scale. Weights are relative to the best score of the tile and the greatest scale of its values. */
VNNI static float vnni_weigh(const float *scores, const float *scales, int32_t first, int32_t last, float *best,
                             float *total, float *out, int64_t padded, uint8_t *weights) {
    if (first >= last) {
        memset(weights, 0, 2 * MOST_VALUES);
        return 0;
    }
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    __m512i widest = _mm512_setzero_si512();
    for (int32_t t = first / 16 * 16; t < last; t += 16) {
        const __mmask16 seen = seen_of(t, first, last);
        most = _mm512_mask_max_ps(most, seen, most, _mm512_loadu_ps(scores + t));
        /* Scales are not negative, so they compare as whole numbers do, of which NaN is the greatest. */
        widest = _mm512_mask_max_epi32(widest, seen, widest, _mm512_loadu_si512(scales + t));
    }
    const float high = _mm512_reduce_max_ps(most), now = high > *best ? high : *best;
    const int32_t bits = _mm512_reduce_max_epi32(widest);
    float scale;
    memcpy(&scale, &bits, 4);
    /* With this in place of the best score, the greatest weight times the greatest scale is the greatest whole number. */
    const float base = high - (scale > 1e-30f ? logf(65535 / scale) : 0);
    for (int32_t t = 0; t < MOST_VALUES; t += 64) {
        __m512i whole[4];
        UNROLL for (int u = 0; u < 4; u++) {
            const __mmask16 seen = seen_of(t + 16 * u, first, last);
            const __m512 score = _mm512_loadu_ps(scores + t + 16 * u);
            const __m512 each = vnni_exponential(_mm512_sub_ps(score, _mm512_set1_ps(base)));
            sum = _mm512_mask_add_ps(sum, seen, sum, each);
            whole[u] = _mm512_maskz_cvtps_epi32(seen, _mm512_mul_ps(each, _mm512_loadu_ps(scales + t + 16 * u)));
        }
        take_weights_apart(whole, weights + t);
    }
    if (now != *best) {
        const float shrink = exponential(*best - now); /* at first e^-inf: nothing yet */
        *best = now, *total *= shrink;
        for (int64_t c = 0; c < padded; c += 16)
            _mm512_storeu_ps(out + c, _mm512_mul_ps(_mm512_loadu_ps(out + c), _mm512_set1_ps(shrink)));
    }
    const float part = exponential(base - now);
    *total += part * _mm512_reduce_add_ps(sum);
    return scale >= 0 ? part : NAN;
}

#endif

#endif
