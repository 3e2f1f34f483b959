// Calls every kernel once on fixed inputs, for tools/instructions.py to count instructions under
// valgrind: each call's count goes to a file of its own, with the call's name in it.
#include <valgrind/callgrind.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/kernels.h"

namespace {

using seedbed::Fill;
using seedbed::Kind;
using seedbed::Sampler;

constexpr uint64_t kDraws = 1 << 14;
const seedbed::KernelTable& table = seedbed::SEEDBED_ISA::table;

uint64_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

uint64_t wide_bits_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

template <class Call>
void count(const char* name, const Call& call) {
  call();  // the dynamic linker's work is done here
  CALLGRIND_ZERO_STATS;
  call();
  CALLGRIND_DUMP_STATS_AT(name);
}

// All draws in rows of `row` elements, each row with a key of its own.
void count_fill(const char* name, const Sampler& sampler, uint64_t row) {
  std::vector<uint32_t> keys(4 * kDraws);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<uint32_t>(0x9E3779B9u * (i + 1));
  const bool two = sampler.kind == Kind::kRandint;
  std::vector<uint64_t> out(kDraws + 64);
  const uint32_t* const k = keys.data();
  const Fill fill{&sampler,
                  k,
                  k + kDraws,
                  two ? k + 2 * kDraws : nullptr,
                  two ? k + 3 * kDraws : nullptr,
                  kDraws / row,
                  row,
                  0,
                  out.data()};
  count(name, [&] { table.fill(fill); });
}

}  // namespace

int main() {
  const uint64_t one = bits_of(1.0f), zero = bits_of(0.0f), none = bits_of(-0.0f);
  const uint64_t root = bits_of(std::sqrt(2.0f)), scale = bits_of(0.3f);
  const float lowest = std::nextafter(-1.0f, 0.0f), edge = 0.9544997f;
  const uint64_t infinity = bits_of(INFINITY), bound = bits_of(1.9999999f);
  const std::vector<uint16_t> entries(256, 7);
  const Sampler bits{Kind::kBits, 32, 4, {}, nullptr};
  const Sampler wide{Kind::kBits, 64, 8, {}, nullptr};
  const Sampler uniform{Kind::kUniform, 32, 4, {one, zero, one, none}, nullptr};
  const Sampler normal{
      Kind::kNormal,
      32,
      4,
      {bits_of(1.0f - lowest), bits_of(lowest), root, bits_of(-INFINITY), infinity, one, none},
      nullptr};
  const Sampler truncated{
      Kind::kNormal,
      32,
      4,
      {bits_of(2.0f * edge), bits_of(-edge), root, bits_of(-1.9999999f), bound, scale, none},
      nullptr};
  Sampler wide_normal{Kind::kNormal, 64, 8, {}, nullptr};
  const double wide_params[] = {2.0, -1.0, std::sqrt(2.0), -INFINITY, INFINITY, 1.0, -0.0, -0.2929};
  for (int i = 0; i < 8; ++i) wide_normal.params[i] = wide_bits_of(wide_params[i]);
  const Sampler exponential{Kind::kExponential, 32, 4, {one, none}, nullptr};
  const Sampler gumbel{Kind::kGumbel, 32, 4, {one, none}, nullptr};
  const Sampler laplace{Kind::kLaplace, 32, 4, {one, none}, nullptr};
  const Sampler bernoulli{Kind::kBernoulli, 32, 1, {one, zero, scale}, nullptr};
  const Sampler randint{Kind::kRandint, 32, 4, {1000, 296, 5}, nullptr};
  const Sampler small{Kind::kTable, 8, 2, {1}, entries.data()};

  count_fill("bits", bits, kDraws);
  count_fill("bits, rows of 256", bits, 256);
  count_fill("bits, rows of 4", bits, 4);
  count_fill("bits, 64", wide, kDraws);
  count_fill("uniform", uniform, kDraws);
  count_fill("normal", normal, kDraws);
  count_fill("normal, rows of 256", normal, 256);
  count_fill("normal, rows of 4", normal, 4);
  count_fill("normal, 64", wide_normal, kDraws);
  count_fill("normal, 64, rows of 4", wide_normal, 4);
  count_fill("truncated normal", truncated, kDraws);
  count_fill("exponential", exponential, kDraws);
  count_fill("gumbel", gumbel, kDraws);
  count_fill("laplace", laplace, kDraws);
  count_fill("bernoulli", bernoulli, kDraws);
  count_fill("randint", randint, kDraws);
  count_fill("table", small, kDraws);

  std::vector<uint32_t> k(6 * kDraws, 0x12345678);
  uint32_t* const at[] = {&k[0],          &k[kDraws],     &k[2 * kDraws],
                          &k[3 * kDraws], &k[4 * kDraws], &k[5 * kDraws]};
  count("derive", [&] { table.derive(kDraws, at[0], at[1], at[2], at[3], at[4], at[5]); });
}
