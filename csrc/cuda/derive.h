// The keys of a tile: those of its members, from them those of its draws, from these the ones of
// rows that have their own.
#ifndef SEEDBED_CUDA_DERIVE_H_
#define SEEDBED_CUDA_DERIVE_H_

#include "cuda/block.h"

namespace {

using seedbed::KeyMode;
using seedbed::cuda::Fold;
using seedbed::cuda::kNoRows;

SEEDBED_HD Words fold(Words key, uint64_t index) {
  return threefry2x32(key.a, key.b, static_cast<uint32_t>(index >> 32),
                      static_cast<uint32_t>(index));
}

SEEDBED_HD Words load_pair(const uint32_t* from, uint64_t i) {
  return {from[2 * i], from[2 * i + 1]};
}

SEEDBED_HD Words member_key(const Launch& launch, uint64_t member) {
  if (launch.mode == KeyMode::kMemberKeys) return load_pair(launch.keys, member);
  const uint64_t group = member / launch.size;
  const Words key = load_pair(launch.keys, group);
  if (launch.mode == KeyMode::kIndices) {
    return fold(key, wide(load_pair(launch.members_index, member)));
  }
  const bool all = launch.mode == KeyMode::kAll;
  const uint64_t first = all ? 0 : wide(load_pair(launch.members_index, group));
  return fold(key, first + member % launch.size);
}

// The numbers of a draw that is being made: its dims, and behind its levels those of blocks.
struct DrawWords {
  const uint64_t* dims;
  const uint64_t* levels;
  const uint64_t* counters;
  const uint64_t* parts;
};

SEEDBED_HD DrawWords words_of(const Launch& launch, const DeviceDraw& draw) {
  const uint64_t* const dims = in_pool<uint64_t>(launch, launch.words) + draw.words;
  const uint64_t* const levels = dims + draw.n_dims;
  const uint64_t* const counters = levels + draw.n_levels * (1 + draw.n_dims);
  return {dims, levels, counters, counters + draw.n_dims};
}

// sum(stride * coordinate) of a row.
SEEDBED_HD uint64_t index_of(const DeviceDraw& draw, const uint64_t* dims, const uint64_t* strides,
                             uint32_t row) {
  uint64_t index = 0;
  for (uint32_t d = draw.n_dims; d-- > 0;) {
    const auto extent = static_cast<uint32_t>(dims[d]);
    const uint32_t outer = row / extent;
    index += strides[d] * (row - outer * extent);
    row = outer;
  }
  return index;
}

// The same of the block that is made; `stride` is that of places in a row. A part is its dim and
// block, then divisor and count, the first in the low half.
SEEDBED_HD uint64_t start_of(const Launch& launch, const DeviceDraw& draw, const DrawWords& words,
                             const uint64_t* strides, uint64_t stride) {
  uint64_t start = 0;
  for (uint32_t p = 0; p < draw.n_parts; ++p) {
    const uint64_t where = words.parts[2 * p], which = words.parts[2 * p + 1];
    const auto dim = static_cast<uint32_t>(where);
    const uint32_t block = launch.blocks[where >> 32];
    const uint32_t number =
        block / static_cast<uint32_t>(which) % static_cast<uint32_t>(which >> 32);
    const bool in_row = dim == draw.n_dims;
    start += (in_row ? stride * draw.inner : strides[dim] * words.dims[dim]) * number;
  }
  return start;
}

// The key of a row from that of its member: folded with each level's index.
SEEDBED_HD Words row_key(const Launch& launch, const DeviceDraw& draw, Words key, uint32_t row) {
  const DrawWords words = words_of(launch, draw);
  const uint64_t* level = words.levels;
  for (uint32_t l = 0; l < draw.n_levels; ++l, level += 1 + draw.n_dims) {
    const uint64_t start = start_of(launch, draw, words, level + 1, 0);
    key = fold(key, level[0] + start + index_of(draw, words.dims, level + 1, row));
  }
  return key;
}

SEEDBED_HD Words row_counter(const Launch& launch, const DeviceDraw& draw, uint32_t row) {
  const DrawWords words = words_of(launch, draw);
  const uint64_t counter = start_of(launch, draw, words, words.counters, 1) +
                           index_of(draw, words.dims, words.counters, row);
  return {static_cast<uint32_t>(counter >> 32), static_cast<uint32_t>(counter)};
}

// Whether the elements of a draw take two words.
template <class... Ops>
SEEDBED_HD bool takes_two(List<Ops...>, const DeviceDraw& draw) {
  uint32_t place = 0;
  return ((draw.operation == place++ && Ops::kWords == 2) || ...);
}

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
  const DeviceDraw* const draws = in_pool<DeviceDraw>(launch, launch.draws) + s.first_draw;
  for (uint32_t t = 0; t < s.n_draws; ++t) {
    const DeviceDraw& draw = draws[t];
    if (draw.row_keys == kNoRows) continue;
    const auto batch = static_cast<uint32_t>(draw.batch);
    const uint32_t skipped = s.rows == 0 ? 0 : tile.skipped;
    const uint32_t rows = s.rows == 0 ? tile.members * batch : tile.rows;
    block.each(rows, [&](uint32_t i) {
      const uint32_t member = (skipped + i) / batch, row = skipped + i - member * batch;
      const Words from = shared.slots[draw.slot * s.members + member];
      Words key = row_key(launch, draw, from, row);
      RowKey& to = shared.rows[draw.row_keys + i * draw.row_entries];
      if (draw.row_entries == 2) (&to)[1].key = row_counter(launch, draw, row);
      if (takes_two(Operations(),
                    draw)) {  // jax.random.randint splits its key: high words, low words
        to.low = fold(key, 1);
        key = fold(key, 0);
      }
      to.key = key;
    });
  }
}

}  // namespace

#endif  // SEEDBED_CUDA_DERIVE_H_
