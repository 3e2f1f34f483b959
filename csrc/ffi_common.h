// What the handlers share: the plan and the buffers of a call, types as text, exceptions as errors.
#ifndef SEEDBED_FFI_COMMON_H_
#define SEEDBED_FFI_COMMON_H_

#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "call.h"
#include "xla/ffi/api/ffi.h"

namespace seedbed {

// The custom call that fills a plan's outputs: one name on every platform.
constexpr const char* kFillTarget = "seedbed_fill_v1";

// A compiled program's copy of the attributes, decoded.
struct DecodedCall {
  KeyMode mode;
  uint64_t size;
  Plan plan;

  void decode(int64_t mode, xla::ffi::Span<const int64_t> plan, int64_t size);
};

// The buffers of one execution, checked against the plan; throws InvalidPlan.
Call checked_call(const DecodedCall& decoded, const xla::ffi::AnyBuffer& keys,
                  const xla::ffi::AnyBuffer& members, const xla::ffi::RemainingRets& results);

// Such as "F32[4,2]".
std::string type_of(const xla::ffi::AnyBuffer& buffer);

// Calls `function`, for the target of this name: exceptions must not cross into XLA.
template <class Function>
xla::ffi::Error error_of(const char* target, const Function& function) {
  const std::string prefix = std::string(target) + ": ";
  try {
    return function();
  } catch (const std::invalid_argument& e) {
    return xla::ffi::Error::InvalidArgument(prefix + e.what());
  } catch (const std::bad_alloc&) {
    return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted, prefix + "out of memory");
  } catch (const std::exception& e) {
    return xla::ffi::Error::Internal(prefix + e.what());
  }
}

// What a program keeps: a State, which is a DecodedCall and more, that `complete` has finished.
template <class State, class Complete>
xla::ffi::ErrorOr<std::unique_ptr<State>> make_state(int64_t mode,
                                                     xla::ffi::Span<const int64_t> plan,
                                                     int64_t size, const Complete& complete) {
  auto state = std::make_unique<State>();
  const xla::ffi::Error error = error_of(kFillTarget, [&] {
    complete(*state);
    state->decode(mode, plan, size);
    return xla::ffi::Error::Success();
  });
  if (error.failure()) return xla::ffi::Unexpected(error);
  return state;
}

}  // namespace seedbed

#endif  // SEEDBED_FFI_COMMON_H_
