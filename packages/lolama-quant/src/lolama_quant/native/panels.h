/* Products with one order of additions for any number of rows, by AVX2 and AVX-512.
 *
 * A sum runs along the inputs, in as many lanes as a vector has. After as many inputs as a panel has, its lanes are added
 * up, and go to the output. So the output of a row is the same, bit for bit, whatever rows are beside it. Other
 * processors have that from `product` in dot.h.
 *
 * Products of many rows are bound by arithmetic, so both factors are first brought into what is multiplied
 * fastest: weights of sixteen or thirty-two bits, and activations, into float32. For processors that multiply no
 * bytes (AVX2), int8 weights become integers of sixteen bits, and activations whole numbers of fifteen bits with a
 * scale for each row, whose sums are exact. A block of x then lies in the second-level cache and a panel of four or
 * eight weight rows in the first, and the rows of x pass by a few at a time, with as many sums as there are registers.
 * Fewer rows pass by the weights where these are.
 */
#ifndef LOLAMA_PANELS_H
#define LOLAMA_PANELS_H

#include <math.h>

#include "row_sums.h"

/* From this many rows on, panels are faster. */
#define PANEL_LEAST 8

#if defined(__x86_64__)
#define HAS_PANELS 1

/* The largest magnitude of activations as whole numbers: sums of DEPTH_AVX2 products stay below 2^31. */
#define PANEL_LEVELS 16000.0f

/* What a thread multiplies: rows of weights, then rows of x. */
typedef union {
    float floats[PANEL_ITEMS];
    int16_t integers[PANEL_ITEMS];
} Panel;

/* Activations as whole numbers, rows `padded` apart, and what each row is multiplied with; zeros follow the last. */
typedef struct {
    int16_t *values;
    float *scales;
    int64_t padded;
} WholeRows;

/* ---- bringing in ---------------------------------------------------------------------------------- */

/* `count` stored floats, and zeros up to `depth`. */
#define BRING(LOAD, BYTES)                                                                               \
    for (; i + 8 <= count; i += 8) _mm256_store_ps(to + i, LOAD((const char *)from + BYTES * i));

AVX2 static void bring_floats(const void *from, int dtype, float *to, int64_t count, int64_t depth) {
    int64_t i = 0;
    if (dtype == BFLOAT16) BRING(LOAD256_BFLOAT16, 2)
    else if (dtype == FLOAT16) BRING(LOAD256_FLOAT16, 2)
    else BRING(LOAD256_FLOAT32, 4)
    for (; i < count; i++) to[i] = weight_at(from, i, dtype);
    for (; i < depth; i++) to[i] = 0;
}

AVX2 static void bring_int8(const int8_t *from, int16_t *to, int64_t count, int64_t depth) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i];
    for (int64_t i = count; i < depth; i++) to[i] = 0;
}

/* What a row of x is divided by to become whole numbers; NaN if it has a NaN or an infinity. */
AVX2 static float row_scale(const float *x, int64_t k) {
    float most = 0, spoiled = 0;
    _Pragma("omp simd reduction(max : most)") for (int64_t i = 0; i < k; i++) {
        float size = fabsf(x[i]);
        most = size > most ? size : most;
    }
    _Pragma("omp simd reduction(+ : spoiled)") for (int64_t i = 0; i < k; i++) spoiled += x[i] * 0;
    return most / PANEL_LEVELS + spoiled;
}

/* Row `r` of x (rows, k) as whole numbers. */
AVX2 static void round_row(const float *x, const WholeRows *to, int64_t r, int64_t k) {
    const float *row = x + r * k, scale = to->scales[r] = row_scale(row, k);
    int16_t *values = to->values + r * to->padded;
    /* So small a row, or one that has no numbers, is zero: the inverse of its scale would be infinite. */
    const float inverse = scale > 1e-34f ? 1 / scale : 0;
    for (int64_t i = 0; i < k; i++) values[i] = inverse != 0 ? (int16_t)(int32_t)rintf(row[i] * inverse) : 0;
    for (int64_t i = k; i < to->padded; i++) values[i] = 0;
}

/* ---- the product ---------------------------------------------------------------------------------- */

/* Four neighboring outputs of one row of x, of which `used` are there; y as in `product`. */
AVX2 static inline void store_four(float *y, __m128 results, int used, int add) {
    if (used == 4) {
        _mm_storeu_ps(y, add ? _mm_add_ps(results, _mm_loadu_ps(y)) : results);
        return;
    }
    float four[4];
    _mm_storeu_ps(four, results);
    for (int s = 0; s < used; s++) y[s] = four[s] + (add ? y[s] : 0);
}

/* Outputs `begin` to `end` of weights times x: floats of any dtype times floats (rows, k), or int8 times `whole` rows
 * of k. */
typedef struct {
    int dtype;
    const void *weight;
    const float *scales, *bias; /* of int8; or NULL */
    const float *x;
    const WholeRows *whole;
    int64_t rows, begin, end, k;
    float *y;
    int64_t y_stride;
    int add;
} PanelProduct;

/* Few rows, where they are: four streams of weights from far apart are read at once, as in `product`. */
AVX2 static void stored_product(const PanelProduct *p, const Sums *sums) {
    const int64_t bytes = p->dtype == INT8 ? 1 : item_bytes(p->dtype), quarter = (p->end - p->begin) / 4;
    const int64_t x_bytes = p->whole ? 2 : 4;
    const int64_t stride = p->whole ? p->whole->padded : p->k, most = sums->stored[4] ? 4 : 3;
    const char *x = p->whole ? (const char *)p->whole->values : (const char *)p->x;
    for (int64_t next = p->begin; next < p->end;) {
        /* What is left behind the last four goes one by one. */
        const int64_t done = next - p->begin, apart = done < 4 * quarter ? quarter : 0;
        const int64_t j = apart ? p->begin + done / 4 : next, used = apart ? 4 : 1;
        for (int64_t first = 0, some; first < p->rows; first += some) {
            some = p->rows - first < most ? p->rows - first : most;
            for (int64_t i = 0; i < p->k; i += sums->depth) {
                const int64_t depth = p->k - i < sums->depth ? p->k - i : sums->depth;
                __m128 found[4];
                sums->stored[some]((const char *)p->weight + (j * p->k + i) * bytes, apart * p->k,
                                   x + (first * stride + i) * x_bytes, stride, depth, found);
                for (int64_t r = first; r < first + some; r++) {
                    float four_sums[4];
                    _mm_storeu_ps(four_sums, found[r - first]);
                    for (int64_t s = 0, output = j; s < used; s++, output += apart) {
                        float *target = p->y + r * p->y_stride + output;
                        const float scale = p->whole ? p->scales[output] * p->whole->scales[r] : 1;
                        const float start = p->bias && i == 0 ? p->bias[output] : 0;
                        *target = fmaf(four_sums[s], scale, start) + (p->add || i ? *target : 0);
                    }
                }
            }
        }
        next += used;
    }
}

/* Many rows, through panels. */
AVX2 static void brought_product(const PanelProduct *p, const Sums *sums) {
    static _Thread_local Panel of_thread __attribute__((aligned(64)));
    Panel *const panel = &of_thread;
    const int is_int8 = p->dtype == INT8, lanes = sums->lanes;
    const int64_t rows = p->rows, k = p->k, end = p->end, together = sums->together;
    /* So few rows of x stay in the first-level cache, too. */
    const int64_t outputs = rows <= 3 * together ? 4 : sums->outputs;
    const int64_t bytes = is_int8 ? 1 : item_bytes(p->dtype), items = is_int8 ? 2 : 4, stride = sums->apart;
    const char *const weight_rows = (const char *)panel, *const x_rows = weight_rows + outputs * stride * items;
    /* Blocks of about the same number of rows: each brings in all weights. */
    const int64_t blocks = (rows + sums->rows - 1) / sums->rows;
    const int64_t most = ((rows + blocks - 1) / blocks + together - 1) / together * together;
    for (int64_t first = 0; first < rows; first += most) {
        const int64_t count = rows - first < most ? rows - first : most;
        const int64_t groups = (count + together - 1) / together;
        for (int64_t i = 0; i < k; i += sums->depth) {
            const int64_t inputs = k - i < sums->depth ? k - i : sums->depth;
            const int64_t depth = (inputs + lanes - 1) / lanes * lanes;
            const int more = p->add || i;
            for (int64_t r = 0; r < count; r++) {
                const int64_t place = (outputs + r) * stride;
                if (is_int8)
                    memcpy(panel->integers + place, p->whole->values + (first + r) * p->whole->padded + i,
                           (size_t)depth * 2);
                else bring_floats(p->x + (first + r) * k + i, FLOAT32, panel->floats + place, inputs, depth);
            }
            for (int64_t j = p->begin; j < end; j += outputs) {
                const int64_t used = end - j < outputs ? end - j : outputs;
                float scales[PANEL_OUTPUTS] = {0}, biases[PANEL_OUTPUTS] = {0};
                for (int64_t s = 0; s < used; s++) {
                    const char *from = (const char *)p->weight + ((j + s) * k + i) * bytes;
                    const int64_t place = s * stride;
                    if (is_int8) bring_int8((const int8_t *)from, panel->integers + place, inputs, depth);
                    else bring_floats(from, p->dtype, panel->floats + place, inputs, depth);
                    scales[s] = is_int8 ? p->scales[j + s] : 1;
                    if (p->bias && i == 0) biases[s] = p->bias[j + s];
                }
                /* Memory brings the next panel's weights, a few lines at a time, while these are multiplied. */
                const char *next = (const char *)p->weight + ((j + outputs) * k + i) * bytes, *place = next;
                const int64_t lines = (inputs * bytes + 63) / 64, all = j + 2 * outputs <= end ? outputs * lines : 0;
                const int64_t some_lines = (all + groups - 1) / groups;
                for (int64_t group = 0, left = all; group < groups; group++) {
                    for (int64_t n = 0; n < some_lines && left > 0; n++, left--, place += 64) {
                        if (place == next + lines * 64) place = next += k * bytes;
                        _mm_prefetch(place, _MM_HINT_T0);
                    }
                    const int64_t r = group * together, some = count - r < together ? count - r : together;
                    for (int64_t s = 0; s < used; s += 4) {
                        const __m128 factors = _mm_loadu_ps(scales + s), offsets = _mm_loadu_ps(biases + s);
                        __m128 found[TOGETHER_AVX512];
                        sums->brought[some](weight_rows + s * stride * items, stride, x_rows + r * stride * items,
                                            stride, depth, found);
                        for (int64_t t = 0; t < some; t++) {
                            const __m128 row = _mm_set1_ps(is_int8 ? p->whole->scales[first + r + t] : 1);
                            const __m128 four = _mm_fmadd_ps(found[t], _mm_mul_ps(factors, row), offsets);
                            store_four(p->y + (first + r + t) * p->y_stride + j + s, four,
                                       used - s < 4 ? (int)(used - s) : 4, more);
                        }
                    }
                }
            }
        }
    }
}

static inline void panel_product(int isa, const PanelProduct *p) {
    const Sums *sums = panel_sums(isa, p->dtype);
    if (p->rows >= PANEL_LEAST) brought_product(p, sums);
    else stored_product(p, sums);
}

/* As `product`, with int8 weights, `scales` of their rows, and whole numbers. */
static inline void whole_product(const int8_t *weight, const float *scales, const float *bias, const WholeRows *x,
                                 int64_t rows, int64_t begin, int64_t end, int64_t k, float *y, int64_t y_stride,
                                 int add) {
    const PanelProduct p = {INT8, weight, scales, bias, NULL, x, rows, begin, end, k, y, y_stride, add};
    panel_product(AVX2_ISA, &p);
}

#else
#define HAS_PANELS 0
#endif

/* As `product`, with one order of additions for any number of rows. */
static inline void fixed_product(int isa, int dtype, const void *weight, const float *bias, const float *x,
                                 int64_t rows, int64_t begin, int64_t end, int64_t k, float *y,
                                 int64_t y_stride, int add) {
#if HAS_PANELS
    if (isa != PORTABLE_ISA) {
        const PanelProduct p = {dtype, weight, NULL, bias, x, NULL, rows, begin, end, k, y, y_stride, add};
        panel_product(isa, &p);
        return;
    }
#endif
    product(isa, dtype, weight, bias, x, rows, begin, end, k, y, y_stride, add);
}

/* As `product`, by the fastest means: weights of float32 in one order of additions, those of sixteen bits in that
 * of `product` if there are few rows. */
static inline void float_product(int isa, int dtype, const void *weight, const float *bias, const float *x,
                                 int64_t rows, int64_t begin, int64_t end, int64_t k, float *y,
                                 int64_t y_stride, int add) {
    if (dtype == FLOAT32 || (isa == AVX2_ISA && rows >= PANEL_LEAST))
        fixed_product(isa, dtype, weight, bias, x, rows, begin, end, k, y, y_stride, add);
    else product(isa, dtype, weight, bias, x, rows, begin, end, k, y, y_stride, add);
}

#endif
