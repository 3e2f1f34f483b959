// Which kernel table runs on this machine.
#ifndef SEEDBED_CPU_DISPATCH_H_
#define SEEDBED_CPU_DISPATCH_H_

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace seedbed {

// The tables this machine can run, best first; never empty.
const std::vector<const KernelTable*>& supported_tables();

// The table of that name; throws std::invalid_argument, whose message names `source`, the place the
// name came from, if it is unknown or this machine cannot run it.
const KernelTable& table_by_name(const std::string& name, const char* source);

// The best table, or the one that the environment variable SEEDBED_ISA names. Looked up once; an
// unusable name throws at every call.
const KernelTable& active_table();

}  // namespace seedbed

#endif  // SEEDBED_CPU_DISPATCH_H_
