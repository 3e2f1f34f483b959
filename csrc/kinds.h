// What a draw makes of its random words. Part of the encoded plan (plan.h), and of every backend.
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
  kConstant = 7,  // one value, params[0], throughout: no words are drawn
};
constexpr int64_t kKinds = 8;
constexpr int kMaxParams = 8;

// How one draw turns words into values: a plan's draw without its shape and its keys.
struct Sampler {
  Kind kind;
  int32_t word_bits;
  int32_t itemsize;  // bytes of an output element; a key has two elements
  uint64_t params[kMaxParams];
  const void* table;
};

}  // namespace seedbed

#endif  // SEEDBED_KINDS_H_
