// A decoded plan: the draws of one member, and the tree of the keys they use.
//
// The encoding is a one-dimensional int64 array, as a custom call's attribute carries it:
//   header  magic, version, number of nodes, number of draws, number of blocks
//   blocks  how many there are: the numbers that the operand `blocks` has are below these
//   node    parent, index: a key that others are derived from; they count from 1 (0 is the
//           member's key), and a parent comes before its children
//   draw    kind, word bits, item size, inner, offset, node, and the lengths of what follows:
//           params, batch dims, levels, table words, parts
//           batch dims                    [n_batch]
//           counter strides               [n_batch]
//           levels                        [n_levels][1 + n_batch]: base, strides
//           parts                         [n_parts][4]: dim, block, divisor, count; dims ascend
//           params                        [n_params]: those of the kind (kinds.h), in order
//           table                         [n_table_words]: packed entries, little endian
// A draw has prod(batch dims) rows a member. The key of a row is the node's key folded with each
// level's base + sum(stride * coordinate), in order; `inner` elements with the counters first,
// first + 1, ... make up the row, where first is offset + sum(counter stride * coordinate).
//
// A draw may be one block of a larger one that is cut along some dims. Along the dim of a part,
// which has `count` blocks, coordinates do not start at 0 but at
//   extent * (blocks[block] / divisor % count)
// and so do, with `inner` as extent and 1 as counter stride, the places in a row if dim is n_batch.
// Which block is made is an operand of the call: one compiled program makes any.
#ifndef SEEDBED_PLAN_H_
#define SEEDBED_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kinds.h"

namespace seedbed {

constexpr int64_t kPlanMagic = 0x5EEDBED0;
constexpr int64_t kPlanVersion = 6;

// What is wrong with a plan, or with the buffers it is run on.
class InvalidPlan : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// A fold whose index varies over the rows of a draw.
struct Level {
  uint64_t base;
  std::vector<uint64_t> strides;  // one a batch dim; arithmetic is modulo 2^64
};

// Where a draw that is a block of a larger one starts along a dim: see above.
struct Part {
  uint32_t dim;  // or the number of dims, for the places in a row
  uint32_t block;
  uint32_t divisor;
  uint32_t count;
};

struct Draw {
  Sampler sampler;
  uint64_t inner;
  uint64_t offset;
  std::vector<uint64_t> dims;
  std::vector<uint64_t> counters;  // strides, one a batch dim; empty if rows start with one counter
  uint64_t batch;                  // product of dims
  uint32_t node;                   // the key that the levels start from
  std::vector<Level> levels;       // from the first one with a nonzero stride
  std::vector<Part> parts;
  std::vector<char> table;

  Source source() const { return record_of(sampler.kind).source; }

  // Elements of the output buffer, and bytes of one row of it.
  uint64_t elements_per_row() const { return source() == Source::kKey ? 2 : inner; }
  uint64_t bytes_per_row() const {
    return elements_per_row() * static_cast<uint64_t>(sampler.itemsize);
  }
};

// A key that all rows of a draw share: the parent's, folded with `index`. Chains such as
// `key, sub = split(key)` repeated n times have 2n nodes, each folded once a member. Node 0 is the
// member's key; a parent comes before its children.
struct Node {
  uint32_t parent;
  uint64_t index;
};

struct Plan {
  Plan() = default;
  Plan(Plan&&) = default;
  Plan& operator=(Plan&&) = default;
  Plan(const Plan&) = delete;  // samplers point into the tables of their draws
  Plan& operator=(const Plan&) = delete;

  std::vector<Draw> draws;
  std::vector<Node> nodes;
  std::vector<uint32_t> blocks;  // how many there are, by word of the operand `blocks`
};

// Decodes and validates; throws InvalidPlan. Nothing in `words` is trusted.
Plan decode_plan(const int64_t* words, size_t count);

// The plan whose draws are the blocks with these numbers, a uint32 of any alignment for each of
// plan.blocks, and have no parts. InvalidPlan if a number is too large.
Plan plan_of_blocks(const Plan& plan, const void* blocks);

// a * b, or InvalidPlan naming `what` where the product exceeds 2^63 - 1.
uint64_t checked_product(uint64_t a, uint64_t b, const char* what);

}  // namespace seedbed

#endif  // SEEDBED_PLAN_H_
