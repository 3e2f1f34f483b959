// What a block knows of the tile that it makes, and what its threads share. The code of a block is
// in phases (tile.h), each over independent items with a barrier between them, so that the host can
// run the same text, one item after another in any order. `Block` supplies
//   each(n, f)         f(0) ... f(n - 1), shared among the threads
//   each_unit(n, f)    f(0, lane) ... f(n - 1, lane) for each of kWarp lanes, a warp to each
//   barrier()          what was written before it can be read after it
//   store<T>(to, x)    x to its place in an output
//   expect(condition)  nothing on a GPU; on the host, whether the kernel reads what it may
//   store_vector(to, v)  a whole Vector: 4, 8 or 16 bytes, aligned
#ifndef SEEDBED_CUDA_BLOCK_H_
#define SEEDBED_CUDA_BLOCK_H_

#include "cuda/launch.h"
#include "cuda/ops.h"

namespace {

using seedbed::cuda::kRowKeys;
using seedbed::cuda::kSlotKeys;
using seedbed::cuda::kTableBytes;
using seedbed::cuda::Launch;
using seedbed::cuda::Segment;

// Behind that of a row with a first counter of its own stands that counter, in words, as a `key`.
struct RowKey {
  Words key, low;  // `low` for the second words of integers
};

// Which part of the ensemble a tile is.
struct Tile {
  uint32_t segment;
  uint64_t first_member;
  uint32_t members;
  uint64_t first_row;  // of the one draw of a segment with `rows` or `columns`
  uint32_t rows;
  uint32_t skipped;  // rows of the first member before it
  uint64_t first_column;
  uint32_t columns;
};

struct Shared {
  Tile tile;
  Words slots[kSlotKeys];  // slot * members + member
  RowKey rows[kRowKeys];
  uint64_t tables[kTableBytes / 8];
};

template <class T>
SEEDBED_HD const T* in_pool(const Launch& launch, uint32_t at) {
  return reinterpret_cast<const T*>(launch.pool + at);
}

SEEDBED_HD const Segment& segment_of(const Launch& launch, const Tile& tile) {
  return in_pool<Segment>(launch, 0)[tile.segment];
}

// The last of n ascending numbers, `start` by place, that is not above x; the first is not.
template <class Start>
SEEDBED_HD uint32_t place_of(uint64_t x, uint32_t n, const Start& start) {
  uint32_t low = 0, high = n;
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (start(middle) <= x) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace

#endif  // SEEDBED_CUDA_BLOCK_H_
