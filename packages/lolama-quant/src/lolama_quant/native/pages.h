/* Where keys and values of rows are: in pages, which need not lie beside each other. */
#ifndef LOLAMA_PAGES_H
#define LOLAMA_PAGES_H

#include <stdint.h>
#include <string.h>

typedef struct {
    const int64_t *tables;       /* (rows, width): the pages of each row, in the order of its positions */
    int64_t width, size;         /* pages in a table, positions in a page */
    int64_t stride, head_stride; /* vectors from a page to the next, and from a head to the next */
} Pages;

/* The vector of a position of a row, at the first head. */
static inline int64_t vector_at(const Pages *p, int64_t row, int64_t position) {
    return p->tables[row * p->width + position / p->size] * p->stride + position % p->size;
}

/* `count` vectors of a row from `first` on, one after another. They are in the cache if they lie so there, else they
 * are copied to `copy`. So what is computed of them does not depend on where pages are.
 *
 * `stored` is the first vector of a head; a vector has `bytes`. */
static inline const char *contiguous(const Pages *p, int64_t row, const char *stored, int64_t first, int64_t count,
                                     int64_t bytes, char *copy) {
    const int64_t *pages = p->tables + row * p->width + first / p->size;
    int64_t together = p->size - first % p->size;
    while (together < count && p->stride == p->size && pages[1] == pages[0] + 1) pages++, together += p->size;
    if (together >= count) return stored + vector_at(p, row, first) * bytes;
    for (int64_t done = 0, some; done < count; done += some) {
        const int64_t left = p->size - (first + done) % p->size;
        some = left < count - done ? left : count - done;
        memcpy(copy + done * bytes, stored + vector_at(p, row, first + done) * bytes, (size_t)(some * bytes));
    }
    return copy;
}

#endif
