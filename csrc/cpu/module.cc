// The Python module `seedbed._cpu`: hands the handlers to JAX, and runs plans on NumPy arrays for
// tests, golden checks and `seedbed doctor`. Only arguments are handled here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cpu/cipher.h"
#include "cpu/cipher_ffi.h"
#include "cpu/denormals.h"
#include "cpu/dispatch.h"
#include "cpu/ffi.h"
#include "cpu/schedule.h"
#include "plan.h"
#include "registrations.h"

static_assert(sizeof(void*) == 8, "seedbed supports 64-bit hosts only");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "seedbed supports little-endian hosts only");

namespace nb = nanobind;

namespace seedbed {
namespace {

template <class T>
using Input = nb::ndarray<const T, nb::numpy, nb::c_contig, nb::device::cpu>;
template <class T>
using Output = nb::ndarray<T, nb::numpy, nb::c_contig, nb::device::cpu>;
using AnyOutput = nb::ndarray<nb::numpy, nb::c_contig, nb::device::cpu>;

// Plain threads, one for each helper, joined at the end.
class StdPool : public Pool {
 public:
  explicit StdPool(int64_t helpers) : helpers_(helpers) {}
  ~StdPool() override {
    for (std::thread& thread : threads_) thread.join();
  }
  int64_t helpers() const override { return helpers_; }
  void schedule(std::function<void()> function) override {
    threads_.emplace_back(std::move(function));
  }

 private:
  int64_t helpers_;
  std::vector<std::thread> threads_;
};

const KernelTable& table_for(const std::optional<std::string>& isa) {
  return isa.has_value() ? table_by_name(*isa, "isa") : active_table();
}

template <class Array>
uint64_t elements(const Array& array) {
  return static_cast<uint64_t>(array.size());
}

void expect_elements(const char* name, uint64_t got, uint64_t expected) {
  if (got == expected) return;
  throw InvalidPlan(std::string(name) + " must have " + std::to_string(expected) +
                    " elements, got " + std::to_string(got));
}

// The number of groups: how often `per_group` elements fit into `keys`.
uint64_t groups_of(uint64_t keys, uint64_t members, KeyMode mode, uint64_t size) {
  if (mode != KeyMode::kMemberKeys) {
    if (keys % 2 != 0) throw InvalidPlan("keys must hold pairs of words");
    return keys / 2;
  }
  if (members % 2 != 0) throw InvalidPlan("members must hold pairs of words");
  const uint64_t groups = members / 2;
  expect_elements("keys", keys, checked_product(groups, checked_product(size, 2, "size"), "keys"));
  return groups;
}

void run_plan(Input<int64_t> encoded, int64_t mode, int64_t size, Input<uint32_t> keys,
              Input<uint32_t> members, const std::vector<AnyOutput>& outputs,
              std::optional<std::string> isa, int64_t threads,
              std::optional<Input<uint32_t>> blocks) {
  if (encoded.ndim() != 1) throw InvalidPlan("plan must be a one-dimensional int64 array");
  if (size < 0) throw InvalidPlan("size must be >= 0, got " + std::to_string(size));
  if (threads < 1 || threads > 1024) {
    throw InvalidPlan("threads must be in 1..1024, got " + std::to_string(threads));
  }
  const KernelTable& kernels = table_for(isa);
  const Plan plan = decode_plan(encoded.data(), encoded.size());
  Call call = {key_mode(mode), 0, static_cast<uint64_t>(size), keys.data(), members.data(), {}};
  call.groups = groups_of(elements(keys), elements(members), call.mode, call.size);
  if (call.mode == KeyMode::kRange) {
    expect_elements("members", elements(members), checked_product(call.groups, 2, "members"));
  } else if (call.mode == KeyMode::kIndices) {
    const uint64_t each = checked_product(call.size, 2, "size");
    expect_elements("members", elements(members), checked_product(call.groups, each, "members"));
  }
  expect_elements("blocks", blocks ? elements(*blocks) : 0, plan.blocks.size());
  if (blocks) call.blocks = blocks->data();
  expect_elements("outputs", outputs.size(), plan.draws.size());
  for (size_t d = 0; d < outputs.size(); ++d) {
    const uint64_t expected = output_elements(plan.draws[d], call.groups, call.size);
    const std::string name = "outputs[" + std::to_string(d) + "]";
    expect_elements(name.c_str(), elements(outputs[d]), expected);
    const auto itemsize = static_cast<size_t>(plan.draws[d].sampler.itemsize);
    if (outputs[d].itemsize() != itemsize) {
      throw InvalidPlan(name + " must have items of " + std::to_string(itemsize) + " bytes, got " +
                        std::to_string(outputs[d].itemsize()));
    }
    call.outputs.push_back(outputs[d].data());
  }
  const nb::gil_scoped_release release;
  StdPool pool(threads - 1);
  run(kernels, plan, call, pool);
}

template <class Float, class Word>
void transform(Input<Float> params, Input<Word> bits, Output<Float> out,
               std::optional<std::string> isa, int64_t kind) {
  if (kind < 0 || kind >= kKinds) throw InvalidPlan("unknown kind " + std::to_string(kind));
  Sampler sampler = {static_cast<Kind>(kind), 8 * sizeof(Word), sizeof(Float), {}, nullptr};
  if (!has_form(sampler.kind, sampler.word_bits, sampler.itemsize) ||
      record_of(sampler.kind).source != Source::kWord) {
    throw InvalidPlan("kind " + std::to_string(kind) + " makes no floats of one word each");
  }
  const auto count = static_cast<uint64_t>(width_of(sampler.kind, sampler.word_bits)->params);
  expect_elements("params", elements(params), count);
  expect_elements("out", elements(out), elements(bits));
  for (uint64_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, params.data() + i, sizeof word);
    sampler.params[i] = word;
  }
  const KernelTable& kernels = table_for(isa);
  const nb::gil_scoped_release release;
  const FlushDenormals flush;
  kernels.transform(elements(bits), sampler, bits.data(), out.data());
}

void threefry(Input<uint32_t> keys, Input<uint32_t> counters, Output<uint32_t> out,
              std::optional<std::string> isa) {
  if (elements(keys) % 2 != 0) throw InvalidPlan("keys must hold pairs of words");
  expect_elements("counters", elements(counters), elements(keys));
  expect_elements("out", elements(out), elements(keys));
  const uint64_t n = elements(keys) / 2;
  std::vector<uint32_t> k0(n), k1(n), c0(n), c1(n);
  for (uint64_t i = 0; i < n; ++i) {
    k0[i] = keys.data()[2 * i], k1[i] = keys.data()[2 * i + 1];
    c0[i] = counters.data()[2 * i], c1[i] = counters.data()[2 * i + 1];
  }
  table_for(isa).derive(n, k0.data(), k1.data(), c0.data(), c1.data(), k0.data(), k1.data());
  for (uint64_t i = 0; i < n; ++i) {
    out.data()[2 * i] = k0[i], out.data()[2 * i + 1] = k1[i];
  }
}

nb::dict every_registration() {
  nb::dict targets = registrations(fill_target());
  targets["seedbed_threefry_v1"] = handler(threefry_execute);
  return targets;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : supported_tables()) names.emplace_back(table->name);
  return names;
}

}  // namespace
}  // namespace seedbed

NB_MODULE(_cpu, m) {
  using namespace nb::literals;
  using namespace seedbed;
  constexpr auto kNormal = static_cast<int64_t>(Kind::kNormal);
  m.def("registrations", &every_registration);
  m.def("type_registrations",
        [] { return type_registrations("seedbed_fill_state_v1", fill_target()); });
  define_versions(m);
  m.def("isa", [] { return std::string(active_table().name); });
  m.def("isas", &isas);
  m.def("without_cuda", [] { return std::string(SEEDBED_WITHOUT_CUDA); });
  // Without conversions: an output that had to be copied first would never reach the caller.
  m.def("run_plan", &run_plan, "plan"_a.noconvert(), "mode"_a, "size"_a, "keys"_a.noconvert(),
        "members"_a.noconvert(), "outputs"_a.noconvert(), "isa"_a = nb::none(), "threads"_a = 1,
        "blocks"_a.noconvert() = nb::none());
  m.def("transform", &transform<float, uint32_t>, "params"_a.noconvert(), "bits"_a.noconvert(),
        "out"_a.noconvert(), "isa"_a = nb::none(), "kind"_a = kNormal);
  m.def("transform", &transform<double, uint64_t>, "params"_a.noconvert(), "bits"_a.noconvert(),
        "out"_a.noconvert(), "isa"_a = nb::none(), "kind"_a = kNormal);
  m.def("threefry", &threefry, "keys"_a.noconvert(), "counters"_a.noconvert(), "out"_a.noconvert(),
        "isa"_a = nb::none());
}
