// The kernel: a block makes tiles, one after another.
#include "cuda/kernel.h"
#include "cuda/tile.h"

namespace {

using seedbed::cuda::kThreads;

class DeviceBlock {
 public:
  template <class F>
  __device__ __forceinline__ void each(uint32_t n, const F& f) {
    for (uint32_t i = threadIdx.x; i < n; i += kThreads) f(i);
  }
  template <class F>
  __device__ __forceinline__ void each_unit(uint32_t n, const F& f) {
    for (uint32_t i = threadIdx.x / kWarp; i < n; i += kThreads / kWarp) f(i, threadIdx.x % kWarp);
  }
  __device__ __forceinline__ void barrier() { __syncthreads(); }
  __device__ __forceinline__ void expect(bool) {}
  template <class T>
  __device__ __forceinline__ void store(unsigned char* to, T x) {
    *reinterpret_cast<T*>(to) = x;
  }
  template <class T>
  __device__ __forceinline__ void store_vector(unsigned char* to, const Vector<T>& v) {
    if constexpr (sizeof v == 16) {
      *reinterpret_cast<uint4*>(to) = bits_as<uint4>(v);
    } else if constexpr (sizeof v == 8) {
      *reinterpret_cast<uint2*>(to) = bits_as<uint2>(v);
    } else {
      *reinterpret_cast<uint32_t*>(to) = bits_as<uint32_t>(v);
    }
  }
};

// At most 64 registers, so that four blocks share a multiprocessor.
__global__ void __launch_bounds__(kThreads, 4) seedbed_fill(const __grid_constant__ Launch launch) {
  __shared__ Shared shared;
  DeviceBlock block;
  for (uint64_t tile = blockIdx.x; tile < launch.tiles; tile += gridDim.x) {
    run_tile(block, launch, tile, shared);
  }
}

}  // namespace

namespace seedbed::cuda {

cudaError_t enqueue(const Launch& launch, cudaStream_t stream) {
  constexpr uint64_t kMaxGrid = 0x7FFFFFFF;
  const auto grid = static_cast<unsigned>(launch.tiles < kMaxGrid ? launch.tiles : kMaxGrid);
  void* arguments[] = {const_cast<Launch*>(&launch)};
  return cudaLaunchKernel(reinterpret_cast<const void*>(seedbed_fill), dim3(grid), dim3(kThreads),
                          arguments, 0, stream);
}

cudaError_t resident_blocks(int device, uint64_t* blocks) {
  int processors = 0, each = 0;
  cudaFuncAttributes attributes;  // asked for because that loads the kernel
  cudaError_t error = cudaFuncGetAttributes(&attributes, seedbed_fill);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, seedbed_fill, kThreads, 0);
  *blocks = static_cast<uint64_t>(processors) * static_cast<uint64_t>(each);
  return error;
}

}  // namespace seedbed::cuda
