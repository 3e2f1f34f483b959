// From the words of one element to its value, in device code: one type for each variant of a draw,
// with a loop of the kernel to itself, and their list at the end. Each has
//   what its base, `Operation`, has
//   set            on the host: what the constructor reads of a draw's `params`
//   operator()     a value, from the words of an element, or without a cipher from its row's key
#ifndef SEEDBED_CUDA_OPS_H_
#define SEEDBED_CUDA_OPS_H_

#include "cuda/lanes.h"
#include "cuda/launch.h"

namespace {

namespace bernoulli = seedbed::bernoulli;
namespace normal = seedbed::normal;
namespace randint = seedbed::randint;
namespace uniform = seedbed::uniform;
using seedbed::Kind;
using seedbed::Sampler;
using seedbed::Source;
using seedbed::cuda::DeviceDraw;
using Words = Pair<uint32_t>;

SEEDBED_HD uint64_t wide(Words w) { return (static_cast<uint64_t>(w.a) << 32) | w.b; }

// The i-th of the words of 32 bits that params hold, two in each.
SEEDBED_HD uint32_t param_u32(const DeviceDraw& draw, int i) {
  return static_cast<uint32_t>(draw.params[i / 2] >> (i % 2 * 32));
}
SEEDBED_HD float param_f32(const DeviceDraw& draw, int i) {
  return bits_as<float>(param_u32(draw, i));
}
SEEDBED_HD double param_f64(const DeviceDraw& draw, int i) {
  return bits_as<double>(draw.params[i]);
}
inline void set_word(DeviceDraw& draw, int i, uint32_t word) {
  const int shift = i % 2 * 32;
  uint64_t& pair = draw.params[i / 2];
  pair = (pair & ~(uint64_t{UINT32_MAX} << shift)) | (uint64_t{word} << shift);
}
inline float f32(const Sampler& s, int i) {
  return bits_as<float>(static_cast<uint32_t>(s.params[i]));
}

constexpr int ciphers_of(Source source) {
  return source == Source::kTwoWords ? 2 : source == Source::kWord ? 1 : 0;
}

// The base of all:
//   has_form       whether draws of such a form may be its (kBits 0: of any width)
//   makes          on the host: whether a sampler's draws are
//   T              what an element is stored as
//   kWords         ciphers an element takes: none, one, or two (of two keys)
//   kTable         whether it reads a lookup table
template <Kind kKind, int kBits, class Item>
struct Operation {
  using T = Item;
  static constexpr int kWords = ciphers_of(seedbed::record_of(kKind).source);
  static constexpr bool kTable = kKind == Kind::kTable;
  static constexpr bool has_form(Kind kind, int word_bits, int itemsize) {
    constexpr int kElements = kKind == Kind::kKey ? 2 : 1;
    return kind == kKind && (kBits == 0 || word_bits == kBits) && itemsize * kElements == sizeof(T);
  }
  static bool makes(const Sampler& s) { return has_form(s.kind, s.word_bits, s.itemsize); }
  static void set(DeviceDraw&, const Sampler&) {}
};

// The key of the row itself, in memory its first word first.
struct RowKeys : Operation<Kind::kKey, 32, uint64_t> {
  explicit SEEDBED_HD RowKeys(const DeviceDraw&) {}
  SEEDBED_HD T operator()(Words key) const { return wide({key.b, key.a}); }
};

template <class T>
struct Constant : Operation<Kind::kConstant, 8 * sizeof(T), T> {
  static constexpr int kValue = seedbed::constant::kValue;
  T value;
  explicit SEEDBED_HD Constant(const DeviceDraw& d) : value(static_cast<T>(d.params[kValue])) {}
  static void set(DeviceDraw& d, const Sampler& s) { d.params[kValue] = s.params[kValue]; }
  SEEDBED_HD T operator()(Words) const { return value; }
};

template <class T>
struct Bits : Operation<Kind::kBits, 8 * sizeof(T), T> {
  explicit SEEDBED_HD Bits(const DeviceDraw&) {}
  SEEDBED_HD T operator()(Words w) const {
    return sizeof(T) == 8 ? static_cast<T>(wide(w)) : static_cast<T>(w.a ^ w.b);
  }
};

// `ranged` of kinds.h. All kinds that are made of it have its span and bound at the same places.
constexpr int kSpan = uniform::kSpan, kLow = uniform::kLow;
static_assert(kSpan == normal::kSpan && kLow == normal::kLow, "normals are made of a range");
static_assert(kSpan == bernoulli::kSpan && kLow == bernoulli::kLow, "booleans are, too");

struct RangeF32 {
  float span, lo;
  explicit SEEDBED_HD RangeF32(const DeviceDraw& d)
      : span(param_f32(d, kSpan)), lo(param_f32(d, kLow)) {}
  SEEDBED_HD float operator()(Words w) const { return of(w.a ^ w.b); }
  SEEDBED_HD float of(uint32_t word) const {
    return affine_uniform<Scalar>(unit_float<Scalar>(word), span, lo);
  }
  // The first `count` parameters, with the span that suits.
  static void set(DeviceDraw& d, const Sampler& s, int count) {
    for (int i = 0; i < count; ++i) set_word(d, i, static_cast<uint32_t>(s.params[i]));
    set_word(d, kSpan, bits_as<uint32_t>(proper_span(f32(s, kSpan), s.params[kLow])));
  }
};

// Range [0, 1), spacing 2^-52, from the high 52 bits; then as `affine_uniform`.
struct RangeF64 {
  double span, lo;
  explicit SEEDBED_HD RangeF64(const DeviceDraw& d)
      : span(param_f64(d, kSpan)), lo(param_f64(d, kLow)) {}
  SEEDBED_HD double operator()(Words w) const {
    const double unit = bits_as<double>((wide(w) >> 12) | 0x3FF0000000000000u) - 1.0;
    const double x = unit * span + lo;
    return x < lo ? lo : x;
  }
  static void set(DeviceDraw& d, const Sampler& s, int count) {
    for (int i = 0; i < count; ++i) d.params[i] = s.params[i];
    d.params[kSpan] =
        bits_as<uint64_t>(proper_span(bits_as<double>(s.params[kSpan]), s.params[kLow]));
  }
};

// Uniforms on [0, 1): as they come from the word.
struct UnitF32 : Operation<Kind::kUniform, 32, float> {
  explicit SEEDBED_HD UnitF32(const DeviceDraw&) {}
  static bool makes(const Sampler& s) {
    return Operation::makes(s) && s.params[kSpan] == bits_as<uint32_t>(1.0f) &&
           s.params[kLow] == 0 && s.params[uniform::kScale] == bits_as<uint32_t>(1.0f) &&
           s.params[uniform::kShift] == bits_as<uint32_t>(-0.0f);
  }
  SEEDBED_HD T operator()(Words w) const { return unit_float<Scalar>(w.a ^ w.b); }
};

// Neutral multipliers and summands, 1 and -0, change nothing.
struct UniformF32 : Operation<Kind::kUniform, 32, float> {
  RangeF32 range;
  float mul, add;
  explicit SEEDBED_HD UniformF32(const DeviceDraw& d)
      : range(d), mul(param_f32(d, uniform::kScale)), add(param_f32(d, uniform::kShift)) {}
  static bool makes(const Sampler& s) { return Operation::makes(s) && !UnitF32::makes(s); }
  static void set(DeviceDraw& d, const Sampler& s) { RangeF32::set(d, s, uniform::kCount); }
  SEEDBED_HD T operator()(Words w) const { return Scalar::mul_add(range(w), mul, add); }
};

struct UniformF64 : Operation<Kind::kUniform, 64, double> {
  RangeF64 range;
  double mul, add;
  explicit SEEDBED_HD UniformF64(const DeviceDraw& d)
      : range(d), mul(param_f64(d, uniform::kScale)), add(param_f64(d, uniform::kShift)) {}
  static void set(DeviceDraw& d, const Sampler& s) { RangeF64::set(d, s, uniform::kCount); }
  SEEDBED_HD T operator()(Words w) const { return range(w) * mul + add; }
};

// min(clip_hi, max(clip_lo, x)) with the zeros and NaN of IEEE maximum and minimum, -0 < +0.
struct Clip {
  float lo, hi;
  uint32_t keep, set;  // x & keep makes zeros +0, x | set makes them -0
  SEEDBED_HD Clip(float lo, float hi)
      : lo(lo), hi(hi), keep(bits_as<uint32_t>(lo) == 0 ? 0x7FFFFFFFu : 0xFFFFFFFFu),
        set(bits_as<uint32_t>(hi) == 0x80000000u ? 0x80000000u : 0) {}
  SEEDBED_HD float operator()(float x) const {
    x = Scalar::as_float(Scalar::as_uint(Scalar::max(lo, x)) & keep);
    return Scalar::as_float(Scalar::as_uint(Scalar::min(hi, x)) | set);
  }
};

template <bool kClip>
struct NormalF32 : Operation<Kind::kNormal, 32, float> {
  RangeF32 range;
  float factor, mul, add;
  Clip clip;
  explicit SEEDBED_HD NormalF32(const DeviceDraw& d)
      : range(d), factor(param_f32(d, normal::kFactor)), mul(param_f32(d, normal::kScale)),
        add(param_f32(d, normal::kShift)),
        clip(param_f32(d, normal::kClipLow), param_f32(d, normal::kClipHigh)) {}
  static bool makes(const Sampler& s) {
    const bool everything = f32(s, normal::kClipLow) == -__builtin_inff() &&
                            f32(s, normal::kClipHigh) == __builtin_inff();
    return Operation::makes(s) && kClip != everything;
  }
  static void set(DeviceDraw& d, const Sampler& s) {
    RangeF32::set(d, s, normal::kNear);
    if (__builtin_isunordered(f32(s, normal::kClipLow), f32(s, normal::kClipHigh))) {
      set_word(d, normal::kFactor, bits_as<uint32_t>(__builtin_nanf("")));  // so is every result
    }
  }
  SEEDBED_HD T operator()(Words w) const { return transform(w.a ^ w.b); }
  SEEDBED_HD T transform(uint32_t word) const {
    const float x = erf_inv_gpu<Scalar>(range.of(word)) * factor;
    return Scalar::mul_add(kClip ? clip(x) : x, mul, add);
  }
};

// The samplers whose number depends on the word alone, with the same two parameters.
constexpr int kScale = seedbed::exponential::kScale, kShift = seedbed::exponential::kShift;
static_assert(kScale == seedbed::gumbel::kScale && kShift == seedbed::gumbel::kShift, "the same");
static_assert(kScale == seedbed::laplace::kScale && kShift == seedbed::laplace::kShift, "the same");

template <Kind kKind>
struct OfWord : Operation<kKind, 32, float> {
  float mul, add;
  explicit SEEDBED_HD OfWord(const DeviceDraw& d)
      : mul(param_f32(d, kScale)), add(param_f32(d, kShift)) {}
  static void set(DeviceDraw& d, const Sampler& s) {
    for (int i = kScale; i <= kShift; ++i) set_word(d, i, static_cast<uint32_t>(s.params[i]));
  }
  SEEDBED_HD float operator()(Words w) const { return transform(w.a ^ w.b); }
  SEEDBED_HD float transform(uint32_t word) const { return Scalar::mul_add(of(word), mul, add); }

 private:
  static SEEDBED_HD float of(uint32_t word) {
    if constexpr (kKind == Kind::kExponential) return exponential_gpu<Scalar>(word);
    if constexpr (kKind == Kind::kGumbel) return gumbel_gpu<Scalar>(word);
    if constexpr (kKind == Kind::kLaplace) return laplace_gpu<Scalar>(word);
  }
};

struct BernoulliF32 : Operation<Kind::kBernoulli, 32, uint8_t> {
  RangeF32 range;
  float p;
  explicit SEEDBED_HD BernoulliF32(const DeviceDraw& d)
      : range(d), p(param_f32(d, bernoulli::kP)) {}
  static void set(DeviceDraw& d, const Sampler& s) { RangeF32::set(d, s, bernoulli::kCount); }
  SEEDBED_HD T operator()(Words w) const { return range(w) < p; }
};

struct BernoulliF64 : Operation<Kind::kBernoulli, 64, uint8_t> {
  RangeF64 range;
  double p;
  explicit SEEDBED_HD BernoulliF64(const DeviceDraw& d)
      : range(d), p(param_f64(d, bernoulli::kP)) {}
  static void set(DeviceDraw& d, const Sampler& s) { RangeF64::set(d, s, bernoulli::kCount); }
  SEEDBED_HD T operator()(Words w) const { return range(w) < p; }
};

// x % d, and x where d is 0, as XLA defines it. With m = floor((2^B - 1) / d) the high word of x *
// m is the quotient or one less, so one subtraction corrects the remainder.
template <class W>
SEEDBED_HD W modulo(W x, W divisor, W reciprocal) {
  const W r = x - multiply_high(x, reciprocal) * divisor, corrected = r - divisor;
  return corrected < r ? corrected : r;  // wraps upwards where r < divisor
}

template <class W, class T>
struct Randint : Operation<Kind::kRandint, 8 * sizeof(W), T> {
  static constexpr int kReciprocal = randint::kCount;  // behind the parameters of the plan
  W span, multiplier, first, reciprocal;
  explicit SEEDBED_HD Randint(const DeviceDraw& d)
      : span(static_cast<W>(d.params[randint::kSpan])),
        multiplier(static_cast<W>(d.params[randint::kMultiplier])),
        first(static_cast<W>(d.params[randint::kFirst])),
        reciprocal(static_cast<W>(d.params[kReciprocal])) {}
  static void set(DeviceDraw& d, const Sampler& s) {
    for (int i = 0; i < randint::kCount; ++i) d.params[i] = s.params[i];
    const uint64_t span = s.params[randint::kSpan];
    d.params[kReciprocal] = span == 0 ? 0 : static_cast<W>(-1) / span;
  }
  SEEDBED_HD T operator()(Words high, Words low) const {
    const W sum = remainder(high) * multiplier + remainder(low);
    return static_cast<T>(modulo(sum, span, reciprocal) + first);
  }

 private:
  SEEDBED_HD W remainder(Words w) const {
    return modulo(sizeof(W) == 8 ? static_cast<W>(wide(w)) : static_cast<W>(w.a ^ w.b), span,
                  reciprocal);
  }
};

// Its constructor gets the tables of the tile besides.
template <class T>
struct Table : Operation<Kind::kTable, 0, T> {
  static constexpr int kPlace = 0, kMask = 1, kDrop = 2;  // kPlace is that of `set_table`
  const T* entries;
  uint32_t mask, drop;
  SEEDBED_HD Table(const DeviceDraw& d, const unsigned char* tables)
      : entries(reinterpret_cast<const T*>(tables + param_u32(d, kPlace))),
        mask(param_u32(d, kMask)), drop(param_u32(d, kDrop)) {}
  static void set(DeviceDraw& d, const Sampler& s) {
    set_word(d, kMask, (1u << s.word_bits) - 1);
    set_word(d, kDrop, static_cast<uint32_t>(s.params[seedbed::table::kDrop]));
  }
  SEEDBED_HD T operator()(Words w) const { return entries[((w.a ^ w.b) & mask) >> drop]; }
};

// All of them, each for draws of its own.
template <class... Ops>
struct List {
  static constexpr uint32_t kCount = sizeof...(Ops);
};
// clang-format off
using Operations = List<
    RowKeys, Constant<uint8_t>, Constant<uint16_t>, Constant<uint32_t>, Constant<uint64_t>,
    Bits<uint8_t>, Bits<uint16_t>, Bits<uint32_t>, Bits<uint64_t>,
    UnitF32, UniformF32, UniformF64, NormalF32<false>, NormalF32<true>,
    OfWord<Kind::kExponential>, OfWord<Kind::kGumbel>, OfWord<Kind::kLaplace>,
    BernoulliF32, BernoulliF64,
    Randint<uint32_t, uint8_t>, Randint<uint32_t, uint16_t>, Randint<uint32_t, uint32_t>,
    Randint<uint64_t, uint8_t>, Randint<uint64_t, uint16_t>, Randint<uint64_t, uint32_t>,
    Randint<uint64_t, uint64_t>,
    Table<uint8_t>, Table<uint16_t>, Table<uint32_t>>;
// clang-format on

template <class... Ops>
constexpr bool any_has_form(List<Ops...>, Kind kind, int word_bits, int itemsize) {
  return (Ops::has_form(kind, word_bits, itemsize) || ...);
}
constexpr bool is_made(const seedbed::KindRecord& record, const seedbed::Width& width,
                       int itemsize) {
  return width.cpu_only != any_has_form(Operations(), record.kind, width.word_bits, itemsize);
}
static_assert(seedbed::all_forms(is_made), "a form in kinds.h has no operation, or one too many");

}  // namespace

#endif  // SEEDBED_CUDA_OPS_H_
