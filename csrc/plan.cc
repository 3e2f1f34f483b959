#include "plan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <utility>

namespace seedbed {
namespace {

constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxBlocks = int64_t{1} << 31;
constexpr size_t kHeaderWords = 5;
constexpr size_t kNodeWords = 2;
constexpr size_t kDrawWords = 11;
constexpr size_t kPartWords = 4;

// Reads words in order and never past the end.
class Reader {
 public:
  Reader(const int64_t* words, size_t count) : words_(words), left_(count) {}
  size_t left() const { return left_; }
  const int64_t* take(uint64_t n, const char* what) {
    if (n > left_) {
      throw InvalidPlan("plan ends early: " + std::string(what) + " needs " + std::to_string(n) +
                        " words, " + std::to_string(left_) + " are left");
    }
    const int64_t* at = words_;
    words_ += n;
    left_ -= n;
    return at;
  }
  int64_t next(const char* what) { return *take(1, what); }

 private:
  const int64_t* words_;
  size_t left_;
};

class DrawDecoder {
 public:
  DrawDecoder(Reader& reader, size_t index) : reader_(reader), index_(index) {}

  [[noreturn]] void fail(const std::string& message) const {
    throw InvalidPlan("plan draw " + std::to_string(index_) + ": " + message);
  }

  uint64_t non_negative(const char* what) {
    const int64_t value = reader_.next(what);
    if (value < 0) fail(std::string(what) + " must be >= 0, got " + std::to_string(value));
    return static_cast<uint64_t>(value);
  }

  Draw decode(uint64_t n_nodes, uint64_t n_blocks) {
    Draw draw{};
    const int64_t kind = reader_.next("kind");
    if (kind < 0 || kind >= kKinds) fail("unknown kind " + std::to_string(kind));
    draw.sampler.kind = static_cast<Kind>(kind);
    draw.sampler.word_bits = small("word bits");
    draw.sampler.itemsize = small("item size");
    draw.inner = non_negative("inner");
    draw.offset = non_negative("offset");
    const uint64_t node = non_negative("node");
    if (node >= n_nodes) fail("node out of range: " + std::to_string(node));
    draw.node = static_cast<uint32_t>(node);
    const uint64_t n_params = non_negative("number of params");
    const uint64_t n_batch = non_negative("number of batch dims");
    n_levels_ = non_negative("number of levels");
    const uint64_t n_table = non_negative("number of table words");
    const uint64_t n_parts = non_negative("number of parts");

    draw.batch = 1;
    const int64_t* dims = reader_.take(n_batch, "batch dims");
    for (uint64_t d = 0; d < n_batch; ++d) {
      if (dims[d] < 0) fail("batch dim must be >= 0, got " + std::to_string(dims[d]));
      draw.dims.push_back(static_cast<uint64_t>(dims[d]));
      draw.batch = checked_product(draw.batch, draw.dims.back(), "batch dims");
    }
    for (uint64_t d = 0; d < n_batch; ++d) {
      draw.counters.push_back(non_negative("counter stride"));
    }
    level_words_ = n_batch + 1;  // n_batch words were just read: no overflow
    levels_ = reader_.take(checked_product(n_levels_, level_words_, "levels"), "levels");
    read_parts(draw, n_parts, n_blocks);
    check_counters(draw);
    const bool one = std::all_of(draw.counters.begin(), draw.counters.end(),
                                 [](uint64_t stride) { return stride == 0; });
    const bool counts = draw.source() == Source::kWord || draw.source() == Source::kTwoWords;
    if (one || !counts) draw.counters.clear();
    read_params(draw, n_params);
    read_table(draw, n_table);
    check_sampler(draw);
    trim_params(draw.sampler);
    checked_product(draw.batch, checked_product(draw.inner, 8, "row size"), "draw size");
    return draw;
  }

  // Levels before the first that varies over rows become nodes of the tree, the others stay.
  template <class Child>
  void read_levels(Draw& draw, const Child& child) {
    uint64_t i = 0;
    for (; i < n_levels_ && is_constant(i); ++i) {
      draw.node = child(draw.node, static_cast<uint64_t>(levels_[i * level_words_]));
    }
    for (; i < n_levels_; ++i) {
      const int64_t* level = levels_ + i * level_words_;
      draw.levels.push_back({static_cast<uint64_t>(level[0]), {level + 1, level + level_words_}});
    }
  }

 private:
  int32_t small(const char* what) {
    const int64_t value = reader_.next(what);
    if (value < 0 || value > 64) {
      fail(std::string(what) + " out of range: " + std::to_string(value));
    }
    return static_cast<int32_t>(value);
  }

  bool is_constant(uint64_t level) const {
    const int64_t* strides = levels_ + level * level_words_ + 1;
    for (uint64_t d = 0; d + 1 < level_words_; ++d) {
      if (strides[d] != 0) return false;
    }
    return true;
  }

  void read_parts(Draw& draw, uint64_t n, uint64_t n_blocks) {
    const int64_t* words = reader_.take(checked_product(n, kPartWords, "parts"), "parts");
    int64_t before = -1;
    for (uint64_t i = 0; i < n; ++i, words += kPartWords) {
      const int64_t dim = words[0], block = words[1], divisor = words[2], count = words[3];
      if (dim <= before || static_cast<uint64_t>(dim) > draw.dims.size()) {
        fail("the dims of parts must ascend and exist, got " + std::to_string(dim));
      }
      if (block < 0 || static_cast<uint64_t>(block) >= n_blocks) {
        fail("block out of range: " + std::to_string(block));
      }
      for (const int64_t value : {divisor, count}) {
        if (value >= 1 && value <= kMaxBlocks) continue;
        fail("divisor and count of a part must be in 1 ... 2^31, got " + std::to_string(value));
      }
      draw.parts.push_back({static_cast<uint32_t>(dim), static_cast<uint32_t>(block),
                            static_cast<uint32_t>(divisor), static_cast<uint32_t>(count)});
      before = dim;
    }
  }

  // The counters of every block must stay below 2^63.
  void check_counters(const Draw& draw) const {
    std::vector<uint64_t> extents = draw.dims;
    extents.push_back(draw.inner);
    for (const Part& part : draw.parts) {
      extents[part.dim] = checked_product(extents[part.dim], part.count, "extent of all blocks");
    }
    uint64_t end = draw.offset;
    const auto advance = [&](uint64_t by) {
      if (by > kMax - end) fail("counters overflow");
      end += by;
    };
    advance(extents.back());
    for (size_t d = 0; d < draw.dims.size(); ++d) {
      if (extents[d] == 0) continue;
      advance(checked_product(draw.counters[d], extents[d] - 1, "counters"));
    }
  }

  void read_params(Draw& draw, uint64_t n) {
    const Width* width = width_of(draw.sampler.kind, draw.sampler.word_bits);
    if (width == nullptr) width = record_of(draw.sampler.kind).widths;  // refused below
    const auto expected = static_cast<uint64_t>(width->params);
    if (n != expected) {
      fail("expected " + std::to_string(expected) + " params, got " + std::to_string(n));
    }
    const int64_t* params = reader_.take(n, "params");
    for (uint64_t i = 0; i < n; ++i) draw.sampler.params[i] = static_cast<uint64_t>(params[i]);
  }

  void read_table(Draw& draw, uint64_t n) {
    const int64_t* words = reader_.take(n, "table");
    draw.table.resize(n * sizeof(int64_t));
    if (n > 0) std::memcpy(draw.table.data(), words, draw.table.size());
  }

  void check_sampler(const Draw& draw) const {
    const Sampler& s = draw.sampler;
    if (draw.source() == Source::kKey && draw.inner != 1) fail("a key draw must have inner 1");
    if (!has_form(s.kind, s.word_bits, s.itemsize)) {
      fail("kind " + std::to_string(static_cast<int64_t>(s.kind)) + " has no variant with " +
           std::to_string(s.word_bits) + "-bit words and items of " + std::to_string(s.itemsize) +
           " bytes");
    }
    check_table(draw);
  }

  // Words of 32 bits count without the upper half, which an encoder may sign-extend.
  static void trim_params(Sampler& s) {
    if (s.word_bits != 32) return;
    for (uint64_t& param : s.params) param &= std::numeric_limits<uint32_t>::max();
  }

  // Every index that the kernel can form must lie inside the table.
  void check_table(const Draw& draw) const {
    const Sampler& s = draw.sampler;
    uint64_t bytes = 0;
    if (s.kind == Kind::kTable) {
      const int64_t shift = static_cast<int64_t>(s.params[table::kDrop]);
      if (shift < 0 || shift > s.word_bits) {
        fail("table shift out of range: " + std::to_string(shift));
      }
      bytes = (uint64_t{1} << (s.word_bits - shift)) * static_cast<uint64_t>(s.itemsize);
    }
    const uint64_t words = (bytes + 7) / 8;
    if (draw.table.size() != words * 8) {
      fail("expected a table of " + std::to_string(words) + " words, got " +
           std::to_string(draw.table.size() / 8));
    }
  }

  Reader& reader_;
  size_t index_;
  uint64_t n_levels_ = 0;
  uint64_t level_words_ = 1;
  const int64_t* levels_ = nullptr;
};

}  // namespace

uint64_t checked_product(uint64_t a, uint64_t b, const char* what) {
  if (a != 0 && b > kMax / a) {
    throw InvalidPlan(std::string(what) + " overflow: " + std::to_string(a) + " * " +
                      std::to_string(b));
  }
  return a * b;
}

Plan decode_plan(const int64_t* words, size_t count) {
  if (count < kHeaderWords) {
    throw InvalidPlan("plan has " + std::to_string(count) + " words, the header alone needs " +
                      std::to_string(kHeaderWords));
  }
  Reader reader(words, count);
  const int64_t magic = reader.next("magic"), version = reader.next("version");
  if (magic != kPlanMagic) {
    throw InvalidPlan("plan starts with " + std::to_string(magic) + ", expected the magic number " +
                      std::to_string(kPlanMagic));
  }
  if (version != kPlanVersion) {
    throw InvalidPlan("plan has version " + std::to_string(version) +
                      ", this build reads version " + std::to_string(kPlanVersion));
  }
  const int64_t n_nodes = reader.next("number of nodes");
  if (n_nodes < 0 || static_cast<uint64_t>(n_nodes) > reader.left() / kNodeWords ||
      n_nodes >= std::numeric_limits<uint32_t>::max()) {
    throw InvalidPlan("plan claims " + std::to_string(n_nodes) + " nodes, " +
                      std::to_string(reader.left()) + " words are left");
  }
  const int64_t n_draws = reader.next("number of draws");
  if (n_draws < 0 || static_cast<uint64_t>(n_draws) > reader.left() / kDrawWords) {
    throw InvalidPlan("plan claims " + std::to_string(n_draws) + " draws, " +
                      std::to_string(reader.left()) + " words are left");
  }

  const int64_t n_blocks = reader.next("number of blocks");
  if (n_blocks < 0 || static_cast<uint64_t>(n_blocks) > reader.left()) {
    throw InvalidPlan("plan claims " + std::to_string(n_blocks) + " numbers of blocks, " +
                      std::to_string(reader.left()) + " words are left");
  }

  Plan plan;
  for (int64_t i = 0; i < n_blocks; ++i) {
    const int64_t blocks = reader.next("blocks");
    if (blocks < 1 || blocks > kMaxBlocks) {
      throw InvalidPlan("plan has " + std::to_string(blocks) + " blocks in place " +
                        std::to_string(i) + ", accepted are 1 ... 2^31");
    }
    plan.blocks.push_back(static_cast<uint32_t>(blocks));
  }
  plan.nodes.push_back({0, 0});
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> children;
  const auto child = [&](uint32_t parent, uint64_t index) {
    const auto next = static_cast<uint32_t>(plan.nodes.size());
    const auto [at, is_new] = children.try_emplace({parent, index}, next);
    if (is_new) plan.nodes.push_back({parent, index});
    return at->second;
  };
  for (int64_t i = 1; i <= n_nodes; ++i) {
    const int64_t parent = reader.next("parent");
    if (parent < 0 || parent >= i) {
      throw InvalidPlan("plan node " + std::to_string(i) +
                        ": parent must be an earlier node, got " + std::to_string(parent));
    }
    const auto index = static_cast<uint64_t>(reader.next("index"));
    const Node node = {static_cast<uint32_t>(parent), index};
    children.try_emplace({node.parent, index}, static_cast<uint32_t>(i));
    plan.nodes.push_back(node);
  }
  plan.draws.reserve(static_cast<size_t>(n_draws));
  for (int64_t i = 0; i < n_draws; ++i) {
    DrawDecoder decoder(reader, static_cast<size_t>(i));
    plan.draws.push_back(decoder.decode(static_cast<uint64_t>(n_nodes) + 1, plan.blocks.size()));
    decoder.read_levels(plan.draws.back(), child);
  }
  if (reader.left() != 0) {
    throw InvalidPlan("plan has " + std::to_string(reader.left()) + " words too many");
  }
  for (Draw& draw : plan.draws) draw.sampler.table = draw.table.data();
  return plan;
}

Plan plan_of_blocks(const Plan& plan, const void* blocks) {
  std::vector<uint32_t> numbers(plan.blocks.size());
  if (!numbers.empty()) std::memcpy(numbers.data(), blocks, numbers.size() * sizeof numbers[0]);
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] < plan.blocks[i]) continue;
    throw InvalidPlan("blocks[" + std::to_string(i) + "] must be below " +
                      std::to_string(plan.blocks[i]) + ", got " + std::to_string(numbers[i]));
  }
  Plan made;
  made.nodes = plan.nodes;
  made.draws = plan.draws;
  for (Draw& draw : made.draws) {
    draw.sampler.table = draw.table.data();
    for (const Part& part : draw.parts) {
      const uint64_t number = numbers[part.block] / part.divisor % part.count;
      if (part.dim == draw.dims.size()) {
        draw.offset += number * draw.inner;
        continue;
      }
      const uint64_t start = number * draw.dims[part.dim];
      if (!draw.counters.empty()) draw.offset += start * draw.counters[part.dim];
      for (Level& level : draw.levels) level.base += start * level.strides[part.dim];
    }
    draw.parts.clear();
  }
  return made;
}

}  // namespace seedbed
