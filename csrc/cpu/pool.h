// XLA's threads as a pool.
#ifndef SEEDBED_CPU_POOL_H_
#define SEEDBED_CPU_POOL_H_

#include <functional>
#include <utility>

#include "cpu/tasks.h"
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

}  // namespace seedbed

#endif  // SEEDBED_CPU_POOL_H_
