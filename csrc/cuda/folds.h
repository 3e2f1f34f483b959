// The folds that derive the keys of a segment's draws from the key of a member.
#ifndef SEEDBED_CUDA_FOLDS_H_
#define SEEDBED_CUDA_FOLDS_H_

#include <vector>

#include "cuda/launch.h"
#include "plan.h"

namespace seedbed::cuda {

struct FoldProgram {
  std::vector<Fold> folds;
  std::vector<uint16_t> slots;  // for each wanted node, the slot of its key at the end
  uint32_t n_slots;
};

// Slot 0 holds the member's key at the start. A key that is needed by several folds is derived
// once; one that is not wanted gives up its slot as soon as it was used. Chains of equal indices,
// such as `key, sub = split(key)` makes, are one fold.
FoldProgram make_folds(const std::vector<Node>& nodes, const std::vector<uint32_t>& wanted);

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_FOLDS_H_
