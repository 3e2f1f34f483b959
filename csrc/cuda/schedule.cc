#include "cuda/schedule.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "cuda/device_draw.h"
#include "cuda/folds.h"

namespace seedbed::cuda {
namespace {

constexpr uint64_t kMinTile = 2048;  // elements: two vectors for every thread
constexpr uint64_t kMaxTile = 65536;
constexpr uint64_t kTilesPerBlock = 4;
constexpr uint64_t kRowElements = 1024;  // of one draw in a tile, where there are members enough
constexpr uint64_t kMaxMembers = 64;     // so that many small draws share a tile
constexpr size_t kMaxDraws = 256;        // of a segment: at most twice as many slots
constexpr uint64_t kAlign = 16;          // items: whole vectors of the smallest
static_assert(2 * kMaxDraws < kSlotKeys, "a segment's keys must fit for one member");
static_assert(kMaxTile <= kMaxColumns, "positions in a tile have 31 bits");

uint64_t divide_up(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }
uint64_t round_up(uint64_t a, uint64_t to) { return divide_up(a, to) * to; }
uint64_t round_down(uint64_t a, uint64_t to) { return a >= to ? a - a % to : a; }

// Rows whose keys are not those of their members.
bool has_row_keys(const Draw& draw) {
  return draw.batch > 1 || !draw.levels.empty() || draw.source() == Source::kTwoWords ||
         row_entries(draw) > 1;
}

// A segment that is not part of a launch yet.
struct Part {
  Segment segment = {};
  std::vector<DeviceDraw> draws;
  std::vector<Fold> folds;
  std::vector<uint64_t> words;  // those of the draws, then the tables

  size_t bytes() const {
    return sizeof segment + draws.size() * sizeof(DeviceDraw) + folds.size() * sizeof(Fold) +
           words.size() * sizeof(uint64_t);
  }
};

// How the tiles of a segment are cut; see Segment.
struct Cut {
  uint64_t members;
  uint64_t rows;
  uint64_t columns;
};

class PartMaker {
 public:
  PartMaker(const Plan& plan, const Call& call) : plan_(plan), call_(call) {}

  // Of the draws with these numbers. `cut.members` is lowered to what fits.
  Part make(const std::vector<size_t>& draws, Cut cut) const {
    Part part;
    std::vector<uint32_t> nodes;
    for (const size_t d : draws) nodes.push_back(plan_.draws[d].node);
    FoldProgram program = make_folds(plan_.nodes, nodes);
    part.folds = std::move(program.folds);
    const uint64_t most = std::max<uint64_t>(kSlotKeys / program.n_slots, 1);
    if (cut.rows == 0) cut.members = aligned_members(std::min(cut.members, most));

    Segment& s = part.segment;
    s.members = static_cast<uint32_t>(cut.members);
    s.rows = static_cast<uint32_t>(cut.rows);
    s.columns = static_cast<uint32_t>(cut.columns);
    s.n_draws = static_cast<uint32_t>(draws.size());
    s.n_folds = static_cast<uint32_t>(part.folds.size());
    for (size_t i = 0; i < draws.size(); ++i) add_draw(part, draws[i], program.slots[i]);
    add_row_keys(part, draws);
    add_tables(part, draws);
    add_units(part);
    const DeviceDraw& first = part.draws.front();
    s.parts = cut.columns == 0 ? 1 : static_cast<uint32_t>(divide_up(first.inner, cut.columns));
    return part;
  }

  uint64_t tiles(const Part& part) const {
    const Segment& s = part.segment;
    const uint64_t members = call_.groups * call_.size;
    if (s.rows == 0) return divide_up(members, s.members);
    return divide_up(members * part.draws.front().batch, s.rows) * s.parts;
  }

  // So many that the outputs of every tile start where vectors do, if possible.
  static uint64_t aligned_members(uint64_t members) {
    return members >= kAlign ? round_down(members, kAlign) : round_down(members, 4);
  }

 private:
  void add_draw(Part& part, size_t index, uint16_t slot) const {
    const Draw& draw = plan_.draws[index];
    DeviceDraw made = make_device_draw(draw);
    made.out = call_.outputs[index];
    made.slot = slot;
    made.words = static_cast<uint32_t>(part.words.size());
    part.words.insert(part.words.end(), draw.dims.begin(), draw.dims.end());
    for (const Level& level : draw.levels) {
      part.words.push_back(level.base);
      part.words.insert(part.words.end(), level.strides.begin(), level.strides.end());
    }
    if (made.n_parts > 0 || made.row_entries > 1) add_block(part, draw);
    part.draws.push_back(made);
  }

  static void add_block(Part& part, const Draw& draw) {
    std::vector<uint64_t> counters = draw.counters;
    counters.resize(draw.dims.size());
    part.words.insert(part.words.end(), counters.begin(), counters.end());
    for (const seedbed::Part& p : draw.parts) {
      part.words.push_back(p.dim | uint64_t{p.block} << 32);
      part.words.push_back(p.divisor | uint64_t{p.count} << 32);
    }
  }

  void add_row_keys(Part& part, const std::vector<size_t>& draws) const {
    uint64_t rows = 0;
    for (size_t i = 0; i < draws.size(); ++i) {
      DeviceDraw& made = part.draws[i];
      made.row_keys = kNoRows;
      if (!has_row_keys(plan_.draws[draws[i]])) continue;
      made.row_keys = static_cast<uint16_t>(rows);
      rows += rows_of(part.segment, made) * made.row_entries;
    }
  }

  void add_tables(Part& part, const std::vector<size_t>& draws) const {
    Segment& s = part.segment;
    s.tables = static_cast<uint32_t>(part.words.size());
    std::map<std::vector<char>, uint32_t> places;  // in bytes
    for (size_t i = 0; i < draws.size(); ++i) {
      const std::vector<char>& table = plan_.draws[draws[i]].table;
      if (table.empty()) continue;
      const auto at = static_cast<uint32_t>(part.words.size() - s.tables) * 8;
      const auto [place, is_new] = places.try_emplace(table, at);
      set_table(part.draws[i], place->second);
      if (!is_new) continue;
      part.words.resize(part.words.size() + table.size() / 8);
      std::memcpy(part.words.data() + s.tables + at / 8, table.data(), table.size());
    }
    s.table_words = static_cast<uint32_t>(part.words.size()) - s.tables;
  }

  // Every warp gets the same number of units where one draw is made.
  static void add_units(Part& part) {
    Segment& s = part.segment;
    uint64_t elements = 0, granule = 1;
    for (const DeviceDraw& draw : part.draws) {
      elements += elements_of(s, draw);
      granule = std::max<uint64_t>(granule, kWarp * vector_items(draw));
    }
    constexpr uint64_t kWarps = kThreads / kWarp;
    const uint64_t units = part.draws.size() == 1 ? kWarps : 2 * kWarps;
    s.unit_elements = static_cast<uint32_t>(round_up(divide_up(elements, units), granule));
    for (DeviceDraw& draw : part.draws) {
      draw.first_unit = s.n_units;
      const uint64_t shifted = elements_of(s, draw) + vector_items(draw) - 1;
      s.n_units += static_cast<uint32_t>(divide_up(shifted, s.unit_elements));
    }
  }

  static uint64_t vector_items(const DeviceDraw& draw) { return item_bytes(draw) == 8 ? 2 : 4; }
  static uint64_t rows_of(const Segment& s, const DeviceDraw& draw) {
    return s.rows == 0 ? s.members * draw.batch : s.rows;
  }
  static uint64_t elements_of(const Segment& s, const DeviceDraw& draw) {
    return rows_of(s, draw) * (s.columns == 0 ? draw.inner : s.columns);
  }

  const Plan& plan_;
  const Call& call_;
};

// Collects small draws that a tile makes together.
class Group {
 public:
  Group(const Plan& plan, uint64_t members, uint64_t tile)
      : plan_(&plan), members_(members), tile_(tile) {}

  bool empty() const { return draws_.empty(); }
  const std::vector<size_t>& draws() const { return draws_; }
  Cut cut() const {
    uint64_t members = std::min(members_, std::max<uint64_t>(tile_ / elements_, 1));
    if (rows_ > 0) members = std::min<uint64_t>(members, kRowKeys / rows_);
    return {std::max<uint64_t>(members, 1), 0, 0};
  }

  // Whether the draw was added; it always is to an empty group.
  bool add(size_t index) {
    const Draw& draw = plan_->draws[index];
    Group with = *this;
    with.draws_.push_back(index);
    with.elements_ += draw.batch * draw.inner;
    with.smallest_ = std::min(smallest_, draw.batch * draw.inner);
    if (has_row_keys(draw)) with.rows_ += draw.batch * row_entries(draw);
    if (!has_table(draw.table)) with.table_bytes_ += draw.table.size();
    const uint64_t members =
        std::min({members_, kMaxMembers, divide_up(kRowElements, with.smallest_)});
    const bool fits = with.elements_ * members <= tile_ && with.rows_ * members <= kRowKeys &&
                      with.table_bytes_ <= kTableBytes && with.draws_.size() <= kMaxDraws &&
                      with.draws_.size() * members <= kSlotKeys / 2;
    if (!empty() && !fits) return false;
    *this = std::move(with);
    return true;
  }

  bool has_table(const std::vector<char>& table) const {
    return std::any_of(draws_.begin(), draws_.end(),
                       [&](size_t d) { return plan_->draws[d].table == table; });
  }

  void clear() { *this = Group(*plan_, members_, tile_); }

 private:
  const Plan* plan_;
  uint64_t members_;
  uint64_t tile_;
  std::vector<size_t> draws_;
  uint64_t elements_ = 0;
  uint64_t smallest_ = UINT64_MAX;
  uint64_t rows_ = 0;  // places for those with keys of their own
  uint64_t table_bytes_ = 0;
};

// Puts segments into launches, in order.
class LaunchMaker {
 public:
  explicit LaunchMaker(const Call& call) : call_(call) {}

  bool fits(const Part& part) const { return part.bytes() <= kPoolBytes; }

  void add(Part part, uint64_t tiles) {
    if (bytes_ + part.bytes() > kPoolBytes) finish();
    bytes_ += part.bytes();
    part.segment.first_tile = tiles_;
    tiles_ += tiles;
    parts_.push_back(std::move(part));
  }

  void finish() {
    if (parts_.empty()) return;
    auto launch = std::make_unique<Launch>();
    launch->keys = static_cast<const uint32_t*>(call_.keys);
    launch->members_index = static_cast<const uint32_t*>(call_.members);
    launch->blocks = static_cast<const uint32_t*>(call_.blocks);
    launch->size = call_.size;
    launch->members = call_.groups * call_.size;
    launch->tiles = tiles_;
    launch->mode = call_.mode;
    launch->n_segments = static_cast<uint32_t>(parts_.size());
    std::vector<Segment> segments;
    std::vector<DeviceDraw> draws;
    std::vector<Fold> folds;
    std::vector<uint64_t> words;
    for (const Part& part : parts_) {
      Segment segment = part.segment;
      segment.first_draw = static_cast<uint32_t>(draws.size());
      segment.first_fold = static_cast<uint32_t>(folds.size());
      segment.tables += static_cast<uint32_t>(words.size());
      segments.push_back(segment);
      for (DeviceDraw draw : part.draws) {
        draw.words += static_cast<uint32_t>(words.size());
        draws.push_back(draw);
      }
      folds.insert(folds.end(), part.folds.begin(), part.folds.end());
      words.insert(words.end(), part.words.begin(), part.words.end());
    }
    uint32_t used = 0;
    put(*launch, segments, used);
    launch->draws = put(*launch, draws, used);
    launch->folds = put(*launch, folds, used);
    launch->words = put(*launch, words, used);
    launches_.push_back(std::move(launch));
    parts_.clear();
    bytes_ = 0, tiles_ = 0;
  }

  std::vector<std::unique_ptr<Launch>> take() {
    finish();
    return std::move(launches_);
  }

 private:
  // Copies the items behind those that are there; where they start.
  template <class T>
  static uint32_t put(Launch& launch, const std::vector<T>& items, uint32_t& used) {
    static_assert(sizeof(T) % 8 == 0, "what comes next must be aligned");
    const uint32_t at = used;
    if (!items.empty()) std::memcpy(launch.pool + at, items.data(), items.size() * sizeof(T));
    used += static_cast<uint32_t>(items.size() * sizeof(T));
    return at;
  }

  const Call& call_;
  std::vector<Part> parts_;
  size_t bytes_ = 0;
  uint64_t tiles_ = 0;
  std::vector<std::unique_ptr<Launch>> launches_;
};

class Scheduler {
 public:
  Scheduler(const Plan& plan, const Call& call, uint64_t blocks)
      : plan_(plan), members_(call.groups * call.size), maker_(plan, call), launches_(call) {
    uint64_t elements = 0;
    for (const Draw& draw : plan.draws) elements += members_ * draw.batch * draw.inner;
    const uint64_t wanted = std::max<uint64_t>(blocks, 1) * kTilesPerBlock;
    tile_ = std::clamp(elements / wanted, kMinTile, kMaxTile);
  }

  std::vector<std::unique_ptr<Launch>> run() {
    Group group(plan_, members_, tile_);
    for (size_t d = 0; d < plan_.draws.size(); ++d) {
      const Draw& draw = plan_.draws[d];
      if (members_ == 0 || draw.inner == 0 || draw.batch == 0) continue;
      if (!has_operation(draw.sampler)) {
        fail(d, "float" + std::to_string(draw.sampler.word_bits) + " " +
                    record_of(draw.sampler.kind).name + "s have no kernel there");
      }
      if (draw.table.size() > kTableBytes) {
        fail(d, "its lookup table has " + std::to_string(draw.table.size()) +
                    " bytes, a block holds " + std::to_string(kTableBytes));
      }
      if (draw.batch > kMaxBatch) {
        fail(d, "it has " + std::to_string(draw.batch) + " rows a member, more than 2^31");
      }
      const uint64_t row_keys = kRowKeys / row_entries(draw);
      if (draw.inner > tile_) {
        const uint64_t parts = divide_up(draw.inner, tile_);
        emit({d}, {1, 1, round_up(divide_up(draw.inner, parts), 4 * kThreads)});
      } else if (draw.batch > tile_ / draw.inner || draw.batch > row_keys) {
        const uint64_t rows = std::min<uint64_t>(tile_ / draw.inner, row_keys);
        const uint64_t reached = (rows - 1 + draw.batch - 1) / draw.batch + 1;
        emit({d}, {std::min(members_, reached), round_down(rows, kAlign), 0});
      } else if (!group.add(d)) {
        emit(group.draws(), group.cut());
        group.clear();
        group.add(d);
      }
    }
    if (!group.empty()) emit(group.draws(), group.cut());
    return launches_.take();
  }

 private:
  void emit(const std::vector<size_t>& draws, const Cut& cut) {
    Part part = maker_.make(draws, cut);
    if (launches_.fits(part)) {
      const uint64_t tiles = maker_.tiles(part);
      return launches_.add(std::move(part), tiles);
    }
    if (draws.size() == 1) {
      fail(draws[0], "its key path has " + std::to_string(part.folds.size()) +
                         " folds and its rows " + std::to_string(part.words.size()) +
                         " numbers, more than a launch can hold");
    }
    const auto middle = draws.begin() + static_cast<std::ptrdiff_t>(draws.size() / 2);
    emit({draws.begin(), middle}, cut);
    emit({middle, draws.end()}, cut);
  }

  [[noreturn]] static void fail(size_t draw, const std::string& why) {
    throw InvalidPlan("plan draw " + std::to_string(draw) + " cannot be made on a GPU: " + why);
  }

  const Plan& plan_;
  uint64_t members_;
  uint64_t tile_;
  PartMaker maker_;
  LaunchMaker launches_;
};

}  // namespace

std::vector<std::unique_ptr<Launch>> schedule(const Plan& plan, const Call& call, uint64_t blocks) {
  return Scheduler(plan, call, blocks).run();
}

}  // namespace seedbed::cuda
