/* Products with grouped weights by NEON, with the dot product of bytes where the processor has it. Vectors are short, so
 * that adding up their lanes takes little, and any number of rows is multiplied like a few. */
#ifndef LOLAMA_GROUPED_NEON_H
#define LOLAMA_GROUPED_NEON_H

#include "grouped_rows.h"
#include "int8.h"

#if defined(__aarch64__)

/* The sums of four vectors. */
static inline int32x4_t neon_lanes(const int32x4_t *v) {
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

/* Numbers `at` and `at + 1` of the block scales of four rows. */
static inline void neon_two_scales(const RowBlock *b, int64_t at, float32x4_t *first, float32x4_t *second) {
    uint32_t four[4];
    UNROLL for (int s = 0; s < 4; s++) memcpy(four + s, block_scales_of(b, s) + at, 4);
    const uint32x4_t both = vld1q_u32(four);
    *first = vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(both)));
    *second = vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(both, 16)));
}

static inline float32x4_t neon_one_scale(const RowBlock *b) {
    const uint16_t four[4] = {*block_scales_of(b, 0), *block_scales_of(b, 1), *block_scales_of(b, 2), *block_scales_of(b, 3)};
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(four)));
}

/* The sums of 32 codes of four bits, the lower or the upper halves of bytes, times values. */
#define NEON_GROUP(MY, TARGET, DOT)                                                                      \
    TARGET static inline int32x4_t MY##_group32(const uint8_t *from, int upper, const int8_t *values) {  \
        int32x4_t sums = vdupq_n_s32(0);                                                                 \
        UNROLL for (int i = 0; i < 32; i += 16) {                                                        \
            const uint8x16_t both = vld1q_u8(from + i);                                                  \
            const uint8x16_t codes = upper ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15));       \
            sums = DOT(sums, vreinterpretq_s8_u8(codes), vld1q_s8(values + i));                          \
        }                                                                                                \
        return sums;                                                                                     \
    }                                                                                                    \
    TARGET static inline void MY##_wholes_int4(const RowBlock *b, const BlockRows *x, int64_t place, int32x4_t *two) { \
        const int16x8_t row_sums = vld1q_s16(x->sums + place * SUMS_OF_BLOCK);                           \
        int32x4_t acc[4], off[4];                                                                        \
        UNROLL for (int s = 0; s < 4; s++) {                                                             \
            const int16x8_t minimums = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(scales_of(b, s) + 8)));       \
            off[s] = vmull_s16(vget_low_s16(minimums), vget_low_s16(row_sums));                          \
            off[s] = vmlal_s16(off[s], vget_high_s16(minimums), vget_high_s16(row_sums));                \
            acc[s] = vdupq_n_s32(0);                                                                     \
            UNROLL for (int g = 0; g < SUMS_OF_BLOCK; g++) {                                             \
                const int8_t *values = x->bytes + place * BLOCK + 32 * g;                                \
                const int32x4_t sums = MY##_group32(codes_of(b, s) + g / 2 * 32, g % 2, values);            \
                acc[s] = vmlaq_n_s32(acc[s], sums, scales_of(b, s)[g]);                                     \
            }                                                                                            \
        }                                                                                                \
        two[0] = neon_lanes(acc);                                                                        \
        two[1] = neon_lanes(off);                                                                        \
    }                                                                                                    \
    TARGET static inline void MY##_wholes_int4_32(const RowBlock *b, const BlockRows *x, int64_t place, int c, \
                                                  int32x4_t *two) {                                      \
        UNROLL for (int h = 0; h < 2; h++) {                                                             \
            const int8_t *values = x->bytes + place * BLOCK + 64 * c + 32 * h;                           \
            int32x4_t acc[4];                                                                            \
            UNROLL for (int s = 0; s < 4; s++) acc[s] = MY##_group32(codes_of(b, s) + 32 * c, h, values);   \
            two[h] = neon_lanes(acc);                                                                    \
        }                                                                                                \
    }

/* The sums of 16 codes of eight bits times values of sixteen. */
static inline int32x4_t neon_sixteen(int32x4_t sums, const uint8_t *from, const int16_t *values) {
    const int8x16_t codes = vld1q_s8((const int8_t *)from);
    const int16x8_t low = vmovl_s8(vget_low_s8(codes)), high = vmovl_high_s8(codes);
    const int16x8_t first = vld1q_s16(values), second = vld1q_s16(values + 8);
    sums = vmlal_high_s16(vmlal_s16(sums, vget_low_s16(low), vget_low_s16(first)), low, first);
    return vmlal_high_s16(vmlal_s16(sums, vget_low_s16(high), vget_low_s16(second)), high, second);
}

static inline int32x4_t neon_wholes_int8_16(const RowBlock *b, const BlockRows *x, int64_t place, int c) {
    int32x4_t acc[4];
    UNROLL for (int s = 0; s < 4; s++) {
        acc[s] = vdupq_n_s32(0);
        UNROLL for (int g = 4 * c; g < 4 * c + 4; g++) {
            const int16_t *values = x->pairs + place * BLOCK + 16 * g;
            const int32x4_t sums = neon_sixteen(vdupq_n_s32(0), codes_of(b, s) + 16 * g, values);
            acc[s] = vmlaq_n_s32(acc[s], sums, (int8_t)scales_of(b, s)[g]);
        }
    }
    return neon_lanes(acc);
}

static inline void neon_wholes_int8_32(const RowBlock *b, const BlockRows *x, int64_t place, int c, int32x4_t *two) {
    UNROLL for (int h = 0; h < 2; h++) {
        const int i = 64 * c + 32 * h;
        const int16_t *values = x->pairs + place * BLOCK + i;
        int32x4_t acc[4];
        UNROLL for (int s = 0; s < 4; s++) {
            acc[s] = neon_sixteen(vdupq_n_s32(0), codes_of(b, s) + i, values);
            acc[s] = neon_sixteen(acc[s], codes_of(b, s) + i + 16, values + 16);
        }
        two[h] = neon_lanes(acc);
    }
}

static inline int32x4_t neon_multiply(int32x4_t sums, int8x16_t a, int8x16_t b) {
    sums = vpadalq_s16(sums, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vpadalq_s16(sums, vmull_high_s8(a, b));
}

NEON_GROUP(neon, , neon_multiply)
#define neon_ahead 0
ROW_BLOCKS(neon, )

#define neon_dot_two_scales neon_two_scales
#define neon_dot_one_scale neon_one_scale
#define neon_dot_wholes_int8_16 neon_wholes_int8_16
#define neon_dot_wholes_int8_32 neon_wholes_int8_32
NEON_GROUP(neon_dot, DOTPROD, vdotq_s32)
#define neon_dot_ahead 0
ROW_BLOCKS(neon_dot, DOTPROD)

#endif

#endif
