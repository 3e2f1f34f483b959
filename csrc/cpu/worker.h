// One thread's part of a run: derives keys and calls the kernels for a stretch of a draw.
#ifndef SEEDBED_CPU_WORKER_H_
#define SEEDBED_CPU_WORKER_H_

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/schedule.h"

namespace seedbed {

// A range of members whose keys are derived together.
struct MemberBlock {
  uint64_t first;
  uint64_t count;
};

// A place inside the output of a draw for one member block: `row` counts from the block's first.
struct Place {
  uint64_t row;
  uint64_t offset;
};

// Two words for each of a number of keys, apart so that they load as vectors.
struct KeyArray {
  std::vector<uint32_t> k0, k1;
  void resize(uint64_t n) { k0.resize(n), k1.resize(n); }
};

class Worker {
 public:
  Worker(const KernelTable& kernels, const Plan& plan, const Call& call, uint64_t block_members)
      : kernels_(kernels), plan_(plan), call_(call), stride_(block_members) {}

  // Makes `block` the current one. Keys derived for the last block are kept if it is the same.
  void enter(const MemberBlock& block);

  // Writes the elements of draw `index` from `begin` up to `end`.
  void write(size_t index, Place begin, Place end);

 private:
  struct KeyPointers {
    const uint32_t* k0;
    const uint32_t* k1;
  };

  KeyPointers node_keys(uint32_t node);
  void derive_members();
  KeyPointers row_keys(const Draw& draw, uint64_t row, uint64_t rows);
  template <class Put>
  void index_rows(const Draw& draw, uint64_t base, const std::vector<uint64_t>& strides,
                  uint64_t row, uint64_t rows, const Put& put);
  void fold_level(const Draw& draw, const Level& level, uint64_t row, uint64_t rows);
  void write_rows(const Draw& draw, char* out, uint64_t row, uint64_t rows, uint64_t offset,
                  uint64_t count, bool one_key = false);

  const KernelTable& kernels_;
  const Plan& plan_;
  const Call& call_;
  const uint64_t stride_;  // node n's keys start at n * stride_
  MemberBlock block_ = {0, 0};
  uint64_t epoch_ = 0;             // number of the current block, from 1
  std::vector<uint64_t> derived_;  // by node: the epoch it was derived in
  KeyArray nodes_;
  KeyArray rows_, low_rows_, index_;
  std::vector<uint32_t> path_;
  std::vector<uint64_t> starts_;
  std::vector<uint64_t> coordinates_;
};

}  // namespace seedbed

#endif  // SEEDBED_CPU_WORKER_H_
