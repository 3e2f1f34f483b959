// The thin layer between the kernels and one instruction set, that of SEEDBED_ISA. A new one is a
// new file simd_<isa>.h, which says how wide a vector is (kVectorBytes, before it includes
// vectors.h) and has what vector expressions cannot spell:
//   SEEDBED_IOTA, SEEDBED_ZIP_LO, SEEDBED_ZIP_HI, SEEDBED_EVEN   lanes of the shuffles below
//   fma, square_root         of floats and doubles, with one rounding
//   max_second, min_second   the second operand where the two are equal or either is a NaN
//   not_above(x, y)          the lanes where x > y does not hold, a bit each
//   multiply_even            the 64-bit products of the even lanes
//   Rotate<U32>              if there is something better than shifts
#ifndef SEEDBED_CPU_SIMD_H_
#define SEEDBED_CPU_SIMD_H_

#define SEEDBED_STRINGIFY_(x) #x
#define SEEDBED_STRINGIFY(x) SEEDBED_STRINGIFY_(x)
#define SEEDBED_SIMD_FILE_(isa) SEEDBED_STRINGIFY_(simd_##isa.h)
#define SEEDBED_SIMD_FILE(isa) SEEDBED_SIMD_FILE_(isa)
#include SEEDBED_SIMD_FILE(SEEDBED_ISA)

#include "cpu/vectors.h"
#include "threefry.h"

namespace {

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
