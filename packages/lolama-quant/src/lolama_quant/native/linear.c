/* y = x W^T + b for a few rows of x: the product that decoding is made of. Threads are OpenMP's; loaded
 * after torch, the library shares torch's thread pool. */
#include "dot.h"

EXPORT int lolama_best_isa(void) { return best_isa(); }

/* Weight row j of one weight with all rows of x: column `column` of y, whose rows are `width` wide. */
static void one_output(const dot_function *dots, const void *weights, float bias, const float *x, float *y,
                       int64_t column, int64_t width, int64_t rows, int64_t k) {
    /* The second four rows find the weights in the first-level cache. */
    for (int64_t first = 0; first < rows; first += 4) {
        int64_t count = rows - first < 4 ? rows - first : 4;
        float sums[4];
        dots[count - 1](weights, x + first * k, k, k, sums);
        for (int64_t r = 0; r < count; r++) y[(first + r) * width + column] = sums[r] + bias;
    }
}

/* The products of x with `count` weights, side by side in y: one call, and one gathering of threads, for
 * the linears that read the same input.
 *
 * x (rows, k) float32; weights[i] (outputs[i], k) of `dtype`; biases[i] (outputs[i]) float32 or NULL;
 * y (rows, sum of outputs) float32; all contiguous. `isa` is lolama_best_isa() or anything that this
 * processor has. */
EXPORT void lolama_linear(const float *x, const void *const *weights, const float *const *biases,
                          const int64_t *outputs, int count, float *y, int64_t rows, int64_t k, int dtype,
                          int isa) {
    const dot_function *dots = functions_for(isa, dtype);
    const int64_t row_bytes = k * (dtype == FLOAT32 ? 4 : 2);
    int64_t width = 0;
    for (int i = 0; i < count; i++) width += outputs[i];
    const int worth_threads = rows * width * k >= SMALLEST_PARALLEL;
#pragma omp parallel if (worth_threads)
    {
        int64_t offset = 0;
        for (int i = 0; i < count; i++) {
#pragma omp for schedule(static) nowait
            for (int64_t j = 0; j < outputs[i]; j++)
                one_output(dots, (const char *)weights[i] + j * row_bytes, biases[i] ? biases[i][j] : 0, x,
                           y, offset + j, width, rows, k);
            offset += outputs[i];
        }
    }
}
