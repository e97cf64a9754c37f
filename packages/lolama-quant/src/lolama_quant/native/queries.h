/* New positions of a row that attend, with the query heads that share a head of keys. */
#ifndef LOLAMA_QUERIES_H
#define LOLAMA_QUERIES_H

#include "pages.h"

/* A query is head q % group at position q / group. */
typedef struct {
    const float *queries; /* (positions, group, hd), positions `query_stride` apart */
    float *out;           /* the same, `out_stride` apart */
    const char *keys, *values; /* the first vector of the head */
    const Pages *pages;
    int64_t row, query_stride, out_stride, group, hd, start, window;
    float cap; /* what scores stay below; 0: anything */
} Prompt;

/* A query's vector, or that of what it makes. */
static inline const float *query_at(const Prompt *p, int64_t q) {
    return p->queries + q / p->group * p->query_stride + q % p->group * p->hd;
}
static inline float *out_at(const Prompt *p, int64_t q) {
    return p->out + q / p->group * p->out_stride + q % p->group * p->hd;
}

/* The first position that a query sees at a position. */
static inline int64_t first_seen(const Prompt *p, int64_t position) {
    return p->window && position >= p->window ? position + 1 - p->window : 0;
}

#endif
