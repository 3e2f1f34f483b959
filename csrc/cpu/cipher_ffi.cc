#include "cpu/cipher_ffi.h"

#include "cpu/cipher.h"
#include "cpu/dispatch.h"
#include "cpu/pool.h"
#include "ffi_common.h"
#include "plan.h"

namespace ffi = xla::ffi;

namespace seedbed {
namespace {

constexpr const char* kTarget = "seedbed_threefry_v1";

std::vector<uint64_t> dims_of(const ffi::AnyBuffer& buffer, const char* name) {
  if (buffer.element_type() != ffi::DataType::U32) {
    throw InvalidPlan(std::string(name) + " must be of type U32, got " + type_of(buffer));
  }
  const auto dims = buffer.dimensions();
  return std::vector<uint64_t>(dims.begin(), dims.end());
}

ffi::Error execute(ffi::ThreadPool threads, ffi::AnyBuffer k0, ffi::AnyBuffer k1, ffi::AnyBuffer c0,
                   ffi::AnyBuffer c1, ffi::Result<ffi::AnyBuffer> first,
                   ffi::Result<ffi::AnyBuffer> second) {
  return error_of(kTarget, [&] {
    const CipherCall call = {{{k0.untyped_data(), dims_of(k0, "operand `k0`")},
                              {k1.untyped_data(), dims_of(k1, "operand `k1`")},
                              {c0.untyped_data(), dims_of(c0, "operand `c0`")},
                              {c1.untyped_data(), dims_of(c1, "operand `c1`")}},
                             dims_of(*first, "result 0"),
                             first->untyped_data(),
                             second->untyped_data()};
    if (dims_of(*second, "result 1") != call.dims) {
      throw InvalidPlan("the results must have one shape, got " + type_of(*first) + " and " +
                        type_of(*second));
    }
    XlaPool pool(threads);
    run_cipher(active_table(), call, pool);
    return ffi::Error::Success();
  });
}

}  // namespace

XLA_FFI_Error* threefry_execute(XLA_FFI_CallFrame* frame) {
  XLA_FFI_DEFINE_HANDLER(handler, execute,
                         ffi::Ffi::Bind()
                             .Ctx<ffi::ThreadPool>()
                             .Arg<ffi::AnyBuffer>()
                             .Arg<ffi::AnyBuffer>()
                             .Arg<ffi::AnyBuffer>()
                             .Arg<ffi::AnyBuffer>()
                             .Ret<ffi::AnyBuffer>()
                             .Ret<ffi::AnyBuffer>());
  return (*handler)(frame);
}

}  // namespace seedbed
