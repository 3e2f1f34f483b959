// The Python module `seedbed._cuda`: hands the handlers to JAX. Needs a driver only when they run.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>
#include <vector>

#include "cuda/ffi.h"
#include "cuda/schedule.h"
#include "registrations.h"

namespace nb = nanobind;

namespace seedbed {
namespace {

using Words = nb::ndarray<const int64_t, nb::numpy, nb::c_contig, nb::device::cpu>;

// How many launches make a plan for `size` members.
size_t launches(Words encoded, int64_t size, uint64_t blocks) {
  if (encoded.ndim() != 1) throw InvalidPlan("plan must be a one-dimensional int64 array");
  if (size < 0) throw InvalidPlan("size must be >= 0, got " + std::to_string(size));
  const Plan plan = decode_plan(encoded.data(), encoded.size());
  Call call = {KeyMode::kAll, 1, static_cast<uint64_t>(size), nullptr, nullptr, {}};
  for (const Draw& draw : plan.draws) {
    output_elements(draw, call.groups, call.size);
    call.outputs.push_back(nullptr);
  }
  return cuda::schedule(plan, call, blocks).size();
}

}  // namespace
}  // namespace seedbed

NB_MODULE(_cuda, m) {
  using namespace nb::literals;
  using namespace seedbed;
  m.def("registrations", [] { return registrations(cuda::fill_target()); });
  m.def("type_registrations",
        [] { return type_registrations("seedbed_cuda_fill_state_v1", cuda::fill_target()); });
  define_versions(m);
  m.def("architectures", [] { return std::string(SEEDBED_CUDA_ARCHITECTURES); });
  m.def("toolkit", [] { return std::string(SEEDBED_CUDA_TOOLKIT); });
  m.def("launches", &launches, "plan"_a.noconvert(), "size"_a, "blocks"_a = 528);
}
