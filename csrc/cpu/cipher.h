// The cipher on arrays: threefry2x32 element by element, operands broadcast.
#ifndef SEEDBED_CPU_CIPHER_H_
#define SEEDBED_CPU_CIPHER_H_

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/tasks.h"

namespace seedbed {

// Words in row-major order. `dims` is empty for a single word that serves every element; else it is
// as long as that of the results, and each is 1 or theirs.
struct CipherOperand {
  const void* words;
  std::vector<uint64_t> dims;
};

// (first, second) = threefry2x32((k0, k1), (c0, c1)); the operands are in this order. Buffers may
// have any alignment, those without elements may be null.
struct CipherCall {
  CipherOperand operands[4];
  std::vector<uint64_t> dims;
  void* first;
  void* second;
};

// Throws InvalidPlan where an operand does not broadcast to the results.
void run_cipher(const KernelTable& kernels, const CipherCall& call, Pool& pool);

}  // namespace seedbed

#endif  // SEEDBED_CPU_CIPHER_H_
