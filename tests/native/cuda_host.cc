// The CUDA kernel on the host (cuda_host.h), for tests in Python to load.
#include "cuda_host.h"

namespace {

using seedbed::Call;
using seedbed::Plan;

template <class Function>
int64_t guarded(char* message, size_t length, const Function& function) {
  try {
    return function();
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), length - 1);
    message[length - 1] = '\0';
    return -1;
  }
}

}  // namespace

extern "C" {

// Runs a plan as `seedbed._cpu.run_plan` does, as if on a device that runs `blocks` blocks at a
// time. Returns the number of launches, or -1 and a message.
int64_t cuda_host_run(const int64_t* words, uint64_t n_words, int64_t mode, uint64_t groups,
                      uint64_t size, const uint32_t* keys, const uint32_t* members,
                      const uint32_t* numbers, void** outputs, uint64_t blocks, uint64_t seed,
                      char* message, uint64_t length) {
  return guarded(message, length, [&]() -> int64_t {
    const Plan plan = seedbed::decode_plan(words, n_words);
    Call call = {seedbed::key_mode(mode), groups, size, keys, members, {}};
    call.outputs.assign(outputs, outputs + plan.draws.size());
    call.blocks = numbers;
    return static_cast<int64_t>(seedbed_host::run(plan, call, blocks, seed));
  });
}

// How many launches make a plan for `size` members, or -1 and a message.
int64_t cuda_host_launches(const int64_t* words, uint64_t n_words, uint64_t size, char* message,
                           uint64_t length) {
  return guarded(message, length, [&]() -> int64_t {
    const Plan plan = seedbed::decode_plan(words, n_words);
    const Call call = {seedbed::KeyMode::kMemberKeys,        1, size, nullptr, nullptr,
                       std::vector<void*>(plan.draws.size())};
    return static_cast<int64_t>(seedbed::cuda::schedule(plan, call, 8).size());
  });
}

// The transform of normals on given words, as `seedbed._cpu.transform` is.
void cuda_host_transform(const float* params, uint64_t n, const uint32_t* words, float* out) {
  seedbed::cuda::DeviceDraw draw = {};
  std::memcpy(draw.params, params, normal::kNear * sizeof *params);
  const NormalF32<true> op(draw);
  for (uint64_t i = 0; i < n; ++i) out[i] = op.transform(words[i]);
}

// Those of one of the samplers that are made of a word alone; false where the kind is another.
bool cuda_host_of_word(int64_t kind, const float* params, uint64_t n, const uint32_t* words,
                       float* out) {
  seedbed::cuda::DeviceDraw draw = {};
  std::memcpy(draw.params, params, 2 * sizeof *params);
  const auto transform = [&](const auto& op) {
    for (uint64_t i = 0; i < n; ++i) out[i] = op.transform(words[i]);
    return true;
  };
  switch (static_cast<Kind>(kind)) {
    case Kind::kExponential:
      return transform(OfWord<Kind::kExponential>(draw));
    case Kind::kGumbel:
      return transform(OfWord<Kind::kGumbel>(draw));
    case Kind::kLaplace:
      return transform(OfWord<Kind::kLaplace>(draw));
    default:
      return false;
  }
}

// out[i] = threefry2x32(keys[i], counters[i]), pairs of words each.
void cuda_host_threefry(uint64_t n, const uint32_t* keys, const uint32_t* counters, uint32_t* out) {
  for (uint64_t i = 0; i < n; ++i) {
    const Words w =
        threefry2x32(keys[2 * i], keys[2 * i + 1], counters[2 * i], counters[2 * i + 1]);
    out[2 * i] = w.a, out[2 * i + 1] = w.b;
  }
}
}
