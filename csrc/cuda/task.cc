#include "cuda/task.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace seedbed::cuda {
namespace {

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

float f32(const Sampler& s, int i) { return bits_as<float>(static_cast<uint32_t>(s.params[i])); }
double f64(const Sampler& s, int i) { return bits_as<double>(s.params[i]); }

void set_word(Task& task, int i, uint32_t word) {
  const int shift = i % 2 * 32;
  uint64_t& pair = task.params[i / 2];
  pair = (pair & ~(uint64_t{UINT32_MAX} << shift)) | (uint64_t{word} << shift);
}

// max(lo, fma(u, span, lo)) where the maximum may return either zero: IEEE's is +0 if one is. The
// two meet only if lo is +0 and span negative; then the result is +0.
template <class T>
T proper_span(T span, uint64_t lo_bits) {
  return lo_bits == 0 && span < 0 ? T{0} : span;
}

Op by_item(Op first, int32_t itemsize) {  // of variants for 1, 2, 4 and 8 bytes
  uint32_t step = 0;
  while ((1 << step) < itemsize) ++step;
  return static_cast<Op>(static_cast<uint32_t>(first) + step);
}

void set_floats(Task& task, const Sampler& s, int count) {
  for (int i = 0; i < count; ++i) set_word(task, i, static_cast<uint32_t>(s.params[i]));
  set_word(task, 0, bits_as<uint32_t>(proper_span(f32(s, 0), s.params[1])));
}

void set_doubles(Task& task, const Sampler& s, int count) {
  for (int i = 0; i < count; ++i) task.params[i] = s.params[i];
  task.params[0] = bits_as<uint64_t>(proper_span(f64(s, 0), s.params[1]));
}

void set_uniform(Task& task, const Sampler& s) {
  if (s.word_bits == 64) {
    task.op = Op::kUniformF64;
    return set_doubles(task, s, 4);
  }
  set_floats(task, s, 4);
  constexpr float kUnit[] = {1.0f, 0.0f, 1.0f, -0.0f};
  bool unit = true;
  for (int i = 0; i < 4; ++i) unit = unit && s.params[i] == bits_as<uint32_t>(kUnit[i]);
  task.op = unit ? Op::kUnitF32 : Op::kUniformF32;
}

void set_normal(Task& task, const Sampler& s) {
  set_floats(task, s, 7);
  const float lo = f32(s, 3), hi = f32(s, 4);
  if (std::isnan(lo) || std::isnan(hi)) {  // and so is every result
    set_word(task, 2, bits_as<uint32_t>(std::numeric_limits<float>::quiet_NaN()));
  }
  const bool everything = std::isinf(lo) && lo < 0 && std::isinf(hi) && hi > 0;
  task.op = everything ? Op::kNormalF32 : Op::kClippedNormalF32;
}

void set_randint(Task& task, const Sampler& s) {
  for (int i = 0; i < 3; ++i) task.params[i] = s.params[i];
  const uint64_t span = s.params[0];
  const uint64_t most = s.word_bits == 64 ? UINT64_MAX : UINT32_MAX;
  task.params[3] = span == 0 ? 0 : most / span;
  task.op = by_item(s.word_bits == 64 ? Op::kRandint64To1 : Op::kRandint32To1, s.itemsize);
}

void set_variant(Task& task, const Sampler& s) {
  switch (s.kind) {
    case Kind::kKey:
      task.op = Op::kKey;
      return;
    case Kind::kBits:
      task.op = by_item(Op::kBits1, s.itemsize);
      return;
    case Kind::kUniform:
      return set_uniform(task, s);
    case Kind::kNormal:
      return set_normal(task, s);
    case Kind::kBernoulli:
      task.op = s.word_bits == 64 ? Op::kBernoulliF64 : Op::kBernoulliF32;
      return s.word_bits == 64 ? set_doubles(task, s, 3) : set_floats(task, s, 3);
    case Kind::kRandint:
      return set_randint(task, s);
    case Kind::kTable:  // word 0, the place of the table, is set with the segment
      task.op = by_item(Op::kTable1, s.itemsize);
      set_word(task, 1, (1u << s.word_bits) - 1);
      return set_word(task, 2, static_cast<uint32_t>(s.params[0]));
    case Kind::kConstant:
      task.op = by_item(Op::kConstant1, s.itemsize);
      task.params[0] = s.params[0];
      return;
  }
}

}  // namespace

Divisor divisor(uint32_t d) {
  uint32_t shift = 0;
  while ((uint64_t{1} << shift) < d) ++shift;
  const uint64_t power = uint64_t{1} << (31 + shift);
  return {static_cast<uint32_t>((power + d - 1) / d), 31 + shift};
}

uint32_t item_bytes(Op op) {
  switch (op) {
    case Op::kConstant1:
    case Op::kBits1:
    case Op::kBernoulliF32:
    case Op::kBernoulliF64:
    case Op::kRandint32To1:
    case Op::kRandint64To1:
    case Op::kTable1:
      return 1;
    case Op::kConstant2:
    case Op::kBits2:
    case Op::kRandint32To2:
    case Op::kRandint64To2:
    case Op::kTable2:
      return 2;
    case Op::kConstant4:
    case Op::kBits4:
    case Op::kUnitF32:
    case Op::kUniformF32:
    case Op::kNormalF32:
    case Op::kClippedNormalF32:
    case Op::kRandint32To4:
    case Op::kRandint64To4:
    case Op::kTable4:
      return 4;
    case Op::kKey:
    case Op::kConstant8:
    case Op::kBits8:
    case Op::kUniformF64:
    case Op::kRandint64To8:
      return 8;
  }
  return 0;
}

Task make_task(const Draw& draw) {
  Task task = {};
  task.inner = draw.inner;
  task.offset = draw.offset;
  task.batch = draw.batch;
  task.n_dims = static_cast<uint16_t>(draw.dims.size());
  task.n_levels = static_cast<uint16_t>(draw.levels.size());
  if (draw.inner < (uint64_t{1} << 31)) task.by_inner = divisor(static_cast<uint32_t>(draw.inner));
  set_variant(task, draw.sampler);
  return task;
}

}  // namespace seedbed::cuda
