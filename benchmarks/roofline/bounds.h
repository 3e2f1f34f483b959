// Loops that do a kernel's arithmetic and nothing else: one table for each instruction set.
#ifndef SEEDBED_BENCHMARKS_ROOFLINE_BOUNDS_H_
#define SEEDBED_BENCHMARKS_ROOFLINE_BOUNDS_H_

#include <stdint.h>

namespace seedbed {

// Makes `vectors` vectors of draws in registers; returns a word that depends on all of them.
// `seed` keeps the compiler from knowing the keys.
using Loop = uint32_t (*)(uint64_t vectors, uint32_t seed);

// One kind of arithmetic: vector after vector, and with two and four interleaved. The fastest is
// the bound.
struct Bound {
  const char* name;
  Loop loops[3];
};

struct BoundTable {
  const char* isa;
  int lanes;  // draws in a vector
  int count;
  const Bound* bounds;
  // Writes `bytes` bytes, a multiple of 4096 at a multiple of 64; the second past the caches, null
  // where the machine has no such store.
  void (*write)(void* to, uint64_t bytes);
  void (*write_past_caches)(void* to, uint64_t bytes);
};

#if defined(__x86_64__)
namespace baseline {
extern const BoundTable bound_table;
}
namespace avx2 {
extern const BoundTable bound_table;
}
namespace avx512 {
extern const BoundTable bound_table;
}
#else
namespace neon {
extern const BoundTable bound_table;
}
#endif

}  // namespace seedbed

#endif  // SEEDBED_BENCHMARKS_ROOFLINE_BOUNDS_H_
