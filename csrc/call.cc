#include "call.h"

#include <string>

namespace seedbed {

KeyMode key_mode(int64_t value) {
  if (value < 0 || value > 3) {
    throw InvalidPlan("mode must be 0 (member keys), 1 (range), 2 (indices) or 3 (all), got " +
                      std::to_string(value));
  }
  return static_cast<KeyMode>(value);
}

uint64_t output_elements(const Draw& draw, uint64_t groups, uint64_t size) {
  const uint64_t rows =
      checked_product(checked_product(groups, size, "members"), draw.batch, "rows");
  const uint64_t elements = checked_product(rows, draw.elements_per_row(), "output elements");
  checked_product(elements, static_cast<uint64_t>(draw.sampler.itemsize), "output bytes");
  return elements;
}

}  // namespace seedbed
