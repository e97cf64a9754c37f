/* What a block multiplies: weights, activations in the form that these take, and products of which each thread takes a
 * part. */
#ifndef LOLAMA_BLOCK_PRODUCTS_H
#define LOLAMA_BLOCK_PRODUCTS_H

#include "elementwise.h"
#include "grouped_product.h"
#include "int8.h"
#include "tiles.h"

/* A weight (outputs, inputs), row by row; of int8, a scale for each row; a bias for each row, or NULL; what else a
 * grouped weight has. */
typedef struct {
    const void *weight;
    const float *scales, *bias;
    const uint8_t *group_scales;
    const uint16_t *block_scales;
    int64_t dtype;
} Linear;

/* A gated feed-forward network. */
typedef struct {
    Linear gate, up, down;
} FeedForward;

/* `weight_dtype` is that of all linears; of grouped weights, whose formats may differ, it is that of one, and `taken` says
 * what all of them take. `hidden` is the inner width of a feed-forward network, and 0 of a model of mixtures, which have as many `experts`, of
 * `expert_hidden`, and maybe one of `shared_hidden` beside them: see experts.h. */
typedef struct {
    int64_t layers, width, heads, kv_heads, head_dim, hidden;
    int64_t experts, per_token, expert_hidden, shared_hidden;
    int weight_dtype, taken, cache_dtype, isa, int8_isa, tiled;
    int wide_norm, activation;      /* whether q_norm and k_norm are over all heads */
    int router_dtype, normalize;    /* whether the weights of a token's experts sum to 1 */
    float eps, query_scale, residual_scale; /* what queries are multiplied with, and what is added to the stream */
    float softcap;                          /* what scores stay below; 0: anything */
} Model;

enum { SILU = 0, GELU = 1, GELU_TANH = 2 };

/* The longest row that a product reads. */
static int64_t widest(const Model *m) {
    const int64_t rows[] = {m->heads * m->head_dim, m->hidden, m->expert_hidden, m->shared_hidden};
    int64_t longest = m->width;
    for (int i = 0; i < 4; i++) longest = rows[i] > longest ? rows[i] : longest;
    return longest;
}

/* Bytes of working memory that an input of any of the products needs, a multiple of four. */
static int64_t input_bytes(const Model *m, int64_t rows) {
    if (is_grouped(m->weight_dtype)) return blocked_bytes(rows, widest(m), m->taken);
    return m->weight_dtype == INT8 ? rounded_bytes(rows, widest(m)) : (2 * rows * widest(m) + 3) / 4 * 4;
}

/* Activations (rows, k), and what products with weights of some dtype take in their place. */
typedef struct {
    const float *x;
    int64_t rows, k;
    const uint16_t *narrowed;
    Rounded rounded;
    Blocked blocked;
} Input;

/* From this many positions on, threads share the work of making an input of products. With fewer, each thread
 * makes all of it, which takes less time than waiting for the others. */
#define SHARED_LEAST 8

/* x (rows, k), normed into `normed` if there are weights for that, as products take it. `memory` has
 * input_bytes(); both are of this thread alone unless `shared`. */
static Input input_of(const Model *m, const float *x, int64_t rows, int64_t k, const float *norm,
                      float *normed, void *memory, int shared) {
    int64_t begin = 0, end = rows;
    if (shared) share(rows, thread_number(), thread_count(), &begin, &end);
    if (norm) {
        for (int64_t r = begin; r < end; r++) CHOOSE(m->isa, norm, x + r * k, norm, normed + r * k, k, m->eps);
        x = normed;
    }
    Input input = {.x = x, .rows = rows, .k = k};
    if (m->weight_dtype == INT8) {
        input.rounded = rounded_in(m->int8_isa, x, rows, k, memory);
        round_rows(m->int8_isa, &input.rounded, begin, end, k);
    }
    if (is_grouped(m->weight_dtype)) {
        input.blocked = blocked_in(x, rows, k, m->taken, memory);
        round_blocks(m->int8_isa, &input.blocked, m->taken, begin, end);
    }
#if HAS_TILES
    if (m->tiled) {
        narrow(x + begin * k, (uint16_t *)memory + begin * k, (end - begin) * k);
        input.narrowed = (const uint16_t *)memory;
    }
#endif
    if (shared) {
#pragma omp barrier
    }
    return input;
}

/* Outputs `begin` to `end` of an input times a weight; see `product`. */
static void part_product(const Model *m, const Linear *l, const Input *input, int64_t begin, int64_t end,
                         float *y, int64_t y_stride, int add) {
    const int64_t rows = input->rows, k = input->k;
    if (m->weight_dtype == INT8) {
        int8_product(m->int8_isa, (const int8_t *)l->weight, l->scales, l->bias, &input->rounded, rows, begin,
                     end, k, y, y_stride, add);
        return;
    }
    if (is_grouped(m->weight_dtype)) {
        const Grouped w = {(int)l->dtype, (const uint8_t *)l->weight, l->group_scales, l->block_scales, k};
        grouped_product(m->int8_isa, &w, l->bias, &input->blocked, begin, end, y, y_stride, add);
        return;
    }
#if HAS_TILES
    if (m->tiled) {
        tile_product((const uint16_t *)l->weight, l->bias, input->narrowed, rows, begin, end, k, y, y_stride,
                     add);
        return;
    }
#endif
    float_product(m->isa, m->weight_dtype, l->weight, l->bias, input->x, rows, begin, end, k, y, y_stride, add);
}

/* What this thread takes of an input times weight (n, k). */
static void shared_product(const Model *m, const Linear *l, const Input *input, int64_t n, int64_t *taken,
                           float *y, int64_t y_stride, int add) {
    int64_t begin, end;
    for (int64_t turn = 0; take(n, taken, turn, &begin, &end); turn++)
        part_product(m, l, input, begin, end, y, y_stride, add);
}

/* gate (n) becomes what the activation makes of it, times up. */
static void activate(const Model *m, float *gate, const float *up, int64_t n) {
    if (m->activation == GELU) CHOOSE(m->isa, gelu, gate, up, n);
    else if (m->activation == GELU_TANH) CHOOSE(m->isa, gelu_tanh, gate, up, n);
    else CHOOSE(m->isa, silu, gate, up, n);
}

/* `begin` to `end` of what the down projection reads: gate and up of each row of an input are `stride` apart. */
static void gated_product(const Model *m, const FeedForward *f, const Input *input, int64_t begin, int64_t end,
                          float *gate, float *up, int64_t stride) {
    part_product(m, &f->gate, input, begin, end, gate, stride, 0);
    part_product(m, &f->up, input, begin, end, up, stride, 0);
    for (int64_t r = 0; r < input->rows; r++)
        activate(m, gate + r * stride + begin, up + r * stride + begin, end - begin);
}

/* Add a row to the stream x, normed before if there are weights for that, and scaled. */
static void add_row(const Model *m, float *row, const float *norm, float *x) {
    const int64_t d = m->width;
    if (norm) CHOOSE(m->isa, norm, row, norm, row, d, m->eps);
    for (int64_t i = 0; i < d; i++) x[i] += row[i] * m->residual_scale;
}

#endif
