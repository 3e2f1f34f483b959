// Launching the kernel.
#ifndef SEEDBED_CUDA_KERNEL_H_
#define SEEDBED_CUDA_KERNEL_H_

#include <cuda_runtime_api.h>

#include "cuda/launch.h"

namespace seedbed::cuda {

// Puts a launch into the stream; waits for nothing.
cudaError_t enqueue(const Launch& launch, cudaStream_t stream);

// Blocks that the device runs at a time; the device must be the current one.
cudaError_t resident_blocks(int device, uint64_t* blocks);

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_KERNEL_H_
