// What the handlers share: the plan and the buffers of a call, types as text, exceptions as errors.
#ifndef SEEDBED_FFI_COMMON_H_
#define SEEDBED_FFI_COMMON_H_

#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

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
                  const xla::ffi::AnyBuffer& members, const xla::ffi::AnyBuffer& blocks,
                  const xla::ffi::RemainingRets& results);

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

// What a platform registers for the target, each a function of XLA's C API; the type of the state
// must be registered before the target.
struct FillTarget {
  XLA_FFI_Error* (*instantiate)(XLA_FFI_CallFrame*);
  XLA_FFI_Error* (*execute)(XLA_FFI_CallFrame*);
  XLA_FFI_TypeId* type_id;
  const XLA_FFI_TypeInfo* type_info;
};

// The handlers of a platform, which supplies
//   State                         what a compiled program keeps: a DecodedCall and more, with `id`
//   Context, ContextType          what an execution asks XLA for, and what it gets: threads, a
//   stream start(state)                  completes a new state, but for its DecodedCall
//   run(context, state, call)     fills the outputs of a checked call
//   kTraits                       of the handler that executes
template <class Platform>
class FillHandlers {
 public:
  static FillTarget target() {
    static constexpr XLA_FFI_TypeInfo type_info = xla::ffi::MakeTypeInfo<State>();
    return {instantiate, execute, &State::id, &type_info};
  }

 private:
  using State = typename Platform::State;
  using Words = xla::ffi::Span<const int64_t>;
  using Buffer = xla::ffi::AnyBuffer;

  // Decodes the plan, once for each compiled program.
  static xla::ffi::ErrorOr<std::unique_ptr<State>> make_state(int64_t mode, Words plan,
                                                              int64_t size) {
    auto state = std::make_unique<State>();
    const xla::ffi::Error error = error_of(kFillTarget, [&] {
      Platform::start(*state);
      state->decode(mode, plan, size);
      return xla::ffi::Error::Success();
    });
    if (error.failure()) return xla::ffi::Unexpected(error);
    return state;
  }

  // Checks the buffers against the plan and runs it.
  static xla::ffi::Error fill(typename Platform::ContextType context, State* state, Buffer keys,
                              Buffer members, Buffer blocks, xla::ffi::RemainingRets results,
                              int64_t, Words, int64_t) {
    return error_of(kFillTarget, [&] {
      Platform::run(context, *state, checked_call(*state, keys, members, blocks, results));
      return xla::ffi::Error::Success();
    });
  }

  template <class Binding>
  static auto with_attributes(Binding binding) {
    return std::move(binding)
        .template Attr<int64_t>("mode")
        .template Attr<Words>("plan")
        .template Attr<int64_t>("size");
  }

  static XLA_FFI_Error* instantiate(XLA_FFI_CallFrame* frame) {
    static const auto* const handler =
        with_attributes(xla::ffi::Ffi::BindInstantiate()).To(make_state).release();
    return handler->Call(frame);
  }

  static XLA_FFI_Error* execute(XLA_FFI_CallFrame* frame) {
    static const auto* const handler =
        with_attributes(xla::ffi::Ffi::Bind()
                            .template Ctx<typename Platform::Context>()
                            .template Ctx<xla::ffi::State<State>>()
                            .template Arg<Buffer>()
                            .template Arg<Buffer>()
                            .template Arg<Buffer>()
                            .RemainingRets())
            .To(fill, Platform::kTraits)
            .release();
    return handler->Call(frame);
  }
};

}  // namespace seedbed

#endif  // SEEDBED_FFI_COMMON_H_
