// What the handlers share: XLA's threads as a pool, types as text, exceptions as errors.
#ifndef SEEDBED_CPU_FFI_COMMON_H_
#define SEEDBED_CPU_FFI_COMMON_H_

#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "tasks.h"
#include "xla/ffi/api/ffi.h"

namespace seedbed {

class XlaPool : public Pool {
 public:
  explicit XlaPool(xla::ffi::ThreadPool pool) : pool_(pool) {}
  int64_t helpers() const override { return pool_.num_threads() - 1; }
  void schedule(std::function<void()> function) override { pool_.Schedule(std::move(function)); }

 private:
  xla::ffi::ThreadPool pool_;
};

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

}  // namespace seedbed

#endif  // SEEDBED_CPU_FFI_COMMON_H_
