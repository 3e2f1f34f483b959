// From the words of one element to its value, in device code: one type for each variant of a draw,
// made of the numbers that `task_params` in scheduler.cc stores. Each has
//   T              what an element is stored as
//   kWords         ciphers an element takes: none, one, or two (of two keys)
//   kTable         whether it reads a lookup table
//   operator()     from their words, or without a cipher from the key of the row
#ifndef SEEDBED_CUDA_OPS_H_
#define SEEDBED_CUDA_OPS_H_

#include "cuda/lanes.h"
#include "cuda/launch.h"

namespace {

using Words = Pair<uint32_t>;
using seedbed::cuda::Task;

SEEDBED_HD uint64_t wide(Words w) { return (static_cast<uint64_t>(w.a) << 32) | w.b; }

// The i-th of the float32 numbers that params hold, two in each.
SEEDBED_HD float param_f32(const Task& task, int i) {
  return bits_as<float>(static_cast<uint32_t>(task.params[i / 2] >> (i % 2 * 32)));
}
SEEDBED_HD uint32_t param_u32(const Task& task, int i) {
  return static_cast<uint32_t>(task.params[i / 2] >> (i % 2 * 32));
}
SEEDBED_HD double param_f64(const Task& task, int i) { return bits_as<double>(task.params[i]); }

// The key of the row itself, in memory its first word first.
struct RowKeys {
  using T = uint64_t;
  static constexpr int kWords = 0;
  static constexpr bool kTable = false;
  explicit SEEDBED_HD RowKeys(const Task&) {}
  SEEDBED_HD T operator()(Words key) const { return wide({key.b, key.a}); }
};

template <class Item>
struct Constant {
  using T = Item;
  static constexpr int kWords = 0;
  static constexpr bool kTable = false;
  T value;
  explicit SEEDBED_HD Constant(const Task& t) : value(static_cast<T>(t.params[0])) {}
  SEEDBED_HD T operator()(Words) const { return value; }
};

template <class Item>
struct Bits {
  using T = Item;
  static constexpr int kWords = 1;
  static constexpr bool kTable = false;
  explicit SEEDBED_HD Bits(const Task&) {}
  SEEDBED_HD T operator()(Words w) const {
    return sizeof(T) == 8 ? static_cast<T>(wide(w)) : static_cast<T>(w.a ^ w.b);
  }
};

struct UnitF32 {
  using T = float;
  static constexpr int kWords = 1;
  static constexpr bool kTable = false;
  explicit SEEDBED_HD UnitF32(const Task&) {}
  SEEDBED_HD T operator()(Words w) const { return unit_float<Scalar>(w.a ^ w.b); }
};

struct RangeF32 {
  float span, lo;
  explicit SEEDBED_HD RangeF32(const Task& t) : span(param_f32(t, 0)), lo(param_f32(t, 1)) {}
  SEEDBED_HD float operator()(Words w) const {
    return affine_uniform<Scalar>(unit_float<Scalar>(w.a ^ w.b), span, lo);
  }
};

// Neutral multipliers and summands, 1 and -0, change nothing.
struct UniformF32 {
  using T = float;
  static constexpr int kWords = 1;
  static constexpr bool kTable = false;
  RangeF32 range;
  float mul, add;
  explicit SEEDBED_HD UniformF32(const Task& t)
      : range(t), mul(param_f32(t, 2)), add(param_f32(t, 3)) {}
  SEEDBED_HD T operator()(Words w) const { return Scalar::mul_add(range(w), mul, add); }
};

// Range [0, 1), spacing 2^-52, from the high 52 bits; then as `affine_uniform`.
struct RangeF64 {
  double span, lo;
  explicit SEEDBED_HD RangeF64(const Task& t) : span(param_f64(t, 0)), lo(param_f64(t, 1)) {}
  SEEDBED_HD double operator()(Words w) const {
    const double unit = bits_as<double>((wide(w) >> 12) | 0x3FF0000000000000u) - 1.0;
    const double x = unit * span + lo;
    return x < lo ? lo : x;
  }
};

struct UniformF64 {
  using T = double;
  static constexpr int kWords = 1;
  static constexpr bool kTable = false;
  RangeF64 range;
  double mul, add;
  explicit SEEDBED_HD UniformF64(const Task& t)
      : range(t), mul(param_f64(t, 2)), add(param_f64(t, 3)) {}
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
struct NormalF32 {
  using T = float;
  static constexpr int kWords = 1;
  static constexpr bool kTable = false;
  RangeF32 range;
  float scale, mul, add;
  Clip clip;
  explicit SEEDBED_HD NormalF32(const Task& t)
      : range(t), scale(param_f32(t, 2)), mul(param_f32(t, 5)), add(param_f32(t, 6)),
        clip(param_f32(t, 3), param_f32(t, 4)) {}
  SEEDBED_HD T operator()(Words w) const { return transform(w.a ^ w.b); }
  SEEDBED_HD T transform(uint32_t word) const {
    const float u = affine_uniform<Scalar>(unit_float<Scalar>(word), range.span, range.lo);
    const float x = erf_inv_gpu<Scalar>(u) * scale;
    return Scalar::mul_add(kClip ? clip(x) : x, mul, add);
  }
};

struct BernoulliF32 {
  using T = uint8_t;
  static constexpr int kWords = 1;
  static constexpr bool kTable = false;
  RangeF32 range;
  float p;
  explicit SEEDBED_HD BernoulliF32(const Task& t) : range(t), p(param_f32(t, 2)) {}
  SEEDBED_HD T operator()(Words w) const { return range(w) < p; }
};

struct BernoulliF64 {
  using T = uint8_t;
  static constexpr int kWords = 1;
  static constexpr bool kTable = false;
  RangeF64 range;
  double p;
  explicit SEEDBED_HD BernoulliF64(const Task& t) : range(t), p(param_f64(t, 2)) {}
  SEEDBED_HD T operator()(Words w) const { return range(w) < p; }
};

// x % d, and x where d is 0, as XLA defines it. With m = floor((2^B - 1) / d) the high word of x *
// m is the quotient or one less, so one subtraction corrects the remainder.
template <class W>
SEEDBED_HD W modulo(W x, W divisor, W reciprocal) {
  const W r = x - multiply_high(x, reciprocal) * divisor, corrected = r - divisor;
  return corrected < r ? corrected : r;  // wraps upwards where r < divisor
}

template <class W, class Item>
struct Randint {
  using T = Item;
  static constexpr int kWords = 2;
  static constexpr bool kTable = false;
  W span, mult, minval, reciprocal;
  explicit SEEDBED_HD Randint(const Task& t)
      : span(static_cast<W>(t.params[0])), mult(static_cast<W>(t.params[1])),
        minval(static_cast<W>(t.params[2])), reciprocal(static_cast<W>(t.params[3])) {}
  SEEDBED_HD T operator()(Words high, Words low) const {
    const W sum = remainder(high) * mult + remainder(low);
    return static_cast<T>(modulo(sum, span, reciprocal) + minval);
  }

 private:
  SEEDBED_HD W remainder(Words w) const {
    return modulo(sizeof(W) == 8 ? static_cast<W>(wide(w)) : static_cast<W>(w.a ^ w.b), span,
                  reciprocal);
  }
};

template <class Item>
struct Table {
  using T = Item;
  static constexpr int kWords = 1;
  static constexpr bool kTable = true;
  const T* entries;
  uint32_t mask, shift;
  SEEDBED_HD Table(const Task& t, const unsigned char* tables)
      : entries(reinterpret_cast<const T*>(tables + param_u32(t, 0))), mask(param_u32(t, 1)),
        shift(param_u32(t, 2)) {}
  SEEDBED_HD T operator()(Words w) const { return entries[((w.a ^ w.b) & mask) >> shift]; }
};

}  // namespace

#endif  // SEEDBED_CUDA_OPS_H_
