// GCC/Clang vector types of the width that an instruction set's file has chosen, kVectorBytes, and
// what expressions of these types can spell. See simd.h.
#ifndef SEEDBED_CPU_VECTORS_H_
#define SEEDBED_CPU_VECTORS_H_

#include <stdint.h>

namespace {

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

}  // namespace

#endif  // SEEDBED_CPU_VECTORS_H_
