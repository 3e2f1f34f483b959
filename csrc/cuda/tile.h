// The kernel's body: one tile. In phases, each over independent items with a barrier between them,
// so that the host can run the same text, one item after another in any order. `Block` supplies
//   each(n, f)         f(0) ... f(n - 1), shared among the threads
//   each_unit(n, f)    f(0, lane) ... f(n - 1, lane) for each of kWarp lanes, a warp to each
//   barrier()          what was written before it can be read after it
//   store<T>(to, x)    x to its place in an output
//   expect(condition)  nothing on a GPU; on the host, whether the kernel reads what it may
//   store_vector(to, v)  a whole Vector: 4, 8 or 16 bytes, aligned
#ifndef SEEDBED_CUDA_TILE_H_
#define SEEDBED_CUDA_TILE_H_

#include "cuda/launch.h"
#include "cuda/ops.h"

namespace {

using seedbed::cuda::Divisor;
using seedbed::cuda::Fold;
using seedbed::cuda::kNoRows;
using seedbed::cuda::kRowKeys;
using seedbed::cuda::kSlotKeys;
using seedbed::cuda::kTableBytes;
using seedbed::cuda::kWarp;
using seedbed::cuda::Launch;
using seedbed::cuda::Op;
using seedbed::cuda::Segment;

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

// What a thread stores at a time: 16 bytes, or 4 items of less. Making a number takes far longer
// than storing it, and as many ciphers as these, side by side, fill the pipeline.
template <class T>
struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Vector {
  static constexpr uint32_t kItems = sizeof(T) == 8 ? 2 : 4;
  T items[kItems];
};

SEEDBED_HD uint32_t quotient(uint32_t n, Divisor d) {
  return static_cast<uint32_t>((static_cast<uint64_t>(n) * d.multiplier) >> d.shift);
}

SEEDBED_HD Words fold(Words key, uint64_t index) {
  return threefry2x32(key.a, key.b, static_cast<uint32_t>(index >> 32),
                      static_cast<uint32_t>(index));
}

// The part of one draw that a tile makes: `rows` rows of `inner` elements, one after another at
// `out`. The first row has the number `row` among all members' rows; each starts with `counter`.
struct Stretch {
  const Task* task;
  unsigned char* out;
  const Words* member_keys;  // used where row_keys is null: by row
  const RowKey* row_keys;
  uint32_t rows;
  uint32_t inner;
  uint32_t count;  // rows * inner
  uint64_t counter;
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

SEEDBED_HD Tile find_tile(const Launch& launch, uint64_t index) {
  const Segment* const segments = in_pool<Segment>(launch, 0);
  const uint32_t low =
      place_of(index, launch.n_segments, [&](uint32_t i) { return segments[i].first_tile; });
  const Segment& s = segments[low];
  const uint64_t at = index - s.first_tile;
  Tile tile = {low, at * s.members, 0, 0, 0, 0, 0, 0};
  if (s.rows == 0) {
    const uint64_t left = launch.members - tile.first_member;
    tile.members = static_cast<uint32_t>(left < s.members ? left : s.members);
    return tile;
  }
  const Task& task = in_pool<Task>(launch, launch.tasks)[s.first_task];
  const uint64_t all_rows = launch.members * task.batch;
  tile.first_row = at / s.parts * s.rows;
  const uint64_t rows_left = all_rows - tile.first_row;
  tile.rows = static_cast<uint32_t>(rows_left < s.rows ? rows_left : s.rows);
  tile.first_column = at % s.parts * s.columns;
  const uint64_t columns_left = task.inner - tile.first_column;
  const uint64_t columns = s.columns == 0 ? task.inner : s.columns;
  tile.columns = static_cast<uint32_t>(columns_left < columns ? columns_left : columns);
  tile.first_member = tile.first_row / task.batch;
  tile.skipped = static_cast<uint32_t>(tile.first_row - tile.first_member * task.batch);
  tile.members = (tile.skipped + tile.rows - 1) / static_cast<uint32_t>(task.batch) + 1;
  return tile;
}

SEEDBED_HD Words load_pair(const uint32_t* from, uint64_t i) {
  return {from[2 * i], from[2 * i + 1]};
}

SEEDBED_HD Words member_key(const Launch& launch, uint64_t member) {
  constexpr uint32_t kMemberKeys = 0, kIndices = 2, kAll = 3;  // seedbed::KeyMode
  if (launch.mode == kMemberKeys) return load_pair(launch.keys, member);
  const uint64_t group = member / launch.size;
  const Words key = load_pair(launch.keys, group);
  if (launch.mode == kIndices) return fold(key, wide(load_pair(launch.members_index, member)));
  const uint64_t first = launch.mode == kAll ? 0 : wide(load_pair(launch.members_index, group));
  return fold(key, first + member % launch.size);
}

// The key of a row from that of its member: folded with each level's index.
SEEDBED_HD Words row_key(const Launch& launch, const Task& task, Words key, uint32_t row) {
  const uint64_t* const dims = in_pool<uint64_t>(launch, launch.words) + task.words;
  const uint64_t* level = dims + task.n_dims;
  for (uint32_t l = 0; l < task.n_levels; ++l, level += 1 + task.n_dims) {
    uint64_t index = level[0];
    uint32_t rest = row;
    for (uint32_t d = task.n_dims; d-- > 0;) {
      const auto extent = static_cast<uint32_t>(dims[d]);
      const uint32_t outer = rest / extent;
      index += level[1 + d] * (rest - outer * extent);
      rest = outer;
    }
    key = fold(key, index);
  }
  return key;
}

SEEDBED_HD bool is_randint(Op op) { return op >= Op::kRandint32To1 && op <= Op::kRandint64To8; }

template <class Block>
SEEDBED_HD void derive_slots(Block& block, const Launch& launch, const Tile& tile, Shared& shared) {
  const Segment& s = segment_of(launch, tile);
  block.each(tile.members,
             [&](uint32_t m) { shared.slots[m] = member_key(launch, tile.first_member + m); });
  const Fold* const folds = in_pool<Fold>(launch, launch.folds) + s.first_fold;
  for (uint32_t first = 0; first < s.n_folds;) {
    uint32_t end = first;
    while (!folds[end++].ends_stage) {
    }
    block.barrier();
    block.each((end - first) * s.members, [&](uint32_t i) {
      const Fold& f = folds[first + i / s.members];
      const uint32_t member = i % s.members;
      if (member >= tile.members) return;
      Words key = shared.slots[f.from * s.members + member];
      for (uint32_t n = 0; n < f.times; ++n) key = fold(key, f.index);
      shared.slots[f.to * s.members + member] = key;
    });
    first = end;
  }
}

template <class Block>
SEEDBED_HD void derive_rows(Block& block, const Launch& launch, const Tile& tile, Shared& shared) {
  const Segment& s = segment_of(launch, tile);
  const Task* const tasks = in_pool<Task>(launch, launch.tasks) + s.first_task;
  for (uint32_t t = 0; t < s.n_tasks; ++t) {
    const Task& task = tasks[t];
    if (task.row_keys == kNoRows) continue;
    const auto batch = static_cast<uint32_t>(task.batch);
    const uint32_t skipped = s.rows == 0 ? 0 : tile.skipped;
    const uint32_t rows = s.rows == 0 ? tile.members * batch : tile.rows;
    block.each(rows, [&](uint32_t i) {
      const uint32_t member = (skipped + i) / batch, row = skipped + i - member * batch;
      const Words from = shared.slots[task.slot * s.members + member];
      Words key = row_key(launch, task, from, row);
      RowKey& to = shared.rows[task.row_keys + i];
      if (is_randint(task.op)) {  // jax.random.randint splits its key: high words, low words
        to.low = fold(key, 1);
        key = fold(key, 0);
      }
      to.key = key;
    });
  }
}

SEEDBED_HD Stretch stretch_of(const Segment& s, const Tile& tile, const Task& task,
                              uint32_t itemsize, const Shared& shared) {
  Stretch x = {&task, nullptr, nullptr, nullptr, tile.rows, tile.columns, 0, task.offset};
  uint64_t at = tile.first_row * task.inner + tile.first_column;
  if (s.rows == 0) {
    x.rows = tile.members * static_cast<uint32_t>(task.batch);
    x.inner = static_cast<uint32_t>(task.inner);
    at = tile.first_member * task.batch * task.inner;
  }
  x.count = x.rows * x.inner;
  x.counter += tile.first_column;
  x.out = static_cast<unsigned char*>(task.out) + at * itemsize;
  if (task.row_keys == kNoRows) {
    x.member_keys = shared.slots + task.slot * s.members;
  } else {
    x.row_keys = shared.rows + task.row_keys;
  }
  return x;
}

template <class Block>
SEEDBED_HD RowKey key_of(Block& block, const Stretch& x, uint32_t row) {
  block.expect(row < x.rows);
  if (x.row_keys == nullptr) return {x.member_keys[row], {0, 0}};
  return x.row_keys[row];
}

// A value that the compiler knows nothing about. It would carry what four neighbouring counters
// have in common through the additions of their ciphers, which takes twice the instructions
// (CUDA 13.5).
SEEDBED_HD uint32_t opaque(uint32_t x) {
#if defined(__CUDA_ARCH__)
  asm("" : "+r"(x));
#endif
  return x;
}

template <class OpT>
SEEDBED_HD typename OpT::T value_of(const OpT& op, const RowKey& key, uint32_t high, uint32_t low) {
  if constexpr (OpT::kWords == 0) {
    return op(key.key);
  } else if constexpr (OpT::kWords == 1) {
    return op(threefry2x32(key.key.a, key.key.b, high, low));
  } else {
    return op(threefry2x32(key.key.a, key.key.b, high, low),
              threefry2x32(key.low.a, key.low.b, high, low));
  }
}

// One lane's share of the elements [begin, end) of a stretch. Whole vectors where rows consist of
// them and the high counter word is the same throughout; else element by element.
template <class Block, class OpT>
SEEDBED_HD void write(Block& block, const Stretch& x, const OpT& op, uint32_t begin, uint32_t end,
                      uint32_t lane) {
  using T = typename OpT::T;
  using V = Vector<T>;
  constexpr uint32_t kItems = V::kItems;
  const uint64_t last = x.counter + x.inner - 1;
  const auto high = static_cast<uint32_t>(x.counter >> 32);
  const auto lead =
      static_cast<uint32_t>(reinterpret_cast<uintptr_t>(x.out) % sizeof(V) / sizeof(T));
  const bool rows_of_vectors = x.rows == 1 || (x.inner % kItems == 0 && lead == 0);
  if (rows_of_vectors && static_cast<uint32_t>(last >> 32) == high) {
    // Vectors start where addresses are aligned: `lead` elements before the stretch does.
    unsigned char* const out = x.out - lead * sizeof(T);
    const uint32_t all = x.count + lead, stop = end < all ? end : all,
                   low = static_cast<uint32_t>(x.counter) - lead;
#pragma unroll 1  // a vector's ciphers fill the pipeline; more would not fit into the registers
    for (uint32_t i = begin + lane * kItems; i < stop; i += kWarp * kItems) {
      const uint32_t row = x.rows == 1 ? 0 : quotient(i, x.task->by_inner);
      const RowKey key = key_of(block, x, row);
      const uint32_t first = low + (i - row * x.inner);
      V v;
#pragma unroll
      for (uint32_t j = 0; j < kItems; ++j) v.items[j] = value_of(op, key, high, opaque(first + j));
      if (i >= lead && i + kItems <= all) {
        block.store_vector(out + i * sizeof(T), v);
      } else {
#pragma unroll
        for (uint32_t j = 0; j < kItems; ++j) {
          if (i + j >= lead && i + j < all) block.store(out + (i + j) * sizeof(T), v.items[j]);
        }
      }
    }
    return;
  }
  const uint32_t stop = end < x.count ? end : x.count;
#pragma unroll 1
  for (uint32_t i = begin + lane; i < stop; i += kWarp) {
    const uint32_t row = x.rows == 1 ? 0 : quotient(i, x.task->by_inner);
    const uint64_t counter = x.counter + (i - row * x.inner);
    const T value = value_of(op, key_of(block, x, row), static_cast<uint32_t>(counter >> 32),
                             static_cast<uint32_t>(counter));
    block.store(x.out + i * sizeof(T), value);
  }
}

template <class OpT, class Block>
SEEDBED_HD void write_unit(Block& block, const Segment& s, const Task& task, const Shared& shared,
                           uint32_t begin, uint32_t lane) {
  const Stretch x = stretch_of(s, shared.tile, task, sizeof(typename OpT::T), shared);
  const uint32_t end = begin + s.unit_elements;
  if constexpr (OpT::kTable) {
    const OpT op(task, reinterpret_cast<const unsigned char*>(shared.tables));
    write(block, x, op, begin, end, lane);
  } else {
    write(block, x, OpT(task), begin, end, lane);
  }
}

template <class Block>
SEEDBED_HD void write_any(Block& block, const Segment& s, const Task& task, const Shared& shared,
                          uint32_t begin, uint32_t lane) {
#define SEEDBED_CASE(op, ...) \
  case Op::op:                \
    return write_unit<__VA_ARGS__>(block, s, task, shared, begin, lane)
  switch (task.op) {
    SEEDBED_CASE(kKey, RowKeys);
    SEEDBED_CASE(kConstant1, Constant<uint8_t>);
    SEEDBED_CASE(kConstant2, Constant<uint16_t>);
    SEEDBED_CASE(kConstant4, Constant<uint32_t>);
    SEEDBED_CASE(kConstant8, Constant<uint64_t>);
    SEEDBED_CASE(kBits1, Bits<uint8_t>);
    SEEDBED_CASE(kBits2, Bits<uint16_t>);
    SEEDBED_CASE(kBits4, Bits<uint32_t>);
    SEEDBED_CASE(kBits8, Bits<uint64_t>);
    SEEDBED_CASE(kUnitF32, UnitF32);
    SEEDBED_CASE(kUniformF32, UniformF32);
    SEEDBED_CASE(kUniformF64, UniformF64);
    SEEDBED_CASE(kNormalF32, NormalF32<false>);
    SEEDBED_CASE(kClippedNormalF32, NormalF32<true>);
    SEEDBED_CASE(kBernoulliF32, BernoulliF32);
    SEEDBED_CASE(kBernoulliF64, BernoulliF64);
    SEEDBED_CASE(kRandint32To1, Randint<uint32_t, uint8_t>);
    SEEDBED_CASE(kRandint32To2, Randint<uint32_t, uint16_t>);
    SEEDBED_CASE(kRandint32To4, Randint<uint32_t, uint32_t>);
    SEEDBED_CASE(kRandint64To1, Randint<uint64_t, uint8_t>);
    SEEDBED_CASE(kRandint64To2, Randint<uint64_t, uint16_t>);
    SEEDBED_CASE(kRandint64To4, Randint<uint64_t, uint32_t>);
    SEEDBED_CASE(kRandint64To8, Randint<uint64_t, uint64_t>);
    SEEDBED_CASE(kTable1, Table<uint8_t>);
    SEEDBED_CASE(kTable2, Table<uint16_t>);
    SEEDBED_CASE(kTable4, Table<uint32_t>);
  }
#undef SEEDBED_CASE
}

// A type of its own and not a lambda, which the compiler would call: with registers in memory.
template <class Block>
struct WriteUnits {
  Block& block;
  const Launch& launch;
  const Shared& shared;

  SEEDBED_HD void operator()(uint32_t unit, uint32_t lane) const {
    const Segment& s = segment_of(launch, shared.tile);
    const Task* const tasks = in_pool<Task>(launch, launch.tasks) + s.first_task;
    const Task& task =
        tasks[place_of(unit, s.n_tasks, [&](uint32_t i) { return tasks[i].first_unit; })];
    write_any(block, s, task, shared, (unit - task.first_unit) * s.unit_elements, lane);
  }
};

template <class Block>
SEEDBED_HD void run_tile(Block& block, const Launch& launch, uint64_t index, Shared& shared) {
  block.barrier();  // the last tile's keys have been used
  block.each(1, [&](uint32_t) { shared.tile = find_tile(launch, index); });
  block.barrier();
  const Tile& tile = shared.tile;
  const Segment& s = segment_of(launch, tile);
  const uint64_t* const tables = in_pool<uint64_t>(launch, launch.words) + s.tables;
  block.each(s.table_words, [&](uint32_t i) { shared.tables[i] = tables[i]; });
  derive_slots(block, launch, tile, shared);
  block.barrier();
  derive_rows(block, launch, tile, shared);
  block.barrier();
  block.each_unit(s.n_units, WriteUnits<Block>{block, launch, shared});
}

}  // namespace

#endif  // SEEDBED_CUDA_TILE_H_
