// The elements of a tile: a warp makes a unit of them, each lane a vector at a time.
#ifndef SEEDBED_CUDA_WRITE_H_
#define SEEDBED_CUDA_WRITE_H_

#include "cuda/block.h"

namespace {

using seedbed::cuda::Divisor;
using seedbed::cuda::kNoRows;
using seedbed::cuda::kWarp;

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

// The part of one draw that a tile makes: `rows` rows of `inner` elements, one after another at
// `out`. The first row has the number `row` among all members' rows; each starts with `counter`, or
// if `by_row`, with that and its own.
struct Stretch {
  const DeviceDraw* draw;
  unsigned char* out;
  const Words* member_keys;  // used where row_keys is null: by row
  const RowKey* row_keys;
  uint32_t rows;
  uint32_t inner;
  uint32_t count;  // rows * inner
  uint64_t counter;
  bool by_row;
};

SEEDBED_HD Stretch stretch_of(const Segment& s, const Tile& tile, const DeviceDraw& draw,
                              uint32_t itemsize, const Shared& shared) {
  Stretch x = {&draw, nullptr, nullptr, nullptr, tile.rows, tile.columns, 0, draw.offset, false};
  uint64_t at = tile.first_row * draw.inner + tile.first_column;
  if (s.rows == 0) {
    x.rows = tile.members * static_cast<uint32_t>(draw.batch);
    x.inner = static_cast<uint32_t>(draw.inner);
    at = tile.first_member * draw.batch * draw.inner;
  }
  x.count = x.rows * x.inner;
  x.counter += tile.first_column;
  x.out = static_cast<unsigned char*>(draw.out) + at * itemsize;
  if (draw.row_keys == kNoRows) {
    x.member_keys = shared.slots + draw.slot * s.members;
  } else {
    x.row_keys = shared.rows + draw.row_keys;
    x.by_row = draw.row_entries == 2 && x.rows > 1;
    if (draw.row_entries == 2 && x.rows == 1) x.counter += wide(x.row_keys[1].key);
  }
  return x;
}

template <class Block>
SEEDBED_HD RowKey key_of(Block& block, const Stretch& x, uint32_t row, uint32_t entries = 1) {
  block.expect(row < x.rows);
  if (x.row_keys == nullptr) return {x.member_keys[row], {0, 0}};
  return x.row_keys[row * entries];
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
// them, with one counter to start from and one high word of it throughout; else element by element.
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
  const bool rows_of_vectors = x.rows == 1 || (x.inner % kItems == 0 && lead == 0 && !x.by_row);
  if (rows_of_vectors && static_cast<uint32_t>(last >> 32) == high) {
    // Vectors start where addresses are aligned: `lead` elements before the stretch does.
    unsigned char* const out = x.out - lead * sizeof(T);
    const uint32_t all = x.count + lead, stop = end < all ? end : all,
                   low = static_cast<uint32_t>(x.counter) - lead;
#pragma unroll 1  // a vector's ciphers fill the pipeline; more would not fit into the registers
    for (uint32_t i = begin + lane * kItems; i < stop; i += kWarp * kItems) {
      const uint32_t row = x.rows == 1 ? 0 : quotient(i, x.draw->by_inner);
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
    const uint32_t row = x.rows == 1 ? 0 : quotient(i, x.draw->by_inner);
    uint64_t counter = x.counter + (i - row * x.inner);
    const RowKey key = key_of(block, x, row, x.by_row ? 2 : 1);
    if (x.by_row) counter += wide(x.row_keys[2 * row + 1].key);
    const T value =
        value_of(op, key, static_cast<uint32_t>(counter >> 32), static_cast<uint32_t>(counter));
    block.store(x.out + i * sizeof(T), value);
  }
}

template <class OpT, class Block>
SEEDBED_HD void write_unit(Block& block, const Segment& s, const DeviceDraw& draw,
                           const Shared& shared, uint32_t begin, uint32_t lane) {
  const Stretch x = stretch_of(s, shared.tile, draw, sizeof(typename OpT::T), shared);
  const uint32_t end = begin + s.unit_elements;
  if constexpr (OpT::kTable) {
    const OpT op(draw, reinterpret_cast<const unsigned char*>(shared.tables));
    write(block, x, op, begin, end, lane);
  } else {
    write(block, x, OpT(draw), begin, end, lane);
  }
}

template <uint32_t kPlace, class Op, class... Others>
struct At : At<kPlace - 1, Others...> {};
template <class Op, class... Others>
struct At<0, Op, Others...> {
  using Type = Op;
};

// A unit of a draw whose operation is one from kFirst on and before kEnd. Found by halves: with a
// chain of comparisons the compiler keeps registers in memory (CUDA 13.0).
template <uint32_t kFirst, uint32_t kEnd, class Block, class... Ops>
SEEDBED_HD void write_any(List<Ops...> all, Block& block, const Segment& s, const DeviceDraw& draw,
                          const Shared& shared, uint32_t begin, uint32_t lane) {
  if constexpr (kEnd - kFirst == 1) {
    write_unit<typename At<kFirst, Ops...>::Type>(block, s, draw, shared, begin, lane);
  } else {
    constexpr uint32_t kMiddle = (kFirst + kEnd) / 2;
    if (draw.operation < kMiddle) {
      write_any<kFirst, kMiddle>(all, block, s, draw, shared, begin, lane);
    } else {
      write_any<kMiddle, kEnd>(all, block, s, draw, shared, begin, lane);
    }
  }
}

// A type of its own and not a lambda, which the compiler would call: with registers in memory.
template <class Block>
struct WriteUnits {
  Block& block;
  const Launch& launch;
  const Shared& shared;

  SEEDBED_HD void operator()(uint32_t unit, uint32_t lane) const {
    const Segment& s = segment_of(launch, shared.tile);
    const DeviceDraw* const draws = in_pool<DeviceDraw>(launch, launch.draws) + s.first_draw;
    const DeviceDraw& draw =
        draws[place_of(unit, s.n_draws, [&](uint32_t i) { return draws[i].first_unit; })];
    const uint32_t begin = (unit - draw.first_unit) * s.unit_elements;
    write_any<0, Operations::kCount>(Operations(), block, s, draw, shared, begin, lane);
  }
};

}  // namespace

#endif  // SEEDBED_CUDA_WRITE_H_
