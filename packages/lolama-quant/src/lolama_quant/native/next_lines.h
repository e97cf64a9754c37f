/* What memory brings while something else is computed. */
#ifndef LOLAMA_NEXT_LINES_H
#define LOLAMA_NEXT_LINES_H

#include <stdint.h>

/* Lines of 64 bytes that come next, which memory brings while others are multiplied. */
typedef struct {
    const char *place, *end;
} NextLines;

/* Ask for the next `count` of them, if there are so many. */
static inline void ask_for(NextLines *next, int64_t count) {
    for (; count > 0 && next->place < next->end; count--, next->place += 64) __builtin_prefetch(next->place, 0, 2);
}

/* How far ahead of what it multiplies a product of one row asks for weights on processors with AVX-512, in bytes. Their
 * prefetchers alone keep fewer lines under way than memory can serve. */
#define AHEAD_AVX512 2048

/* Ask for so many bytes of each of four streams that lie `gap` bytes apart. */
static inline __attribute__((always_inline)) void ask_for_four(const void *from, int64_t gap, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64)
        for (int s = 0; s < 4; s++) __builtin_prefetch((const char *)from + s * gap + i);
}

#endif
