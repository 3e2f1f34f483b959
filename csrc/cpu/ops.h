// From the words of a vector of elements to their values: one type for each variant of a draw.
// Part of kernels.cc: compiled once per instruction set.
#ifndef SEEDBED_CPU_OPS_H_
#define SEEDBED_CPU_OPS_H_

#include "cpu/kernels.h"
#include "cpu/lanes.h"
#include "samplers.h"

namespace {

using seedbed::Kind;
using seedbed::Sampler;

float param_f32(const Sampler& s, int i) {
  const uint32_t bits = static_cast<uint32_t>(s.params[i]);
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

double param_f64(const Sampler& s, int i) {
  double x;
  __builtin_memcpy(&x, &s.params[i], sizeof x);
  return x;
}

// The span of max(lo, fma(u, span, lo)) for vector maxima that return either zero where XLA's
// returns +0. The two can meet only if lo is +0 and span is negative; then the result is +0.
// (`lo` by its bits: where subnormals are flushed, one of them would compare equal to zero.)
template <class T>
T proper_span(T span, uint64_t lo_bits) {
  return lo_bits == 0 && span < 0 ? 0 : span;
}

// Each sampler below turns the word pairs of kLanes consecutive elements, and with kTwoKeys those
// of a second key, into kLanes elements of kSize bytes at `out`.

template <class T>
struct Bits {
  static constexpr int kSize = sizeof(T);
  static constexpr bool kTwoKeys = false;
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    if constexpr (kSize == 8) {
      store(out, zip_lo(w.b, w.a));  // (a << 32) | b, little endian
      store(out + kVectorBytes, zip_hi(w.b, w.a));
    } else if constexpr (kSize == 4) {
      store(out, w.a ^ w.b);
    } else {
      store(out, __builtin_convertvector(w.a ^ w.b, Vec<T, kLanes>));
    }
  }
};

template <bool kAffine>
struct UniformF32 {
  static constexpr int kSize = 4;
  static constexpr bool kTwoKeys = false;
  F32 span, lo, mul, add;
  explicit UniformF32(const Sampler& s)
      : span(Lanes::f(proper_span(param_f32(s, 0), s.params[1]))), lo(Lanes::f(param_f32(s, 1))),
        mul(Lanes::f(param_f32(s, 2))), add(Lanes::f(param_f32(s, 3))) {}
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    const F32 v = affine_uniform<Lanes>(unit_float<Lanes>(w.a ^ w.b), span, lo);
    store(out, kAffine ? fma(v, mul, add) : v);
  }
};

struct RangeF64 {
  F64 span, lo;
  explicit RangeF64(const Sampler& s)
      : span(broadcast(proper_span(param_f64(s, 0), s.params[1]))), lo(broadcast(param_f64(s, 1))) {
  }
  F64 operator()(U32 interleaved) const {
    return affine_uniform<Doubles>(unit_double<Doubles>(reinterpret<U64>(interleaved)), span, lo);
  }
};

template <bool kAffine>
struct UniformF64 {
  static constexpr int kSize = 8;
  static constexpr bool kTwoKeys = false;
  RangeF64 range;
  F64 mul, add;
  explicit UniformF64(const Sampler& s)
      : range(s), mul(broadcast(param_f64(s, 2))), add(broadcast(param_f64(s, 3))) {}
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    const F64 v0 = range(zip_lo(w.b, w.a)), v1 = range(zip_hi(w.b, w.a));
    store(out, kAffine ? fma(v0, mul, add) : v0);
    store(out + kVectorBytes, kAffine ? fma(v1, mul, add) : v1);
  }
};

template <class T>
T param(const Sampler& s, int i) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return param_f32(s, i);
  } else {
    return param_f64(s, i);
  }
}

// min(clip_hi, max(clip_lo, x)) with the zeros and NaN of IEEE maximum and minimum, -0 < +0.
// (A plan's parameters of 32 bits are whole words: no bits above.)
template <class Base>
struct Clip {
  using T = typename Base::Float;
  static constexpr uint64_t kSign = uint64_t{1} << (8 * sizeof(T) - 1), kAll = kSign | (kSign - 1);
  typename Base::F lo, hi;
  typename Base::U keep, set;  // x & keep makes zeros +0, x | set makes them -0
  Clip(const Sampler& s, int first)
      : lo(Base::f(param<T>(s, first))), hi(Base::f(param<T>(s, first + 1))),
        keep(Base::u(s.params[first] == 0 ? kSign - 1 : kAll)),
        set(Base::u(s.params[first + 1] == kSign ? kSign : 0)) {}
  template <class L>
  SEEDBED_INLINE typename L::F apply(typename L::F x) const {
    x = L::as_float(L::as_uint(L::max(L::like(lo), x)) & keep);
    return L::as_float(L::as_uint(L::min(L::like(hi), x)) | set);
  }
};

// Applied to words that are in memory already; see fill_staged. `Base` is a vector of the results.
template <class Base, bool kClip, bool kAffine>
struct Normal {
  using T = typename Base::Float;
  using V = typename Base::V;
  V span, lo, scale;
  Clip<Base> clip;
  V mul, add;
  explicit Normal(const Sampler& s)
      : span(Base::f(proper_span(param<T>(s, 0), s.params[1]))), lo(Base::f(param<T>(s, 1))),
        scale(Base::f(param<T>(s, 2))), clip(s, 3), mul(Base::f(param<T>(s, 5))),
        add(Base::f(param<T>(s, 6))) {
    const bool nan_bound = __builtin_isunordered(param<T>(s, 3), param<T>(s, 4));
    if (nan_bound) scale = Base::f(__builtin_nanf(""));  // and so every result
  }

 protected:
  template <class L>
  SEEDBED_INLINE typename L::F uniform(typename L::F unit) const {
    return affine_uniform<L>(unit, L::like(span), L::like(lo));
  }
  template <class L>
  SEEDBED_INLINE typename L::F finish(typename L::F x) const {
    x = x * scale;
    if constexpr (kClip) x = clip.template apply<L>(x);
    if constexpr (kAffine) x = L::fma(x, L::like(mul), L::like(add));
    return x;
  }
};

template <bool kClip, bool kAffine>
struct NormalF32 : Normal<Lanes, kClip, kAffine> {
  using Word = uint32_t;
  using Normal<Lanes, kClip, kAffine>::Normal;
  template <class L>
  SEEDBED_INLINE typename L::F transform(typename L::U word) const {
    return this->template finish<L>(erf_inv<L>(this->template uniform<L>(unit_float<L>(word))));
  }
  // As `transform`, but for the lanes whose bits are set in `tails`.
  template <class L>
  SEEDBED_INLINE typename L::F central(typename L::U word, uint64_t& tails) const {
    const auto x = this->template uniform<L>(unit_float<L>(word));
    return this->template finish<L>(erf_inv_central<L>(x, tails));
  }
};

template <bool kClip, bool kAffine>
struct NormalF64 : Normal<Doubles, kClip, kAffine> {
  using Word = uint64_t;
  F64 near;
  explicit NormalF64(const Sampler& s)
      : Normal<Doubles, kClip, kAffine>(s), near(Doubles::f(param_f64(s, 7))) {}
  // The uniform, and log(1 - its square) but for the lanes whose bits are set in `left`.
  template <class L>
  SEEDBED_INLINE typename L::F begin(typename L::U word, typename L::F& log, uint64_t& left) const {
    const auto x = this->template uniform<L>(unit_double<L>(word));
    log = log_one_minus_square<L>(x, L::like(near), left);
    return x;
  }
  template <class L>
  SEEDBED_INLINE typename L::F end(typename L::F x, typename L::F log) const {
    const bool central = L::not_above(log, L::f(-6.25)) == 0;  // as all but 1 in 500 are
    const auto value = central ? erf_inv_central_double<L>(x, log) : erf_inv_double<L>(x, log);
    return this->template finish<L>(value);
  }
};

// Ones of a lane mask, a byte each.
inline void store_flags(char* out, I32 mask) {
  store(out, __builtin_convertvector(mask & 1, Vec<uint8_t, kLanes>));
}

struct BernoulliF32 {
  static constexpr int kSize = 1;
  static constexpr bool kTwoKeys = false;
  F32 span, lo, p;
  explicit BernoulliF32(const Sampler& s)
      : span(Lanes::f(proper_span(param_f32(s, 0), s.params[1]))), lo(Lanes::f(param_f32(s, 1))),
        p(Lanes::f(param_f32(s, 2))) {}
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    store_flags(out, affine_uniform<Lanes>(unit_float<Lanes>(w.a ^ w.b), span, lo) < p);
  }
};

struct BernoulliF64 {
  static constexpr int kSize = 1;
  static constexpr bool kTwoKeys = false;
  RangeF64 range;
  F64 p;
  explicit BernoulliF64(const Sampler& s) : range(s), p(broadcast(param_f64(s, 2))) {}
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    const I64 m0 = range(zip_lo(w.b, w.a)) < p, m1 = range(zip_hi(w.b, w.a)) < p;
    // The low halves of the 64-bit masks, in order.
    store_flags(out, reinterpret<I32>(even(reinterpret<U32>(m0), reinterpret<U32>(m1))));
  }
};

// x % d, and x where d is 0, as XLA defines it. With m = floor((2^B - 1) / d) the high word of x *
// m is the quotient or one less, so one subtraction corrects the remainder.
struct Modulus32 {
  U32 divisor, reciprocal;
  explicit Modulus32(uint32_t d)
      : divisor(Lanes::u(d)), reciprocal(Lanes::u(d == 0 ? 0 : UINT32_MAX / d)) {}
  U32 operator()(U32 x) const {
    const U32 r = x - multiply_high(x, reciprocal) * divisor;
    const U32 corrected = r - divisor;
    return corrected < r ? corrected : r;  // wraps upwards where r < divisor
  }
};

struct Modulus64 {
  uint64_t divisor, reciprocal;
  explicit Modulus64(uint64_t d) : divisor(d), reciprocal(d == 0 ? 0 : UINT64_MAX / d) {}
  uint64_t operator()(uint64_t x) const {
    const auto q = static_cast<uint64_t>((static_cast<unsigned __int128>(x) * reciprocal) >> 64);
    const uint64_t r = x - q * divisor, corrected = r - divisor;
    return corrected < r ? corrected : r;
  }
};

template <class T>
struct Randint32 {
  static constexpr int kSize = sizeof(T);
  static constexpr bool kTwoKeys = true;
  Modulus32 span;
  U32 mult, minval;
  explicit Randint32(const Sampler& s)
      : span(static_cast<uint32_t>(s.params[0])),
        mult(Lanes::u(static_cast<uint32_t>(s.params[1]))),
        minval(Lanes::u(static_cast<uint32_t>(s.params[2]))) {}
  SEEDBED_INLINE void operator()(Pair<U32> hi, Pair<U32> lo, char* out) const {
    const U32 r = span(span(hi.a ^ hi.b) * mult + span(lo.a ^ lo.b)) + minval;
    store(out, __builtin_convertvector(r, Vec<T, kLanes>));
  }
};

template <class T>
struct Randint64 {
  static constexpr int kSize = sizeof(T);
  static constexpr bool kTwoKeys = true;
  Modulus64 span;
  uint64_t mult, minval;
  explicit Randint64(const Sampler& s)
      : span(s.params[0]), mult(s.params[1]), minval(s.params[2]) {}
  SEEDBED_INLINE void operator()(Pair<U32> hi, Pair<U32> lo, char* out) const {
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t h = (static_cast<uint64_t>(hi.a[i]) << 32) | hi.b[i];
      const uint64_t l = (static_cast<uint64_t>(lo.a[i]) << 32) | lo.b[i];
      const T r = static_cast<T>(minval + span(span(h) * mult + span(l)));
      __builtin_memcpy(out + i * kSize, &r, kSize);
    }
  }
};

template <class T>
struct Table {
  static constexpr int kSize = sizeof(T);
  static constexpr bool kTwoKeys = false;
  const char* entries;
  uint32_t mask;
  int shift;
  explicit Table(const Sampler& s)
      : entries(static_cast<const char*>(s.table)), mask((1u << s.word_bits) - 1),
        shift(static_cast<int>(s.params[0])) {}
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    const U32 index = ((w.a ^ w.b) & mask) >> shift;
    for (int i = 0; i < kLanes; ++i) {
      __builtin_memcpy(out + i * kSize, entries + static_cast<uint64_t>(index[i]) * kSize, kSize);
    }
  }
};

}  // namespace

#endif  // SEEDBED_CPU_OPS_H_
