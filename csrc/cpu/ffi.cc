#include "cpu/ffi.h"

#include "cpu/dispatch.h"
#include "cpu/pool.h"
#include "cpu/schedule.h"

namespace ffi = xla::ffi;

namespace seedbed {
namespace {

struct Cpu {
  struct State : DecodedCall {
    static ffi::TypeId id;
    const KernelTable* kernels;
  };
  using Context = ffi::ThreadPool;
  using ContextType = ffi::ThreadPool;
  static constexpr std::initializer_list<ffi::Traits> kTraits = {};

  static void start(State& state) { state.kernels = &active_table(); }
  static void run(ffi::ThreadPool threads, const State& state, const Call& call) {
    XlaPool pool(threads);
    seedbed::run(*state.kernels, state.plan, call, pool);
  }
};

ffi::TypeId Cpu::State::id = {};

}  // namespace

FillTarget fill_target() { return FillHandlers<Cpu>::target(); }

}  // namespace seedbed
