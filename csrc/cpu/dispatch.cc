#include "cpu/dispatch.h"

#include <cstdlib>
#include <stdexcept>

namespace seedbed {
namespace {

std::vector<const KernelTable*> find_supported() {
  std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
  // The features checked are exactly those of the kernels' compiler flags in CMakeLists.txt;
  // __builtin_cpu_supports also asks whether the operating system saves the registers.
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    tables.push_back(&avx512::table);
  }
  if (fma) tables.push_back(&avx2::table);
  tables.push_back(&baseline::table);
#else
  tables.push_back(&neon::table);
#endif
  return tables;
}

const KernelTable& choose() {
  const char* forced = std::getenv("SEEDBED_ISA");
  if (forced == nullptr) return *supported_tables().front();
  return table_by_name(forced, "SEEDBED_ISA");
}

}  // namespace

const std::vector<const KernelTable*>& supported_tables() {
  static const auto* const tables = new std::vector<const KernelTable*>(find_supported());
  return *tables;
}

const KernelTable& table_by_name(const std::string& name, const char* source) {
  std::string accepted;
  for (const KernelTable* table : supported_tables()) {
    if (name == table->name) return *table;
    accepted += (accepted.empty() ? "'" : ", '") + std::string(table->name) + "'";
  }
  throw std::invalid_argument(std::string(source) + " is '" + name +
                              "', but this machine runs only " + accepted);
}

const KernelTable& active_table() {
  static const KernelTable& table = choose();
  return table;
}

}  // namespace seedbed
