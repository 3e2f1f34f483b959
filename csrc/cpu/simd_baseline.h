// SSE2, which every x86-64 has.
#ifndef SEEDBED_CPU_SIMD_BASELINE_H_
#define SEEDBED_CPU_SIMD_BASELINE_H_

#include <immintrin.h>

namespace {
constexpr int kVectorBytes = 16;
}

#include "cpu/vectors.h"

#define SEEDBED_IOTA 0, 1, 2, 3
#define SEEDBED_ZIP_LO 0, 4, 1, 5
#define SEEDBED_ZIP_HI 2, 6, 3, 7
#define SEEDBED_EVEN 0, 2, 4, 6

namespace {

// SSE2 has no fused multiply-add. The product of two floats is exact in double; the sum is brought
// to "round to odd", from which the final rounding to float is as good as from the exact sum.
inline Vec<double, 2> add_to_odd(Vec<double, 2> p, Vec<double, 2> c) {
  const Vec<double, 2> s = p + c, t = s - p;
  const Vec<double, 2> error = (p - (s - t)) + (c - t);  // exact (Knuth); NaN where s is not finite
  const Vec<int64_t, 2> bits = reinterpret<Vec<int64_t, 2>>(s);
  const Vec<int64_t, 2> inexact = (error < 0.0) | (error > 0.0);
  const Vec<int64_t, 2> away = (error > 0.0) ^ (bits < 0);  // the error enlarges the magnitude
  const Vec<int64_t, 2> even = (bits & 1) - 1;              // all ones where the last bit is 0
  // Even and inexact: one unit up or down in magnitude is the odd neighbour.
  const Vec<int64_t, 2> step = inexact & even & ((away & 2) - 1);
  return reinterpret<Vec<double, 2>>(bits + step);
}
inline F32 fma(F32 a, F32 b, F32 c) {
  const __m128 x = __m128(a), y = __m128(b), z = __m128(c);
  const auto lo = add_to_odd(_mm_cvtps_pd(x) * _mm_cvtps_pd(y), _mm_cvtps_pd(z));
  const __m128 xh = _mm_movehl_ps(x, x), yh = _mm_movehl_ps(y, y), zh = _mm_movehl_ps(z, z);
  const auto hi = add_to_odd(_mm_cvtps_pd(xh) * _mm_cvtps_pd(yh), _mm_cvtps_pd(zh));
  return F32(_mm_movelh_ps(_mm_cvtpd_ps(lo), _mm_cvtpd_ps(hi)));
}
inline F64 fma(F64 a, F64 b, F64 c) {  // the C library's, which is exact
  return F64{__builtin_fma(a[0], b[0], c[0]), __builtin_fma(a[1], b[1], c[1])};
}
inline F32 square_root(F32 x) { return F32(_mm_sqrt_ps(x)); }
inline F64 square_root(F64 x) { return F64(_mm_sqrt_pd(x)); }
inline F32 max_second(F32 a, F32 b) { return F32(_mm_max_ps(a, b)); }
inline F32 min_second(F32 a, F32 b) { return F32(_mm_min_ps(a, b)); }
inline F64 max_second(F64 a, F64 b) { return F64(_mm_max_pd(a, b)); }
inline F64 min_second(F64 a, F64 b) { return F64(_mm_min_pd(a, b)); }
inline uint64_t not_above(F32 x, F32 y) {
  return static_cast<unsigned>(_mm_movemask_ps(_mm_cmpngt_ps(x, y)));
}
inline uint64_t not_above(F64 x, F64 y) {
  return static_cast<unsigned>(_mm_movemask_pd(_mm_cmpngt_pd(x, y)));
}
inline U64 multiply_even(U32 a, U32 b) { return U64(_mm_mul_epu32(__m128i(a), __m128i(b))); }

}  // namespace

#endif  // SEEDBED_CPU_SIMD_BASELINE_H_
