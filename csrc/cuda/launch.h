// What one launch of the kernel is told: a plan's draws, cut into tiles, in the form that its
// blocks read. Plain data that is passed by value as the kernel's parameter: no device memory is
// allocated, nothing is copied beforehand, and a CUDA graph that captures the launch holds all of
// it. A plan too large for one launch's parameter is made by several.
//
// A *tile* is what a block makes at a time. A *segment* is a run of draws whose tiles are alike:
//   - of several small draws, or of one: a tile has `members` members with all their rows;
//   - of one draw with many rows a member: a tile has `rows` rows, wherever members begin;
//   - of one draw with long rows: a tile has `columns` elements of one row.
// A block first derives the keys of its tile's members into shared memory (its *slots*), by the
// folds of the segment, each shared prefix once; then the keys of rows that have their own; then
// its warps share the elements, a *unit* at a time.
#ifndef SEEDBED_CUDA_LAUNCH_H_
#define SEEDBED_CUDA_LAUNCH_H_

#include <stdint.h>

#include "kinds.h"

namespace seedbed::cuda {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kThreads = 256;      // of a block
constexpr uint32_t kSlotKeys = 1024;    // keys of nodes in shared memory: slots * members
constexpr uint32_t kRowKeys = 512;      // keys, or pairs of keys, of rows in shared memory
constexpr uint32_t kTableBytes = 4096;  // of lookup tables in shared memory
constexpr uint32_t kNoRows = 0xFFFF;    // a draw whose rows have the keys of their members
constexpr uint32_t kMaxColumns = 1u << 20;
constexpr uint64_t kMaxBatch = 1u << 31;  // rows of a member

// q = n / d for n < 2^31 as n * multiplier >> shift.
struct Divisor {
  uint32_t multiplier;
  uint32_t shift;
};

// slot `to` = slot `from` folded with `index`, `times` times over.
struct Fold {
  uint64_t index;
  uint32_t times;
  uint16_t from;
  uint16_t to : 15;
  uint16_t ends_stage : 1;  // those after it read what it and those before it made
};

// What the kernel knows of a draw.
struct DeviceDraw {
  void* out;
  uint64_t inner;  // elements of a row
  uint64_t offset;
  uint64_t batch;       // rows of a member
  uint64_t params[4];   // as its operation has them: see ops.h
  Divisor by_inner;     // for rows that are not cut
  uint32_t operation;   // by its place among `Operations` of ops.h
  uint16_t slot;        // of the key that the rows start from
  uint16_t row_keys;    // where its rows' keys start, or kNoRows
  uint32_t first_unit;  // in the tile
  uint16_t n_dims;
  uint16_t n_levels;
  uint32_t words;  // dims [n_dims], levels [n_levels][1 + n_dims]: base, strides; then those of
                   // blocks: counter strides [n_dims], parts [n_parts][2]: see `start_of`
  uint16_t n_parts;
  uint16_t row_entries;  // among the keys of rows: 2 where rows have first counters of their own
};

struct Segment {
  uint64_t first_tile;
  uint32_t first_draw, n_draws;
  uint32_t first_fold, n_folds;
  uint32_t members;              // of a tile, at most
  uint32_t rows;                 // of a tile, or 0: all rows of its members
  uint32_t columns;              // of a tile, or 0: whole rows
  uint32_t parts;                // tiles of a row
  uint32_t n_units;              // of a tile
  uint32_t unit_elements;        // a multiple of what a warp stores at a time
  uint32_t tables, table_words;  // in `words`: to be copied to shared memory
};

constexpr uint32_t kPoolBytes = 32000;  // a kernel's parameters are at most 32,764 bytes

struct Launch {
  const uint32_t* keys;
  const uint32_t* members_index;
  const uint32_t* blocks;  // numbers of them; read here alone, as they are in the device's memory
  uint64_t size;           // members of a group
  uint64_t members;
  uint64_t tiles;
  KeyMode mode;
  uint32_t n_segments;
  uint32_t draws, folds, words;  // where these start in the pool; segments come first
  alignas(16) unsigned char pool[kPoolBytes];
};
static_assert(sizeof(Launch) <= 32764, "a kernel's parameters are at most 32,764 bytes");

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_LAUNCH_H_
