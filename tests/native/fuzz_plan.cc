// Random and damaged plans through the decoder, the schedulers, every kernel table and the text of
// the CUDA kernel, for builds with sanitizers; tools/sanitize.sh builds and runs it. Outputs are
// exact heap blocks, so that a write outside is an error of its own, and every run is compared with
// a run on one thread.
//
// Usage: fuzz_plan [rounds] [seed]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "cpu/cipher.h"
#include "cpu/dispatch.h"
#include "cpu/schedule.h"
#include "cuda_host.h"
#include "plan.h"

namespace {

using seedbed::Call;
using seedbed::Draw;
using seedbed::Plan;

std::mt19937_64 generator;

uint64_t below(uint64_t n) { return generator() % n; }

int64_t bits_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

int64_t wide_bits_of(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

struct Variant {
  int64_t kind, word_bits, itemsize;
  std::vector<int64_t> params;
  int64_t table_words;
};

std::vector<int64_t> random_plan() {
  const int64_t f[] = {bits_of(2), bits_of(-1), bits_of(1.5f), bits_of(-2), bits_of(2), bits_of(1)};
  std::vector<int64_t> wide;
  for (const double x : {2.0, -1.0, 1.5, -2.0, 2.0, 1.0, 1.0, -0.4142}) {
    wide.push_back(wide_bits_of(x));
  }
  const Variant variants[] = {
      {0, 32, 4, {}, 0},
      {1, 8, 1, {}, 0},
      {1, 16, 2, {}, 0},
      {1, 32, 4, {}, 0},
      {1, 64, 8, {}, 0},
      {2, 32, 4, {f[0], f[1], f[5], bits_of(-0.0f)}, 0},
      {2, 64, 8, {1, 2, 3, 4}, 0},
      {3, 32, 4, {f[0], f[1], f[2], f[3], f[4], f[5], f[5]}, 0},
      {3, 64, 8, wide, 0},
      {4, 32, 1, {f[0], f[1], f[5]}, 0},
      {4, 64, 1, {1, 2, 3}, 0},
      {5, 32, 4, {static_cast<int64_t>(below(9)), 2, 3}, 0},
      {5, 64, 2, {static_cast<int64_t>(below(9)), 2, 3}, 0},
      {6, 8, 2, {1}, 32},
      {6, 16, 4, {9}, 64},
      {7, 8, 1, {-1}, 0},
      {7, 64, 8, {static_cast<int64_t>(below(9))}, 0},
  };
  const auto n_nodes = static_cast<int64_t>(below(5)), n_draws = static_cast<int64_t>(1 + below(4));
  std::vector<int64_t> words = {seedbed::kPlanMagic, seedbed::kPlanVersion, n_nodes, n_draws};
  const uint64_t n_blocks = below(4);
  words.push_back(static_cast<int64_t>(n_blocks));
  for (uint64_t i = 0; i < n_blocks; ++i) words.push_back(static_cast<int64_t>(1 + below(9)));
  for (int64_t i = 1; i <= n_nodes; ++i) {
    words.push_back(static_cast<int64_t>(below(static_cast<uint64_t>(i))));
    words.push_back(static_cast<int64_t>(generator()));
  }
  for (int64_t i = 0; i < n_draws; ++i) {
    const Variant& v = variants[below(std::size(variants))];
    const uint64_t n_dims = below(3), n_levels = below(4);
    const int64_t inner = v.kind == 0 ? 1 : static_cast<int64_t>(below(below(8) ? 70 : 70000));
    const int64_t offset = below(4) ? 0 : (int64_t{1} << 32) - static_cast<int64_t>(below(90));
    words.insert(words.end(), {v.kind, v.word_bits, v.itemsize, inner, offset,
                               static_cast<int64_t>(below(static_cast<uint64_t>(n_nodes) + 1)),
                               static_cast<int64_t>(v.params.size()), static_cast<int64_t>(n_dims),
                               static_cast<int64_t>(n_levels), v.table_words});
    std::vector<int64_t> parts;
    for (uint64_t d = 0; d <= n_dims && n_blocks > 0; ++d) {
      if (below(2)) continue;
      const uint64_t block = below(n_blocks), divisor = 1 + below(3), count = 1 + below(4);
      for (const uint64_t x : {d, block, divisor, count}) parts.push_back(static_cast<int64_t>(x));
    }
    words.push_back(static_cast<int64_t>(parts.size() / 4));
    for (uint64_t d = 0; d < n_dims; ++d) {
      words.push_back(static_cast<int64_t>(below(below(4) ? 5 : 70)));
    }
    const bool spread = below(2);
    for (uint64_t d = 0; d < n_dims; ++d) {
      words.push_back(spread ? static_cast<int64_t>(generator() >> (31 + below(32))) : 0);
    }
    for (uint64_t l = 0; l < n_levels; ++l) {
      words.push_back(static_cast<int64_t>(generator()));
      for (uint64_t d = 0; d < n_dims; ++d) words.push_back(static_cast<int64_t>(below(3)));
    }
    words.insert(words.end(), parts.begin(), parts.end());
    words.insert(words.end(), v.params.begin(), v.params.end());
    for (int64_t t = 0; t < v.table_words; ++t) words.push_back(static_cast<int64_t>(generator()));
  }
  return words;
}

class Threads : public seedbed::Pool {
 public:
  explicit Threads(int64_t n) : n_(n) {}
  ~Threads() override {
    for (std::thread& thread : threads_) thread.join();
  }
  int64_t helpers() const override { return n_; }
  void schedule(std::function<void()> function) override {
    threads_.emplace_back(std::move(function));
  }

 private:
  int64_t n_;
  std::vector<std::thread> threads_;
};

using Outputs = std::vector<std::vector<char>>;

Outputs run(const Plan& plan, const seedbed::KernelTable& table, seedbed::KeyMode mode,
            uint64_t groups, uint64_t size, const std::vector<uint32_t>& operand,
            const std::vector<uint32_t>& blocks, int64_t helpers) {
  Outputs outputs;
  Call call = {mode, groups, size, operand.data(), operand.data(), {}, blocks.data()};
  for (const Draw& draw : plan.draws) {
    const uint64_t n = seedbed::output_elements(draw, groups, size);
    outputs.emplace_back(n * static_cast<uint64_t>(draw.sampler.itemsize), '\x5A');
    outputs.back().shrink_to_fit();
    call.outputs.push_back(outputs.back().data());
  }
  Threads pool(helpers);
  seedbed::run(table, plan, call, pool);
  return outputs;
}

// Whether all backends make the same of a draw: not of floats, which GPUs round otherwise.
bool is_exact(const Draw& draw) {
  using seedbed::Kind;
  const Kind kind = draw.sampler.kind;
  return kind == Kind::kKey || kind == Kind::kBits || kind == Kind::kRandint ||
         kind == Kind::kTable || kind == Kind::kConstant;
}

// The CUDA kernel on the host, in a random order.
void check_cuda(const Plan& plan, seedbed::KeyMode mode, uint64_t groups, uint64_t size,
                const std::vector<uint32_t>& operand, const std::vector<uint32_t>& blocks,
                const Outputs& expected) {
  std::vector<std::vector<uint64_t>> outputs;
  Call call = {mode, groups, size, operand.data(), operand.data(), {}, blocks.data()};
  for (const std::vector<char>& bytes : expected) {
    outputs.emplace_back((bytes.size() + 7) / 8);
    call.outputs.push_back(outputs.back().data());
  }
  try {
    seedbed_host::run(plan, call, 1 + below(2000), below(3));
  } catch (const seedbed::InvalidPlan& error) {
    if (std::strstr(error.what(), "cannot be made on a GPU") != nullptr) return;
    throw;
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    std::abort();
  }
  for (size_t d = 0; d < outputs.size(); ++d) {
    if (!is_exact(plan.draws[d]) || expected[d].empty()) continue;
    if (std::memcmp(outputs[d].data(), expected[d].data(), expected[d].size()) == 0) continue;
    std::printf("FAILED: draw %zu of the CUDA kernel differs\n", d);
    std::abort();
  }
}

void check_round() {
  std::vector<int64_t> words = random_plan();
  bool damaged = below(2) == 0;
  for (uint64_t i = damaged ? 1 + below(3) : 0; i > 0; --i) {
    const int64_t extremes[] = {-1, 0, 1, 2, 64, 1 << 20, INT64_MAX, INT64_MIN};
    words[below(words.size())] = below(3) ? extremes[below(8)] : static_cast<int64_t>(generator());
    if (below(4) == 0) words.resize(below(words.size()) + 1);
  }
  words.shrink_to_fit();
  try {
    const Plan plan = seedbed::decode_plan(words.data(), words.size());
    const uint64_t groups = below(3), size = below(40);
    uint64_t bytes = 0;
    for (const Draw& draw : plan.draws) {
      bytes += seedbed::output_elements(draw, groups, size) * 8;
      if (bytes > (64 << 20)) return;
    }
    std::vector<uint32_t> operand(groups * (size + 1) * 2);
    for (uint32_t& word : operand) word = static_cast<uint32_t>(generator());
    std::vector<uint32_t> blocks;
    for (const uint32_t count : plan.blocks) blocks.push_back(static_cast<uint32_t>(below(count)));
    if (!blocks.empty() && below(9) == 0) {
      blocks.back() = plan.blocks.back() + static_cast<uint32_t>(below(1 << 30));
      damaged = true;
    }
    const auto mode = static_cast<seedbed::KeyMode>(below(4));
    const auto& tables = seedbed::supported_tables();
    const Outputs expected = run(plan, *tables.back(), mode, groups, size, operand, blocks, 0);
    for (const auto* table : tables) {
      if (run(plan, *table, mode, groups, size, operand, blocks, 3) == expected) continue;
      std::printf("FAILED: %s differs from %s\n", table->name, tables.back()->name);
      std::abort();
    }
    if (bytes < (1 << 20)) check_cuda(plan, mode, groups, size, operand, blocks, expected);
  } catch (const seedbed::InvalidPlan&) {
    if (damaged) return;
    std::printf("FAILED: a good plan was refused\n");
    std::abort();
  }
}

// Words at an odd address, in a heap block that ends with them.
struct Misaligned {
  explicit Misaligned(uint64_t words) : bytes(1 + 4 * words) { bytes.shrink_to_fit(); }
  void* data() { return bytes.data() + 1; }
  uint32_t at(uint64_t i) const {
    uint32_t word;
    std::memcpy(&word, bytes.data() + 1 + 4 * i, sizeof word);
    return word;
  }
  std::vector<char> bytes;
};

uint64_t product(const std::vector<uint64_t>& dims) {
  uint64_t n = 1;
  for (const uint64_t dim : dims) n *= dim;
  return n;
}

// The cipher on random shapes that broadcast, one element at a time beside all at once; or, where
// an extent is damaged, refused.
void check_cipher() {
  seedbed::CipherCall call;
  for (uint64_t rank = below(5); rank > 0; --rank)
    call.dims.push_back(below(12) ? 1 + below(7) : 0);
  if (!call.dims.empty() && below(2)) call.dims.back() *= 1 + below(3000);
  const uint64_t n = product(call.dims);
  std::vector<Misaligned> words;
  std::vector<std::vector<uint32_t>> aligned;
  bool damaged = false;
  for (auto& operand : call.operands) {
    if (below(4)) operand.dims = call.dims;
    for (uint64_t& dim : operand.dims) {
      if (below(3) == 0) dim = 1;
      if (below(40) == 0) ++dim;
    }
    for (size_t d = 0; d < operand.dims.size(); ++d) {
      damaged = damaged || (operand.dims[d] != 1 && operand.dims[d] != call.dims[d]);
    }
    words.emplace_back(product(operand.dims));
    for (char& byte : words.back().bytes) byte = static_cast<char>(generator());
    std::vector<uint32_t> copy;
    for (uint64_t w = 0; w < product(operand.dims); ++w) copy.push_back(words.back().at(w));
    aligned.push_back(std::move(copy));
  }
  const bool odd = below(2);
  for (int i = 0; i < 4; ++i) {
    call.operands[i].words = odd ? words[i].data() : aligned[i].data();
  }
  for (const auto* table : seedbed::supported_tables()) {
    Misaligned first(n), second(n);
    call.first = first.data(), call.second = second.data();
    try {
      Threads pool(3);
      seedbed::run_cipher(*table, call, pool);
    } catch (const seedbed::InvalidPlan&) {
      if (damaged) return;
      std::printf("FAILED: good operands were refused\n");
      std::abort();
    }
    for (uint64_t e = 0; e < n; e += 1 + below(1 + n / 500)) {
      uint32_t in[4], out[2];
      for (int i = 0; i < 4; ++i) {
        uint64_t at = 0, stride = 1, rest = e;
        for (size_t d = call.dims.size(); d-- > 0 && !call.operands[i].dims.empty();) {
          const uint64_t extent = call.operands[i].dims[d];
          if (extent > 1) at += rest % call.dims[d] * stride;
          rest /= call.dims[d], stride *= extent;
        }
        in[i] = words[i].at(at);
      }
      table->derive(1, in, in + 1, in + 2, in + 3, out, out + 1);
      if (first.at(e) == out[0] && second.at(e) == out[1]) continue;
      std::printf("FAILED: word %llu of the cipher differs\n", static_cast<unsigned long long>(e));
      std::abort();
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long rounds = argc > 1 ? std::atol(argv[1]) : 300;
  generator.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  for (long i = 0; i < rounds; ++i) check_round(), check_cipher();
  std::printf("%ld rounds passed\n", rounds);
}
