/* Keys and values of int8, as lolama_core.runtime.int8_cache has them: for each position and head the codes of a
 * vector (hd) and, behind them, the two bytes of its scale in bfloat16. */
#ifndef LOLAMA_INT8_CACHE_H
#define LOLAMA_INT8_CACHE_H

#include <math.h>

#include "dot.h"

#define SCALE_BYTES 2

/* The scale of a stored vector. */
static inline float scale_of(const char *vector, int64_t hd) {
    uint16_t scale;
    memcpy(&scale, vector + hd, SCALE_BYTES);
    return widen_bfloat16(scale);
}

/* Store x (hd): the same bits as Python stores. */
static void store_codes(char *vector, const float *x, int64_t hd) {
    float most = 0, spoiled = 0;
    for (int64_t i = 0; i < hd; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    for (int64_t i = 0; i < hd; i++) spoiled += x[i] * 0;
    const float exact = spoiled == 0 ? most / 127 : NAN;
    uint32_t bits;
    memcpy(&bits, &exact, 4);
    const uint16_t stored = (uint16_t)((bits + 0xffff) >> 16); /* rounded up, so that no code is cut off */
    const float scale = widen_bfloat16(stored);
    /* Adding this leaves no fraction. */
    for (int64_t i = 0; i < hd; i++)
        ((int8_t *)vector)[i] = (int8_t)(scale > 0 ? x[i] / scale + 12582912.0f - 12582912.0f : 0);
    memcpy(vector + hd, &stored, SCALE_BYTES);
}

#endif
