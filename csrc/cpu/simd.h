// The thin layer between the kernels and one instruction set: GCC/Clang vector types of the
// machine's width, and the few operations that vector expressions cannot spell.
#ifndef SEEDBED_CPU_SIMD_H_
#define SEEDBED_CPU_SIMD_H_

#include <stdint.h>

#include "threefry.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
#error "seedbed has kernels for x86-64 and arm64"
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

constexpr int kLanes = kVectorBytes / 4;

template <class T, int kCount>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * kCount)));
};
template <class T, int kCount>
using Vec = typename VectorOf<T, kCount>::type;

using U32 = Vec<uint32_t, kLanes>;
using I32 = Vec<int32_t, kLanes>;
using F32 = Vec<float, kLanes>;
using U64 = Vec<uint64_t, kLanes / 2>;
using I64 = Vec<int64_t, kLanes / 2>;
using F64 = Vec<double, kLanes / 2>;

template <class V>
inline V load(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
inline void store(void* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}

template <class To, class From>
inline To reinterpret(From v) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  __builtin_memcpy(&to, &v, sizeof to);
  return to;
}

// The same value in every lane. (By integers: 0 + x would lose the sign of -0.)
inline U32 broadcast(uint32_t x) { return U32{} + x; }
inline U64 broadcast(uint64_t x) { return U64{} + x; }
inline F32 broadcast(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return reinterpret<F32>(U32{} + bits);
}
inline F64 broadcast(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return reinterpret<F64>(U64{} + bits);
}

#if defined(__AVX512F__)
#define SEEDBED_IOTA 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define SEEDBED_ZIP_LO 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SEEDBED_ZIP_HI 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define SEEDBED_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
inline F32 fma(F32 a, F32 b, F32 c) { return F32(_mm512_fmadd_ps(a, b, c)); }
inline F64 fma(F64 a, F64 b, F64 c) { return F64(_mm512_fmadd_pd(a, b, c)); }
inline F32 square_root(F32 x) { return F32(_mm512_sqrt_ps(x)); }
inline F64 square_root(F64 x) { return F64(_mm512_sqrt_pd(x)); }
// The lanes where x > y does not hold, a bit each.
inline uint64_t not_above(F32 x, F32 y) { return _mm512_cmp_ps_mask(x, y, _CMP_NGT_UQ); }
inline uint64_t not_above(F64 x, F64 y) { return _mm512_cmp_pd_mask(x, y, _CMP_NGT_UQ); }
// The second operand where the two are equal or either is a NaN.
inline F32 max_second(F32 a, F32 b) { return F32(_mm512_max_ps(a, b)); }
inline F32 min_second(F32 a, F32 b) { return F32(_mm512_min_ps(a, b)); }
inline F64 max_second(F64 a, F64 b) { return F64(_mm512_max_pd(a, b)); }
inline F64 min_second(F64 a, F64 b) { return F64(_mm512_min_pd(a, b)); }
inline U64 multiply_even(U32 a, U32 b) { return U64(_mm512_mul_epu32(__m512i(a), __m512i(b))); }
#elif defined(__AVX2__)
#define SEEDBED_IOTA 0, 1, 2, 3, 4, 5, 6, 7
#define SEEDBED_ZIP_LO 0, 8, 1, 9, 2, 10, 3, 11
#define SEEDBED_ZIP_HI 4, 12, 5, 13, 6, 14, 7, 15
#define SEEDBED_EVEN 0, 2, 4, 6, 8, 10, 12, 14
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
#else
#define SEEDBED_IOTA 0, 1, 2, 3
#define SEEDBED_ZIP_LO 0, 4, 1, 5
#define SEEDBED_ZIP_HI 2, 6, 3, 7
#define SEEDBED_EVEN 0, 2, 4, 6
#if defined(__aarch64__)
inline F32 fma(F32 a, F32 b, F32 c) { return F32(vfmaq_f32(c, a, b)); }
inline F64 fma(F64 a, F64 b, F64 c) { return F64(vfmaq_f64(c, a, b)); }
inline F32 square_root(F32 x) { return F32(vsqrtq_f32(x)); }
inline F64 square_root(F64 x) { return F64(vsqrtq_f64(x)); }
inline F32 max_second(F32 a, F32 b) { return a > b ? a : b; }
inline F32 min_second(F32 a, F32 b) { return a < b ? a : b; }
inline F64 max_second(F64 a, F64 b) { return a > b ? a : b; }
inline F64 min_second(F64 a, F64 b) { return a < b ? a : b; }
inline uint64_t not_above(F32 x, F32 y) {
  return vaddvq_u32(uint32x4_t(~(x > y)) & uint32x4_t{1, 2, 4, 8});
}
inline uint64_t not_above(F64 x, F64 y) {
  return vaddvq_u64(uint64x2_t(~(x > y)) & uint64x2_t{1, 2});
}
inline U64 multiply_even(U32 a, U32 b) {
  return U64(vmull_u32(vmovn_u64(uint64x2_t(a)), vmovn_u64(uint64x2_t(b))));
}
#else
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
#endif
#endif

#if defined(__AVX512F__)
template <>
struct Rotate<U32> {  // compilers prefer two shifts and a ternary operation to rotate and xor
  template <int kBits>
  static U32 left(U32 x) {
    return U32(_mm512_rol_epi32(__m512i(x), kBits));
  }
};
#elif defined(__AVX2__)
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
#endif

inline U32 iota() { return U32{SEEDBED_IOTA}; }
inline U32 zip_lo(U32 a, U32 b) { return __builtin_shufflevector(a, b, SEEDBED_ZIP_LO); }
inline U32 zip_hi(U32 a, U32 b) { return __builtin_shufflevector(a, b, SEEDBED_ZIP_HI); }
inline U32 even(U32 a, U32 b) { return __builtin_shufflevector(a, b, SEEDBED_EVEN); }

// The high words of the 64-bit products.
inline U32 multiply_high(U32 a, U32 b) {
  const U64 shift = U64{} + 32;
  const U64 evens = multiply_even(a, b);
  const U64 odds = multiply_even(reinterpret<U32>(reinterpret<U64>(a) >> shift),
                                 reinterpret<U32>(reinterpret<U64>(b) >> shift));
  const U64 high_half = U64{} + 0xFFFFFFFF00000000u;
  return reinterpret<U32>((evens >> shift) | (odds & high_half));
}

}  // namespace

#endif  // SEEDBED_CPU_SIMD_H_
