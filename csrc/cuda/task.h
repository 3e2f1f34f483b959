// From a draw of the plan to what the kernel reads of it: variant, numbers, divisors.
#ifndef SEEDBED_CUDA_TASK_H_
#define SEEDBED_CUDA_TASK_H_

#include "cuda/launch.h"
#include "plan.h"

namespace seedbed::cuda {

// All but `out`, the keys and the units.
Task make_task(const Draw& draw);

// Bytes of an element of the task's output; that of keys is a pair of words.
uint32_t item_bytes(Op op);

// d must be in 1 ... 2^31 - 1.
Divisor divisor(uint32_t d);

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_TASK_H_
