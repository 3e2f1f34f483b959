// Times bounds and kernels side by side and prints one JSON object; roofline.py makes sense of it.
// Usage: roofline ROUNDS MEGABYTES
#include <sys/mman.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "bounds.h"
#include "cpu/dispatch.h"
#include "sample.h"

namespace seedbed {
namespace {

constexpr uint64_t kDraws = 4096;  // a block that the L1 cache holds
constexpr double kAim = 40e-6;
constexpr uint64_t kPage = 4096, kHugePage = uint64_t{2} << 20;

uint64_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

struct Kernel {
  const char* name;
  Sampler sampler;
};

std::vector<Kernel> kernels() {
  static const std::vector<uint32_t> entries(256, 7);
  const uint64_t one = bits_of(1.0f), zero = bits_of(0.0f), none = bits_of(-0.0f);
  const float lo = std::nextafter(-1.0f, 0.0f), edge = 0.9544997f;
  const uint64_t root = bits_of(std::sqrt(2.0f)), spread = bits_of(0.3f);
  const uint64_t infinity = bits_of(INFINITY), minus_infinity = bits_of(-INFINITY);
  const uint64_t span = bits_of(1.0f - lo), low = bits_of(lo);
  return {
      {"bits, 32", {Kind::kBits, 32, 4, {}, nullptr}},
      {"bits, 64", {Kind::kBits, 64, 8, {}, nullptr}},
      {"uniform", {Kind::kUniform, 32, 4, {one, zero, one, none}, nullptr}},
      {"normal",
       {Kind::kNormal, 32, 4, {span, low, root, minus_infinity, infinity, one, none}, nullptr}},
      {"scaled normal",
       {Kind::kNormal, 32, 4, {span, low, root, minus_infinity, infinity, spread, none}, nullptr}},
      {"truncated normal",
       {Kind::kNormal,
        32,
        4,
        {bits_of(2.0f * edge), bits_of(-edge), root, bits_of(-1.9999999f), bits_of(1.9999999f),
         spread, none},
        nullptr}},
      {"bernoulli", {Kind::kBernoulli, 32, 1, {one, zero, spread}, nullptr}},
      {"randint", {Kind::kRandint, 32, 4, {1000, 296, 5}, nullptr}},
      {"table", {Kind::kTable, 8, 2, {1}, entries.data()}},
  };
}

// What one thread works on.
struct Space {
  std::vector<uint64_t> out = std::vector<uint64_t>(kDraws);
  std::vector<uint32_t> keys = std::vector<uint32_t>(6 * kDraws, 0x12345678);
};

Item clock_item() {
  constexpr int kAdds = 1000;
  return {"", "add", 16.0 * kAdds, timed([](int) {
            uint64_t sum = 1, term = 3;
            for (int i = 0; i < kAdds; ++i) {
#if defined(__x86_64__)
              asm volatile(".rept 16\n\tadd %1, %0\n\t.endr" : "+r"(sum) : "r"(term));
#else
              asm volatile(".rept 16\n\tadd %0, %0, %1\n\t.endr" : "+r"(sum) : "r"(term));
#endif
            }
          })};
}

const BoundTable& bounds_of(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == "avx512") return avx512::bound_table;
  if (isa == "avx2") return avx2::bound_table;
  return baseline::bound_table;
#else
  (void)isa;
  return neon::bound_table;
#endif
}

std::vector<Item> arithmetic_items(std::vector<Space>& spaces, const std::vector<Kernel>& all) {
  std::vector<Item> items = {clock_item()};
  const auto space = [&spaces](int thread) -> Space& {
    return spaces[static_cast<size_t>(thread)];
  };
  for (const KernelTable* table : supported_tables()) {
    const BoundTable& bounds = bounds_of(table->name);
    const uint64_t vectors = kDraws / static_cast<uint64_t>(bounds.lanes);
    for (int i = 0; i < bounds.count; ++i) {
      for (const Loop loop : bounds.bounds[i].loops) {
        const std::string name = std::string("bound: ") + bounds.bounds[i].name;
        items.push_back({table->name, name, kDraws, timed([=](int thread) {
                           Space& mine = space(thread);
                           mine.out[0] += loop(vectors, mine.keys[0]);
                         })});
      }
    }
    for (const Kernel& kernel : all) {
      const Sampler* const sampler = &kernel.sampler;
      items.push_back({table->name, kernel.name, kDraws, timed([=](int thread) {
                         Space& mine = space(thread);
                         uint32_t* const keys = mine.keys.data();
                         table->fill(Fill{sampler, keys, keys, keys + 1, keys + 1, 1, kDraws, 0,
                                          mine.out.data()});
                       })});
    }
    items.push_back({table->name, "split", kDraws / 4, timed([=](int thread) {
                       uint32_t* const k = space(thread).keys.data();
                       constexpr uint64_t n = kDraws / 4;
                       table->derive(n, k, k + n, k + 2 * n, k + 3 * n, k + 4 * n, k + 5 * n);
                     })});
  }
  return items;
}

enum class Pages { kTouched, kSmall, kHuge, kPopulated };

// Writes to `bytes` bytes that were written before, or are fresh from the system.
class Stretch {
 public:
  Stretch(uint64_t bytes, Pages pages) : bytes_(bytes), pages_(pages) {
    if (pages == Pages::kTouched) map(), std::memset(at_, 1, bytes_);
  }
  Stretch(const Stretch&) = delete;
  ~Stretch() { unmap(); }
  double write(void (*store)(void*, uint64_t)) {
    if (pages_ != Pages::kTouched) map();
    const double start = cpu_seconds();
#if defined(MADV_POPULATE_WRITE)
    if (pages_ == Pages::kPopulated) (void)madvise(at_, bytes_, MADV_POPULATE_WRITE);
#endif
    store(at_, bytes_);
    const double seconds = cpu_seconds() - start;
    if (pages_ != Pages::kTouched) unmap();
    return seconds;
  }

 private:
  void map() {
    whole_ = mmap(nullptr, bytes_ + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    if (whole_ == MAP_FAILED) std::perror("mmap"), std::exit(1);
    const auto start = reinterpret_cast<uintptr_t>(whole_);
    at_ = reinterpret_cast<void*>((start + kHugePage - 1) / kHugePage * kHugePage);
    (void)madvise(at_, bytes_, pages_ == Pages::kSmall ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
  }
  void unmap() {
    if (whole_ != nullptr) munmap(whole_, bytes_ + kHugePage);
    whole_ = nullptr;
  }

  uint64_t bytes_;
  Pages pages_;
  void* whole_ = nullptr;
  void* at_ = nullptr;
};

std::vector<Item> memory_items(std::vector<std::unique_ptr<Stretch>>& stretches, int threads,
                               uint64_t bytes) {
  struct Case {
    const char* name;
    Pages pages;
    bool past_caches;
  };
  const Case cases[] = {
      {"touched", Pages::kTouched, false},
      {"touched, past the caches", Pages::kTouched, true},
      {"fresh, 4 KiB pages", Pages::kSmall, false},
      {"fresh, huge pages", Pages::kHuge, false},
      {"fresh, huge pages, past the caches", Pages::kHuge, true},
      {"fresh, huge pages, populated", Pages::kPopulated, false},
  };
  const KernelTable* const table = supported_tables().front();
  const BoundTable& bounds = bounds_of(table->name);
  std::vector<Item> items;
  for (const Case& c : cases) {
    const auto store = c.past_caches ? bounds.write_past_caches : bounds.write;
    if (store == nullptr) continue;
    const size_t first = stretches.size();
    const uint64_t each = bytes / static_cast<uint64_t>(threads) / kPage * kPage;
    for (int i = 0; i < threads; ++i) {
      stretches.push_back(std::make_unique<Stretch>(each, c.pages));
    }
    items.push_back({table->name, c.name, static_cast<double>(each) / sizeof(float),
                     [&stretches, first, store](int thread, int repeats) {
                       double seconds = 0;
                       for (int i = 0; i < repeats; ++i) {
                         seconds += stretches[first + static_cast<size_t>(thread)]->write(store);
                       }
                       return seconds;
                     }});
  }
  return items;
}

// The least and the median of an item's samples, in nanoseconds a unit.
void print(const std::vector<Item>& items, int threads, const char* what, bool& comma) {
  for (const Item& item : items) {
    std::vector<double> sorted = item.seconds;
    std::sort(sorted.begin(), sorted.end());
    std::printf(
        "%s\n {\"what\": \"%s\", \"isa\": \"%s\", \"name\": \"%s\", \"threads\": %d, "
        "\"least\": %.6f, \"median\": %.6f}",
        comma ? "," : "", what, item.isa.c_str(), item.name.c_str(), threads, 1e9 * sorted.front(),
        1e9 * sorted[sorted.size() / 2]);
    comma = true;
  }
}

int main_checked(int rounds, uint64_t bytes) {
  const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const std::vector<Kernel> table = kernels();
  bool comma = false;
  std::printf("[");
  for (const int threads : {1, all}) {
    if (threads == 1 && comma) break;  // a machine with one core
    std::vector<Space> spaces(static_cast<size_t>(threads));
    std::vector<Item> items = arithmetic_items(spaces, table);
    sample(items, threads, rounds, kAim);
    print(items, threads, "arithmetic", comma);
    std::vector<std::unique_ptr<Stretch>> stretches;
    std::vector<Item> memory = memory_items(stretches, threads, bytes);
    sample(memory, threads, std::max(3, rounds / 20), 0);
    print(memory, threads, "memory", comma);
  }
  std::printf("]\n");
  return 0;
}

}  // namespace
}  // namespace seedbed

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: %s ROUNDS MEGABYTES\n", argv[0]), 2;
  return seedbed::main_checked(std::atoi(argv[1]), std::strtoull(argv[2], nullptr, 10) << 20);
}
