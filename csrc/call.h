// One execution of a plan: its members, and the buffers.
#ifndef SEEDBED_CALL_H_
#define SEEDBED_CALL_H_

#include <cstdint>
#include <vector>

#include "plan.h"

namespace seedbed {

// Members are numbered group * size + i; `outputs` has a buffer for each draw, of groups * size *
// batch * elements_per_row() items in that order. Buffers may have any alignment (on a GPU, that of
// their items, and of the pair of words of a key), those without elements may be null.
struct Call {
  KeyMode mode;
  uint64_t groups;
  uint64_t size;
  const void* keys;
  const void* members;
  std::vector<void*> outputs;
  const void* blocks = nullptr;  // not read if the plan has none
};

// KeyMode from an attribute; InvalidPlan for an unknown value.
KeyMode key_mode(int64_t value);

// Elements that the output of `draw` must have for so many members; InvalidPlan on overflow.
uint64_t output_elements(const Draw& draw, uint64_t groups, uint64_t size);

}  // namespace seedbed

#endif  // SEEDBED_CALL_H_
