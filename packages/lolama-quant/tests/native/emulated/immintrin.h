/* Stands in for the compiler's header: Intel's intrinsics in plain C, by SIMDe. */
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#include <simde/x86/f16c.h>

/* What SIMDe lacks. */
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;
typedef uint64_t __mmask64;

static inline __m256i _mm256_maskz_loadu_epi8(__mmask32 some, const void *p) {
    int8_t values[32];
    for (int i = 0; i < 32; i++) values[i] = some >> i & 1 ? ((const int8_t *)p)[i] : 0;
    return _mm256_loadu_si256((const __m256i *)values);
}

static inline float _mm512_reduce_add_ps(__m512 v) {
    float values[16], sum = 0;
    _mm512_storeu_ps(values, v);
    for (int i = 0; i < 16; i++) sum += values[i];
    return sum;
}

static inline float _mm512_reduce_max_ps(__m512 v) {
    float values[16], most;
    _mm512_storeu_ps(values, v);
    most = values[0];
    for (int i = 1; i < 16; i++) most = values[i] > most ? values[i] : most;
    return most;
}

static inline int32_t _mm512_reduce_max_epi32(__m512i v) {
    int32_t values[16], most;
    _mm512_storeu_si512(values, v);
    most = values[0];
    for (int i = 1; i < 16; i++) most = values[i] > most ? values[i] : most;
    return most;
}

static inline __m512i _mm512_maskz_cvtps_epi32(__mmask16 some, __m512 v) {
    float values[16];
    int32_t whole[16];
    _mm512_storeu_ps(values, v);
    for (int i = 0; i < 16; i++) whole[i] = some >> i & 1 ? (int32_t)rintf(values[i]) : 0;
    return _mm512_loadu_si512(whole);
}

static inline __m512i _mm512_cvtepu16_epi32(__m256i v) {
    uint16_t narrow[16];
    uint32_t wide[16];
    _mm256_storeu_si256((__m256i *)narrow, v);
    for (int i = 0; i < 16; i++) wide[i] = narrow[i];
    return _mm512_loadu_si512(wide);
}

static inline __m512i _mm512_cvtepu8_epi32(__m128i v) {
    uint8_t narrow[16];
    uint32_t wide[16];
    _mm_storeu_si128((__m128i *)narrow, v);
    for (int i = 0; i < 16; i++) wide[i] = narrow[i];
    return _mm512_loadu_si512(wide);
}

static inline __m512i _mm512_cvtepi8_epi32(__m128i v) {
    int8_t narrow[16];
    int32_t wide[16];
    _mm_storeu_si128((__m128i *)narrow, v);
    for (int i = 0; i < 16; i++) wide[i] = narrow[i];
    return _mm512_loadu_si512(wide);
}

static inline float _cvtsh_ss(uint16_t bits) {
    float four[4];
    _mm_storeu_ps(four, _mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
    return four[0];
}

static inline __m512 _mm512_cvtph_ps(__m256i v) {
    uint16_t narrow[16];
    float wide[16];
    _mm256_storeu_si256((__m256i *)narrow, v);
    for (int i = 0; i < 16; i++) wide[i] = simde_float16_to_float32(simde_uint16_as_float16(narrow[i]));
    return _mm512_loadu_ps(wide);
}

static inline __m512 _mm512_cvtepi32_ps(__m512i v) {
    int32_t whole[16];
    float wide[16];
    _mm512_storeu_si512(whole, v);
    for (int i = 0; i < 16; i++) wide[i] = (float)whole[i];
    return _mm512_loadu_ps(wide);
}

static inline __m128i _mm_maskz_loadu_epi8(__mmask16 some, const int8_t *p) {
    int8_t values[16];
    for (int i = 0; i < 16; i++) values[i] = some >> i & 1 ? p[i] : 0;
    return _mm_loadu_si128((const __m128i *)values);
}

static inline __m512i _mm512_maskz_loadu_epi8(__mmask64 some, const int8_t *p) {
    int8_t values[64];
    for (int i = 0; i < 64; i++) values[i] = some >> i & 1 ? p[i] : 0;
    return _mm512_loadu_si512(values);
}

static inline __m512 _mm512_maskz_loadu_ps(__mmask16 some, const float *p) {
    float values[16];
    for (int i = 0; i < 16; i++) values[i] = some >> i & 1 ? p[i] : 0;
    return _mm512_loadu_ps(values);
}

static inline void _mm512_mask_storeu_ps(float *p, __mmask16 some, __m512 v) {
    float values[16];
    _mm512_storeu_ps(values, v);
    for (int i = 0; i < 16; i++)
        if (some >> i & 1) p[i] = values[i];
}

/* SIMDe rounds a product before it adds; the instructions do not. */
#define FUSED(MM, VEC, LANES)                                                                            \
    static inline VEC MM##_fused(VEC a, VEC b, VEC c, float sign) {                                      \
        float as[LANES], bs[LANES], cs[LANES];                                                           \
        MM##_storeu_ps(as, a), MM##_storeu_ps(bs, b), MM##_storeu_ps(cs, c);                             \
        for (int i = 0; i < LANES; i++) cs[i] = fmaf(sign * as[i], bs[i], cs[i]);                        \
        return MM##_loadu_ps(cs);                                                                        \
    }
FUSED(_mm, __m128, 4)
FUSED(_mm256, __m256, 8)
FUSED(_mm512, __m512, 16)
#undef _mm_fmadd_ps
#undef _mm_fnmadd_ps
#undef _mm256_fmadd_ps
#undef _mm256_fnmadd_ps
#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#define _mm_fmadd_ps(a, b, c) _mm_fused(a, b, c, 1)
#define _mm_fnmadd_ps(a, b, c) _mm_fused(a, b, c, -1)
#define _mm256_fmadd_ps(a, b, c) _mm256_fused(a, b, c, 1)
#define _mm256_fnmadd_ps(a, b, c) _mm256_fused(a, b, c, -1)
#define _mm512_fmadd_ps(a, b, c) _mm512_fused(a, b, c, 1)
#define _mm512_fnmadd_ps(a, b, c) _mm512_fused(a, b, c, -1)

/* panels.h and vnni_panels.h name instructions themselves where these are missing. */
#define ADD_IN_PLACE(sum, products) (sum) = _mm256_add_epi32(sum, products)
#define ADD_PAIRS_IN_PLACE(sum, products) (sum) = _mm256_add_epi16(sum, products)
#define MULTIPLY_BYTES(sum, w, x) (sum) = _mm512_dpbusd_epi32(sum, w, x)
#define MULTIPLY_PAIRS(sum, w, x) (sum) = _mm512_dpwssd_epi32(sum, w, x)
