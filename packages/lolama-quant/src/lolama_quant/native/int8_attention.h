/* Attention of any number of positions of a row over keys and values of int8. Each position has the same result, bit
 * for bit, alone and among others, as in block_attention.h.
 *
 * Products are of whole numbers, which add up exactly in any order: a query becomes sixteen bits with a scale of its
 * own, and so do its weights of the values of a tile, each multiplied by the scale of its value before. That is
 * 128 times as fine as codes are. Pairs of sixteen bits are multiplied and added up by one instruction. */
#ifndef LOLAMA_INT8_ATTENTION_H
#define LOLAMA_INT8_ATTENTION_H

#include "block_attention.h"
#include "int8_cache.h"
#include "int8_tiles.h"

_Static_assert(BLOCK_KEYS == MOST_VALUES, "values of a tile are weighed together");

/* Bytes of working memory of a thread. */
static inline int64_t int8_attention_bytes(int64_t hd) {
    const int64_t padded = padded_head(hd);
    return 64 + padded * (BLOCK_QUERIES * 6 + BLOCK_KEYS * 2) + BLOCK_QUERIES * BLOCK_KEYS * 2 +
           BLOCK_KEYS * (hd + SCALE_BYTES);
}

/* Scores of a tile, which a query sees from `first` to `last`, become whole weights of values with these scales. Their
 * own scale. What it does not see may hold anything. */
#define WEIGHTS(NAME, TARGET)                                                                            \
    TARGET static float NAME##_weights(const float *scores, const float *scales, int32_t first, int32_t last, \
                                       int16_t *weights) {                                               \
        float weighed[BLOCK_KEYS];                                                                       \
        for (int32_t t = 0; t < BLOCK_KEYS; t++)                                                         \
            weighed[t] = t >= first && t < last ? scores[t] * scales[t] : 0;                             \
        return NAME##_whole(weighed, BLOCK_KEYS, weights);                                               \
    }
WEIGHTS(portable, )
#if defined(__x86_64__)
WEIGHTS(avx512, AVX512)
WEIGHTS(avx2, AVX2)
#endif

/* Scores of a tile, which a query sees from `first` to `last`, become weights of values with these scales, as
 * whole_weighted_sum takes them; their own scale. See `soften`. */
static inline float soft_weights(int isa, int int8_isa, float *scores, const float *scales, int32_t first, int32_t last,
                                 float *best, float *total, float *out, int64_t padded, int16_t *weights) {
#if defined(__x86_64__)
    if (int8_isa == INT8_VNNI)
        return vnni_weigh(scores, scales, first, last, best, total, out, padded, (uint8_t *)weights);
#endif
    (void)int8_isa;
    CHOOSE(isa, soften, scores, first, last, best, total, out, padded);
    return CHOOSE(isa, weights, scores, scales, first, last, weights);
}

/* Queries `from` to `to`, at most BLOCK_QUERIES, of a prompt, tile by tile. */
static void int8_attend(int isa, int int8_isa, const Prompt *p, int64_t from, int64_t to, void *memory) {
    const int64_t hd = p->hd, padded = padded_head(hd), count = to - from, bytes = hd + SCALE_BYTES;
    const int64_t end = p->start + (to - 1) / p->group + 1, begin = first_seen(p, p->start + from / p->group);
    float *out = (float *)(((uintptr_t)memory + 63) / 64 * 64);
    int16_t *queries = (int16_t *)(out + BLOCK_QUERIES * padded), *weights = queries + BLOCK_QUERIES * padded;
    int16_t *brought = weights + BLOCK_QUERIES * BLOCK_KEYS;
    char *copy = (char *)(brought + BLOCK_KEYS * padded);
    int32_t totals[2 * BLOCK_QUERIES];
    float best[BLOCK_QUERIES], total[BLOCK_QUERIES], of_queries[BLOCK_QUERIES], of_weights[BLOCK_QUERIES];
    float of_keys[BLOCK_KEYS] = {0}, of_values[BLOCK_KEYS];
    BlockScores scores;
    for (int64_t q = 0; q < count; q++) {
        best[q] = -INFINITY, total[q] = 0;
        int16_t *query = queries + q * padded;
        memset(query, 0, (size_t)padded * sizeof *query);
        of_queries[q] = CHOOSE(isa, whole, query_at(p, from + q), hd, query) / sqrtf((float)hd);
        order_query(int8_isa, query, padded, totals + 2 * q);
    }
    memset(out, 0, (size_t)(count * padded) * sizeof *out);
    for (int64_t tile = begin / BLOCK_KEYS * BLOCK_KEYS; tile < end; tile += BLOCK_KEYS) {
        /* Values are multiplied in pairs or fours, and many keys at a time. */
        const int64_t low = tile > begin ? tile : begin / TOGETHER_KEYS * TOGETHER_KEYS, at = low - tile;
        const int64_t width = (tile + BLOCK_KEYS < end ? tile + BLOCK_KEYS : end) - low;
        const char *keys = contiguous(p->pages, p->row, p->keys, low, width, bytes, copy);
        for (int64_t t = 0; t < width; t++) of_keys[t] = scale_of(keys + t * bytes, hd);
        const int64_t later = low + width < end ? low + width : low;
        const int64_t next = vector_at(p->pages, p->row, later) * bytes;
        whole_scores(int8_isa, keys, of_keys, width, hd, queries, totals, of_queries, count, p->keys + next,
                     brought, scores[0] + at, BLOCK_KEYS);
        const char *values = contiguous(p->pages, p->row, p->values, low, width, bytes, copy);
        for (int64_t t = 0; t < width; t++) of_values[at + t] = scale_of(values + t * bytes, hd);
        for (int64_t q = 0; q < count; q++) {
            const int64_t position = p->start + (from + q) / p->group, seen = first_seen(p, position) - tile;
            const int32_t first = (int32_t)(seen > at ? seen : at);
            const int32_t last = (int32_t)(position - tile < BLOCK_KEYS ? position - tile + 1 : BLOCK_KEYS);
            if (p->cap != 0) CHOOSE(isa, softcap, scores[q] + at, width, p->cap);
            of_weights[q] = soft_weights(isa, int8_isa, scores[q], of_values, first, last, best + q, total + q,
                                         out + q * padded, padded, weights + q * BLOCK_KEYS);
        }
        whole_weighted_sum(int8_isa, values, width, hd, weights, at, of_weights, count, p->values + next, brought, out);
    }
    for (int64_t q = 0; q < count; q++)
        for (int64_t c = 0; c < hd; c++) out_at(p, from + q)[c] = out[q * padded + column_at(int8_isa, c)] / total[q];
}

#endif
