/* One new position, in each of a few rows, through all blocks of a decoder.
 *
 * The same arithmetic as the blocks in Python, step by step: norm, q/k/v, rotation, cache, attention, output
 * projection; norm, gate/up, SiLU, down. Called through Python one by one, these steps cost more than the
 * arithmetic of a small model, and threads gather for each. Here they gather once a token, and wait for
 * each other only where one step reads what another thread has written.
 *
 * Activations and sums are float32; weights are float32, bfloat16, float16 or int8, the cache is any of the
 * first three.
 */
#include <math.h>

#include "int8.h"
#include "scores.h"
#include "tiles.h"
#include "weighted_sum.h"

/* Positions that attention looks at before it rescales, for so many query heads at a time: keys, values and
 * scores of a tile stay close, also while the heads go by in twos or fours. */
#define TILE 128
#define MOST_HEADS 8

/* A weight (outputs, inputs), row by row; of int8, a scale for each row; a bias for each row, or NULL. */
typedef struct {
    const void *weight;
    const float *scales, *bias;
} Linear;

typedef struct {
    const float *attention_norm, *ffn_norm;
    Linear q, k, v, o, gate, up, down;
} Block;

typedef struct {
    int64_t layers, width, heads, kv_heads, head_dim, hidden;
    int weight_dtype, cache_dtype, isa, int8_isa, tiled;
    float eps;
} Model;

/* ---- storing in sixteen bits, to nearest, ties to even -------------------------------------------- */

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

static void store(void *target, int64_t index, int dtype, const float *values, int64_t count) {
    if (dtype == FLOAT32) {
        memcpy((float *)target + index, values, (size_t)count * 4);
        return;
    }
    uint16_t *narrow = (uint16_t *)target + index;
    for (int64_t i = 0; i < count; i++)
        narrow[i] = dtype == BFLOAT16 ? narrow_bfloat16(values[i]) : narrow_float16(values[i]);
}

/* ---- element by element --------------------------------------------------------------------------- */

/* e^x within 2 units in the last place, in a form that compilers turn into vector code. */
static inline __attribute__((always_inline)) float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; /* x / ln 2 as a whole number, in the lowest bits */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 127u) << 23; /* 2^n */
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

/* The four loops below, compiled for each instruction set. */
#define ELEMENTWISE(NAME, TARGET)                                                                        \
    TARGET static void NAME##_norm(const float *x, const float *weight, float *y, int64_t n, float eps) { \
        float sum = 0;                                                                                   \
        _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];       \
        float scale = 1.0f / sqrtf(sum / (float)n + eps);                                                \
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];                                 \
    }                                                                                                    \
    TARGET static void NAME##_silu(float *gate, const float *up, int64_t n) {                            \
        for (int64_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];      \
    }                                                                                                    \
    TARGET static float NAME##_largest(const float *scores, int64_t n, float best) {                     \
        _Pragma("omp simd reduction(max : best)") for (int64_t i = 0; i < n; i++)                        \
            best = scores[i] > best ? scores[i] : best;                                                  \
        return best;                                                                                     \
    }                                                                                                    \
    /* scores become e^(score - best); their sum. */                                                     \
    TARGET static float NAME##_exponentials(float *scores, int64_t n, float best) {                      \
        float sum = 0;                                                                                   \
        _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < n; i++) {                         \
            scores[i] = exponential(scores[i] - best);                                                   \
            sum += scores[i];                                                                            \
        }                                                                                                \
        return sum;                                                                                      \
    }

ELEMENTWISE(portable, )
#if defined(__x86_64__)
ELEMENTWISE(avx512, AVX512)
ELEMENTWISE(avx2, AVX2)
#define CHOOSE(isa, FUNCTION, ...)                                                                       \
    (isa == AVX512_ISA ? avx512_##FUNCTION(__VA_ARGS__)                                                  \
     : isa == AVX2_ISA ? avx2_##FUNCTION(__VA_ARGS__)                                                    \
                       : portable_##FUNCTION(__VA_ARGS__))
#else
#define CHOOSE(isa, FUNCTION, ...) portable_##FUNCTION(__VA_ARGS__)
#endif

/* ---- the steps ------------------------------------------------------------------------------------ */

/* Activations (rows, k), and what products with weights of some dtype take in their place. */
typedef struct {
    const float *x;
    int64_t rows, k;
    const uint16_t *narrowed;
    Rounded rounded;
} Input;

/* `memory` has input_bytes(), of this thread alone. */
static Input input_of(const Model *m, const float *x, int64_t rows, int64_t k, void *memory) {
    Input input = {.x = x, .rows = rows, .k = k};
    if (m->weight_dtype == INT8) {
        input.rounded = rounded_in(m->int8_isa, x, rows, k, memory);
        round_rows(m->int8_isa, &input.rounded, 0, rows, k);
    }
#if HAS_TILES
    if (m->tiled) {
        narrow(x, (uint16_t *)memory, rows * k);
        input.narrowed = (const uint16_t *)memory;
    }
#endif
    return input;
}

/* This thread's share of an input times weight (n, k); see `product`. */
static void shared_product(const Model *m, const Linear *l, const Input *input, int64_t n, float *y,
                           int64_t y_stride, int add) {
    const int64_t rows = input->rows, k = input->k;
    int64_t begin, end;
    share(n, thread_number(), thread_count(), &begin, &end);
    if (m->weight_dtype == INT8) {
        int8_product(m->int8_isa, (const int8_t *)l->weight, l->scales, l->bias, &input->rounded, rows, begin,
                     end, k, y, y_stride, add);
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

/* Turn one head; see `rotate` in Python: the first half of `sine` carries the minus sign. */
static void turn(float *head, const float *cosine, const float *sine, int64_t head_dim) {
    int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[i + half];
        head[i] = a * cosine[i] + b * sine[i];
        head[i + half] = b * cosine[i + half] + a * sine[i + half];
    }
}

/* scores[r][t] of `heads` queries and `count` keys. */
static void score(const Model *m, const float *queries, int64_t heads, const char *keys, int64_t count,
                  float scores[][TILE]) {
    const dot_function *dots = functions_for(m->isa, m->cache_dtype);
    const score_function *fours = scores_for(m->isa, m->cache_dtype);
    const int64_t hd = m->head_dim, row_bytes = hd * item_bytes(m->cache_dtype);
    const int64_t together = m->isa == AVX2_ISA ? 2 : 4; /* sums of four keys each fill the registers */
    const float scale = 1.0f / sqrtf((float)hd);
    int64_t t = 0;
    for (; t + 4 <= count; t += 4)
        for (int64_t r = 0; r < heads; r += together) {
            int64_t rows = heads - r < together ? heads - r : together;
            fours[rows - 1](keys + t * row_bytes, hd, queries + r * hd, scale, &scores[r][t], TILE);
        }
    for (; t < count; t++)
        for (int64_t r = 0; r < heads; r++) {
            dots[0](keys + t * row_bytes, queries + r * hd, hd, hd, &scores[r][t]);
            scores[r][t] *= scale;
        }
}

/* Up to MOST_HEADS query heads over keys and values (count, head_dim), tile by tile: after each, what was
 * summed up is rescaled to the best score so far (Milakov and Gimelshein 2018). */
static void attend(const Model *m, const float *queries, int64_t heads, const char *keys,
                   const char *values, int64_t count, float *out) {
    const sum_function *sums = sums_for(m->isa, m->cache_dtype);
    const int64_t hd = m->head_dim, row_bytes = hd * item_bytes(m->cache_dtype);
    float scores[MOST_HEADS][TILE], best[MOST_HEADS], total[MOST_HEADS];
    for (int64_t r = 0; r < heads; r++) best[r] = -INFINITY, total[r] = 0;
    memset(out, 0, (size_t)(heads * hd) * 4);
    for (int64_t first = 0; first < count; first += TILE) {
        int64_t width = count - first < TILE ? count - first : TILE;
        score(m, queries, heads, keys + first * row_bytes, width, scores);
        for (int64_t r = 0; r < heads; r++) {
            float high = CHOOSE(m->isa, largest, scores[r], width, best[r]);
            float shrink = exponential(best[r] - high); /* of the first tile e^-inf: nothing yet */
            best[r] = high;
            total[r] = total[r] * shrink + CHOOSE(m->isa, exponentials, scores[r], width, high);
            if (first && shrink != 1)
                for (int64_t c = 0; c < hd; c++) out[r * hd + c] *= shrink;
        }
        for (int64_t r = 0; r < heads; r += 4)
            sums[heads - r < 4 ? heads - r - 1 : 3](values + first * row_bytes, width, hd, scores[r], TILE,
                                                    out + r * hd);
    }
    for (int64_t r = 0; r < heads; r++)
        for (int64_t c = 0; c < hd; c++) out[r * hd + c] /= total[r];
}

/* The longest row that a product reads. */
static int64_t widest(const Model *m) {
    int64_t inner = m->heads * m->head_dim, longest = m->width > inner ? m->width : inner;
    return longest > m->hidden ? longest : m->hidden;
}

/* Bytes of working memory that an input of any of the products needs, a multiple of four. */
static int64_t input_bytes(const Model *m, int64_t rows) {
    return m->weight_dtype == INT8 ? rounded_bytes(rows, widest(m)) : (2 * rows * widest(m) + 3) / 4 * 4;
}

/* Bytes of working memory that lolama_decode needs. */
EXPORT int64_t lolama_decode_scratch(const Model *m, int64_t rows, int threads) {
    int64_t joined = (m->heads + 2 * m->kv_heads) * m->head_dim, inner = m->heads * m->head_dim;
    return 4 * rows * (joined + inner + 2 * m->hidden + threads * m->width) +
           threads * input_bytes(m, rows);
}

/* One position of each row through all blocks.
 *
 * x (rows, width) float32, changed in place. cosine, sine (rows, head_dim). keys[l], values[l] (all rows,
 * kv_heads, capacity, head_dim) of layer l; row r of x is row first_row + r there, has starts[r] positions
 * and gets one more, which attends over all of them from first_keys[r] on. */
EXPORT void lolama_decode(const Model *m, const Block *blocks, float *x, int64_t rows, const float *cosine,
                          const float *sine, void *const *keys, void *const *values, int64_t first_row,
                          int64_t capacity, const int64_t *starts, const int64_t *first_keys, float *scratch,
                          int threads) {
    const int64_t d = m->width, hd = m->head_dim, kv = m->kv_heads, heads = m->heads;
    const int64_t group = heads / kv, joined = (heads + 2 * kv) * hd, inner = heads * hd;
    const int64_t cache_item = item_bytes(m->cache_dtype);
    /* With fewer heads of keys than threads, the query heads of a group are split, four or more together. */
    const int64_t parts = rows * kv >= threads ? 1 : (group + 3) / 4;
    const int64_t part = (group + parts - 1) / parts;
    float *qkv = scratch, *attended = qkv + rows * joined, *gate = attended + rows * inner;
    float *up = gate + rows * m->hidden, *normed_all = up + rows * m->hidden;
    const int worth_threads = rows * d * (joined + inner + 3 * m->hidden) >= SMALLEST_PARALLEL;
#pragma omp parallel num_threads(threads) if (worth_threads)
    {
        /* Every thread norms for itself, which takes less time than waiting for one that does. */
        float *normed = normed_all + thread_number() * rows * d;
        void *memory = (char *)(normed_all + threads * rows * d) + thread_number() * input_bytes(m, rows);
        for (int64_t layer = 0; layer < m->layers; layer++) {
            const Block *b = blocks + layer;
            char *layer_keys = (char *)keys[layer], *layer_values = (char *)values[layer];
            for (int64_t r = 0; r < rows; r++)
                CHOOSE(m->isa, norm, x + r * d, b->attention_norm, normed + r * d, d, m->eps);
            Input input = input_of(m, normed, rows, d, memory);
            shared_product(m, &b->q, &input, inner, qkv, joined, 0);
            shared_product(m, &b->k, &input, kv * hd, qkv + inner, joined, 0);
            shared_product(m, &b->v, &input, kv * hd, qkv + inner + kv * hd, joined, 0);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int64_t head = 0; head < rows * (heads + kv); head++) { /* keys follow queries */
                int64_t r = head / (heads + kv), h = head % (heads + kv);
                float *vector = qkv + r * joined + h * hd;
                turn(vector, cosine + r * hd, sine + r * hd, hd);
                if (h < heads) continue;
                int64_t place = (((first_row + r) * kv + h - heads) * capacity + starts[r]) * hd;
                store(layer_keys, place, m->cache_dtype, vector, hd);
                store(layer_values, place, m->cache_dtype, vector + kv * hd, hd);
            }
#pragma omp for schedule(static)
            for (int64_t task = 0; task < rows * kv * parts; task++) {
                int64_t r = task / (kv * parts), h = task / parts % kv, from = task % parts * part;
                int64_t to = from + part < group ? from + part : group;
                int64_t place = ((first_row + r) * kv + h) * capacity + first_keys[r];
                for (int64_t g = from; g < to; g += MOST_HEADS) {
                    int64_t head = h * group + g;
                    attend(m, qkv + r * joined + head * hd, to - g < MOST_HEADS ? to - g : MOST_HEADS,
                           layer_keys + place * hd * cache_item, layer_values + place * hd * cache_item,
                           starts[r] + 1 - first_keys[r], attended + r * inner + head * hd);
                }
            }
            input = input_of(m, attended, rows, inner, memory);
            shared_product(m, &b->o, &input, d, x, d, 1);
#pragma omp barrier
            for (int64_t r = 0; r < rows; r++)
                CHOOSE(m->isa, norm, x + r * d, b->ffn_norm, normed + r * d, d, m->eps);
            input = input_of(m, normed, rows, d, memory);
            shared_product(m, &b->gate, &input, m->hidden, gate, m->hidden, 0);
            shared_product(m, &b->up, &input, m->hidden, up, m->hidden, 0);
            int64_t begin, end; /* the share that this thread has just computed */
            share(m->hidden, thread_number(), thread_count(), &begin, &end);
            for (int64_t r = 0; r < rows; r++)
                CHOOSE(m->isa, silu, gate + r * m->hidden + begin, up + r * m->hidden + begin, end - begin);
#pragma omp barrier
            input = input_of(m, gate, rows, m->hidden, memory);
            shared_product(m, &b->down, &input, d, x, d, 1);
#pragma omp barrier
        }
    }
}
