#include "cuda/device_draw.h"

#include "cuda/ops.h"

namespace seedbed::cuda {
namespace {

template <class... Ops>
bool has_any(List<Ops...>, const Sampler& s) {
  return (Ops::makes(s) || ...);
}

template <class Op>
bool set_if_made(DeviceDraw& made, uint32_t place, const Sampler& s) {
  if (!Op::makes(s)) return false;
  made.operation = place;
  Op::set(made, s);
  return true;
}

template <class... Ops>
void set_operation(List<Ops...>, DeviceDraw& made, const Sampler& s) {
  uint32_t place = 0;
  (void)(set_if_made<Ops>(made, place++, s) || ...);
}

template <class... Ops>
uint32_t size_at(List<Ops...>, uint32_t place) {
  constexpr uint32_t kSizes[] = {sizeof(typename Ops::T)...};
  return kSizes[place];
}

}  // namespace

Divisor divisor(uint32_t d) {
  uint32_t shift = 0;
  while ((uint64_t{1} << shift) < d) ++shift;
  const uint64_t power = uint64_t{1} << (31 + shift);
  return {static_cast<uint32_t>((power + d - 1) / d), 31 + shift};
}

uint32_t row_entries(const Draw& draw) {
  if (draw.source() == Source::kNothing || draw.source() == Source::kKey) return 1;
  const bool cut = !draw.parts.empty() && draw.parts.back().dim == draw.dims.size();
  return cut || !draw.counters.empty() ? 2 : 1;
}

bool has_operation(const Sampler& sampler) { return has_any(Operations(), sampler); }

uint32_t item_bytes(const DeviceDraw& draw) { return size_at(Operations(), draw.operation); }

void set_table(DeviceDraw& draw, uint32_t place) { set_word(draw, Table<uint8_t>::kPlace, place); }

DeviceDraw make_device_draw(const Draw& draw) {
  DeviceDraw made = {};
  made.inner = draw.inner;
  made.offset = draw.offset;
  made.batch = draw.batch;
  made.n_dims = static_cast<uint16_t>(draw.dims.size());
  made.n_levels = static_cast<uint16_t>(draw.levels.size());
  made.n_parts = static_cast<uint16_t>(draw.parts.size());
  made.row_entries = static_cast<uint16_t>(row_entries(draw));
  if (draw.inner < (uint64_t{1} << 31)) made.by_inner = divisor(static_cast<uint32_t>(draw.inner));
  set_operation(Operations(), made, draw.sampler);
  return made;
}

}  // namespace seedbed::cuda
