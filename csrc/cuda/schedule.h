// From a plan and the buffers of a call to launches: which tile makes what.
#ifndef SEEDBED_CUDA_SCHEDULE_H_
#define SEEDBED_CUDA_SCHEDULE_H_

#include <memory>
#include <vector>

#include "call.h"
#include "cuda/launch.h"

namespace seedbed::cuda {

// The launches that fill every output of `call`; none if nothing is to be written. `blocks` is how
// many blocks the device runs at a time, to which the size of tiles is fitted; results do not
// depend on it. Throws InvalidPlan for a plan that a launch cannot hold: a lookup table or a key
// path that is too long.
std::vector<std::unique_ptr<Launch>> schedule(const Plan& plan, const Call& call, uint64_t blocks);

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_SCHEDULE_H_
