// The CUDA kernel on the host: the launches that the scheduler makes, and the text that the blocks
// run, one item of a phase after another in an order of the caller's choice. For tests on machines
// without a GPU. Counts how often each byte of an output is written, and refuses stores that a GPU
// would refuse.
#ifndef SEEDBED_TESTS_CUDA_HOST_H_
#define SEEDBED_TESTS_CUDA_HOST_H_

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/schedule.h"
#include "cuda/tile.h"

namespace seedbed_host {

// What an output's bytes were written how often.
class Writes {
 public:
  void add(const void* out, uint64_t bytes) {
    counts_.emplace(reinterpret_cast<uintptr_t>(out), std::vector<uint8_t>(bytes));
  }
  void note(const void* to, size_t size) {
    const auto address = reinterpret_cast<uintptr_t>(to);
    if (address % size != 0) throw std::logic_error("a store that is not aligned");
    auto at = counts_.upper_bound(address);
    if (at == counts_.begin()) throw std::logic_error("a store outside of the outputs");
    --at;
    const uintptr_t offset = address - at->first;
    if (offset + size > at->second.size()) throw std::logic_error("a store beyond an output");
    for (size_t i = 0; i < size; ++i) ++at->second[offset + i];
  }
  void check() const {
    for (const auto& [address, counts] : counts_) {
      for (size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] == 1) continue;
        throw std::logic_error("byte " + std::to_string(i) + " of an output was written " +
                               std::to_string(counts[i]) + " times");
      }
    }
  }

 private:
  std::map<uintptr_t, std::vector<uint8_t>> counts_;
};

// A block whose items run in a shuffled order, for each phase another.
class HostBlock {
 public:
  HostBlock(Writes& writes, uint64_t seed) : writes_(writes), random_(seed), shuffles_(seed != 0) {}

  template <class F>
  void each(uint32_t n, const F& f) {
    for (const uint32_t i : order(n)) f(i);
  }
  template <class F>
  void each_unit(uint32_t n, const F& f) {
    for (const uint32_t i : order(n * kWarp)) f(i / kWarp, i % kWarp);
  }
  void barrier() {}
  void expect(bool condition) {
    if (!condition) throw std::logic_error("a key is read that the tile has none of");
  }
  template <class T>
  void store(void* to, T x) {
    writes_.note(to, sizeof x);
    std::memcpy(to, &x, sizeof x);
  }
  template <class T>
  void store_vector(void* to, const Vector<T>& v) {
    writes_.note(to, sizeof v);
    std::memcpy(to, &v, sizeof v);
  }

 private:
  std::vector<uint32_t> order(uint32_t n) {
    std::vector<uint32_t> items(n);
    std::iota(items.begin(), items.end(), 0u);
    if (shuffles_) std::shuffle(items.begin(), items.end(), random_);
    return items;
  }

  Writes& writes_;
  std::mt19937_64 random_;
  bool shuffles_;
};

// Fills the outputs of `call` and checks that every byte was written once; returns the number of
// launches. `seed` orders the items of each phase and the tiles; 0 leaves them in order.
inline size_t run(const seedbed::Plan& plan, const seedbed::Call& call, uint64_t blocks,
                  uint64_t seed) {
  Writes writes;
  for (size_t d = 0; d < plan.draws.size(); ++d) {
    const uint64_t elements = seedbed::output_elements(plan.draws[d], call.groups, call.size);
    const auto itemsize = static_cast<uint64_t>(plan.draws[d].sampler.itemsize);
    if (elements > 0) writes.add(call.outputs[d], elements * itemsize);
  }
  const auto launches = seedbed::cuda::schedule(plan, call, blocks);
  const auto shared = std::make_unique<Shared>();
  for (const auto& launch : launches) {
    std::vector<uint64_t> tiles(launch->tiles);
    std::iota(tiles.begin(), tiles.end(), uint64_t{0});
    if (seed != 0) std::shuffle(tiles.begin(), tiles.end(), std::mt19937_64(seed));
    for (const uint64_t tile : tiles) {
      HostBlock block(writes, seed == 0 ? 0 : seed + tile);
      std::memset(static_cast<void*>(shared.get()), 0xA5, sizeof *shared);
      run_tile(block, *launch, tile, *shared);
    }
  }
  writes.check();
  return launches.size();
}

}  // namespace seedbed_host

#endif  // SEEDBED_TESTS_CUDA_HOST_H_
