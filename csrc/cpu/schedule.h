// Running a plan: from buffers to tasks, on the calling thread and on whichever threads help.
#ifndef SEEDBED_CPU_SCHEDULE_H_
#define SEEDBED_CPU_SCHEDULE_H_

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "plan.h"
#include "tasks.h"

namespace seedbed {

// Where a member's key comes from.
enum class KeyMode : int64_t {
  kMemberKeys = 0,  // keys[groups, size, 2]: given
  kRange = 1,       // keys[groups, 2], members[groups, 2]: fold(key, first + i)
  kIndices = 2,     // keys[groups, 2], members[groups, size, 2]: fold(key, index)
};

// One execution. Members are numbered group * size + i; `outputs` has a buffer for each draw, of
// groups * size * batch * elements_per_row() items in that order. Buffers may have any alignment,
// those without elements may be null.
struct Call {
  KeyMode mode;
  uint64_t groups;
  uint64_t size;
  const void* keys;
  const void* members;
  std::vector<void*> outputs;
};

// KeyMode from an attribute; InvalidPlan for an unknown value.
KeyMode key_mode(int64_t value);

// Elements that the output of `draw` must have for so many members; InvalidPlan on overflow.
uint64_t output_elements(const Draw& draw, uint64_t groups, uint64_t size);

// Fills every output (see `run_tasks` for threads and exceptions).
void run(const KernelTable& kernels, const Plan& plan, const Call& call, Pool& pool);

}  // namespace seedbed

#endif  // SEEDBED_CPU_SCHEDULE_H_
