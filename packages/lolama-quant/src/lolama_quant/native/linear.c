/* y = x W^T + b, mostly for a few rows of x: the product that decoding is made of. Threads are OpenMP's; loaded
 * after torch, the library shares torch's thread pool. */
#include "dot.h"
#include "grouped_product.h"
#include "int8.h"
#include "tiles.h"

/* Counts the changes of what is exported: types, arguments, their meaning. cpu/library.py has the same number. */
EXPORT int lolama_interface(void) { return 8; }

EXPORT int lolama_best_isa(void) { return best_isa(); }

/* Whether products of many rows, too, are faster here than those of blocked libraries: see panels.h. */
EXPORT int lolama_has_panels(void) { return best_isa() == AVX2_ISA; }

/* Whether lolama_tiled_linear runs on this processor. */
EXPORT int lolama_has_tiles(void) { return has_tiles(); }

/* The products of x with `count` weights, side by side in y: one call, and one gathering of threads, for
 * the linears that read the same input.
 *
 * x (rows, k) float32; weights[i] (outputs[i], k) of `dtype`; biases[i] (outputs[i]) float32 or NULL;
 * y (rows, sum of outputs) float32; all contiguous. `isa` is lolama_best_isa() or anything that this
 * processor has. A `fixed` product adds in one order for any number of rows; of float32 every one does. With `parts`,
 * which has room for x, a fixed product takes x in two parts of bfloat16; weights are bfloat16 then, too. */
EXPORT void lolama_linear(const float *x, const void *const *weights, const float *const *biases,
                          const int64_t *outputs, int count, float *y, int64_t rows, int64_t k, int dtype,
                          int isa, int fixed, uint16_t *parts) {
    int64_t width = 0, taken[count];
    for (int i = 0; i < count; i++) width += outputs[i], taken[i] = 0;
    const int worth_threads = rows * width * k >= SMALLEST_PARALLEL;
    int in_parts = parts != NULL;
    for (int i = 0; i < count; i++) in_parts &= outputs[i] >= 4 * most_threads();
#pragma omp parallel if (worth_threads)
    {
        int64_t offset = 0, begin, end;
        if (in_parts) {
            share(rows, thread_number(), thread_count(), &begin, &end);
            take_parts(x, begin, end, k, parts);
#pragma omp barrier
        }
        for (int i = 0; i < count; i++) {
            for (int64_t turn = 0; take(outputs[i], &taken[i], turn, &begin, &end); turn++) {
                if (in_parts)
                    parts_product((const uint16_t *)weights[i], biases[i], parts, rows, begin, end, k, y + offset,
                                  width);
                else
                    (fixed ? fixed_product : float_product)(isa, dtype, weights[i], biases[i], x, rows, begin, end, k,
                                                            y + offset, width, 0);
            }
            offset += outputs[i];
        }
    }
}

/* The same with x and all weights in bfloat16; each weight has at least four outputs for each thread. */
EXPORT void lolama_tiled_linear(const uint16_t *x, const void *const *weights, const float *const *biases,
                                const int64_t *outputs, int count, float *y, int64_t rows, int64_t k) {
#if HAS_TILES
    int64_t width = 0, taken[count];
    for (int i = 0; i < count; i++) width += outputs[i], taken[i] = 0;
#pragma omp parallel
    {
        int64_t offset = 0, begin, end;
        for (int i = 0; i < count; i++) {
            for (int64_t turn = 0; take(outputs[i], &taken[i], turn, &begin, &end); turn++)
                tile_product((const uint16_t *)weights[i], biases[i], x, rows, begin, end, k, y + offset,
                             width, 0);
            offset += outputs[i];
        }
    }
#else
    (void)x, (void)weights, (void)biases, (void)outputs, (void)count, (void)y, (void)rows, (void)k;
#endif
}

/* The best instruction set of this processor for int8. */
EXPORT int lolama_best_int8_isa(void) { return best_int8_isa(); }

/* Bytes of working memory that lolama_int8_linear needs. */
EXPORT int64_t lolama_int8_scratch(int64_t rows, int64_t k) { return rounded_bytes(rows, k); }

/* The same with weights in int8 and scales[i] (outputs[i]) float32, one for each of their rows; x float32. */
EXPORT void lolama_int8_linear(const float *x, const void *const *weights, const float *const *scales,
                               const float *const *biases, const int64_t *outputs, int count, float *y,
                               int64_t rows, int64_t k, void *scratch, int isa) {
    int64_t width = 0, taken[count];
    for (int i = 0; i < count; i++) width += outputs[i], taken[i] = 0;
    const int worth_threads = rows * width * k >= SMALLEST_PARALLEL;
    const Rounded rounded = rounded_in(isa, x, rows, k, scratch);
#pragma omp parallel if (worth_threads)
    {
        int64_t offset = 0, begin, end;
        share(rows, thread_number(), thread_count(), &begin, &end);
        round_rows(isa, &rounded, begin, end, k);
#pragma omp barrier
        for (int i = 0; i < count; i++) {
            for (int64_t turn = 0; take(outputs[i], &taken[i], turn, &begin, &end); turn++)
                int8_product(isa, (const int8_t *)weights[i], scales[i], biases[i], &rounded, rows, begin,
                             end, k, y + offset, width, 0);
            offset += outputs[i];
        }
    }
}

/* Bytes of working memory that lolama_grouped_linear needs. */
EXPORT int64_t lolama_grouped_scratch(int64_t rows, int64_t k, int dtype) {
    return blocked_bytes(rows, k, taken_by(dtype));
}

/* x (rows, k) float32 times a grouped weight (outputs, k), see grouped.h, plus a bias (outputs) or NULL; y (rows, outputs). */
EXPORT void lolama_grouped_linear(const float *x, const uint8_t *codes, const uint8_t *scales,
                                  const uint16_t *block_scales, const float *bias, int64_t outputs, float *y,
                                  int64_t rows, int64_t k, int dtype, void *scratch, int isa) {
    const int taken = taken_by(dtype), worth_threads = rows * outputs * k >= SMALLEST_PARALLEL;
    const Grouped w = {dtype, codes, scales, block_scales, k};
    const Blocked blocked = blocked_in(x, rows, k, taken, scratch);
    int64_t pieces = 0;
#pragma omp parallel if (worth_threads)
    {
        int64_t begin, end;
        share(rows, thread_number(), thread_count(), &begin, &end);
        round_blocks(isa, &blocked, taken, begin, end);
#pragma omp barrier
        for (int64_t turn = 0; take(outputs, &pieces, turn, &begin, &end); turn++)
            grouped_product(isa, &w, bias, &blocked, begin, end, y, outputs, 0);
    }
}
