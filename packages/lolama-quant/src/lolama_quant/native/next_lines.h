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

#endif
