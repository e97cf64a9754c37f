/* Every product of one instruction set beside the definition, over sizes that are multiples of nothing. */
#include <stdio.h>
#include <stdlib.h>

#include "grouped_product.h"
#include "int8.h"
#include "int8_tiles.h"
#include "scores.h"
#include "weighted_sum.h"

static unsigned state = 1;
static int random_below(int n) { state = state * 1664525u + 1013904223u; return (int)((state >> 8) % (unsigned)n); }
static float uniform(void) { return (float)random_below(20001) / 10000 - 1; }

/* An activation at a place of a row, as it was rounded, and the last step. AVX2 rounds whole rows. */
static double rounded_one(int isa, const Rounded *r, int64_t place, int64_t row, double *step, int *heavy) {
#if HAS_PANELS
    if (isa == INT8_AVX2) {
        *heavy += 1;
        return r->whole.values[place] * (*step = r->whole.scales[row]);
    }
#endif
    (void)isa, (void)row;
    const double rest = r->rest.scales[place / GROUP], near = r->near.scales[place / GROUP];
    double one = r->near.values[place] * (*step = near);
    if (rest != 0) one += r->rest.values[place] * (*step = rest);
    *heavy += rest != 0;
    return one;
}

static int check_int8(int isa) {
    int failures = 0, heavy = 0;
    for (int trial = 0; trial < 60; trial++) {
        int64_t rows = 1 + random_below(20);
        int64_t k = 1 + random_below(trial % 4 ? 300 : 1200), n = 1 + random_below(trial % 3 ? 40 : 200);
        float *x = malloc(rows * k * 4), *y = malloc(rows * n * 4), *scales = malloc(n * 4);
        int8_t *w = malloc(n * k);
        void *memory = malloc(rounded_bytes(rows, k));
        for (int64_t i = 0; i < rows * k; i++) x[i] = uniform() * (random_below(50) ? 1 : 100);
        for (int64_t i = 0; i < n * k; i++) w[i] = (int8_t)(random_below(256) - 128);
        for (int64_t i = 0; i < n; i++) scales[i] = uniform();
        Rounded r = rounded_in(isa, x, rows, k, memory);
        round_rows(isa, &r, 0, rows, k);
        int8_product(isa, w, scales, NULL, &r, rows, 0, n, k, y, n, 0);
        for (int64_t a = 0; a < rows; a++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0, size = 0;
                for (int64_t i = 0; i < k; i++) {
                    double step, one = rounded_one(isa, &r, a * r.padded + i, a, &step, &heavy);
                    if (fabs(one - x[a * k + i]) > step * 0.501 + 1e-7 * fabs(one)) failures++;
                    sum += one * w[j * k + i] * scales[j];
                    size += fabs(one * w[j * k + i] * scales[j]);
                }
                if (fabs(sum - y[a * n + j]) > 1e-5 * size + 1e-30) failures++;
            }
        free(x), free(y), free(scales), free(w), free(memory);
    }
    return failures + (heavy == 0);
}

/* What a grouped weight stands for at a place. */
static double grouped_one(const Grouped *w, int64_t row, int64_t i) {
    const uint8_t *scales = group_scales(w, row, i / BLOCK);
    const uint16_t *of_row = w->block_scales + row * block_scale_count(w->dtype, w->k);
    const int64_t block = i / BLOCK, in_block = i % BLOCK;
    const double code = code_at(w, row, i);
    if (w->dtype == INT4)
        return (double)widen_float16(of_row[2 * block]) * scales[in_block / 32] * code -
               (double)widen_float16(of_row[2 * block + 1]) * scales[8 + in_block / 32];
    if (w->dtype == INT4_32) return widen_float16(of_row[i / 32 * 2]) * code - widen_float16(of_row[i / 32 * 2 + 1]);
    if (w->dtype == INT8_16) return (double)widen_float16(of_row[block]) * ((const int8_t *)scales)[in_block / 16] * code;
    return widen_float16(of_row[i / 32]) * code;
}

/* An activation as it was rounded, and the last step. */
static double blocked_one(const Blocked *x, int dtype, int64_t row, int64_t i, double *step, int *heavy) {
    const int64_t place = i / BLOCK * x->rows + row, at = place * BLOCK + i % BLOCK;
    if (!takes_bytes(dtype)) return x->fine.pairs[at] * (*step = x->fine.scales[place]);
    double one = x->near.bytes[at] * (*step = x->near.scales[place]);
    if (x->rest.scales[place] == 0) return one;
    *heavy += 1;
    return one + x->rest.bytes[at] * (*step = x->rest.scales[place]);
}

/* Whether rounding or the product has other bits than in portable C. */
static int differs_from_portable(const Grouped *w, const float *bias, const Blocked *x, int64_t n, const float *y,
                                 const void *memory, int64_t bytes) {
    const int taken = taken_by(w->dtype);
    float *sums = malloc(x->rows * n * 4);
    void *again = calloc(1, bytes);
    const Blocked rounded = blocked_in(x->exact, x->rows, x->k, taken, again);
    round_blocks(INT8_PORTABLE, &rounded, taken, 0, x->rows);
    grouped_product(INT8_PORTABLE, w, bias, &rounded, 0, n, sums, n, 0);
    const int found = memcmp(memory, again, bytes) != 0 || memcmp(y, sums, x->rows * n * 4) != 0;
    free(sums), free(again);
    return found;
}

/* Buffers end where their numbers do, for tools that look at what is read beyond. */
static int check_grouped(int isa, int trials) {
    int failures = 0, heavy = 0;
    for (int trial = 0; trial < trials; trial++) {
        const int dtype = INT4 + trial % 4, taken = taken_by(dtype);
        const int64_t rows = 1 + random_below(trial % 3 ? 9 : 40), k = 1 + random_below(trial % 5 ? 300 : 1500);
        const int64_t n = 1 + random_below(40), codes = n * code_bytes(dtype, k), scales = n * scale_bytes(dtype, k);
        const int64_t count = n * block_scale_count(dtype, k);
        Grouped w = {dtype, malloc(codes), scales ? malloc(scales) : NULL, malloc(count * 2), k};
        float *x = malloc(rows * k * 4), *y = malloc(rows * n * 4), *bias = malloc(n * 4);
        void *memory = calloc(1, blocked_bytes(rows, k, taken));
        for (int64_t i = 0; i < codes; i++) ((uint8_t *)w.codes)[i] = (uint8_t)random_below(256);
        for (int64_t i = 0; i < scales; i++) ((uint8_t *)w.scales)[i] = (uint8_t)random_below(dtype == INT4 ? 64 : 256);
        for (int64_t i = 0; i < count; i++)
            ((uint16_t *)w.block_scales)[i] = (uint16_t)(random_below(2) << 15 | random_below(0x3c00));
        for (int64_t i = 0; i < rows * k; i++) x[i] = uniform() * (random_below(50) ? 1 : 100);
        for (int64_t i = 0; i < n; i++) bias[i] = uniform();
        const Blocked blocked = blocked_in(x, rows, k, taken, memory);
        round_blocks(isa, &blocked, taken, 0, rows);
        grouped_product(isa, &w, bias, &blocked, 0, n, y, n, 0);
        failures += differs_from_portable(&w, bias, &blocked, n, y, memory, blocked_bytes(rows, k, taken));
        for (int64_t a = 0; a < rows; a++)
            for (int64_t j = 0; j < n; j++) {
                double sum = bias[j], size = fabs(sum);
                for (int64_t i = 0; i < k; i++) {
                    double step, one = blocked_one(&blocked, dtype, a, i, &step, &heavy);
                    if (fabs(one - x[a * k + i]) > step * 0.501 + 1e-7 * fabs(one)) failures++;
                    one *= grouped_one(&w, j, i);
                    sum += one, size += fabs(one);
                }
                /* What a minimum takes off may be much larger than what is left. */
                if (!(fabs(sum - y[a * n + j]) <= 2e-5 * size + 1e-30)) failures++;
            }
        free(x), free(y), free(bias), free(memory);
        free((void *)w.codes), free((void *)w.scales), free((void *)w.block_scales);
    }
    return failures + (heavy == 0);
}

/* `count` random numbers of some dtype. */
static void *draw(int64_t count, int dtype) {
    char *numbers = malloc(count * 4);
    for (int64_t i = 0; i < count; i++) {
        float one = uniform();
        if (dtype == FLOAT32) ((float *)numbers)[i] = one;
        if (dtype == BFLOAT16) { uint32_t bits; memcpy(&bits, &one, 4); ((uint16_t *)numbers)[i] = (uint16_t)(bits >> 16); }
        if (dtype == FLOAT16) ((uint16_t *)numbers)[i] = (uint16_t)(random_below(2) << 15 | random_below(0x3c00));
    }
    return numbers;
}

static int differs(double sum, double size, float found) { return !(fabs(sum - found) <= 1e-5 * size + 1e-30); }

static int check_floats(int isa, int dtype) {
    int failures = 0;
    for (int trial = 0; trial < 60; trial++) {
        int64_t rows = 1 + random_below(20), k = 1 + random_below(trial % 4 ? 300 : 1200), n = 1 + random_below(40);
        float *x = draw(rows * k, FLOAT32), *y = malloc(rows * n * 4);
        void *w = draw(n * k, dtype);
        (trial % 2 ? fixed_product : product)(isa, dtype, w, NULL, x, rows, 0, n, k, y, n, 0);
        for (int64_t a = 0; a < rows; a++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0, size = 0;
                for (int64_t i = 0; i < k; i++) {
                    double one = (double)weight_at(w, j * k + i, dtype) * x[a * k + i];
                    sum += one, size += fabs(one);
                }
                failures += differs(sum, size, y[a * n + j]);
            }
        free(x), free(y), free(w);
    }
    return failures;
}

/* Both halves of attention: scores of four keys, and sums of as many vectors as there are. */
static int check_attention(int isa, int dtype) {
    int failures = 0;
    for (int trial = 0; trial < 60; trial++) {
        int64_t rows = 1 + random_below(4), width = 1 + random_below(150), count = 4 + random_below(30);
        float *x = draw(rows * width, FLOAT32), *weights = draw(rows * count, FLOAT32);
        float *scores = malloc(rows * count * 4), *out = malloc(rows * width * 4);
        void *vectors = draw(count * width, dtype);
        memcpy(out, x, rows * width * 4);
        scores_for(isa, dtype)[rows - 1](vectors, width, x, 0.25f, scores, count);
        sums_for(isa, dtype)[rows - 1](vectors, count, width, weights, count, out);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t t = 0; t < 4; t++) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < width; c++) {
                    double one = 0.25 * weight_at(vectors, t * width + c, dtype) * x[r * width + c];
                    sum += one, size += fabs(one);
                }
                failures += differs(sum, size, scores[r * count + t]);
            }
            for (int64_t c = 0; c < width; c++) {
                double sum = x[r * width + c], size = fabs(sum);
                for (int64_t t = 0; t < count; t++) {
                    double one = (double)weight_at(vectors, t * width + c, dtype) * weights[r * count + t];
                    sum += one, size += fabs(one);
                }
                failures += differs(sum, size, out[r * width + c]);
            }
        }
        free(x), free(weights), free(scores), free(out), free(vectors);
    }
    return failures;
}

/* Both halves of attention over int8: exact sums of whole numbers, times two scales. */
static int check_whole(int isa) {
    int failures = 0;
    for (int trial = 0; trial < 60; trial++) {
        int64_t rows = 1 + random_below(9), hd = 2 * (1 + random_below(70)), count = 1 + random_below(MOST_VALUES);
        int64_t bytes = hd + SCALE_BYTES, padded = padded_head(hd);
        char *vectors = malloc(count * bytes);
        float *x = draw(hd, FLOAT32), of_vectors[MOST_VALUES] = {0}, *scores = malloc(rows * MOST_VALUES * 4);
        float *out = calloc(rows * padded, 4), of_rows[9], of_weights[9];
        int32_t totals[18];
        int16_t *queries = calloc(rows * padded, 2), *ordered = malloc(rows * padded * 2);
        int16_t *weights = calloc(rows * MOST_VALUES, 2), *pairs = malloc(MOST_VALUES * padded * 2);
        for (int64_t t = 0; t < count; t++) {
            for (int64_t c = 0; c < hd; c++) x[c] = uniform();
            store_codes(vectors + t * bytes, x, hd);
            of_vectors[t] = scale_of(vectors + t * bytes, hd);
            for (int64_t c = 0; c < hd; c++)
                failures += fabs(((int8_t *)vectors)[t * bytes + c] * of_vectors[t] - x[c]) > 0.501 * of_vectors[t];
        }
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t c = 0; c < hd; c++) x[c] = uniform();
            of_rows[r] = portable_whole(x, hd, queries + r * padded);
            for (int64_t c = 0; c < hd; c++) failures += fabs(queries[r * padded + c] * of_rows[r] - x[c]) > of_rows[r];
            for (int64_t t = 0; t < count; t++) weights[r * MOST_VALUES + t] = (int16_t)random_below(WHOLE + 1);
            of_weights[r] = 1 + uniform();
        }
        memcpy(ordered, queries, rows * padded * 2);
        for (int64_t r = 0; r < rows; r++) order_query(isa, ordered + r * padded, padded, totals + 2 * r);
        whole_scores(isa, vectors, of_vectors, count, hd, ordered, totals, of_rows, rows, vectors, pairs, scores, MOST_VALUES);
        int16_t *parts = malloc(rows * MOST_VALUES * 2);
        memcpy(parts, weights, rows * MOST_VALUES * 2);
        for (int64_t i = 0; isa == INT8_VNNI && i < rows * MOST_VALUES; i++) {
            uint8_t *row = (uint8_t *)(parts + i / MOST_VALUES * MOST_VALUES) + i % MOST_VALUES;
            row[0] = (uint8_t)(weights[i] >> 8), row[MOST_VALUES] = (uint8_t)weights[i];
        }
        whole_weighted_sum(isa, vectors, count, hd, parts, 0, of_weights, rows, vectors, pairs, out);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t t = 0; t < count; t++) {
                double sum = 0;
                for (int64_t c = 0; c < hd; c++) sum += ((int8_t *)vectors)[t * bytes + c] * queries[r * padded + c];
                sum *= (double)of_vectors[t] * of_rows[r];
                failures += differs(sum, fabs(sum), scores[r * MOST_VALUES + t]);
            }
            for (int64_t c = 0; c < hd; c++) {
                double sum = 0;
                for (int64_t t = 0; t < count; t++) sum += ((int8_t *)vectors)[t * bytes + c] * weights[r * MOST_VALUES + t];
                sum *= of_weights[r];
                failures += differs(sum, fabs(sum), out[r * padded + column_at(isa, c)]);
            }
        }
        free(vectors), free(x), free(scores), free(out), free(queries), free(ordered), free(weights), free(pairs), free(parts);
    }
    return failures;
}

#if defined(__x86_64__)
/* Scores become weights: e^(score - best so far) times scale, in whole multiples of one number. */
static int check_weights(void) {
    int failures = 0;
    for (int trial = 0; trial < 200; trial++) {
        float scores[MOST_VALUES], scales[MOST_VALUES], out[64], best = trial % 3 ? 4 * uniform() : -INFINITY;
        float total = trial % 3 ? 1 + uniform() : 0;
        const float best_before = best, total_before = total;
        uint8_t weights[2 * MOST_VALUES];
        const int32_t first = trial % 2 ? 0 : random_below(MOST_VALUES), last = first + 1 + random_below(MOST_VALUES - first);
        for (int t = 0; t < MOST_VALUES; t++) {
            scores[t] = t >= first && t < last ? 9 * uniform() : NAN;
            scales[t] = t >= first && t < last ? 1 + uniform() : NAN;
        }
        for (int c = 0; c < 64; c++) out[c] = 1;
        const float unit = vnni_weigh(scores, scales, first, last, &best, &total, out, 64, weights);
        double most = best_before, high = -INFINITY, sum = 0, widest = 0;
        for (int t = first; t < last; t++) high = fmax(high, scores[t]), widest = fmax(widest, scales[t]);
        most = fmax(best_before, high);
        for (int t = first; t < last; t++) sum += exp(scores[t] - most);
        const double shrink = exp(best_before - most);
        failures += best != (float)most || fabs(total - total_before * shrink - sum) > 1e-5 * (1 + sum);
        failures += fabs(out[0] - shrink) > 1e-6;
        for (int t = 0; t < MOST_VALUES; t++) {
            const double weight = t >= first && t < last ? exp(scores[t] - most) * scales[t] : 0;
            failures += fabs((256 * weights[t] + weights[MOST_VALUES + t]) * unit - weight) >
                        1.2e-5 * exp(high - most) * widest;
        }
    }
    return failures;
}
#endif

int main(int argc, char **argv) {
    int failures = 0;
    (void)argc;
    for (char **one = argv + 1; *one; one++) {
        const char *trials = strchr(*one, ':'); /* g1:500 has 500 of them */
        int isa = atoi(*one + 1), found = 0;
        if (**one == 'i') found = check_int8(isa);
        if (**one == 'g') found = check_grouped(isa, trials ? atoi(trials + 1) : 160);
        if (**one == 'w') found = check_whole(isa);
#if defined(__x86_64__)
        if (**one == 'w' && isa == INT8_VNNI) found += check_weights();
#endif
        for (int dtype = 0; (**one == 'f' || **one == 'a') && dtype < 3; dtype++)
            found += **one == 'f' ? check_floats(isa, dtype) : check_attention(isa, dtype);
        printf("%s: %d failures\n", *one, found);
        failures += found;
    }
    return failures != 0;
}
