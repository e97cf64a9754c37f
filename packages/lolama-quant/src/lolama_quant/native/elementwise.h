/* What decoding does element by element, compiled for each instruction set. */
#ifndef LOLAMA_ELEMENTWISE_H
#define LOLAMA_ELEMENTWISE_H

#include <math.h>

#include "dot.h"

/* e^x within 2 units in the last place, in a form that compilers turn into vector code. */
static inline __attribute__((always_inline)) float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; /* x / ln 2 as a whole number, in the lowest bits */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 127u) << 23; /* 2^n */
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

#define ELEMENTWISE(NAME, TARGET)                                                                        \
    TARGET static void NAME##_norm(const float *x, const float *weight, float *y, int64_t n, float eps) { \
        float sum = 0;                                                                                   \
        _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];       \
        float scale = 1.0f / sqrtf(sum / (float)n + eps);                                                \
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];                                 \
    }                                                                                                    \
    TARGET static void NAME##_silu(float *gate, const float *up, int64_t n) {                            \
        for (int64_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];      \
    }                                                                                                    \
    /* x times the normal distribution function, by Hastings' approximation of erf, which is 1.5e-7 off at most          \
     * (Abramowitz and Stegun, 7.1.26). */                                                               \
    TARGET static void NAME##_gelu(float *gate, const float *up, int64_t n) {                            \
        for (int64_t i = 0; i < n; i++) {                                                                \
            const float x = gate[i], z = fabsf(x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);      \
            float p = 1.061405429f;                                                                      \
            p = p * t - 1.453152027f;                                                                    \
            p = p * t + 1.421413741f;                                                                    \
            p = p * t - 0.284496736f;                                                                    \
            p = p * t + 0.254829592f;                                                                    \
            const float tail = 0.5f * p * t * exponential(-z * z);                                       \
            gate[i] = x * (x < 0 ? tail : 1.0f - tail) * up[i];                                          \
        }                                                                                                \
    }                                                                                                    \
    /* x through GELU's approximation, x (1 + tanh(u)) / 2 = x / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */ \
    TARGET static void NAME##_gelu_tanh(float *gate, const float *up, int64_t n) {                       \
        for (int64_t i = 0; i < n; i++) {                                                                \
            const float x = gate[i], twice = 1.5957691216f * (x + 0.044715f * x * x * x);                \
            gate[i] = x / (1.0f + exponential(-twice)) * up[i];                                          \
        }                                                                                                \
    }                                                                                                    \
    TARGET static float NAME##_largest(const float *scores, int64_t n, float best) {                     \
        _Pragma("omp simd reduction(max : best)") for (int64_t i = 0; i < n; i++)                        \
            best = scores[i] > best ? scores[i] : best;                                                  \
        return best;                                                                                     \
    }                                                                                                    \
    /* scores become cap tanh(score / cap), with u = score / cap by tanh(u) = 1 - 2 / (1 + e^(2 u)), and near zero, where\
     * that would lose digits, by its series. */                                                         \
    TARGET static void NAME##_softcap(float *scores, int64_t n, float cap) {                             \
        for (int64_t i = 0; i < n; i++) {                                                                \
            const float u = scores[i] / cap, square = u * u;                                             \
            float series = 62.0f / 2835.0f * square - 17.0f / 315.0f;                                    \
            series = (series * square + 2.0f / 15.0f) * square - 1.0f / 3.0f;                            \
            const float near = u + u * square * series, far = 1.0f - 2.0f / (1.0f + exponential(2.0f * u));\
            scores[i] = cap * (square < 0.0625f ? near : far);                                           \
        }                                                                                                \
    }                                                                                                    \
    /* scores become e^(score - best); their sum. */                                                     \
    TARGET static float NAME##_exponentials(float *scores, int64_t n, float best) {                      \
        float sum = 0;                                                                                   \
        _Pragma("omp simd reduction(+ : sum)") for (int64_t i = 0; i < n; i++) {                         \
            scores[i] = exponential(scores[i] - best);                                                   \
            sum += scores[i];                                                                            \
        }                                                                                                \
        return sum;                                                                                      \
    }

ELEMENTWISE(portable, )
#if defined(__x86_64__)
ELEMENTWISE(avx512, AVX512)
ELEMENTWISE(avx2, AVX2)
#define CHOOSE(isa, FUNCTION, ...)                                                                       \
    (isa == AVX512_ISA ? avx512_##FUNCTION(__VA_ARGS__)                                                  \
     : isa == AVX2_ISA ? avx2_##FUNCTION(__VA_ARGS__)                                                    \
                       : portable_##FUNCTION(__VA_ARGS__))
#else
#define CHOOSE(isa, FUNCTION, ...) portable_##FUNCTION(__VA_ARGS__)
#endif

#endif
