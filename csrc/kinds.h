// The kinds of draws: what a draw makes of its random words. The one place that says what a kind's
// parameters are and in which order, in which forms it comes, and what both platforms must know of
// it. Part of the encoded plan (plan.h). python/seedbed/_plan/draw.py has the same records for
// Python, and tests/native/test_kinds.py compares the two word by word.
//
// Each begins with the formula of an element, where
//   word       is the element's random word; high and low are two of them
//   ranged     is max(low, unit * span + low), `unit` being the word as a number in [0, 1)
//   positive   is max(2^-126, unit); centred is max(low, unit * 2 + low), low being 2^-24 - 1
//   a number   is a float of the word's width, given by its bit pattern, or an unsigned integer of
//              that width, for which x % 0 is x
#ifndef SEEDBED_KINDS_H_
#define SEEDBED_KINDS_H_

#include <stdint.h>

namespace seedbed {

// The numbers are part of the encoded plan.
enum class Kind : int64_t {
  kKey = 0,
  kBits = 1,
  kUniform = 2,
  kNormal = 3,
  kBernoulli = 4,
  kRandint = 5,
  kTable = 6,
  kConstant = 7,
  kExponential = 8,
  kGumbel = 9,
  kLaplace = 10,
};

// What an element is made of: nothing, the key of its row, one word drawn with that key, or two:
// the high one and the low one of jax.random.randint, which splits the key for them.
enum class Source { kNothing, kKey, kWord, kTwoWords };

// A width of words in which a kind comes.
struct Width {
  int word_bits = 0;
  int items[4] = {};      // bytes that an element may be stored in; a key is two elements
  int params = 0;         // how many there are
  int work = 0;           // of an element on a CPU, in fifths of the time of a normal
  bool cpu_only = false;  // no kernel makes it on GPUs
};
constexpr bool kCpuOnly = true;

struct KindRecord {
  Kind kind;
  const char* name;
  Source source;
  Width widths[4];
};

// clang-format off
namespace key {
// the key of the row
enum Param : int { kCount };
constexpr KindRecord kRecord = {Kind::kKey, "key", Source::kKey, {
    {32, {4}, kCount, 3}}};
}  // namespace key

namespace bits {
// word
enum Param : int { kCount };
constexpr KindRecord kRecord = {Kind::kBits, "bits", Source::kWord, {
    {8, {1}, kCount, 3}, {16, {2}, kCount, 3}, {32, {4}, kCount, 3}, {64, {8}, kCount, 4}}};
}  // namespace bits

namespace uniform {
// ranged * scale + shift
enum Param : int { kSpan, kLow, kScale, kShift, kCount };
constexpr KindRecord kRecord = {Kind::kUniform, "uniform", Source::kWord, {
    {32, {4}, kCount, 3}, {64, {8}, kCount, 4}}};
}  // namespace uniform

// `near` is where XLA's erf_inv of float64 changes from one logarithm to another: see samplers.h.
namespace normal {
// clip(erf_inv(ranged) * factor, clip_low, clip_high) * scale + shift
enum Param : int { kSpan, kLow, kFactor, kClipLow, kClipHigh, kScale, kShift, kNear, kCount };
constexpr KindRecord kRecord = {Kind::kNormal, "normal", Source::kWord, {
    {32, {4}, kNear, 5}, {64, {8}, kCount, 5, kCpuOnly}}};
}  // namespace normal

namespace bernoulli {
// ranged < p
enum Param : int { kSpan, kLow, kP, kCount };
constexpr KindRecord kRecord = {Kind::kBernoulli, "bernoulli", Source::kWord, {
    {32, {1}, kCount, 3}, {64, {1}, kCount, 4}}};
}  // namespace bernoulli

namespace randint {
// (high % span * multiplier + low % span) % span + first
enum Param : int { kSpan, kMultiplier, kFirst, kCount };
constexpr KindRecord kRecord = {Kind::kRandint, "randint", Source::kTwoWords, {
    {32, {1, 2, 4}, kCount, 8}, {64, {1, 2, 4, 8}, kCount, 16}}};
}  // namespace randint

namespace table {
// table[word >> drop]
enum Param : int { kDrop, kCount };
constexpr KindRecord kRecord = {Kind::kTable, "table", Source::kWord, {
    {8, {1, 2, 4}, kCount, 4}, {16, {1, 2, 4}, kCount, 4}}};
}  // namespace table

namespace constant {
// value
enum Param : int { kValue, kCount };
constexpr KindRecord kRecord = {Kind::kConstant, "constant", Source::kNothing, {
    {8, {1}, kCount, 1}, {16, {2}, kCount, 1}, {32, {4}, kCount, 1}, {64, {8}, kCount, 1}}};
}  // namespace constant

namespace exponential {
// -log1p(-unit) * scale + shift
enum Param : int { kScale, kShift, kCount };
constexpr KindRecord kRecord = {Kind::kExponential, "exponential", Source::kWord, {
    {32, {4}, kCount, 5}}};
}  // namespace exponential

namespace gumbel {
// -log(-log(positive)) * scale + shift
enum Param : int { kScale, kShift, kCount };
constexpr KindRecord kRecord = {Kind::kGumbel, "gumbel", Source::kWord, {
    {32, {4}, kCount, 5}}};
}  // namespace gumbel

namespace laplace {
// sign(centred) * log1p(-abs(centred)) * scale + shift
enum Param : int { kScale, kShift, kCount };
constexpr KindRecord kRecord = {Kind::kLaplace, "laplace", Source::kWord, {
    {32, {4}, kCount, 5}}};
}  // namespace laplace

// By number.
constexpr KindRecord kRecords[] = {
    key::kRecord,         bits::kRecord,    uniform::kRecord, normal::kRecord,
    bernoulli::kRecord,   randint::kRecord, table::kRecord,   constant::kRecord,
    exponential::kRecord, gumbel::kRecord,  laplace::kRecord,
};
// clang-format on
constexpr int64_t kKinds = sizeof kRecords / sizeof *kRecords;
constexpr int kMaxParams = 8;

// How one draw turns words into values: a plan's draw without its shape and its keys.
struct Sampler {
  Kind kind;
  int32_t word_bits;
  int32_t itemsize;  // bytes of an output element; a key has two elements
  uint64_t params[kMaxParams];
  const void* table;
};

// Static, so that the linker has none to choose among: see cpu/kernels.cc.
static constexpr const KindRecord& record_of(Kind kind) {
  return kRecords[static_cast<int64_t>(kind)];
}

// The kind's words of this width; null where it has none.
static constexpr const Width* width_of(Kind kind, int word_bits) {
  for (const Width& width : record_of(kind).widths) {
    if (width.word_bits == word_bits && word_bits > 0) return &width;
  }
  return nullptr;
}

// Whether the kind stores such words as elements of so many bytes.
static constexpr bool has_form(Kind kind, int word_bits, int itemsize) {
  const Width* const width = width_of(kind, word_bits);
  if (width == nullptr || itemsize == 0) return false;
  for (const int item : width->items) {
    if (item == itemsize) return true;
  }
  return false;
}

// Whether `holds` is true of every form of every kind.
using OfForm = bool (*)(const KindRecord& record, const Width& width, int itemsize);
static constexpr bool all_forms(OfForm holds) {
  for (const KindRecord& record : kRecords) {
    for (const Width& width : record.widths) {
      for (const int item : width.items) {
        if (item != 0 && !holds(record, width, item)) return false;
      }
    }
  }
  return true;
}

static constexpr bool records_are_sound() {
  for (int64_t number = 0; number < kKinds; ++number) {
    if (static_cast<int64_t>(kRecords[number].kind) != number) return false;
    for (const Width& width : kRecords[number].widths) {
      if (width.params > kMaxParams) return false;
    }
  }
  return true;
}
static_assert(records_are_sound(), "records are in the order of kinds, and parameters have room");

// Where the key of member i of a group comes from. The numbers are those of the attribute `mode`.
enum class KeyMode : uint32_t {
  kMemberKeys = 0,  // given: keys[groups, size, 2]
  kRange = 1,       // fold(key, first + i): keys[groups, 2], members[groups, 2]
  kIndices = 2,     // fold(key, members[i]): keys[groups, 2], members[groups, size, 2]
  kAll = 3,         // fold(key, i): keys[groups, 2]; `members` is not read, nor with given keys
};

}  // namespace seedbed

#endif  // SEEDBED_KINDS_H_
