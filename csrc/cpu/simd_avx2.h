// AVX2 with FMA.
#ifndef SEEDBED_CPU_SIMD_AVX2_H_
#define SEEDBED_CPU_SIMD_AVX2_H_

#include <immintrin.h>

namespace {
constexpr int kVectorBytes = 32;
}

#include "cpu/vectors.h"
#include "threefry.h"

#define SEEDBED_IOTA 0, 1, 2, 3, 4, 5, 6, 7
#define SEEDBED_ZIP_LO 0, 8, 1, 9, 2, 10, 3, 11
#define SEEDBED_ZIP_HI 4, 12, 5, 13, 6, 14, 7, 15
#define SEEDBED_EVEN 0, 2, 4, 6, 8, 10, 12, 14

namespace {

inline F32 fma(F32 a, F32 b, F32 c) { return F32(_mm256_fmadd_ps(a, b, c)); }
inline F64 fma(F64 a, F64 b, F64 c) { return F64(_mm256_fmadd_pd(a, b, c)); }
inline F32 square_root(F32 x) { return F32(_mm256_sqrt_ps(x)); }
inline F64 square_root(F64 x) { return F64(_mm256_sqrt_pd(x)); }
inline F32 max_second(F32 a, F32 b) { return F32(_mm256_max_ps(a, b)); }
inline F32 min_second(F32 a, F32 b) { return F32(_mm256_min_ps(a, b)); }
inline F64 max_second(F64 a, F64 b) { return F64(_mm256_max_pd(a, b)); }
inline F64 min_second(F64 a, F64 b) { return F64(_mm256_min_pd(a, b)); }
inline uint64_t not_above(F32 x, F32 y) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_NGT_UQ)));
}
inline uint64_t not_above(F64 x, F64 y) {
  return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(x, y, _CMP_NGT_UQ)));
}
inline U64 multiply_even(U32 a, U32 b) { return U64(_mm256_mul_epu32(__m256i(a), __m256i(b))); }

template <>
struct Rotate<U32> {
  template <int kBits>
  static U32 left(U32 x) {
    if constexpr (kBits % 8 != 0) return (x << kBits) | (x >> (32 - kBits));
    constexpr int k = kBits / 8;  // whole bytes: one shuffle
    constexpr char b0 = (4 - k) % 4, b1 = (5 - k) % 4, b2 = (6 - k) % 4, b3 = (7 - k) % 4;
    const __m256i order = _mm256_setr_epi8(
        b0, b1, b2, b3, b0 + 4, b1 + 4, b2 + 4, b3 + 4, b0 + 8, b1 + 8, b2 + 8, b3 + 8, b0 + 12,
        b1 + 12, b2 + 12, b3 + 12, b0, b1, b2, b3, b0 + 4, b1 + 4, b2 + 4, b3 + 4, b0 + 8, b1 + 8,
        b2 + 8, b3 + 8, b0 + 12, b1 + 12, b2 + 12, b3 + 12);
    return U32(_mm256_shuffle_epi8(__m256i(x), order));
  }
};

}  // namespace

#endif  // SEEDBED_CPU_SIMD_AVX2_H_
