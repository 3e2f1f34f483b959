// The kernel's body: one tile.
#ifndef SEEDBED_CUDA_TILE_H_
#define SEEDBED_CUDA_TILE_H_

#include "cuda/block.h"
#include "cuda/derive.h"
#include "cuda/write.h"

namespace {

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
  const DeviceDraw& draw = in_pool<DeviceDraw>(launch, launch.draws)[s.first_draw];
  const uint64_t all_rows = launch.members * draw.batch;
  tile.first_row = at / s.parts * s.rows;
  const uint64_t rows_left = all_rows - tile.first_row;
  tile.rows = static_cast<uint32_t>(rows_left < s.rows ? rows_left : s.rows);
  tile.first_column = at % s.parts * s.columns;
  const uint64_t columns_left = draw.inner - tile.first_column;
  const uint64_t columns = s.columns == 0 ? draw.inner : s.columns;
  tile.columns = static_cast<uint32_t>(columns_left < columns ? columns_left : columns);
  tile.first_member = tile.first_row / draw.batch;
  tile.skipped = static_cast<uint32_t>(tile.first_row - tile.first_member * draw.batch);
  tile.members = (tile.skipped + tile.rows - 1) / static_cast<uint32_t>(draw.batch) + 1;
  return tile;
}

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
