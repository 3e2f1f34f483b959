#include "cuda/ffi.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>

#include "cuda/kernel.h"
#include "cuda/schedule.h"
#include "ffi_common.h"

namespace ffi = xla::ffi;

namespace seedbed::cuda {
namespace {

struct FillState : DecodedCall {
  static ffi::TypeId id;
};

ffi::TypeId FillState::id = {};

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

ffi::ErrorOr<std::unique_ptr<FillState>> instantiate(int64_t mode, ffi::Span<const int64_t> plan,
                                                     int64_t size) {
  return make_state<FillState>(mode, plan, size, [](FillState&) {});
}

// Only puts launches into the stream, with everything they need: a CUDA graph may capture them.
ffi::Error execute(cudaStream_t stream, FillState* state, ffi::AnyBuffer keys,
                   ffi::AnyBuffer members, ffi::RemainingRets results, int64_t,
                   ffi::Span<const int64_t>, int64_t) {
  return error_of(kFillTarget, [&] {
    const Call call = checked_call(*state, keys, members, results);
    for (const auto& launch : schedule(state->plan, call, blocks_of_device())) {
      check(enqueue(*launch, stream), "the launch of the kernel");
    }
    return ffi::Error::Success();
  });
}

}  // namespace

XLA_FFI_Error* fill_instantiate(XLA_FFI_CallFrame* frame) {
  XLA_FFI_DEFINE_HANDLER(handler, instantiate,
                         ffi::Ffi::BindInstantiate()
                             .Attr<int64_t>("mode")
                             .Attr<ffi::Span<const int64_t>>("plan")
                             .Attr<int64_t>("size"));
  return (*handler)(frame);
}

XLA_FFI_Error* fill_execute(XLA_FFI_CallFrame* frame) {
  XLA_FFI_DEFINE_HANDLER(handler, execute,
                         ffi::Ffi::Bind()
                             .Ctx<ffi::PlatformStream<cudaStream_t>>()
                             .Ctx<ffi::State<FillState>>()
                             .Arg<ffi::AnyBuffer>()
                             .Arg<ffi::AnyBuffer>()
                             .RemainingRets()
                             .Attr<int64_t>("mode")
                             .Attr<ffi::Span<const int64_t>>("plan")
                             .Attr<int64_t>("size"),
                         {ffi::Traits::kCmdBufferCompatible});
  return (*handler)(frame);
}

XLA_FFI_TypeId* fill_state_type_id() { return &FillState::id; }

const XLA_FFI_TypeInfo* fill_state_type_info() {
  static constexpr XLA_FFI_TypeInfo info = ffi::MakeTypeInfo<FillState>();
  return &info;
}

}  // namespace seedbed::cuda
