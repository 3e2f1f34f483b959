#include "cuda/ffi.h"

#include <atomic>
#include <stdexcept>
#include <string>

#include "cuda/kernel.h"
#include "cuda/schedule.h"

namespace ffi = xla::ffi;

namespace seedbed::cuda {
namespace {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(call) + " failed: " + cudaGetErrorName(error) + " (" +
                           cudaGetErrorString(error) + ")");
}

// Asked once for each device; threads that ask at the same time get the same answer.
uint64_t blocks_of_device() {
  constexpr int kDevices = 64;
  static std::atomic<uint64_t> known[kDevices] = {};
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const bool keeps = device >= 0 && device < kDevices;
  uint64_t blocks = keeps ? known[device].load(std::memory_order_relaxed) : 0;
  if (blocks > 0) return blocks;
  // Loads the kernel, which a stream that is being captured would not allow otherwise.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
  const cudaError_t error = resident_blocks(device, &blocks);
  check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
  check(error, "loading the kernel");
  if (keeps) known[device].store(blocks, std::memory_order_relaxed);
  return blocks;
}

// Only puts launches into the stream, with everything they need: a CUDA graph may capture them.
struct Cuda {
  struct State : DecodedCall {
    static ffi::TypeId id;
  };
  using Context = ffi::PlatformStream<cudaStream_t>;
  using ContextType = cudaStream_t;
  static constexpr std::initializer_list<ffi::Traits> kTraits = {ffi::Traits::kCmdBufferCompatible};

  static void start(State&) {}
  static void run(cudaStream_t stream, const State& state, const Call& call) {
    for (const auto& launch : schedule(state.plan, call, blocks_of_device())) {
      check(enqueue(*launch, stream), "the launch of the kernel");
    }
  }
};

ffi::TypeId Cuda::State::id = {};

}  // namespace

FillTarget fill_target() { return FillHandlers<Cuda>::target(); }

}  // namespace seedbed::cuda
