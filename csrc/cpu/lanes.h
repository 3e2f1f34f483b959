// The lane types of samplers.h: one vector of floats or of doubles, and two that go through the
// same operations side by side. Chains of dependent operations fill the scheduler of an
// out-of-order core before they fill its vector units; two interleaved chains leave it half as much
// to look ahead.
#ifndef SEEDBED_CPU_LANES_H_
#define SEEDBED_CPU_LANES_H_

#include "cpu/simd.h"

namespace {

// GCC would rather call the large transforms than inline them into each loop.
#define SEEDBED_INLINE SEEDBED_HD

struct Lanes {
  using F = F32;
  using U = U32;
  using I = I32;
  using V = F32;
  using Float = float;
  static constexpr int kCount = kLanes;
  static F like(F x) { return x; }
  template <class T>
  static F f(T x) {
    return broadcast(static_cast<float>(x));
  }
  static U u(uint32_t x) { return broadcast(x); }
  static F fma(F a, F b, F c) { return ::fma(a, b, c); }
  static F mul_add(F a, F b, F c) { return ::fma(a, b, c); }
  static F sqrt(F x) { return square_root(x); }
  static F select(I32 m, F a, F b) { return m ? a : b; }
  static uint64_t not_above(F x, F y) { return ::not_above(x, y); }
  static F max(F bound, F x) { return max_second(bound, x); }
  static F min(F bound, F x) { return min_second(bound, x); }
  static F to_float(I32 i) { return __builtin_convertvector(i, F32); }
  static F as_float(U x) { return reinterpret<F32>(x); }
  static U as_uint(F x) { return reinterpret<U32>(x); }
  static I32 as_int(U x) { return reinterpret<I32>(x); }
};

struct Doubles {
  using F = F64;
  using U = U64;
  using I = I64;
  using V = F64;
  using Float = double;
  static constexpr int kCount = kLanes / 2;
  static F like(F x) { return x; }
  static F f(double x) { return broadcast(x); }
  static U u(uint64_t x) { return broadcast(x); }
  static F fma(F a, F b, F c) { return ::fma(a, b, c); }
  static F mul_add(F a, F b, F c) { return ::fma(a, b, c); }
  static F sqrt(F x) { return square_root(x); }
  template <class Mask>  // compilers differ in which 64-bit integers a comparison gives
  static F select(Mask m, F a, F b) {
    return m ? a : b;
  }
  static uint64_t not_above(F x, F y) { return ::not_above(x, y); }
  static F max(F bound, F x) { return max_second(bound, x); }
  static F min(F bound, F x) { return min_second(bound, x); }
  static F as_float(U x) { return reinterpret<F64>(x); }
  static U as_uint(F x) { return reinterpret<U64>(x); }
};

template <class V>
struct Twin {
  V x, y;
};

// Halves of an operand: a vector or scalar that is no twin serves both.
template <class T>
SEEDBED_INLINE T first(T t) {
  return t;
}
template <class T>
SEEDBED_INLINE T second(T t) {
  return t;
}
template <class V>
SEEDBED_INLINE V first(Twin<V> t) {
  return t.x;
}
template <class V>
SEEDBED_INLINE V second(Twin<V> t) {
  return t.y;
}

template <class V>
SEEDBED_INLINE Twin<V> twin(V x, V y) {
  return {x, y};
}

#define SEEDBED_TWIN_OPERATOR(op)                   \
  template <class V, class B>                       \
  SEEDBED_INLINE auto operator op(Twin<V> a, B b) { \
    return twin(a.x op first(b), a.y op second(b)); \
  }
SEEDBED_TWIN_OPERATOR(+)
SEEDBED_TWIN_OPERATOR(-)
SEEDBED_TWIN_OPERATOR(*)
SEEDBED_TWIN_OPERATOR(/)
SEEDBED_TWIN_OPERATOR(&)
SEEDBED_TWIN_OPERATOR(|)
SEEDBED_TWIN_OPERATOR(^)
SEEDBED_TWIN_OPERATOR(<<)
SEEDBED_TWIN_OPERATOR(>>)
SEEDBED_TWIN_OPERATOR(<)
SEEDBED_TWIN_OPERATOR(>)
SEEDBED_TWIN_OPERATOR(==)
#undef SEEDBED_TWIN_OPERATOR

template <class V>
SEEDBED_INLINE Twin<V> operator-(Twin<V> a) {
  return {-a.x, -a.y};
}
template <class V>
SEEDBED_INLINE Twin<V> operator-(float a, Twin<V> b) {
  return {a - b.x, a - b.y};
}
template <class V, class B>
SEEDBED_INLINE Twin<V>& operator+=(Twin<V>& a, B b) {
  return a = a + b;
}

// The same vector in all halves.
template <class Word>
SEEDBED_INLINE Word in_all(U32 v) {
  if constexpr (sizeof(Word) == kVectorBytes) {
    return v;
  } else {
    return {in_all<decltype(Word::x)>(v), in_all<decltype(Word::y)>(v)};
  }
}

// A counter for each lane: `low`, `low` + 1 and so on.
template <class Word>
SEEDBED_INLINE Word lanes_from(uint32_t low) {
  if constexpr (sizeof(Word) == kVectorBytes) {
    return iota() + low;
  } else {
    constexpr uint32_t kHalf = sizeof(Word) / sizeof low / 2;
    return {lanes_from<decltype(Word::x)>(low), lanes_from<decltype(Word::y)>(low + kHalf)};
  }
}

// The vectors at `from`. (Copied as a whole, a twin would stay in memory.)
template <class Word>
SEEDBED_INLINE Word load_lanes(const void* from) {
  if constexpr (sizeof(Word) == kVectorBytes) {
    return load<Word>(from);
  } else {
    using Half = decltype(Word::x);
    return {load_lanes<Half>(from),
            load_lanes<Half>(static_cast<const char*>(from) + sizeof(Half))};
  }
}
template <class V>
SEEDBED_INLINE void store(void* to, Twin<V> v) {
  store(to, v.x);
  store(static_cast<char*>(to) + sizeof v.x, v.y);
}

template <class V>
struct Rotate<Twin<V>> {
  template <int kBits>
  static SEEDBED_INLINE Twin<V> left(Twin<V> v) {
    return {Rotate<V>::template left<kBits>(v.x), Rotate<V>::template left<kBits>(v.y)};
  }
};

template <class L>
struct TwinOf {
  using F = Twin<typename L::F>;
  using U = Twin<typename L::U>;
  using I = Twin<typename L::I>;
  using V = typename L::V;
  static constexpr int kCount = 2 * L::kCount;
  static SEEDBED_INLINE F like(V x) { return {L::like(x), L::like(x)}; }
  template <class T>
  static SEEDBED_INLINE F f(T x) {
    return {L::f(x), L::f(x)};
  }
  template <class T>
  static SEEDBED_INLINE U u(T x) {
    return {L::u(x), L::u(x)};
  }
  static SEEDBED_INLINE F fma(F a, F b, F c) {
    return {L::fma(a.x, b.x, c.x), L::fma(a.y, b.y, c.y)};
  }
  static SEEDBED_INLINE F mul_add(F a, F b, F c) { return fma(a, b, c); }
  static SEEDBED_INLINE F sqrt(F a) { return {L::sqrt(a.x), L::sqrt(a.y)}; }
  template <class Mask>
  static SEEDBED_INLINE F select(Mask m, F a, F b) {
    return {L::select(m.x, a.x, b.x), L::select(m.y, a.y, b.y)};
  }
  static SEEDBED_INLINE uint64_t not_above(F a, F b) {
    return L::not_above(a.x, b.x) | L::not_above(a.y, b.y) << L::kCount;
  }
  static SEEDBED_INLINE F max(F b, F a) { return {L::max(b.x, a.x), L::max(b.y, a.y)}; }
  static SEEDBED_INLINE F min(F b, F a) { return {L::min(b.x, a.x), L::min(b.y, a.y)}; }
  static SEEDBED_INLINE F to_float(I i) { return {L::to_float(i.x), L::to_float(i.y)}; }
  static SEEDBED_INLINE F as_float(U a) { return {L::as_float(a.x), L::as_float(a.y)}; }
  static SEEDBED_INLINE U as_uint(F a) { return {L::as_uint(a.x), L::as_uint(a.y)}; }
  static SEEDBED_INLINE I as_int(U a) { return {L::as_int(a.x), L::as_int(a.y)}; }
};
using TwinLanes = TwinOf<Lanes>;
using QuadLanes = TwinOf<TwinLanes>;
using QuadDoubles = TwinOf<TwinOf<Doubles>>;

}  // namespace

#endif  // SEEDBED_CPU_LANES_H_
