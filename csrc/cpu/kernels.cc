// The loops, compiled once per instruction set (SEEDBED_ISA names the namespace of the table).
//
// Everything but the table is in an anonymous namespace, and no library header is included: a
// shared inline function compiled here for AVX-512 could be picked by the linker for a machine
// without it.
#include "kernels.h"

#include "samplers.h"
#include "simd.h"

namespace {

using seedbed::Fill;
using seedbed::Kind;
using seedbed::Sampler;

// The lane type of samplers.h.
struct Lanes {
  using F = F32;
  using U = U32;
  static F f(float x) { return F{} + x; }
  static U u(uint32_t x) { return U{} + x; }
  static F fma(F a, F b, F c) { return ::fma(a, b, c); }
  static F sqrt(F x) { return square_root(x); }
  static F select(I32 m, F a, F b) { return m ? a : b; }
  static bool all(I32 m) { return ::all(m); }
  static F max(F bound, F x) { return max_second(bound, x); }
  static F to_float(I32 i) { return __builtin_convertvector(i, F32); }
  static F as_float(U x) { return reinterpret<F32>(x); }
  static U as_uint(F x) { return reinterpret<U32>(x); }
  static I32 as_int(U x) { return reinterpret<I32>(x); }
};

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

// Each sampler below turns the word pairs of kLanes consecutive elements into kLanes elements of
// kSize bytes at `out`. `words(0)` evaluates the cipher; `words(1)` the second key's, where there
// is one.

struct KeyWords {
  static constexpr int kSize = 8;
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
    store(out, zip_lo(w.a, w.b));
    store(out + kVectorBytes, zip_hi(w.a, w.b));
  }
};

template <class T>
struct Bits {
  static constexpr int kSize = sizeof(T);
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
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
  F32 span, lo, mul, add;
  explicit UniformF32(const Sampler& s)
      : span(Lanes::f(param_f32(s, 0))), lo(Lanes::f(param_f32(s, 1))),
        mul(Lanes::f(param_f32(s, 2))), add(Lanes::f(param_f32(s, 3))) {}
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
    const F32 v = affine_uniform<Lanes>(unit_float<Lanes>(w.a ^ w.b), span, lo);
    store(out, kAffine ? fma(v, mul, add) : v);
  }
};

// Range [0, 1), spacing 2^-52, from the high 52 bits of (a << 32) | b.
inline F64 unit_double(U32 interleaved) {
  const U64 bits = (reinterpret<U64>(interleaved) >> 12) | 0x3FF0000000000000u;
  return reinterpret<F64>(bits) - 1.0;
}

struct RangeF64 {
  F64 span, lo;
  explicit RangeF64(const Sampler& s)
      : span(F64{} + param_f64(s, 0)), lo(F64{} + param_f64(s, 1)) {}
  F64 operator()(U32 interleaved) const {
    return max_second(lo, fma(unit_double(interleaved), span, lo));
  }
};

template <bool kAffine>
struct UniformF64 {
  static constexpr int kSize = 8;
  RangeF64 range;
  F64 mul, add;
  explicit UniformF64(const Sampler& s)
      : range(s), mul(F64{} + param_f64(s, 2)), add(F64{} + param_f64(s, 3)) {}
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
    const F64 v0 = range(zip_lo(w.b, w.a)), v1 = range(zip_hi(w.b, w.a));
    store(out, kAffine ? fma(v0, mul, add) : v0);
    store(out + kVectorBytes, kAffine ? fma(v1, mul, add) : v1);
  }
};

template <bool kClip, bool kAffine>
struct NormalF32 {
  static constexpr int kSize = 4;
  F32 span, lo, scale, clip_lo, clip_hi, mul, add;
  explicit NormalF32(const Sampler& s)
      : span(Lanes::f(param_f32(s, 0))), lo(Lanes::f(param_f32(s, 1))),
        scale(Lanes::f(param_f32(s, 2))), clip_lo(Lanes::f(param_f32(s, 3))),
        clip_hi(Lanes::f(param_f32(s, 4))), mul(Lanes::f(param_f32(s, 5))),
        add(Lanes::f(param_f32(s, 6))) {}
  F32 transform(U32 word) const {
    F32 x = erf_inv<Lanes>(affine_uniform<Lanes>(unit_float<Lanes>(word), span, lo)) * scale;
    if constexpr (kClip) x = min_second(clip_hi, max_second(clip_lo, x));
    if constexpr (kAffine) x = fma(x, mul, add);
    return x;
  }
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
    store(out, transform(w.a ^ w.b));
  }
};

// Ones of a lane mask, a byte each.
inline void store_flags(char* out, I32 mask) {
  store(out, __builtin_convertvector(mask & 1, Vec<uint8_t, kLanes>));
}

struct BernoulliF32 {
  static constexpr int kSize = 1;
  F32 span, lo, p;
  explicit BernoulliF32(const Sampler& s)
      : span(Lanes::f(param_f32(s, 0))), lo(Lanes::f(param_f32(s, 1))),
        p(Lanes::f(param_f32(s, 2))) {}
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
    store_flags(out, affine_uniform<Lanes>(unit_float<Lanes>(w.a ^ w.b), span, lo) < p);
  }
};

struct BernoulliF64 {
  static constexpr int kSize = 1;
  RangeF64 range;
  F64 p;
  explicit BernoulliF64(const Sampler& s) : range(s), p(F64{} + param_f64(s, 2)) {}
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
    const I64 m0 = range(zip_lo(w.b, w.a)) < p, m1 = range(zip_hi(w.b, w.a)) < p;
    // The low halves of the 64-bit masks, in order.
    store_flags(out, reinterpret<I32>(even(reinterpret<U32>(m0), reinterpret<U32>(m1))));
  }
};

// x % d, and x where d is 0, as XLA defines it. With m = floor((2^B - 1) / d) the high word of x * m
// is the quotient or one less, so one subtraction corrects the remainder.
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
  Modulus32 span;
  U32 mult, minval;
  explicit Randint32(const Sampler& s)
      : span(static_cast<uint32_t>(s.params[0])),
        mult(Lanes::u(static_cast<uint32_t>(s.params[1]))),
        minval(Lanes::u(static_cast<uint32_t>(s.params[2]))) {}
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> hi = words(0), lo = words(1);
    const U32 r = span(span(hi.a ^ hi.b) * mult + span(lo.a ^ lo.b)) + minval;
    store(out, __builtin_convertvector(r, Vec<T, kLanes>));
  }
};

template <class T>
struct Randint64 {
  static constexpr int kSize = sizeof(T);
  Modulus64 span;
  uint64_t mult, minval;
  explicit Randint64(const Sampler& s)
      : span(s.params[0]), mult(s.params[1]), minval(s.params[2]) {}
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> hi = words(0), lo = words(1);
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
  const char* entries;
  uint32_t mask;
  int shift;
  explicit Table(const Sampler& s)
      : entries(static_cast<const char*>(s.table)), mask((1u << s.word_bits) - 1),
        shift(static_cast<int>(s.params[0])) {}
  template <class Words>
  void operator()(const Words& words, char* out) const {
    const Pair<U32> w = words(0);
    const U32 index = ((w.a ^ w.b) & mask) >> shift;
    for (int i = 0; i < kLanes; ++i) {
      __builtin_memcpy(out + i * kSize, entries + static_cast<uint64_t>(index[i]) * kSize, kSize);
    }
  }
};

// Writes n elements, kLanes at a time. The last vector overlaps the one before it, so that nothing
// outside the n elements is touched; fewer than kLanes go through a buffer.
template <class Op, class Block>
inline void write_blocks(const Op&, uint64_t n, char* out, const Block& block) {
  constexpr uint64_t kSize = Op::kSize;
  if (n < kLanes) {
    char buffer[kLanes * kSize];
    block(0, buffer);
    __builtin_memcpy(out, buffer, n * kSize);
    return;
  }
  for (uint64_t i = 0;;) {
    block(i, out + i * kSize);
    i += kLanes;
    if (i + kLanes <= n) continue;
    if (i == n) return;
    i = n - kLanes;
  }
}

// One row, whose elements share the key.
template <class Op>
void fill_row(const Op& op, const Fill& f, uint64_t row, char* out) {
  uint64_t counter = f.counter, left = f.count;
  while (left > 0) {  // the high counter word is constant between multiples of 2^32
    const uint64_t until_carry = (uint64_t{1} << 32) - (counter & UINT32_MAX);
    const uint64_t n = left < until_carry ? left : until_carry;
    const U32 c0 = Lanes::u(static_cast<uint32_t>(counter >> 32));
    const uint32_t low = static_cast<uint32_t>(counter);
    const uint32_t* const k0[2] = {f.k0, f.low_k0};
    const uint32_t* const k1[2] = {f.k1, f.low_k1};
    write_blocks(op, n, out, [&](uint64_t i, char* to) {
      const U32 c1 = iota() + (low + static_cast<uint32_t>(i));
      op([&](int s) { return threefry2x32(k0[s][row], k1[s][row], c0, c1); }, to);
    });
    counter += n;
    left -= n;
    out += n * Op::kSize;
  }
}

template <class Op>
void fill_rows(const Op& op, const Fill& f) {
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows; ++row) {
    fill_row(op, f, row, out);
    out += f.count * Op::kSize;
  }
}

bool is_neutral(float mul, float add) { return mul == 1.0f && add == 0.0f && __builtin_signbit(add); }
bool is_neutral(double mul, double add) {
  return mul == 1.0 && add == 0.0 && __builtin_signbit(add);
}

template <class Visit>
void with_normal(const Sampler& s, const Visit& visit) {
  const bool affine = !is_neutral(param_f32(s, 5), param_f32(s, 6));
  const bool clip =
      !(param_f32(s, 3) == -__builtin_inff() && param_f32(s, 4) == __builtin_inff());
  if (clip && affine) return visit(NormalF32<true, true>(s));
  if (clip) return visit(NormalF32<true, false>(s));
  if (affine) return visit(NormalF32<false, true>(s));
  visit(NormalF32<false, false>(s));
}

template <class Visit>
void with_randint(const Sampler& s, const Visit& visit) {
  if (s.word_bits == 32) {
    if (s.itemsize == 1) return visit(Randint32<uint8_t>(s));
    if (s.itemsize == 2) return visit(Randint32<uint16_t>(s));
    return visit(Randint32<uint32_t>(s));
  }
  if (s.itemsize == 1) return visit(Randint64<uint8_t>(s));
  if (s.itemsize == 2) return visit(Randint64<uint16_t>(s));
  if (s.itemsize == 4) return visit(Randint64<uint32_t>(s));
  visit(Randint64<uint64_t>(s));
}

template <class Visit>
void with_sampler(const Sampler& s, const Visit& visit) {
  switch (s.kind) {
    case Kind::kKey:
      return;  // keys are derived, not filled
    case Kind::kBits:
      if (s.word_bits == 8) return visit(Bits<uint8_t>());
      if (s.word_bits == 16) return visit(Bits<uint16_t>());
      if (s.word_bits == 32) return visit(Bits<uint32_t>());
      return visit(Bits<uint64_t>());
    case Kind::kUniform:
      if (s.word_bits == 32) {
        if (is_neutral(param_f32(s, 2), param_f32(s, 3))) return visit(UniformF32<false>(s));
        return visit(UniformF32<true>(s));
      }
      if (is_neutral(param_f64(s, 2), param_f64(s, 3))) return visit(UniformF64<false>(s));
      return visit(UniformF64<true>(s));
    case Kind::kNormal:
      return with_normal(s, visit);
    case Kind::kBernoulli:
      if (s.word_bits == 32) return visit(BernoulliF32(s));
      return visit(BernoulliF64(s));
    case Kind::kRandint:
      return with_randint(s, visit);
    case Kind::kTable:
      if (s.itemsize == 1) return visit(Table<uint8_t>(s));
      if (s.itemsize == 2) return visit(Table<uint16_t>(s));
      return visit(Table<uint32_t>(s));
  }
}

struct FillVisitor {
  const Fill& f;
  template <class Op>
  void operator()(const Op& op) const {
    fill_rows(op, f);
  }
};

void fill(const Fill& f) { with_sampler(*f.sampler, FillVisitor{f}); }

void derive(uint64_t n, const uint32_t* k0, const uint32_t* k1, const uint32_t* c0,
            const uint32_t* c1, uint32_t* o0, uint32_t* o1) {
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Pair<U32> w = threefry2x32(load<U32>(k0 + i), load<U32>(k1 + i), load<U32>(c0 + i),
                                     load<U32>(c1 + i));
    store(o0 + i, w.a);
    store(o1 + i, w.b);
  }
  for (; i < n; ++i) {
    const Pair<uint32_t> w = threefry2x32(k0[i], k1[i], c0[i], c1[i]);
    o0[i] = w.a;
    o1[i] = w.b;
  }
}

struct TransformVisitor {
  uint64_t n;
  const uint32_t* words;
  char* out;
  template <class Op>
  void operator()(const Op& op) const {
    write_blocks(op, n, out, [&](uint64_t i, char* to) {
      U32 w = {};
      const uint64_t some = n - i < kLanes ? n - i : kLanes;
      __builtin_memcpy(&w, words + i, some * sizeof(uint32_t));
      op([&](int) { return Pair<U32>{w, U32{}}; }, to);
    });
  }
};

void transform(uint64_t n, const Sampler& sampler, const uint32_t* words, void* out) {
  with_normal(sampler, TransformVisitor{n, words, static_cast<char*>(out)});
}

#define SEEDBED_STRINGIFY_(x) #x
#define SEEDBED_STRINGIFY(x) SEEDBED_STRINGIFY_(x)

}  // namespace

namespace seedbed::SEEDBED_ISA {
extern const KernelTable table;
const KernelTable table = {SEEDBED_STRINGIFY(SEEDBED_ISA), derive, fill, transform};
}  // namespace seedbed::SEEDBED_ISA
