/* What attention of one position does with keys and values of bfloat16, by the instruction that multiplies
 * pairs of them and adds them up in float32 (AVX512_BF16).
 *
 * Many query heads share a head of keys; in float32 multiplying them would take longer than memory takes to
 * bring it. Keys and values stay in the order in which the cache has them. */
#ifndef LOLAMA_PAIR_ATTENTION_H
#define LOLAMA_PAIR_ATTENTION_H

#include <math.h>

#include "bf16_panels.h"

#define MOST_HEAD_DIM 128
#define PAIR_KEYS 128 /* keys and values at a time, a multiple of sixteen */

/* With fewer query heads products in float32 are as fast: then they wait for memory too. */
#define PAIR_HEADS_LEAST 6

#if HAS_TILES

/* Whether the products below take `heads` heads of this size. */
static inline int takes_pairs(int64_t heads, int64_t head_dim) {
    return heads >= PAIR_HEADS_LEAST && head_dim % 64 == 0 && head_dim <= MOST_HEAD_DIM && has_tiles();
}

/* Keys and values are read in another order than they are stored in, which the processor does not foresee:
 * the 64 bytes that lie so far ahead are asked for in good time. */
static inline void fetch_ahead(const uint16_t *place) { _mm_prefetch((const char *)place + 4096, _MM_HINT_T1); }

/* A query (hd), so scaled that its products with keys are scores. */
BF16 static inline void narrow_query(const float *query, int64_t hd, uint16_t *to) {
    const float scale = 1.0f / sqrtf((float)hd);
    float scaled[MOST_HEAD_DIM];
    for (int64_t c = 0; c < hd; c++) scaled[c] = query[c] * scale;
    narrow(scaled, to, hd);
}

/* The sum of the lanes of each of sixteen vectors; that of vector SLOT(t) goes to lane t. */
#define SLOT(t) ((t) / 4 % 2 * 8 + (t) / 8 * 4 + (t) % 2 * 2 + (t) / 2 % 2)
BF16 static inline __m512 sixteen_sums(__m512 *v) {
    UNROLL for (int i = 0; i < 8; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[i], v[i + 8], 0x44),
                             _mm512_shuffle_f32x4(v[i], v[i + 8], 0xee));
    UNROLL for (int i = 0; i < 4; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[i], v[i + 4], 0x88),
                             _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd));
    UNROLL for (int i = 0; i < 2; i++) {
        __m512d a = _mm512_castps_pd(v[i]), b = _mm512_castps_pd(v[i + 2]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    return _mm512_add_ps(_mm512_shuffle_ps(v[0], v[1], 0x88), _mm512_shuffle_ps(v[0], v[1], 0xdd));
}

/* scores[r][t] = queries[r] . keys[t], `stride` floats apart: of `count` keys, and whatever up to the next
 * multiple of sixteen. keys (count, hd) and queries (heads, hd) bfloat16. */
BF16 static void pair_scores(const uint16_t *keys, int64_t count, int64_t hd, const uint16_t *queries,
                             int64_t heads, float *scores, int64_t stride) {
    for (int64_t t = 0; t < count; t += 16) {
        const uint16_t *rows[16];
        UNROLL for (int s = 0; s < 16; s++) rows[SLOT(s)] = keys + (t + s < count ? t + s : t) * hd;
        for (int64_t r = 0; r < heads; r++) {
            for (int64_t c = hd / 2 * r / heads; c < hd / 2 * (r + 1) / heads; c++)
                fetch_ahead(keys + t * hd + 32 * c);
            __m512 acc[16];
            UNROLL for (int s = 0; s < 16; s++) acc[s] = _mm512_setzero_ps();
            for (int64_t c = 0; c < hd; c += 32) {
                const __m512bh query = (__m512bh)_mm512_loadu_si512(queries + r * hd + c);
                UNROLL for (int s = 0; s < 16; s++)
                    acc[s] = _mm512_dpbf16_ps(acc[s], (__m512bh)_mm512_loadu_si512(rows[s] + c), query);
            }
            _mm512_storeu_ps(scores + r * stride + t, sixteen_sums(acc));
        }
    }
}

/* out[r][c] += sum over t of weights[r][t] * values[t][c], for ROWS rows and 64 columns; weights are `stride`
 * apart, rows of out `hd`. */
#define PAIR_WEIGHTED(NAME, TARGET, ROWS)                                                                \
    TARGET static void NAME(const uint16_t *values, int64_t count, int64_t hd, const uint16_t *weights,  \
                          int64_t stride, float *out, int fetching) {                                    \
        __m512 acc[ROWS][4];                                                                             \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int u = 0; u < 4; u++) acc[r][u] = _mm512_setzero_ps();                          \
        for (int64_t t = 0; t < count; t += 2) {                                                         \
            const uint16_t *first = values + t * hd, *second = t + 1 < count ? first + hd : first;       \
            if (fetching)                                                                                \
                for (int64_t c = 0; c < 64; c += 32) fetch_ahead(first + c), fetch_ahead(second + c);    \
            __m512i pairs[4];                                                                            \
            UNROLL for (int u = 0; u < 2; u++) {                                                         \
                const __m512i a = _mm512_loadu_si512(first + 32 * u);                                    \
                const __m512i b = _mm512_loadu_si512(second + 32 * u);                                   \
                pairs[2 * u] = _mm512_unpacklo_epi16(a, b);                                              \
                pairs[2 * u + 1] = _mm512_unpackhi_epi16(a, b);                                          \
            }                                                                                            \
            UNROLL for (int r = 0; r < ROWS; r++) {                                                      \
                int32_t two;                                                                             \
                memcpy(&two, weights + r * stride + t, 4);                                               \
                const __m512bh both = (__m512bh)_mm512_set1_epi32(two);                                  \
                UNROLL for (int u = 0; u < 4; u++)                                                       \
                    acc[r][u] = _mm512_dpbf16_ps(acc[r][u], (__m512bh)pairs[u], both);                   \
            }                                                                                            \
        }                                                                                                \
        /* `unpack` takes four columns of each eight, then the other four. */                            \
        UNROLL for (int r = 0; r < ROWS; r++)                                                            \
            UNROLL for (int u = 0; u < 4; u++) {                                                         \
                const __m512 low = acc[r][u / 2 * 2], high = acc[r][u / 2 * 2 + 1];                      \
                const __m512i order =                                                                    \
                    _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);           \
                const __m512i place = _mm512_add_epi32(order, _mm512_set1_epi32(u % 2 * 8));             \
                float *to = out + r * hd + 16 * u;                                                       \
                const __m512 sums = _mm512_permutex2var_ps(low, place, high);                            \
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), sums));                          \
            }                                                                                            \
    }
FOUR(PAIR_WEIGHTED, pair_weighted, BF16)

/* The same of `heads` rows and all columns, with `count` weights in float32, at most PAIR_KEYS. */
static inline void pair_weighted_sum(const uint16_t *values, int64_t count, int64_t hd, const float *weights,
                                     int64_t stride, int64_t heads, float *out) {
    static void (*const some[4])(const uint16_t *, int64_t, int64_t, const uint16_t *, int64_t, float *,
                                 int) = TABLE(pair_weighted);
    uint16_t narrowed[4][PAIR_KEYS];
    for (int64_t first = 0; first < heads; first += 4) {
        const int64_t rows = heads - first < 4 ? heads - first : 4;
        for (int64_t r = 0; r < rows; r++) {
            narrow(weights + (first + r) * stride, narrowed[r], count);
            if (count % 2) narrowed[r][count] = 0; /* of a pair with the last value itself */
        }
        for (int64_t c = 0; c < hd; c += 64)
            some[rows - 1](values + c, count, hd, narrowed[0], PAIR_KEYS, out + first * hd + c, first == 0);
    }
}

#endif

#endif
