/* Rows of four bytes become columns, in registers (AVX-512). */
#ifndef LOLAMA_TRANSPOSE_H
#define LOLAMA_TRANSPOSE_H

#include "wide_panels.h"

#if defined(__x86_64__)

/* Sixteen rows of sixteen numbers of 32 bits become columns. */
AVX512 static inline __attribute__((always_inline)) void transpose(__m512i *rows) {
    __m512i a[16], b[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    /* A quarter of b[4 i + j] has a column of rows 4 i to 4 i + 3: quarter l the column 4 l + j. */
    UNROLL for (int j = 0; j < 4; j++) {
        const __m512i even = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88), odd = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
        const __m512i even_below = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        const __m512i odd_below = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
        rows[j] = _mm512_shuffle_i32x4(even, even_below, 0x88);
        rows[4 + j] = _mm512_shuffle_i32x4(odd, odd_below, 0x88);
        rows[8 + j] = _mm512_shuffle_i32x4(even, even_below, 0xdd);
        rows[12 + j] = _mm512_shuffle_i32x4(odd, odd_below, 0xdd);
    }
}

#endif

#endif
