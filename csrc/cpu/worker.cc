#include "worker.h"

#include <algorithm>
#include <cstring>

namespace seedbed {
namespace {

// Rows whose keys are derived at a time.
constexpr uint64_t kRowChunk = 512;

struct Words {
  uint32_t hi, lo;
};

// Word pair `i` of an operand of any alignment.
Words load_pair(const void* from, uint64_t i) {
  Words words;
  std::memcpy(&words, static_cast<const char*>(from) + i * sizeof words, sizeof words);
  return words;
}

Words split_words(uint64_t x) { return {static_cast<uint32_t>(x >> 32), static_cast<uint32_t>(x)}; }

void fill_constant(KeyArray& to, uint64_t n, uint64_t value) {
  const Words words = split_words(value);
  std::fill_n(to.k0.begin(), n, words.hi);
  std::fill_n(to.k1.begin(), n, words.lo);
}

}  // namespace

void Worker::enter(const MemberBlock& block) {
  if (epoch_ == 0) {
    nodes_.resize(plan_.nodes.size() * stride_);
    derived_.assign(plan_.nodes.size(), 0);
    const uint64_t scratch = std::max(kRowChunk, stride_);
    rows_.resize(scratch), low_rows_.resize(scratch), index_.resize(scratch);
  } else if (block.first == block_.first) {
    return;
  }
  block_ = block;
  ++epoch_;
  derive_members();
  derived_[0] = epoch_;
}

void Worker::derive_members() {
  uint32_t* k0 = nodes_.k0.data();
  uint32_t* k1 = nodes_.k1.data();
  for (uint64_t i = 0; i < block_.count; ++i) {
    const uint64_t member = block_.first + i;
    if (call_.mode == KeyMode::kMemberKeys) {
      const Words key = load_pair(call_.keys, member);
      k0[i] = key.hi, k1[i] = key.lo;
      continue;
    }
    const uint64_t group = member / call_.size;
    const Words key = load_pair(call_.keys, group);
    Words index = load_pair(call_.members, call_.mode == KeyMode::kRange ? group : member);
    if (call_.mode == KeyMode::kRange) {
      const uint64_t first = (static_cast<uint64_t>(index.hi) << 32) | index.lo;
      index = split_words(first + member % call_.size);
    }
    k0[i] = key.hi, k1[i] = key.lo;
    index_.k0[i] = index.hi, index_.k1[i] = index.lo;
  }
  if (call_.mode == KeyMode::kMemberKeys) return;
  kernels_.derive(block_.count, k0, k1, index_.k0.data(), index_.k1.data(), k0, k1);
}

Worker::KeyPointers Worker::node_keys(uint32_t node) {
  // A path may be thousands of nodes long: walk up to a derived one, then down, without recursion.
  for (uint32_t at = node; derived_[at] != epoch_; at = plan_.nodes[at].parent) path_.push_back(at);
  for (; !path_.empty(); path_.pop_back()) {
    const uint32_t at = path_.back();
    const uint64_t from = plan_.nodes[at].parent * stride_, to = at * stride_;
    fill_constant(index_, block_.count, plan_.nodes[at].index);
    kernels_.derive(block_.count, &nodes_.k0[from], &nodes_.k1[from], index_.k0.data(),
                    index_.k1.data(), &nodes_.k0[to], &nodes_.k1[to]);
    derived_[at] = epoch_;
  }
  return {&nodes_.k0[node * stride_], &nodes_.k1[node * stride_]};
}

// The keys of `rows` rows from `row` on; at most kRowChunk rows unless each member has one row.
Worker::KeyPointers Worker::row_keys(const Draw& draw, uint64_t row, uint64_t rows) {
  const KeyPointers member = node_keys(draw.node);
  if (draw.batch == 1 && draw.levels.empty()) return {member.k0 + row, member.k1 + row};
  for (uint64_t i = 0, at = row / draw.batch, left = draw.batch - row % draw.batch; i < rows;) {
    const uint64_t n = std::min(left, rows - i);
    std::fill_n(rows_.k0.begin() + static_cast<int64_t>(i), n, member.k0[at]);
    std::fill_n(rows_.k1.begin() + static_cast<int64_t>(i), n, member.k1[at]);
    i += n, ++at, left = draw.batch;
  }
  for (const Level& level : draw.levels) fold_level(draw, level, row, rows);
  return {rows_.k0.data(), rows_.k1.data()};
}

void Worker::fold_level(const Draw& draw, const Level& level, uint64_t row, uint64_t rows) {
  const size_t n_dims = draw.dims.size();
  coordinates_.resize(n_dims);
  uint64_t rest = row % draw.batch;
  for (size_t d = n_dims; d-- > 0; rest /= draw.dims[d]) coordinates_[d] = rest % draw.dims[d];
  uint64_t index = level.base;
  for (size_t d = 0; d < n_dims; ++d) index += level.strides[d] * coordinates_[d];
  for (uint64_t i = 0; i < rows; ++i) {
    const Words words = split_words(index);
    index_.k0[i] = words.hi, index_.k1[i] = words.lo;
    // Next coordinate, innermost first; after the last row of a member, the first of the next.
    for (size_t d = n_dims; d-- > 0;) {
      index += level.strides[d];
      if (++coordinates_[d] < draw.dims[d]) break;
      index -= level.strides[d] * draw.dims[d];
      coordinates_[d] = 0;
    }
  }
  kernels_.derive(rows, rows_.k0.data(), rows_.k1.data(), index_.k0.data(), index_.k1.data(),
                  rows_.k0.data(), rows_.k1.data());
}

void Worker::write_rows(const Draw& draw, char* out, uint64_t row, uint64_t rows, uint64_t offset,
                        uint64_t count) {
  const KeyPointers keys = row_keys(draw, row, rows);
  if (draw.sampler.kind == Kind::kKey) {
    for (uint64_t i = 0; i < rows; ++i) {
      const Words words = {keys.k0[i], keys.k1[i]};
      std::memcpy(out + i * sizeof words, &words, sizeof words);
    }
    return;
  }
  Fill fill = {&draw.sampler,        keys.k0, keys.k1, nullptr, nullptr, rows, count,
               draw.offset + offset, out};
  if (draw.sampler.kind == Kind::kRandint) {
    // jax.random.randint splits its key in two: high words, low words.
    fill_constant(index_, rows, 1);
    kernels_.derive(rows, keys.k0, keys.k1, index_.k0.data(), index_.k1.data(), low_rows_.k0.data(),
                    low_rows_.k1.data());
    fill_constant(index_, rows, 0);
    kernels_.derive(rows, keys.k0, keys.k1, index_.k0.data(), index_.k1.data(), rows_.k0.data(),
                    rows_.k1.data());
    fill.k0 = rows_.k0.data(), fill.k1 = rows_.k1.data();
    fill.low_k0 = low_rows_.k0.data(), fill.low_k1 = low_rows_.k1.data();
  }
  kernels_.fill(fill);
}

void Worker::write(size_t index, Place begin, Place end) {
  const Draw& draw = plan_.draws[index];
  const uint64_t row_bytes = draw.bytes_per_row();
  const uint64_t itemsize = static_cast<uint64_t>(draw.sampler.itemsize);
  char* const out =
      static_cast<char*>(call_.outputs[index]) + block_.first * draw.batch * row_bytes;
  const auto part = [&](uint64_t row, uint64_t from, uint64_t to) {
    if (from == to) return;
    write_rows(draw, out + row * row_bytes + from * itemsize, row, 1, from, to - from);
  };
  if (begin.row == end.row) return part(begin.row, begin.offset, end.offset);
  if (begin.offset > 0) {
    part(begin.row, begin.offset, draw.inner);
    ++begin.row;
  }
  while (begin.row < end.row) {
    const uint64_t rows = std::min(end.row - begin.row, kRowChunk);
    write_rows(draw, out + begin.row * row_bytes, begin.row, rows, 0, draw.inner);
    begin.row += rows;
  }
  part(end.row, 0, end.offset);
}

}  // namespace seedbed
