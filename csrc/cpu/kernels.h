// The CPU kernels: one table of functions for each instruction set, all from kernels.cc.
#ifndef SEEDBED_CPU_KERNELS_H_
#define SEEDBED_CPU_KERNELS_H_

#include "kinds.h"

namespace seedbed {

// `rows` rows of `count` elements, written one after another to `out`, of any alignment. Row r has
// the key (k0[r], k1[r]), its first element the counter `counter`, or `counter` + starts[r]. A row
// of two words an element takes the high ones from that key and the low ones from (low_k0[r],
// low_k1[r]); both are null otherwise.
struct Fill {
  const Sampler* sampler;
  const uint32_t* k0;
  const uint32_t* k1;
  const uint32_t* low_k0;
  const uint32_t* low_k1;
  uint64_t rows;
  uint64_t count;
  uint64_t counter;
  void* out;
  const uint64_t* starts = nullptr;
  bool one_key = false;  // only the first row's keys are there, and all rows have these
};

struct KernelTable {
  const char* name;
  // (o0[i], o1[i]) = threefry2x32((k0[i], k1[i]), (c0[i], c1[i])); outputs may be the inputs.
  void (*derive)(uint64_t n, const uint32_t* k0, const uint32_t* k1, const uint32_t* c0,
                 const uint32_t* c1, uint32_t* o0, uint32_t* o1);
  void (*fill)(const Fill& fill);
  // What `fill` makes of given words of 32 or 64 bits, one an element: for kinds of floats.
  void (*transform)(uint64_t n, const Sampler& sampler, const void* words, void* out);
};

#if defined(__x86_64__)
namespace baseline {
extern const KernelTable table;
}
namespace avx2 {
extern const KernelTable table;
}
namespace avx512 {
extern const KernelTable table;
}
#else
namespace neon {
extern const KernelTable table;
}
#endif

}  // namespace seedbed

#endif  // SEEDBED_CPU_KERNELS_H_
