/* Attention of one position: what its query heads make of the keys and values of a row.
 *
 * In float32, but where many heads share keys of bfloat16: see pair_attention.h. */
#ifndef LOLAMA_ATTENTION_H
#define LOLAMA_ATTENTION_H

#include "elementwise.h"
#include "pages.h"
#include "pair_attention.h"
#include "scores.h"
#include "weighted_sum.h"

/* Attention looks at TILE positions before it rescales, for at most MOST_HEADS query heads at a time: keys,
 * values and scores of a tile stay close, also while the heads go by in twos or fours. */
#define TILE PAIR_KEYS
#define MOST_HEADS 8

/* Keys and values of a row and a head. */
typedef struct {
    const Pages *pages;
    int64_t row, first, count; /* `count` positions from `first` on */
    const char *keys, *values; /* the first vector of the head */
    char *copy;                /* room for TILE vectors that pages part */
} Stored;

/* Query heads that share a head of keys. */
typedef struct {
    const float *values; /* (heads, hd) */
    int64_t heads, hd;
    int isa, dtype;        /* of keys and values */
    const uint16_t *pairs; /* values as `pair_scores` takes them, or NULL */
} Queries;

/* scores[r][t] of each head and `count` keys. */
static void score(const Queries *q, const char *keys, int64_t count, float scores[][TILE]) {
#if HAS_TILES
    if (q->pairs) {
        pair_scores((const uint16_t *)keys, count, q->hd, q->pairs, q->heads, scores[0], TILE);
        return;
    }
#endif
    const dot_function *dots = functions_for(q->isa, q->dtype);
    const score_function *fours = scores_for(q->isa, q->dtype);
    const int64_t hd = q->hd, row_bytes = hd * item_bytes(q->dtype);
    const int64_t together = q->isa == AVX2_ISA ? 2 : 4; /* sums of four keys each fill the registers */
    const float scale = 1.0f / sqrtf((float)hd);
    int64_t t = 0;
    for (; t + 4 <= count; t += 4)
        for (int64_t r = 0; r < q->heads; r += together) {
            int64_t rows = q->heads - r < together ? q->heads - r : together;
            fours[rows - 1](keys + t * row_bytes, hd, q->values + r * hd, scale, &scores[r][t], TILE);
        }
    for (; t < count; t++)
        for (int64_t r = 0; r < q->heads; r++) {
            dots[0](keys + t * row_bytes, q->values + r * hd, hd, hd, &scores[r][t]);
            scores[r][t] *= scale;
        }
}

/* out[r] += sum over t of weights[r][t] * values[t]. */
static void weigh_values(const Queries *q, const char *values, int64_t count, float weights[][TILE], float *out) {
#if HAS_TILES
    if (q->pairs) {
        pair_weighted_sum((const uint16_t *)values, count, q->hd, weights[0], TILE, q->heads, out);
        return;
    }
#endif
    const sum_function *sums = sums_for(q->isa, q->dtype);
    for (int64_t r = 0; r < q->heads; r += 4)
        sums[q->heads - r < 4 ? q->heads - r - 1 : 3](values, count, q->hd, weights[r], TILE, out + r * q->hd);
}

/* `heads`, at most MOST_HEADS, queries (heads, hd) over keys and values, tile by tile: after each, what was
 * summed up is rescaled to the best score so far (Milakov and Gimelshein 2018). */
static void attend(int isa, int dtype, int64_t hd, float cap, const float *queries, int64_t heads,
                   const Stored *stored, float *out) {
    Queries q = {.values = queries, .heads = heads, .hd = hd, .isa = isa, .dtype = dtype};
    const int64_t row_bytes = hd * item_bytes(dtype);
    float scores[MOST_HEADS][TILE], best[MOST_HEADS], total[MOST_HEADS];
#if HAS_TILES
    uint16_t pairs[MOST_HEADS * MOST_HEAD_DIM];
    if (isa == AVX512_ISA && dtype == BFLOAT16 && takes_pairs(heads, hd)) {
        for (int64_t r = 0; r < heads; r++) narrow_query(queries + r * hd, hd, pairs + r * hd);
        q.pairs = pairs;
    }
#endif
    for (int64_t r = 0; r < heads; r++) best[r] = -INFINITY, total[r] = 0;
    memset(out, 0, (size_t)(heads * hd) * 4);
    for (int64_t first = 0; first < stored->count; first += TILE) {
        const int64_t width = stored->count - first < TILE ? stored->count - first : TILE;
        const int64_t place = stored->first + first;
        score(&q, contiguous(stored->pages, stored->row, stored->keys, place, width, row_bytes, stored->copy), width,
              scores);
        for (int64_t r = 0; r < heads; r++) {
            if (cap != 0) CHOOSE(isa, softcap, scores[r], width, cap);
            float high = CHOOSE(isa, largest, scores[r], width, best[r]);
            float shrink = exponential(best[r] - high); /* of the first tile e^-inf: nothing yet */
            best[r] = high;
            total[r] = total[r] * shrink + CHOOSE(isa, exponentials, scores[r], width, high);
            if (first && shrink != 1)
                for (int64_t c = 0; c < hd; c++) out[r * hd + c] *= shrink;
        }
        weigh_values(
            &q, contiguous(stored->pages, stored->row, stored->values, place, width, row_bytes, stored->copy),
            width, scores, out);
    }
    for (int64_t r = 0; r < heads; r++)
        for (int64_t c = 0; c < hd; c++) out[r * hd + c] /= total[r];
}

#endif
