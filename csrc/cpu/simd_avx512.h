// AVX-512 with its extensions VL, BW and DQ.
#ifndef SEEDBED_CPU_SIMD_AVX512_H_
#define SEEDBED_CPU_SIMD_AVX512_H_

#include <immintrin.h>

namespace {
constexpr int kVectorBytes = 64;
}

#include "cpu/vectors.h"
#include "threefry.h"

#define SEEDBED_IOTA 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define SEEDBED_ZIP_LO 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SEEDBED_ZIP_HI 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define SEEDBED_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30

namespace {

inline F32 fma(F32 a, F32 b, F32 c) { return F32(_mm512_fmadd_ps(a, b, c)); }
inline F64 fma(F64 a, F64 b, F64 c) { return F64(_mm512_fmadd_pd(a, b, c)); }
inline F32 square_root(F32 x) { return F32(_mm512_sqrt_ps(x)); }
inline F64 square_root(F64 x) { return F64(_mm512_sqrt_pd(x)); }
inline uint64_t not_above(F32 x, F32 y) { return _mm512_cmp_ps_mask(x, y, _CMP_NGT_UQ); }
inline uint64_t not_above(F64 x, F64 y) { return _mm512_cmp_pd_mask(x, y, _CMP_NGT_UQ); }
inline F32 max_second(F32 a, F32 b) { return F32(_mm512_max_ps(a, b)); }
inline F32 min_second(F32 a, F32 b) { return F32(_mm512_min_ps(a, b)); }
inline F64 max_second(F64 a, F64 b) { return F64(_mm512_max_pd(a, b)); }
inline F64 min_second(F64 a, F64 b) { return F64(_mm512_min_pd(a, b)); }
inline U64 multiply_even(U32 a, U32 b) { return U64(_mm512_mul_epu32(__m512i(a), __m512i(b))); }

template <>
struct Rotate<U32> {  // compilers prefer two shifts and a ternary operation to rotate and xor
  template <int kBits>
  static U32 left(U32 x) {
    return U32(_mm512_rol_epi32(__m512i(x), kBits));
  }
};

}  // namespace

#endif  // SEEDBED_CPU_SIMD_AVX512_H_
