/* Attention of several new positions of a row, by products of bfloat16: see wide_panels.h.
 *
 * Queries, all heads of a group at a position, pass over 64 keys at a time. After each, what was summed up is
 * rescaled to the best score so far (Milakov and Gimelshein 2018). */
#ifndef LOLAMA_PROMPT_ATTENTION_H
#define LOLAMA_PROMPT_ATTENTION_H

#include "elementwise.h"
#include "pair_attention.h"
#include "queries.h"

#if HAS_TILES

#define QUERIES 96 /* of a block, a multiple of WIDE_TOGETHER */
#define KEYS WIDE_OUTPUTS
#define VALUE_PANELS (MOST_HEAD_DIM / WIDE_OUTPUTS)

/* What a thread works with: keys as weights of products with queries, values as those of products with what
 * becomes of the scores, the latter 64 dimensions of a head at a time. Vectors that pages part are copied to
 * `copy`. */
typedef struct {
    uint8_t keys[2 * MOST_HEAD_DIM * KEYS], values[VALUE_PANELS][2 * KEYS * WIDE_OUTPUTS];
    uint16_t queries[QUERIES * MOST_HEAD_DIM], weights[QUERIES * KEYS], copy[KEYS * MOST_HEAD_DIM];
    float scores[QUERIES][KEYS], out[VALUE_PANELS][QUERIES][WIDE_OUTPUTS];
    float best[QUERIES], total[QUERIES];
} PromptBlock;

/* Two neighbors of `count` vectors of values after each other, dimension by dimension; zeros beyond. */
BF16 static void bring_values(const uint16_t *values, int64_t count, int64_t hd,
                              uint8_t (*to)[2 * KEYS * WIDE_OUTPUTS]) {
    for (int64_t t = 0; t < count; t += 2)
        for (int64_t c = 0; c < (hd + 63) / 64 * 64; c += 16) {
            const int64_t left = hd - c;
            const __mmask16 some = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
            const __mmask16 both = t + 1 < count ? some : 0;
            const uint16_t *place = values + t * hd + c;
            __m512i first = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, place));
            __m512i second = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(both, place + hd));
            _mm512_store_si512(to[c / 64] + t * 2 * WIDE_OUTPUTS + c % 64 * 4,
                               _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
        }
}

/* Scores of a query become weights of the values, of which it sees `begin` to `end`; what was summed up so far
 * is rescaled. */
BF16 static void weigh(PromptBlock *b, int64_t q, int64_t begin, int64_t end, int64_t panels) {
    float *scores = b->scores[q];
    if (begin >= end) {
        memset(b->weights + q * KEYS, 0, KEYS * sizeof *b->weights);
        return;
    }
    for (int64_t t = 0; t < begin; t++) scores[t] = -INFINITY;
    for (int64_t t = end; t < KEYS; t++) scores[t] = -INFINITY;
    const float high = avx512_largest(scores, KEYS, b->best[q]);
    if (high > b->best[q]) {
        const float shrink = exponential(b->best[q] - high); /* at first e^-inf: nothing yet */
        b->best[q] = high;
        b->total[q] *= shrink;
        for (int64_t p = 0; p < panels; p++)
            for (int64_t c = 0; c < WIDE_OUTPUTS; c++) b->out[p][q][c] *= shrink;
    }
    b->total[q] += avx512_exponentials(scores, KEYS, high);
    narrow(scores, b->weights + q * KEYS, KEYS);
}

/* Queries `from` to `to`, at most QUERIES, of a prompt. */
BF16 static void prompt_attend(const Prompt *p, int64_t from, int64_t to) {
    static _Thread_local PromptBlock block __attribute__((aligned(64)));
    PromptBlock *b = &block;
    const int64_t hd = p->hd, count = to - from, panels = (hd + 63) / 64;
    const int64_t first = p->start + from / p->group, last = p->start + (to - 1) / p->group;
    for (int64_t q = 0; q < count; q++) {
        narrow_query(query_at(p, from + q), hd, b->queries + q * hd);
        b->best[q] = -INFINITY, b->total[q] = 0;
    }
    memset(b->out, 0, sizeof b->out);
    for (int64_t k = p->window && first >= p->window ? first + 1 - p->window : 0; k <= last; k += KEYS) {
        const int64_t keys = last + 1 - k < KEYS ? last + 1 - k : KEYS;
        const char *key_rows[KEYS];
        const char *vectors = contiguous(p->pages, p->row, p->keys, k, keys, 2 * hd, (char *)b->copy);
        for (int64_t t = 0; t < KEYS; t++) key_rows[t] = vectors + (t < keys ? t : 0) * 2 * hd;
        bring_weights(key_rows, 0, 2 * hd, 0, b->keys);
        memset(b->scores, 0, (size_t)count * sizeof *b->scores);
        pair_sums(b->keys, b->queries, hd, 2 * hd, count, b->scores);
        for (int64_t q = 0; q < count; q++) {
            const int64_t seen = p->start + (from + q) / p->group + 1 - k; /* keys of these, and none later */
            if (p->cap != 0) avx512_softcap(b->scores[q], keys, p->cap);
            weigh(b, q, p->window && seen > p->window ? seen - p->window : 0, seen < keys ? seen : keys, panels);
        }
        vectors = contiguous(p->pages, p->row, p->values, k, keys, 2 * hd, (char *)b->copy);
        bring_values((const uint16_t *)vectors, keys, hd, b->values);
        for (int64_t v = 0; v < panels; v++)
            pair_sums(b->values[v], b->weights, KEYS, (keys + 1) / 2 * 4, count, b->out[v]);
    }
    for (int64_t q = 0; q < count; q++) {
        float *out = out_at(p, from + q);
        for (int64_t c = 0; c < hd; c++) out[c] = b->out[c / 64][q][c % 64] / b->total[q];
    }
}

#endif

#endif
