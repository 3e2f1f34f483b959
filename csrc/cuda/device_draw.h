// From a draw of the plan to what the kernel reads of it: operation, numbers, divisors.
#ifndef SEEDBED_CUDA_DEVICE_DRAW_H_
#define SEEDBED_CUDA_DEVICE_DRAW_H_

#include "cuda/launch.h"
#include "plan.h"

namespace seedbed::cuda {

// Whether the kernel has an operation for the draws of a sampler.
bool has_operation(const Sampler& sampler);

// DeviceDraw::row_entries of a draw, if its rows have keys in shared memory.
uint32_t row_entries(const Draw& draw);

// All but `out`, the table, the keys and the units, for a draw that has an operation.
DeviceDraw make_device_draw(const Draw& draw);

// Says where a draw's lookup table starts, in bytes, among those of its tile.
void set_table(DeviceDraw& draw, uint32_t place);

// Bytes of an element of the draw's output; that of keys is a pair of words.
uint32_t item_bytes(const DeviceDraw& draw);

// d must be in 1 ... 2^31 - 1.
Divisor divisor(uint32_t d);

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_DEVICE_DRAW_H_
