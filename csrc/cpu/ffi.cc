#include "cpu/ffi.h"

#include <memory>

#include "cpu/dispatch.h"
#include "cpu/pool.h"
#include "cpu/schedule.h"
#include "ffi_common.h"

namespace ffi = xla::ffi;

namespace seedbed {
namespace {

struct FillState : DecodedCall {
  static ffi::TypeId id;
  const KernelTable* kernels;
};

ffi::TypeId FillState::id = {};

ffi::Error execute_checked(ffi::ThreadPool threads, const FillState& state, ffi::AnyBuffer keys,
                           ffi::AnyBuffer members, ffi::RemainingRets results) {
  const Call call = checked_call(state, keys, members, results);
  XlaPool pool(threads);
  run(*state.kernels, state.plan, call, pool);
  return ffi::Error::Success();
}

ffi::ErrorOr<std::unique_ptr<FillState>> instantiate(int64_t mode, ffi::Span<const int64_t> plan,
                                                     int64_t size) {
  return make_state<FillState>(mode, plan, size,
                               [](FillState& state) { state.kernels = &active_table(); });
}

ffi::Error execute(ffi::ThreadPool threads, FillState* state, ffi::AnyBuffer keys,
                   ffi::AnyBuffer members, ffi::RemainingRets results, int64_t,
                   ffi::Span<const int64_t>, int64_t) {
  return error_of(kFillTarget,
                  [&] { return execute_checked(threads, *state, keys, members, results); });
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
                             .Ctx<ffi::ThreadPool>()
                             .Ctx<ffi::State<FillState>>()
                             .Arg<ffi::AnyBuffer>()
                             .Arg<ffi::AnyBuffer>()
                             .RemainingRets()
                             .Attr<int64_t>("mode")
                             .Attr<ffi::Span<const int64_t>>("plan")
                             .Attr<int64_t>("size"));
  return (*handler)(frame);
}

XLA_FFI_TypeId* fill_state_type_id() { return &FillState::id; }

const XLA_FFI_TypeInfo* fill_state_type_info() {
  static constexpr XLA_FFI_TypeInfo info = ffi::MakeTypeInfo<FillState>();
  return &info;
}

}  // namespace seedbed
