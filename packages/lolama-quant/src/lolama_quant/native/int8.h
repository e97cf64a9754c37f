/* Products of int8 weights with rounded activations: one byte a weight from memory, and little arithmetic.
 *
 * linear.c exports them, and decoder.c uses them. int8/linear.py has the product of a layer in words of torch. */
#ifndef LOLAMA_INT8_H
#define LOLAMA_INT8_H

#include "vnni_few.h"
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* The products of four weight rows, `gap` bytes apart, with 1 to 4 rows of x from `first` on:
 * sums[row][weight]. */
typedef void (*int8_function)(const int8_t *w, int64_t gap, const Rounded *x, int64_t first, int64_t k,
                              float *sums);

/* One body for all of them. */
#define INT8_TILE(NAME, TARGET, VEC, ZERO, GROUP_SUMS, FMA, SPREAD, SUM, ROWS)                           \
    TARGET static void NAME(const int8_t *w, int64_t gap, const Rounded *x, int64_t first, int64_t k,    \
                            float *sums) {                                                               \
        const Integers near = x->near, rest = x->rest;                                                   \
        VEC acc[ROWS][4];                                                                                \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int s = 0; s < 4; s++) acc[r][s] = ZERO;                                                \
        int8_t last[4][GROUP];                                                                           \
        for (int64_t i = 0; i < k; i += GROUP) {                                                         \
            const int8_t *group[4];                                                                      \
            for (int s = 0; s < 4; s++) group[s] = w + s * gap + i;                                      \
            if (k - i < GROUP)                                                                           \
                for (int s = 0; s < 4; s++) {                                                            \
                    memset(last[s], 0, GROUP);                                                           \
                    memcpy(last[s], group[s], (size_t)(k - i));                                          \
                    group[s] = last[s];                                                                  \
                }                                                                                        \
            for (int r = 0; r < ROWS; r++) {                                                             \
                const int64_t place = (first + r) * x->padded + i;                                       \
                for (int s = 0; s < 4; s++)                                                              \
                    acc[r][s] = FMA(GROUP_SUMS(group[s], near.values + place),                           \
                                    SPREAD(near.scales[place / GROUP]), acc[r][s]);                      \
                if (rest.scales[place / GROUP] == 0) continue;                                           \
                for (int s = 0; s < 4; s++)                                                              \
                    acc[r][s] = FMA(GROUP_SUMS(group[s], rest.values + place),                           \
                                    SPREAD(rest.scales[place / GROUP]), acc[r][s]);                      \
            }                                                                                            \
        }                                                                                                \
        for (int r = 0; r < ROWS; r++)                                                                   \
            for (int s = 0; s < 4; s++) sums[r * 4 + s] = SUM(acc[r][s]);                                \
    }

#define PLAIN_FMA(a, b, c) ((a) * (b) + (c))
#define PLAIN(a) (a)

static inline float portable_group(const int8_t *w, const int8_t *x) {
    int32_t sum = 0;
    for (int i = 0; i < GROUP; i++) sum += w[i] * x[i];
    return (float)sum;
}

#define INT8_PORTABLE_TILE(NAME, TARGET, ROWS)                                                           \
    INT8_TILE(NAME, TARGET, float, 0, portable_group, PLAIN_FMA, PLAIN, PLAIN, ROWS)
FOUR(INT8_PORTABLE_TILE, portable_int8, )

#if defined(__x86_64__)

/* The sums of the lanes of four vectors. */
VNNI static inline __m128i lane_sums(const __m512i *v) {
    const __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i high = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The products of one group of four weight rows and of a row of x, added to `sums`. */
VNNI static inline __m128 vnni_add(__m128 sums, const __m512i *weights, const Integers *x, int64_t place) {
    const __m512i row = _mm512_loadu_si512(x->values + place);
    __m512i products[4];
    UNROLL for (int s = 0; s < 4; s++)
        products[s] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights[s], row);
    const __m128i whole = _mm_add_epi32(lane_sums(products), _mm_set1_epi32(x->totals[place / GROUP]));
    return _mm_fmadd_ps(_mm_cvtepi32_ps(whole), _mm_set1_ps(x->scales[place / GROUP]), sums);
}

/* A group of four weight rows, raised by 128; zeros follow the last of a row's weights. */
VNNI static inline void vnni_weights(const int8_t *w, int64_t gap, int64_t left, __m512i *weights) {
    const __mmask64 some = left < GROUP ? (1ull << left) - 1 : ~0ull;
    UNROLL for (int s = 0; s < 4; s++)
        weights[s] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(some, w + s * gap), _mm512_set1_epi8(-128));
}

/* Sums of a group are whole numbers, so nobody sees in which order they were added. Groups are added in the order
 * of vnni_panels.h: those of WIDE_BYTES inputs, then what was rounded again of them. */
VNNI static void vnni_int8_1(const int8_t *w, int64_t gap, const Rounded *x, int64_t first, int64_t k,
                             float *sums) {
    const Integers near = x->near, rest = x->rest;
    const int64_t row = first * x->padded;
    __m128 acc = _mm_setzero_ps();
    __m512i weights[4];
    for (int64_t begin = 0; begin < k; begin += WIDE_BYTES) {
        const int64_t end = k - begin < WIDE_BYTES ? k : begin + WIDE_BYTES;
        for (int64_t i = begin; i < end; i += GROUP) {
            ask_for_four(w + i + AHEAD_AVX512, gap, GROUP);
            vnni_weights(w + i, gap, k - i, weights);
            acc = vnni_add(acc, weights, &near, row + i);
        }
        for (int64_t i = begin; i < end; i += GROUP) {
            if (rest.scales[(row + i) / GROUP] == 0) continue;
            vnni_weights(w + i, gap, k - i, weights);
            acc = vnni_add(acc, weights, &rest, row + i);
        }
    }
    _mm_storeu_ps(sums, acc);
}

#elif defined(__aarch64__)

static inline float32x4_t neon_group(const int8_t *w, const int8_t *x) {
    int32x4_t sums = vdupq_n_s32(0);
    for (int i = 0; i < GROUP; i += 16) {
        int8x16_t weights = vld1q_s8(w + i), row = vld1q_s8(x + i);
        sums = vpadalq_s16(sums, vmull_s8(vget_low_s8(weights), vget_low_s8(row)));
        sums = vpadalq_s16(sums, vmull_s8(vget_high_s8(weights), vget_high_s8(row)));
    }
    return vcvtq_f32_s32(sums);
}

#define INT8_NEON_TILE(NAME, TARGET, ROWS)                                                               \
    INT8_TILE(NAME, TARGET, float32x4_t, vdupq_n_f32(0), neon_group, FMANEON, vdupq_n_f32, vaddvq_f32, ROWS)
FOUR(INT8_NEON_TILE, neon_int8, )

#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))

DOTPROD static inline float32x4_t neon_dot_group(const int8_t *w, const int8_t *x) {
    int32x4_t sums = vdupq_n_s32(0);
    for (int i = 0; i < GROUP; i += 16) sums = vdotq_s32(sums, vld1q_s8(w + i), vld1q_s8(x + i));
    return vcvtq_f32_s32(sums);
}

#define INT8_NEON_DOT_TILE(NAME, TARGET, ROWS)                                                           \
    INT8_TILE(NAME, TARGET, float32x4_t, vdupq_n_f32(0), neon_dot_group, FMANEON, vdupq_n_f32, vaddvq_f32, \
              ROWS)
FOUR(INT8_NEON_DOT_TILE, neon_dot_int8, DOTPROD)

#endif

/* The best of the above on this processor. */
static inline int best_int8_isa(void) {
#if defined(__x86_64__)
    if (best_isa() == AVX512_ISA && __builtin_cpu_supports("avx512vnni")) return INT8_VNNI;
    return best_isa() == PORTABLE_ISA ? INT8_PORTABLE : INT8_AVX2;
#elif defined(__APPLE__) && defined(__aarch64__)
    return INT8_NEON_DOT; /* every one of Apple's since the first that runs macOS */
#elif defined(__aarch64__) && defined(__linux__) && defined(HWCAP_ASIMDDP)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? INT8_NEON_DOT : INT8_NEON;
#elif defined(__aarch64__)
    return INT8_NEON;
#else
    return INT8_PORTABLE;
#endif
}

static inline const int8_function *int8_functions_for(int isa) {
    static const int8_function portable_table[4] = TABLE(portable_int8);
#if defined(__x86_64__)
    static const int8_function vnni_table[4] = {vnni_int8_1}; /* more rows: vnni_few.h */
    if (isa == INT8_VNNI) return vnni_table;
#elif defined(__aarch64__)
    static const int8_function neon_table[4] = TABLE(neon_int8), dot_table[4] = TABLE(neon_dot_int8);
    if (isa == INT8_NEON_DOT) return dot_table;
    if (isa == INT8_NEON) return neon_table;
#endif
    return portable_table;
}

/* Outputs `begin` to `end` of x (rows, k) times weight (n, k) times a scale for each of its rows; y as in
 * `product`. */
static inline void int8_product(int isa, const int8_t *weight, const float *weight_scales, const float *bias,
                                const Rounded *x, int64_t rows, int64_t begin, int64_t end, int64_t k,
                                float *y, int64_t y_stride, int add) {
#if HAS_PANELS
    if (isa == INT8_AVX2) {
        whole_product(weight, weight_scales, bias, &x->whole, rows, begin, end, k, y, y_stride, add);
        return;
    }
    if (isa == INT8_VNNI && rows > 1) {
        (rows <= FEW_MOST ? vnni_few_product : vnni_panel_product)(weight, weight_scales, bias, x, rows, begin, end, k, y,
                                                                   y_stride, add);
        return;
    }
#endif
    const int8_function *tiles = int8_functions_for(isa);
    float sums[16];
    /* Where weights are read once, that is in four streams from far apart, as in `product`. More rows share four
     * neighbors, which stay in the first-level cache. */
    const int once = rows <= 4;
    const int64_t quarter = (end - begin) / 4, apart = once ? quarter : 1;
    for (int64_t tile = 0; begin + tile < end;) {
        const int whole = tile < 4 * quarter;
        const int64_t j = begin + (whole && once ? tile / 4 : tile), used = whole ? 4 : 1;
        for (int64_t first = 0; first < rows; first += 4) {
            int64_t count = rows - first < 4 ? rows - first : 4;
            tiles[count - 1](weight + j * k, whole ? apart * k : 0, x, first, k, sums);
            for (int64_t r = 0; r < count; r++)
                for (int64_t s = 0; s < used; s++) {
                    int64_t i = j + s * apart;
                    float *target = y + (first + r) * y_stride + i;
                    *target = sums[r * 4 + s] * weight_scales[i] + (bias ? bias[i] : 0) +
                              (add ? *target : 0);
                }
        }
        tile += used;
    }
}

#endif
