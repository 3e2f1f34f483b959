#include "ffi_common.h"

#include <sstream>
#include <vector>

namespace ffi = xla::ffi;

namespace seedbed {
namespace {

// The batch dims in front of the dims that an operand must end with.
uint64_t leading(const ffi::AnyBuffer& operand, const char* name,
                 const std::vector<uint64_t>& suffix) {
  std::string expected = "[...";
  for (const uint64_t dim : suffix) expected += "," + std::to_string(dim);
  const auto dims = operand.dimensions();
  bool ok = operand.element_type() == ffi::DataType::U32 && dims.size() >= suffix.size();
  const size_t n_leading = ok ? dims.size() - suffix.size() : 0;
  for (size_t d = 0; ok && d < suffix.size(); ++d) {
    ok = static_cast<uint64_t>(dims[n_leading + d]) == suffix[d];
  }
  if (!ok) {
    throw InvalidPlan("operand `" + std::string(name) + "` must be U32" + expected + "], got " +
                      type_of(operand));
  }
  uint64_t product = 1;
  for (size_t d = 0; d < n_leading; ++d) {
    product = checked_product(product, static_cast<uint64_t>(dims[d]), "batch dims");
  }
  return product;
}

// Bytes of an element, 0 for a type that no draw can have.
uint64_t item_bytes(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::PRED:
    case ffi::DataType::U8:
    case ffi::DataType::S8:
      return 1;
    case ffi::DataType::U16:
    case ffi::DataType::S16:
    case ffi::DataType::F16:
    case ffi::DataType::BF16:
      return 2;
    case ffi::DataType::U32:
    case ffi::DataType::S32:
    case ffi::DataType::F32:
      return 4;
    case ffi::DataType::U64:
    case ffi::DataType::S64:
    case ffi::DataType::F64:
      return 8;
    default:
      return 0;
  }
}

void* check_result(const ffi::AnyBuffer& buffer, const Draw& draw, size_t index, uint64_t groups,
                   uint64_t size) {
  const uint64_t elements = output_elements(draw, groups, size);
  const auto itemsize = static_cast<uint64_t>(draw.sampler.itemsize);
  if (buffer.element_count() != elements || item_bytes(buffer.element_type()) != itemsize) {
    throw InvalidPlan("result " + std::to_string(index) + " must have " + std::to_string(elements) +
                      " elements of " + std::to_string(itemsize) + " bytes, got " +
                      type_of(buffer));
  }
  return buffer.untyped_data();
}

}  // namespace

std::string type_of(const ffi::AnyBuffer& buffer) {
  std::ostringstream text;
  text << static_cast<XLA_FFI_DataType>(buffer.element_type()) << "[";
  const char* separator = "";
  for (const int64_t dim : buffer.dimensions()) {
    text << separator << dim;
    separator = ",";
  }
  text << "]";
  return text.str();
}

void DecodedCall::decode(int64_t mode, ffi::Span<const int64_t> plan, int64_t size) {
  if (size < 0) throw InvalidPlan("size must be >= 0, got " + std::to_string(size));
  this->mode = key_mode(mode);
  this->size = static_cast<uint64_t>(size);
  this->plan = decode_plan(plan.begin(), plan.size());
}

Call checked_call(const DecodedCall& decoded, const ffi::AnyBuffer& keys,
                  const ffi::AnyBuffer& members, const ffi::AnyBuffer& blocks,
                  const ffi::RemainingRets& results) {
  const bool key_each = decoded.mode == KeyMode::kMemberKeys;
  const bool index_each = decoded.mode == KeyMode::kIndices;
  const std::vector<uint64_t> each = {decoded.size, 2}, shared = {2};
  Call call = {decoded.mode,           leading(keys, "keys", key_each ? each : shared),
               decoded.size,           keys.untyped_data(),
               members.untyped_data(), {}};
  const bool reads_members = index_each || decoded.mode == KeyMode::kRange;
  if (reads_members && leading(members, "members", index_each ? each : shared) != call.groups) {
    throw InvalidPlan("operands `keys` and `members` must have the same batch dims, got " +
                      type_of(keys) + " and " + type_of(members));
  }
  const Plan& plan = decoded.plan;
  if (!plan.blocks.empty()) {
    // The same for all groups: who maps over them calls again for each.
    leading(blocks, "blocks", {plan.blocks.size()});
    if (blocks.dimensions().size() != 1) {
      throw InvalidPlan("operand `blocks` must have one dimension, got " + type_of(blocks));
    }
    call.blocks = blocks.untyped_data();
  }
  if (results.size() != plan.draws.size()) {
    throw InvalidPlan("the plan has " + std::to_string(plan.draws.size()) + " draws, the call " +
                      std::to_string(results.size()) + " results");
  }
  for (size_t d = 0; d < plan.draws.size(); ++d) {
    auto result = results.get<ffi::AnyBuffer>(d);
    if (!result.has_value()) throw InvalidPlan(result.error().message());
    call.outputs.push_back(check_result(**result, plan.draws[d], d, call.groups, call.size));
  }
  return call;
}

}  // namespace seedbed
