/* Products with grouped weights: what each processor does. */
#ifndef LOLAMA_GROUPED_PRODUCT_H
#define LOLAMA_GROUPED_PRODUCT_H

#include "grouped_neon.h"
#include "grouped_vnni.h"

/* Up to so many rows, one after another, are faster than panels. */
#define ROWS_MOST 3

/* Rows of x that pass by all outputs before others do: as many as fit into the second-level cache, and no fewer than make
 * bringing cheap. */
#define PASSING_BYTES (256 << 10)
#define LEAST_PASSING 32

/* Outputs `begin` to `end` of x times a grouped weight; y as in `product`. */
static inline void grouped_product(int isa, const Grouped *w, const float *bias, const Blocked *x, int64_t begin,
                                   int64_t end, float *y, int64_t y_stride, int add) {
    if (isa == INT8_PORTABLE) {
        portable_grouped(w, bias, x, begin, end, y, y_stride, add);
        return;
    }
    int64_t most = PASSING_BYTES / w->k;
    most = (most < LEAST_PASSING ? LEAST_PASSING : most > MOST_PASSING ? MOST_PASSING : most) / 4 * 4;
    for (int64_t first = 0; first < x->rows; first += most) {
        const int64_t count = x->rows - first < most ? x->rows - first : most;
#if defined(__x86_64__)
        const rows_function *rows = isa == INT8_VNNI ? vnni_rows : avx2_rows;
        const PanelFunctions *panels = isa == INT8_VNNI ? &vnni_panels : &avx2_panels;
        if (x->rows <= ROWS_MOST) rows_product(rows, w, bias, x, first, count, begin, end, y, y_stride, add);
        else panels_product(panels, w, bias, x, first, count, begin, end, y, y_stride, add);
#elif defined(__aarch64__)
        const rows_function *rows = isa == INT8_NEON_DOT ? neon_dot_rows : neon_rows;
        rows_product(rows, w, bias, x, first, count, begin, end, y, y_stride, add);
#endif
    }
}

#endif
