/* New positions of some rows, mostly one of each, through all blocks of a decoder.
 *
 * The same arithmetic as the blocks in Python, step by step: norm, q/k/v, rotation, cache, attention, output
 * projection; norm, gate/up, SiLU, down. Families have norms elsewhere, too, scales, and experts: see switches.py.
 * Called through Python one by one, these steps cost more than the arithmetic of a small model, and threads gather
 * for each. Here they gather once a token, and wait for each other only where one step reads what another thread has
 * written.
 *
 * Activations and sums are float32, but for what attention.h and prompt_attention.h say; weights are float32,
 * bfloat16, float16, int8 or grouped, and the cache is one of the first four. With weights of float32, int8 and grouped
 * ones a position has the same result, bit for bit, whatever other positions and rows are in the call.
 */
#include "attention.h"
#include "block_attention.h"
#include "block_products.h"
#include "experts.h"
#include "int8_attention.h"
#include "prompt_attention.h"

/* Norms that a block does not have are NULL. */
typedef struct {
    const float *attention_norm, *ffn_norm, *q_norm, *k_norm, *attention_post_norm, *ffn_post_norm;
    Linear q, k, v, o;
    FeedForward feed_forward;
    Mixture mixture; /* in the place of it, if the model has experts */
} Block;

/* ---- storing: in sixteen bits to nearest, ties to even -------------------------------------------- */

static inline uint16_t narrow_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40); /* stays NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t narrow_float16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return sign | 0x7e00;            /* NaN */
    if (bits >= 0x47800000u) return sign | 0x7c00;           /* 65536 and more: infinity */
    if (bits < 0x38800000u) {                                /* below 2^-14: subnormal */
        float magnitude;
        memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f; /* now the last bit of a float is worth 2^-24, and the sum was rounded to it */
        memcpy(&bits, &magnitude, 4);
        return sign | (uint16_t)(bits - 0x3f000000u);
    }
    bits += 0xfffu + (bits >> 13 & 1);
    return sign | (uint16_t)((bits >> 13) - (112u << 10));
}

static void store(void *target, int dtype, const float *values, int64_t count) {
    if (dtype == INT8) {
        store_codes((char *)target, values, count);
        return;
    }
    if (dtype == FLOAT32) {
        memcpy(target, values, (size_t)count * 4);
        return;
    }
    uint16_t *narrow = (uint16_t *)target;
    for (int64_t i = 0; i < count; i++)
        narrow[i] = dtype == BFLOAT16 ? narrow_bfloat16(values[i]) : narrow_float16(values[i]);
}

/* ---- the steps ------------------------------------------------------------------------------------ */

/* What this thread adds to the stream x (rows, width) of an input times a weight, by way of `change` if that is normed
 * or scaled before. All threads are done with x afterwards. */
static void add_product(const Model *m, const Linear *l, const Input *input, const float *norm, int64_t *taken,
                        float *change, float *x) {
    const int64_t d = m->width;
    const int at_once = !norm && m->residual_scale == 1;
    shared_product(m, l, input, d, taken, at_once ? x : change, d, at_once);
#pragma omp barrier
    if (at_once) return;
    int64_t begin, end;
    share(input->rows, thread_number(), thread_count(), &begin, &end);
    for (int64_t r = begin; r < end; r++) add_row(m, change + r * d, norm, x + r * d);
#pragma omp barrier
}

/* Turn one head; see `rotate` in Python: the first half of `sine` carries the minus sign. */
static void turn(float *head, const float *cosine, const float *sine, int64_t head_dim) {
    int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[i + half];
        head[i] = a * cosine[i] + b * sine[i];
        head[i + half] = b * cosine[i + half] + a * sine[i + half];
    }
}

/* The new positions of some rows, in float32. */
typedef struct {
    float *x;                       /* (positions, width): those of the first row, of the second, ... */
    const float *cosine, *sine;     /* (positions, head_dim) */
    const float *query_scales;      /* (positions): what queries are multiplied with, or NULL */
    const int64_t *starts, *counts; /* positions that each row holds, and new ones */
    int64_t row_count, window;      /* keys that a position sees, its own included; 0: all */
} Batch;

/* Keys and values (pages, kv_heads, positions of a page, head_dim) of each layer, and the pages of each row. */
typedef struct {
    void *const *keys, *const *values;
    Pages pages;
} Cache;

/* Bytes of the keys or values of one position and head. */
static int64_t vector_bytes(const Model *m) {
    return m->cache_dtype == INT8 ? m->head_dim + SCALE_BYTES : m->head_dim * item_bytes(m->cache_dtype);
}

/* The first vector of a head of a layer's keys or values. */
static char *head_of(const Model *m, const Cache *cache, void *of_layer, int64_t head) {
    return (char *)of_layer + head * cache->pages.head_stride * vector_bytes(m);
}

/* Whether sums are taken in one order for any number of positions. With weights of sixteen bits they are not: a
 * row alone keeps float32 where many rows are rounded. */
static int is_fixed(const Model *m) {
    return m->weight_dtype == INT8 || m->weight_dtype == FLOAT32 || is_grouped(m->weight_dtype);
}

/* Bytes that attention of a thread needs. */
static int64_t attention_bytes(const Model *m) {
    if (m->cache_dtype == INT8) return int8_attention_bytes(m->head_dim);
    const int64_t copies = TILE * vector_bytes(m), blocks = block_bytes(m->head_dim);
    return copies > blocks ? copies : blocks;
}

/* The group of queries of a head of keys, at positions of a row from `start` on; queries and out begin with those of
 * the first of these positions. */
static Prompt prompt_of(const Model *m, const Batch *batch, const Cache *cache, int64_t layer, int64_t row,
                        int64_t head, int64_t start, const float *queries, float *out) {
    const int64_t hd = m->head_dim, group = m->heads / m->kv_heads;
    return (Prompt){
        .queries = queries + head * group * hd,
        .out = out + head * group * hd,
        .keys = head_of(m, cache, cache->keys[layer], head),
        .values = head_of(m, cache, cache->values[layer], head),
        .pages = &cache->pages,
        .row = row,
        .query_stride = (m->heads + 2 * m->kv_heads) * hd,
        .out_stride = m->heads * hd,
        .group = group,
        .hd = hd,
        .start = start,
        .window = batch->window,
        .cap = m->softcap,
    };
}

/* The last position of a row attends, with query heads `from` to `to` of the group of a head of keys; queries
 * and out (heads, head_dim). */
static void attend_last(const Model *m, const Batch *batch, const Cache *cache, int64_t layer, int64_t row,
                        int64_t head, int64_t from, int64_t to, const float *queries, float *out, char *memory) {
    const int64_t total = batch->starts[row] + batch->counts[row];
    const Prompt p = prompt_of(m, batch, cache, layer, row, head, total - 1, queries, out);
    const int64_t first = first_seen(&p, total - 1);
    const int64_t most = is_fixed(m) || m->cache_dtype == INT8 ? BLOCK_QUERIES : MOST_HEADS;
    const Stored stored = {p.pages, row, first, total - first, p.keys, p.values, memory};
    for (int64_t g = from, end; g < to; g = end) {
        end = to - g < most ? to : g + most;
        if (m->cache_dtype == INT8) int8_attend(m->isa, m->int8_isa, &p, g, end, memory);
        else if (is_fixed(m)) block_attend(m->isa, m->cache_dtype, &p, g, end, memory);
        else attend(m->isa, m->cache_dtype, p.hd, p.cap, query_at(&p, g), end - g, &stored, out_at(&p, g));
    }
}

/* This thread's part of attention in rows with several new positions. */
static void attend_prompts(const Model *m, const Batch *batch, const Cache *cache, int64_t layer,
                           const int64_t *offsets, const float *qkv, float *attended, char *memory) {
    const int64_t kv = m->kv_heads, group = m->heads / kv, inner = m->heads * m->head_dim;
    const int64_t joined = inner + 2 * kv * m->head_dim;
#if HAS_TILES
    const int in_pairs = m->tiled && m->cache_dtype != INT8;
    const int64_t most = in_pairs ? QUERIES : BLOCK_QUERIES;
#else
    const int64_t most = BLOCK_QUERIES;
#endif
    int64_t tasks = 0;
    for (int64_t r = 0; r < batch->row_count; r++)
        tasks += batch->counts[r] > 1 ? kv * ((batch->counts[r] * group + most - 1) / most) : 0;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t r = 0, left = task, blocks;
        for (;; r++) {
            blocks = batch->counts[r] > 1 ? (batch->counts[r] * group + most - 1) / most : 0;
            if (left < kv * blocks) break;
            left -= kv * blocks;
        }
        const int64_t from = left % blocks * most, all = batch->counts[r] * group;
        const Prompt prompt = prompt_of(m, batch, cache, layer, r, left / blocks, batch->starts[r],
                                        qkv + offsets[r] * joined, attended + offsets[r] * inner);
        const int64_t to = from + most < all ? from + most : all;
        if (m->cache_dtype == INT8) {
            int8_attend(m->isa, m->int8_isa, &prompt, from, to, memory);
            continue;
        }
#if HAS_TILES
        if (in_pairs) {
            prompt_attend(&prompt, from, to);
            continue;
        }
#endif
        block_attend(m->isa, m->cache_dtype, &prompt, from, to, memory);
    }
}

/* Whether lolama_decode takes several new positions of a row with weights and keys of bfloat16 by the products of
 * prompt_attention.h. With weights of float32, int8 and grouped ones, or with AVX2 alone, it takes them with any. */
EXPORT int lolama_decodes_prompts(const Model *m) { return m->head_dim <= MOST_HEAD_DIM && has_tiles(); }

/* The parts of a block that threads take in turn. */
#define PRODUCTS 6

/* Bytes of working memory that lolama_decode needs. */
EXPORT int64_t lolama_decode_scratch(const Model *m, int64_t positions, int threads) {
    const int64_t joined = (m->heads + 2 * m->kv_heads) * m->head_dim, inner = m->heads * m->head_dim;
    const int64_t inputs = positions >= SHARED_LEAST ? 1 : threads;
    return 8 * PRODUCTS * m->layers + positions * (16 + 4 * (joined + inner + 2 * m->hidden + (inputs + 1) * m->width)) +
           inputs * input_bytes(m, positions) + threads * (attention_bytes(m) + own_mixing_bytes(m, positions)) +
           mixing_bytes(m, positions);
}

/* The new positions of a batch through all blocks: its x, changed in place. With `only_last` the last block
 * runs for the last position of each row alone, and the first rows of x are those. */
EXPORT void lolama_decode(const Model *m, const Block *blocks, const Batch *batch, const Cache *cache,
                          int only_last, void *scratch, int threads) {
    const int64_t d = m->width, hd = m->head_dim, kv = m->kv_heads, heads = m->heads;
    const int64_t group = heads / kv, joined = (heads + 2 * kv) * hd, inner = heads * hd;
    const int64_t row_count = batch->row_count;
    int64_t positions = 0;
    for (int64_t r = 0; r < row_count; r++) positions += batch->counts[r];
    /* The row of each position, and the first position of each row. */
    int64_t *taken_all = (int64_t *)scratch, *owners = taken_all + PRODUCTS * m->layers;
    int64_t *offsets = owners + positions;
    memset(taken_all, 0, (size_t)(PRODUCTS * m->layers) * 8);
    for (int64_t r = 0, i = 0; r < row_count; r++) {
        offsets[r] = i;
        while (i < offsets[r] + batch->counts[r]) owners[i++] = r;
    }
    const Mixing mixing = mixing_in(m, positions, owners + 2 * positions);
    float *x = batch->x, *qkv = (float *)((char *)(owners + 2 * positions) + mixing_bytes(m, positions));
    float *attended = qkv + positions * joined;
    float *gate = attended + positions * inner, *up = gate + positions * m->hidden;
    float *change = up + positions * m->hidden, *normed_all = change + positions * d;
    const int shared = positions >= SHARED_LEAST;
    const int64_t inputs = shared ? 1 : threads;
    char *memory_all = (char *)(normed_all + inputs * positions * d);
    char *attention_all = memory_all + inputs * input_bytes(m, positions);
    char *mixing_all = attention_all + threads * attention_bytes(m);
    /* With fewer heads of keys than threads, the query heads of a group are split, four or more together. */
    const int64_t parts = row_count * kv >= threads ? 1 : (group + 3) / 4;
    const int64_t part = (group + parts - 1) / parts;
    const int64_t hidden = m->hidden + m->per_token * m->expert_hidden + m->shared_hidden;
    const int worth_threads = positions * d * (joined + inner + 3 * hidden) >= SMALLEST_PARALLEL;
#pragma omp parallel num_threads(threads) if (worth_threads)
    {
        const int64_t own = shared ? 0 : thread_number();
        float *normed = normed_all + own * positions * d;
        void *memory = memory_all + own * input_bytes(m, positions);
        char *attention_memory = attention_all + thread_number() * attention_bytes(m);
        float *mixing_memory = (float *)(mixing_all + thread_number() * own_mixing_bytes(m, positions));
        int64_t count = positions;
        for (int64_t layer = 0; layer < m->layers; layer++) {
            const Block *b = blocks + layer;
            int64_t *taken = taken_all + PRODUCTS * layer;
            Input input = input_of(m, x, count, d, b->attention_norm, normed, memory, shared);
            shared_product(m, &b->q, &input, inner, taken, qkv, joined, 0);
            shared_product(m, &b->k, &input, kv * hd, taken + 1, qkv + inner, joined, 0);
            shared_product(m, &b->v, &input, kv * hd, taken + 2, qkv + inner + kv * hd, joined, 0);
#pragma omp barrier
            if (b->q_norm && m->wide_norm) {
#pragma omp for schedule(static)
                for (int64_t i = 0; i < positions; i++) {
                    float *queries = qkv + i * joined, *keys = queries + inner;
                    CHOOSE(m->isa, norm, queries, b->q_norm, queries, inner, m->eps);
                    CHOOSE(m->isa, norm, keys, b->k_norm, keys, kv * hd, m->eps);
                }
            }
#pragma omp for schedule(static)
            for (int64_t head = 0; head < positions * (heads + kv); head++) { /* keys follow queries */
                const int64_t i = head / (heads + kv), h = head % (heads + kv), r = owners[i];
                float *vector = qkv + i * joined + h * hd;
                if (b->q_norm && !m->wide_norm)
                    CHOOSE(m->isa, norm, vector, h < heads ? b->q_norm : b->k_norm, vector, hd, m->eps);
                const float scale = m->query_scale * (batch->query_scales ? batch->query_scales[i] : 1);
                if (h < heads && scale != 1)
                    for (int64_t c = 0; c < hd; c++) vector[c] *= scale;
                turn(vector, batch->cosine + i * hd, batch->sine + i * hd, hd);
                if (h < heads) continue;
                const int64_t place = vector_at(&cache->pages, r, batch->starts[r] + i - offsets[r]);
                const int64_t bytes = place * vector_bytes(m);
                store(head_of(m, cache, cache->keys[layer], h - heads) + bytes, m->cache_dtype, vector, hd);
                store(head_of(m, cache, cache->values[layer], h - heads) + bytes, m->cache_dtype, vector + kv * hd,
                      hd);
            }
            if (only_last && layer + 1 == m->layers && count > row_count) {
#pragma omp single
                for (int64_t r = 0; r < row_count; r++) {
                    const int64_t last = offsets[r] + batch->counts[r] - 1;
                    memmove(x + r * d, x + last * d, (size_t)d * 4);
                    memmove(qkv + r * joined, qkv + last * joined, (size_t)inner * 4);
                }
                count = row_count;
            }
#pragma omp for schedule(static)
            for (int64_t task = 0; task < row_count * kv * parts; task++) {
                const int64_t r = task / (kv * parts), h = task / parts % kv, from = task % parts * part;
                const int64_t i = count == row_count ? r : offsets[r];
                if (batch->counts[r] > 1 && count > row_count) continue;
                attend_last(m, batch, cache, layer, r, h, from, from + part < group ? from + part : group,
                            qkv + i * joined, attended + i * inner, attention_memory);
            }
            if (count > row_count)
                attend_prompts(m, batch, cache, layer, offsets, qkv, attended, attention_memory);
            input = input_of(m, attended, count, inner, NULL, NULL, memory, shared);
            add_product(m, &b->o, &input, b->attention_post_norm, taken + 3, change, x);
            input = input_of(m, x, count, d, b->ffn_norm, normed, memory, shared);
            if (m->experts) {
                mix(m, &b->mixture, &input, &mixing, mixing_memory, b->ffn_post_norm, x);
                continue;
            }
            int64_t begin, end;
            for (int64_t turn = 0; take(m->hidden, taken + 4, turn, &begin, &end); turn++)
                gated_product(m, &b->feed_forward, &input, begin, end, gate, up, m->hidden);
#pragma omp barrier
            input = input_of(m, gate, count, m->hidden, NULL, NULL, memory, shared);
            add_product(m, &b->feed_forward.down, &input, b->ffn_post_norm, taken + 5, change, x);
        }
    }
}
