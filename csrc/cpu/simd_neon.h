// NEON of arm64.
#ifndef SEEDBED_CPU_SIMD_NEON_H_
#define SEEDBED_CPU_SIMD_NEON_H_

#include <arm_neon.h>

namespace {
constexpr int kVectorBytes = 16;
}

#include "cpu/vectors.h"

#define SEEDBED_IOTA 0, 1, 2, 3
#define SEEDBED_ZIP_LO 0, 4, 1, 5
#define SEEDBED_ZIP_HI 2, 6, 3, 7
#define SEEDBED_EVEN 0, 2, 4, 6

namespace {

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

}  // namespace

#endif  // SEEDBED_CPU_SIMD_NEON_H_
