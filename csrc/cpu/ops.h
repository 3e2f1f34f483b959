// From the words of a vector of elements to their values: one type for each variant of a draw, and
// their list at the end. Part of kernels.cc: compiled once per instruction set.
#ifndef SEEDBED_CPU_OPS_H_
#define SEEDBED_CPU_OPS_H_

#include "cpu/kernels.h"
#include "cpu/lanes.h"
#include "samplers.h"

namespace {

namespace bernoulli = seedbed::bernoulli;
namespace normal = seedbed::normal;
namespace randint = seedbed::randint;
namespace uniform = seedbed::uniform;
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

template <class T>
T param(const Sampler& s, int i) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return param_f32(s, i);
  } else {
    return param_f64(s, i);
  }
}

// Whether x * scale + shift is x.
template <class T>
bool is_neutral(const Sampler& s, int scale, int shift) {
  const T mul = param<T>(s, scale), add = param<T>(s, shift);
  return mul == 1 && add == 0 && __builtin_signbit(add);
}

// The base of all: which draws an operation makes (0: words of any width), and as what it stores an
// element. It turns the word pairs of kLanes consecutive elements, and with kTwoKeys those of a
// second key, into kLanes elements of kSize bytes at `out`; if kStaged, it is applied to words that
// are in memory already.
template <Kind kKind, int kBits, class T>
struct Operation {
  static constexpr int kWordBits = kBits;
  static constexpr int kSize = sizeof(T);
  static constexpr bool kTwoKeys = seedbed::record_of(kKind).source == seedbed::Source::kTwoWords;
  static constexpr bool kStaged = false;
  static constexpr bool has_form(Kind kind, int word_bits, int itemsize) {
    return kind == kKind && (kBits == 0 || word_bits == kBits) && itemsize == kSize;
  }
  static bool makes(const Sampler& s) { return has_form(s.kind, s.word_bits, s.itemsize); }
};

template <class T>
struct Bits : Operation<Kind::kBits, 8 * sizeof(T), T> {
  static constexpr int kSize = sizeof(T);
  Bits() = default;
  explicit Bits(const Sampler&) {}
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

// `ranged` of kinds.h. All kinds that are made of it have its span and bound at the same places.
constexpr int kSpan = uniform::kSpan, kLow = uniform::kLow;
static_assert(kSpan == normal::kSpan && kLow == normal::kLow, "normals are made of a range");
static_assert(kSpan == bernoulli::kSpan && kLow == bernoulli::kLow, "booleans are, too");

struct RangeF32 {
  F32 span, lo;
  explicit RangeF32(const Sampler& s)
      : span(broadcast(proper_span(param_f32(s, kSpan), s.params[kLow]))),
        lo(broadcast(param_f32(s, kLow))) {}
  SEEDBED_INLINE F32 operator()(Pair<U32> w) const {
    return affine_uniform<Lanes>(unit_float<Lanes>(w.a ^ w.b), span, lo);
  }
};

struct RangeF64 {
  F64 span, lo;
  explicit RangeF64(const Sampler& s)
      : span(broadcast(proper_span(param_f64(s, kSpan), s.params[kLow]))),
        lo(broadcast(param_f64(s, kLow))) {}
  F64 operator()(U32 interleaved) const {
    return affine_uniform<Doubles>(unit_double<Doubles>(reinterpret<U64>(interleaved)), span, lo);
  }
};

template <bool kAffine>
struct UniformF32 : Operation<Kind::kUniform, 32, float> {
  RangeF32 range;
  F32 mul, add;
  explicit UniformF32(const Sampler& s)
      : range(s), mul(broadcast(param_f32(s, uniform::kScale))),
        add(broadcast(param_f32(s, uniform::kShift))) {}
  static bool makes(const Sampler& s) {
    return Operation::makes(s) && kAffine != is_neutral<float>(s, uniform::kScale, uniform::kShift);
  }
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    const F32 v = range(w);
    store(out, kAffine ? fma(v, mul, add) : v);
  }
};

template <bool kAffine>
struct UniformF64 : Operation<Kind::kUniform, 64, double> {
  RangeF64 range;
  F64 mul, add;
  explicit UniformF64(const Sampler& s)
      : range(s), mul(broadcast(param_f64(s, uniform::kScale))),
        add(broadcast(param_f64(s, uniform::kShift))) {}
  static bool makes(const Sampler& s) {
    return Operation::makes(s) &&
           kAffine != is_neutral<double>(s, uniform::kScale, uniform::kShift);
  }
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    const F64 v0 = range(zip_lo(w.b, w.a)), v1 = range(zip_hi(w.b, w.a));
    store(out, kAffine ? fma(v0, mul, add) : v0);
    store(out + kVectorBytes, kAffine ? fma(v1, mul, add) : v1);
  }
};

// min(clip_hi, max(clip_lo, x)) with the zeros and NaN of IEEE maximum and minimum, -0 < +0.
// (A plan's parameters of 32 bits are whole words: no bits above.)
template <class Base>
struct Clip {
  using T = typename Base::Float;
  static constexpr uint64_t kSign = uint64_t{1} << (8 * sizeof(T) - 1), kAll = kSign | (kSign - 1);
  typename Base::F lo, hi;
  typename Base::U keep, set;  // x & keep makes zeros +0, x | set makes them -0
  Clip(const Sampler& s, int low, int high)
      : lo(Base::f(param<T>(s, low))), hi(Base::f(param<T>(s, high))),
        keep(Base::u(s.params[low] == 0 ? kSign - 1 : kAll)),
        set(Base::u(s.params[high] == kSign ? kSign : 0)) {}
  template <class L>
  SEEDBED_INLINE typename L::F apply(typename L::F x) const {
    x = L::as_float(L::as_uint(L::max(L::like(lo), x)) & keep);
    return L::as_float(L::as_uint(L::min(L::like(hi), x)) | set);
  }
};

// `Base` is a vector of the results.
template <class Base, bool kClip, bool kAffine>
struct Normal : Operation<Kind::kNormal, 8 * sizeof(typename Base::Float), typename Base::Float> {
  using T = typename Base::Float;
  using V = typename Base::V;
  static constexpr bool kStaged = true;
  V span, lo, factor;
  Clip<Base> clip;
  V mul, add;
  explicit Normal(const Sampler& s)
      : span(Base::f(proper_span(param<T>(s, kSpan), s.params[kLow]))),
        lo(Base::f(param<T>(s, kLow))), factor(Base::f(param<T>(s, normal::kFactor))),
        clip(s, normal::kClipLow, normal::kClipHigh), mul(Base::f(param<T>(s, normal::kScale))),
        add(Base::f(param<T>(s, normal::kShift))) {
    const bool nan_bound =
        __builtin_isunordered(param<T>(s, normal::kClipLow), param<T>(s, normal::kClipHigh));
    if (nan_bound) factor = Base::f(__builtin_nanf(""));  // and so every result
  }
  static bool makes(const Sampler& s) {
    const bool everything = param<T>(s, normal::kClipLow) == -__builtin_inff() &&
                            param<T>(s, normal::kClipHigh) == __builtin_inff();
    return Normal::Operation::makes(s) && kClip != everything &&
           kAffine != is_neutral<T>(s, normal::kScale, normal::kShift);
  }

 protected:
  template <class L>
  SEEDBED_INLINE typename L::F uniform(typename L::F unit) const {
    return affine_uniform<L>(unit, L::like(span), L::like(lo));
  }
  template <class L>
  SEEDBED_INLINE typename L::F finish(typename L::F x) const {
    x = x * factor;
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
      : Normal<Doubles, kClip, kAffine>(s), near(Doubles::f(param_f64(s, normal::kNear))) {}
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

// The samplers whose number depends on the word alone, with the same two parameters. Neutral ones,
// 1 and -0, change nothing, and are not worth a loop of their own.
constexpr int kScale = seedbed::exponential::kScale, kShift = seedbed::exponential::kShift;
static_assert(kScale == seedbed::gumbel::kScale && kShift == seedbed::gumbel::kShift, "the same");
static_assert(kScale == seedbed::laplace::kScale && kShift == seedbed::laplace::kShift, "the same");

template <Kind kKind>
struct OfWord : Operation<kKind, 32, float> {
  using Word = uint32_t;
  static constexpr bool kStaged = true;
  F32 mul, add;
  explicit OfWord(const Sampler& s)
      : mul(broadcast(param_f32(s, kScale))), add(broadcast(param_f32(s, kShift))) {}
  template <class L>
  SEEDBED_INLINE typename L::F transform(typename L::U word) const {
    return L::fma(of<L>(word), L::like(mul), L::like(add));
  }

 private:
  template <class L>
  static SEEDBED_INLINE typename L::F of(typename L::U word) {
    if constexpr (kKind == Kind::kExponential) return exponential<L>(word);
    if constexpr (kKind == Kind::kGumbel) return gumbel<L>(word);
    if constexpr (kKind == Kind::kLaplace) return laplace<L>(word);
  }
};

// Ones of a lane mask, a byte each.
inline void store_flags(char* out, I32 mask) {
  store(out, __builtin_convertvector(mask & 1, Vec<uint8_t, kLanes>));
}

struct BernoulliF32 : Operation<Kind::kBernoulli, 32, uint8_t> {
  RangeF32 range;
  F32 p;
  explicit BernoulliF32(const Sampler& s) : range(s), p(broadcast(param_f32(s, bernoulli::kP))) {}
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const { store_flags(out, range(w) < p); }
};

struct BernoulliF64 : Operation<Kind::kBernoulli, 64, uint8_t> {
  RangeF64 range;
  F64 p;
  explicit BernoulliF64(const Sampler& s) : range(s), p(broadcast(param_f64(s, bernoulli::kP))) {}
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
struct Randint32 : Operation<Kind::kRandint, 32, T> {
  Modulus32 span;
  U32 multiplier, first;
  explicit Randint32(const Sampler& s)
      : span(static_cast<uint32_t>(s.params[randint::kSpan])),
        multiplier(broadcast(static_cast<uint32_t>(s.params[randint::kMultiplier]))),
        first(broadcast(static_cast<uint32_t>(s.params[randint::kFirst]))) {}
  SEEDBED_INLINE void operator()(Pair<U32> hi, Pair<U32> lo, char* out) const {
    const U32 r = span(span(hi.a ^ hi.b) * multiplier + span(lo.a ^ lo.b)) + first;
    store(out, __builtin_convertvector(r, Vec<T, kLanes>));
  }
};

template <class T>
struct Randint64 : Operation<Kind::kRandint, 64, T> {
  static constexpr int kSize = sizeof(T);
  Modulus64 span;
  uint64_t multiplier, first;
  explicit Randint64(const Sampler& s)
      : span(s.params[randint::kSpan]), multiplier(s.params[randint::kMultiplier]),
        first(s.params[randint::kFirst]) {}
  SEEDBED_INLINE void operator()(Pair<U32> hi, Pair<U32> lo, char* out) const {
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t h = (static_cast<uint64_t>(hi.a[i]) << 32) | hi.b[i];
      const uint64_t l = (static_cast<uint64_t>(lo.a[i]) << 32) | lo.b[i];
      const T r = static_cast<T>(first + span(span(h) * multiplier + span(l)));
      __builtin_memcpy(out + i * kSize, &r, kSize);
    }
  }
};

template <class T>
struct Table : Operation<Kind::kTable, 0, T> {
  static constexpr int kSize = sizeof(T);
  const char* entries;
  uint32_t mask;
  int drop;
  explicit Table(const Sampler& s)
      : entries(static_cast<const char*>(s.table)), mask((1u << s.word_bits) - 1),
        drop(static_cast<int>(s.params[seedbed::table::kDrop])) {}
  SEEDBED_INLINE void operator()(Pair<U32> w, char* out) const {
    const U32 index = ((w.a ^ w.b) & mask) >> drop;
    for (int i = 0; i < kLanes; ++i) {
      __builtin_memcpy(out + i * kSize, entries + static_cast<uint64_t>(index[i]) * kSize, kSize);
    }
  }
};

// All of them, each for draws of its own. Keys and constants have none: the worker writes these.
template <class... Ops>
struct List {};
// clang-format off
using Operations = List<
    Bits<uint8_t>, Bits<uint16_t>, Bits<uint32_t>, Bits<uint64_t>,
    UniformF32<false>, UniformF32<true>, UniformF64<false>, UniformF64<true>,
    NormalF32<false, false>, NormalF32<false, true>, NormalF32<true, false>, NormalF32<true, true>,
    NormalF64<false, false>, NormalF64<false, true>, NormalF64<true, false>, NormalF64<true, true>,
    OfWord<Kind::kExponential>, OfWord<Kind::kGumbel>, OfWord<Kind::kLaplace>,
    BernoulliF32, BernoulliF64,
    Randint32<uint8_t>, Randint32<uint16_t>, Randint32<uint32_t>,
    Randint64<uint8_t>, Randint64<uint16_t>, Randint64<uint32_t>, Randint64<uint64_t>,
    Table<uint8_t>, Table<uint16_t>, Table<uint32_t>>;
// clang-format on

template <class... Ops>
constexpr bool any_has_form(List<Ops...>, Kind kind, int word_bits, int itemsize) {
  return (Ops::has_form(kind, word_bits, itemsize) || ...);
}
// A form that nothing makes would leave its output as it was.
constexpr bool is_made(const seedbed::KindRecord& record, const seedbed::Width& width,
                       int itemsize) {
  const bool drawn =
      record.source == seedbed::Source::kWord || record.source == seedbed::Source::kTwoWords;
  return !drawn || any_has_form(Operations(), record.kind, width.word_bits, itemsize);
}
static_assert(seedbed::all_forms(is_made), "a form in kinds.h has no operation here");

// Calls `visit` with the operation that makes the draws of a sampler.
template <class Visit, class... Ops>
void with_operation(List<Ops...>, const Sampler& s, const Visit& visit) {
  (void)((Ops::makes(s) && (visit(Ops(s)), true)) || ...);
}

}  // namespace

#endif  // SEEDBED_CPU_OPS_H_
