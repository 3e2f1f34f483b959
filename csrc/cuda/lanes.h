// The lane type of samplers.h for device code: one scalar a thread. The same text compiles for the
// host, where tests run it. Every operation is IEEE's on both but for the square root, which the
// tail of normals alone takes: 3 in 1,000 numbers.
#ifndef SEEDBED_CUDA_LANES_H_
#define SEEDBED_CUDA_LANES_H_

#include "samplers.h"

namespace {

template <class To, class From>
SEEDBED_HD To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  __builtin_memcpy(&to, &x, sizeof to);
  return to;
}

struct Scalar {
  using F = float;
  using U = uint32_t;
  using I = int32_t;
  static SEEDBED_HD F f(float x) { return x; }
  static SEEDBED_HD F mul_add(F a, F b, F c) { return a * b + c; }  // contraction is off
  static SEEDBED_HD U u(uint32_t x) { return x; }
  static SEEDBED_HD F select(bool m, F a, F b) { return m ? a : b; }
  // For bounds as `Range` and `Clip` of ops.h make them, either zero will do where both are zero.
  static SEEDBED_HD F max(F bound, F x) { return x < bound ? bound : x; }
  static SEEDBED_HD F min(F bound, F x) { return bound < x ? bound : x; }
  static SEEDBED_HD F to_float(I i) { return static_cast<float>(i); }
  static SEEDBED_HD F as_float(U x) { return bits_as<float>(x); }
  static SEEDBED_HD U as_uint(F x) { return bits_as<uint32_t>(x); }
  static SEEDBED_HD I as_int(U x) { return static_cast<int32_t>(x); }
#if defined(__CUDA_ARCH__)
  static SEEDBED_HD F fma(F a, F b, F c) { return __fmaf_rn(a, b, c); }
  // What XLA:GPU uses: an instruction of the hardware, not rounded correctly.
  static SEEDBED_HD F sqrt(F x) {
    F root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
  }
  static SEEDBED_HD F add_toward_zero(F a, F b) { return __fadd_rz(a, b); }
#else
  static SEEDBED_HD F fma(F a, F b, F c) { return __builtin_fmaf(a, b, c); }
  static SEEDBED_HD F sqrt(F x) { return __builtin_sqrtf(x); }
  static SEEDBED_HD F add_toward_zero(F a, F b) {
    const F sum = a + b, part = sum - a, error = (a - (sum - part)) + (b - part);  // exact
    const bool away = sum > 0 ? error < 0 : error > 0;
    return away && sum != 0 ? bits_as<float>(bits_as<uint32_t>(sum) - 1) : sum;
  }
#endif
};

// The high halves of products.
SEEDBED_HD uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}
SEEDBED_HD uint64_t multiply_high(uint64_t a, uint64_t b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

}  // namespace

#endif  // SEEDBED_CUDA_LANES_H_
