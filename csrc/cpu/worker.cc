#include "cpu/worker.h"

#include <algorithm>
#include <cstring>

namespace seedbed {
namespace {

// Fewer rows of one key are not worth a call of their own.
constexpr uint64_t kKeyedRows = 32;
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

// to[at + j] = first + j * step for j < n.
void fill_range(KeyArray& to, uint64_t at, uint64_t n, uint64_t first, uint64_t step) {
  uint32_t* const hi = to.k0.data() + at;
  uint32_t* const lo = to.k1.data() + at;
  for (uint64_t j = 0; j < n; ++j) {
    const Words words = split_words(first + j * step);
    hi[j] = words.hi;
    lo[j] = words.lo;
  }
}

void fill_constant(KeyArray& to, uint64_t n, uint64_t value) { fill_range(to, 0, n, value, 0); }

// How many rows in a row have the same key, from one whose number is a multiple of it.
uint64_t rows_of_one_key(const Draw& draw) {
  uint64_t rows = 1;
  for (size_t d = draw.dims.size(); d-- > 0; rows *= draw.dims[d]) {
    for (const Level& level : draw.levels) {
      if (level.strides[d] != 0) return rows;
    }
  }
  return rows;
}

// `bytes` bytes at `out`: the low `itemsize` bytes of `value`, again and again.
void repeat(uint64_t value, uint64_t itemsize, char* out, uint64_t bytes) {
  char pattern[64];
  for (uint64_t at = 0; at < sizeof pattern; at += itemsize) {
    std::memcpy(pattern + at, &value, itemsize);
  }
  const bool one_byte =
      std::all_of(pattern, pattern + itemsize, [&](char byte) { return byte == pattern[0]; });
  if (one_byte) {
    std::memset(out, pattern[0], bytes);
    return;
  }
  for (; bytes >= sizeof pattern; bytes -= sizeof pattern, out += sizeof pattern) {
    std::memcpy(out, pattern, sizeof pattern);
  }
  std::memcpy(out, pattern, bytes);
}

}  // namespace

void Worker::enter(const MemberBlock& block) {
  if (epoch_ == 0) {
    nodes_.resize(plan_.nodes.size() * stride_);
    derived_.assign(plan_.nodes.size(), 0);
    const uint64_t scratch = std::max(kRowChunk, stride_);
    rows_.resize(scratch), low_rows_.resize(scratch), index_.resize(scratch);
    starts_.resize(scratch);
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
  const bool own_keys = call_.mode == KeyMode::kMemberKeys;
  for (uint64_t i = 0; own_keys && i < block_.count; ++i) {
    const Words key = load_pair(call_.keys, block_.first + i);
    k0[i] = key.hi, k1[i] = key.lo;
  }
  if (own_keys) return;
  for (uint64_t i = 0; i < block_.count;) {  // a run of members of one group at a time
    const uint64_t group = (block_.first + i) / call_.size;
    const uint64_t in_group = (block_.first + i) % call_.size;
    const uint64_t n = std::min(block_.count - i, call_.size - in_group);
    const Words key = load_pair(call_.keys, group);
    std::fill_n(k0 + i, n, key.hi);
    std::fill_n(k1 + i, n, key.lo);
    if (call_.mode != KeyMode::kIndices) {
      const bool from_zero = call_.mode == KeyMode::kAll;
      const Words first = from_zero ? Words{0, 0} : load_pair(call_.members, group);
      fill_range(index_, i, n, ((uint64_t{first.hi} << 32) | first.lo) + in_group, 1);
    } else {
      for (uint64_t j = i; j < i + n; ++j) {
        const Words index = load_pair(call_.members, block_.first + j);
        index_.k0[j] = index.hi, index_.k1[j] = index.lo;
      }
    }
    i += n;
  }
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

// base + sum(stride * coordinate) for `rows` rows from `row` on: `put(i, n, first, step)` gets n of
// them at a time, from the i-th on.
template <class Put>
void Worker::index_rows(const Draw& draw, uint64_t base, const std::vector<uint64_t>& strides,
                        uint64_t row, uint64_t rows, const Put& put) {
  const size_t n_dims = draw.dims.size();
  coordinates_.resize(n_dims);
  uint64_t rest = row % draw.batch;
  for (size_t d = n_dims; d-- > 0; rest /= draw.dims[d]) coordinates_[d] = rest % draw.dims[d];
  uint64_t index = base;
  for (size_t d = 0; d < n_dims; ++d) index += strides[d] * coordinates_[d];
  for (uint64_t i = 0; i < rows;) {  // along the innermost dim at a time
    const uint64_t extent = draw.dims[n_dims - 1], step = strides[n_dims - 1];
    const uint64_t n = std::min(rows - i, extent - coordinates_[n_dims - 1]);
    put(i, n, index, step);
    i += n;
    index += step * n;
    coordinates_[n_dims - 1] += n;
    // Carry outwards; after the last row of a member comes the first of the next.
    for (size_t d = n_dims; d-- > 0 && coordinates_[d] == draw.dims[d];) {
      index -= strides[d] * draw.dims[d];
      coordinates_[d] = 0;
      if (d == 0) break;
      index += strides[d - 1];
      ++coordinates_[d - 1];
    }
  }
}

void Worker::fold_level(const Draw& draw, const Level& level, uint64_t row, uint64_t rows) {
  index_rows(draw, level.base, level.strides, row, rows,
             [&](uint64_t i, uint64_t n, uint64_t first, uint64_t step) {
               fill_range(index_, i, n, first, step);
             });
  kernels_.derive(rows, rows_.k0.data(), rows_.k1.data(), index_.k0.data(), index_.k1.data(),
                  rows_.k0.data(), rows_.k1.data());
}

void Worker::write_rows(const Draw& draw, char* out, uint64_t row, uint64_t rows, uint64_t offset,
                        uint64_t count, bool one_key) {
  const Source source = draw.source();
  if (source == Source::kNothing) {
    const auto itemsize = static_cast<uint64_t>(draw.sampler.itemsize);
    repeat(draw.sampler.params[constant::kValue], itemsize, out, rows * count * itemsize);
    return;
  }
  const uint64_t n_keys = one_key ? 1 : rows;
  const KeyPointers keys = row_keys(draw, row, n_keys);
  if (source == Source::kKey) {
    for (uint64_t i = 0; i < rows; ++i) {
      const Words words = {keys.k0[i], keys.k1[i]};
      std::memcpy(out + i * sizeof words, &words, sizeof words);
    }
    return;
  }
  Fill fill = {&draw.sampler,        keys.k0, keys.k1, nullptr, nullptr, rows, count,
               draw.offset + offset, out};
  if (source == Source::kTwoWords) {
    // jax.random.randint splits its key in two: high words, low words.
    fill_constant(index_, n_keys, 1);
    kernels_.derive(n_keys, keys.k0, keys.k1, index_.k0.data(), index_.k1.data(),
                    low_rows_.k0.data(), low_rows_.k1.data());
    fill_constant(index_, n_keys, 0);
    kernels_.derive(n_keys, keys.k0, keys.k1, index_.k0.data(), index_.k1.data(), rows_.k0.data(),
                    rows_.k1.data());
    fill.k0 = rows_.k0.data(), fill.k1 = rows_.k1.data();
    fill.low_k0 = low_rows_.k0.data(), fill.low_k1 = low_rows_.k1.data();
  }
  if (!draw.counters.empty()) {
    index_rows(draw, 0, draw.counters, row, rows,
               [&](uint64_t i, uint64_t n, uint64_t first, uint64_t step) {
                 for (uint64_t j = 0; j < n; ++j) starts_[i + j] = first + j * step;
               });
    fill.starts = starts_.data();
    fill.one_key = one_key;
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
  const uint64_t alike = rows_of_one_key(draw);
  const bool one_key = alike >= kKeyedRows && !draw.counters.empty();
  while (begin.row < end.row) {
    uint64_t rows = std::min(end.row - begin.row, kRowChunk);
    if (one_key) rows = std::min(rows, alike - begin.row % alike);
    write_rows(draw, out + begin.row * row_bytes, begin.row, rows, 0, draw.inner, one_key);
    begin.row += rows;
  }
  part(end.row, 0, end.offset);
}

}  // namespace seedbed
