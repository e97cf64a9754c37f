/* Attention of any number of positions of a row, each with the same result, bit for bit, alone and among others:
 * tiles of keys begin at the same positions for all of them, a key that a query does not see has the weight zero,
 * and each sum is taken in one order.
 *
 * In float32, or by the products of pair_attention.h. */
#ifndef LOLAMA_BLOCK_ATTENTION_H
#define LOLAMA_BLOCK_ATTENTION_H

#include "elementwise.h"
#include "pair_attention.h"
#include "queries.h"
#include "scores.h"
#include "weighted_sum.h"

#define BLOCK_QUERIES 32
#define BLOCK_KEYS 128

typedef float BlockScores[BLOCK_QUERIES][BLOCK_KEYS];

/* Bytes of working memory: queries, what they make, keys that pages part, and four more. */
static inline int64_t block_bytes(int64_t hd) { return (2 * BLOCK_QUERIES + BLOCK_KEYS + 4) * hd * 4; }

/* Scores of a tile become weights of the values `begin` to `end`, which are those that the query sees; what was summed
 * up so far is rescaled to the best score so far (Milakov and Gimelshein 2018). */
#define SOFTEN(NAME, TARGET)                                                                             \
    TARGET static void NAME##_soften(float *scores, int32_t begin, int32_t end, float *best, float *total, \
                                     float *out, int64_t hd) {                                           \
        const int some = begin > 0 || end < BLOCK_KEYS;                                                  \
        for (int32_t t = 0; some && t < BLOCK_KEYS; t++)                                                 \
            scores[t] = t >= begin && t < end ? scores[t] : -INFINITY;                                   \
        if (begin < end) {                                                                               \
            const float most = NAME##_largest(scores, BLOCK_KEYS, *best);                                \
            /* At first e^-inf: nothing yet. */                                                          \
            const float shrink = most == *best ? 1 : exponential(*best - most);                          \
            *best = most;                                                                                \
            *total = *total * shrink + NAME##_exponentials(scores, BLOCK_KEYS, most);                    \
            if (shrink != 1)                                                                             \
                for (int64_t c = 0; c < hd; c++) out[c] *= shrink;                                       \
        }                                                                                                \
        for (int32_t t = 0; some && t < BLOCK_KEYS; t++) scores[t] = t >= begin && t < end ? scores[t] : 0; \
    }
SOFTEN(portable, )
#if defined(__x86_64__)
SOFTEN(avx512, AVX512)
SOFTEN(avx2, AVX2)
#endif

/* Whether the products are those of pairs of bfloat16. */
static inline int blocks_of_pairs(int isa, int dtype, int64_t hd) {
#if HAS_TILES
    return isa == AVX512_ISA && dtype == BFLOAT16 && hd % 64 == 0 && hd <= MOST_HEAD_DIM && has_tiles();
#else
    return (void)isa, (void)dtype, (void)hd, 0;
#endif
}

/* scores[q][at + t] of `count` queries (count, hd) and `width` keys. `four_keys` has room for as many. */
static void block_scores(int isa, int dtype, int64_t hd, const float *queries, int64_t count, const char *keys,
                         int64_t width, char *four_keys, BlockScores scores, int64_t at) {
    const score_function *fours = scores_for(isa, dtype);
    const int64_t together = isa == AVX2_ISA ? 2 : 4; /* sums of four keys each fill the registers */
    const int64_t bytes = hd * item_bytes(dtype), left = width % 4;
    const float scale = 1.0f / sqrtf((float)hd);
    float last[4][4];
    memset(four_keys, 0, (size_t)(4 * bytes));
    memcpy(four_keys, keys + (width - left) * bytes, (size_t)(left * bytes));
    for (int64_t q = 0; q < count; q += together) {
        const int64_t rows = count - q < together ? count - q : together;
        for (int64_t t = 0; t + 4 <= width; t += 4)
            fours[rows - 1](keys + t * bytes, hd, queries + q * hd, scale, &scores[q][at + t], BLOCK_KEYS);
        if (left) fours[rows - 1](four_keys, hd, queries + q * hd, scale, last[0], 4);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t t = 0; t < left; t++) scores[q + r][at + width - left + t] = last[r][t];
    }
}

/* Queries `from` to `to`, at most BLOCK_QUERIES, of a prompt, tile by tile. */
static void block_attend(int isa, int dtype, const Prompt *p, int64_t from, int64_t to, void *memory) {
    const int64_t hd = p->hd, count = to - from, bytes = hd * item_bytes(dtype);
    const int64_t end = p->start + (to - 1) / p->group + 1, begin = first_seen(p, p->start + from / p->group);
    const int pairs = blocks_of_pairs(isa, dtype, hd);
    float *queries = (float *)memory, *out = queries + BLOCK_QUERIES * hd;
    char *copy = (char *)(out + BLOCK_QUERIES * hd), *four_keys = copy + BLOCK_KEYS * bytes;
    float best[BLOCK_QUERIES], total[BLOCK_QUERIES];
    BlockScores scores;
    const sum_function *sums = sums_for(isa, dtype);
    for (int64_t q = 0; q < count; q++) {
        best[q] = -INFINITY, total[q] = 0;
#if HAS_TILES
        if (pairs) {
            narrow_query(query_at(p, from + q), hd, (uint16_t *)queries + q * hd);
            continue;
        }
#endif
        memcpy(queries + q * hd, query_at(p, from + q), (size_t)hd * 4);
    }
    memset(out, 0, (size_t)(count * hd) * 4);
    for (int64_t tile = begin / BLOCK_KEYS * BLOCK_KEYS; tile < end; tile += BLOCK_KEYS) {
        /* Values are multiplied in pairs, and keys sixteen at a time. */
        const int64_t low = tile > begin ? tile : begin / 16 * 16, at = low - tile;
        const int64_t width = (tile + BLOCK_KEYS < end ? tile + BLOCK_KEYS : end) - low;
        const char *keys = contiguous(p->pages, p->row, p->keys, low, width, bytes, copy);
#if HAS_TILES
        if (pairs)
            pair_scores((const uint16_t *)keys, width, hd, (const uint16_t *)queries, count, scores[0] + at, BLOCK_KEYS);
        else
#endif
            block_scores(isa, dtype, hd, queries, count, keys, width, four_keys, scores, at);
        for (int64_t q = 0; q < count; q++) {
            const int64_t position = p->start + (from + q) / p->group, seen = first_seen(p, position) - tile;
            const int32_t first = (int32_t)(seen > at ? seen : at);
            const int32_t last = (int32_t)(position - tile < BLOCK_KEYS ? position - tile + 1 : BLOCK_KEYS);
            if (p->cap != 0) CHOOSE(isa, softcap, scores[q] + at, width, p->cap);
            CHOOSE(isa, soften, scores[q], first, last, best + q, total + q, out + q * hd, hd);
        }
        const char *values = contiguous(p->pages, p->row, p->values, low, width, bytes, copy);
#if HAS_TILES
        if (pairs) {
            pair_weighted_sum((const uint16_t *)values, width, hd, scores[0] + at, BLOCK_KEYS, count, out);
            continue;
        }
#endif
        for (int64_t q = 0; q < count; q += 4)
            sums[count - q < 4 ? count - q - 1 : 3](values, width, hd, scores[q] + at, BLOCK_KEYS, out + q * hd);
    }
    for (int64_t q = 0; q < count; q++)
        for (int64_t c = 0; c < hd; c++) out_at(p, from + q)[c] = out[q * hd + c] / total[q];
}

#endif
