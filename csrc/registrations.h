// What every module hands to Python: handlers and the type of their state, for `jax.ffi`, and what
// it was built as.
#ifndef SEEDBED_REGISTRATIONS_H_
#define SEEDBED_REGISTRATIONS_H_

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "ffi_common.h"

namespace seedbed {

inline nanobind::capsule handler(XLA_FFI_Error* (*function)(XLA_FFI_CallFrame*)) {
  return nanobind::capsule(reinterpret_cast<void*>(function));
}

inline nanobind::dict registrations(const FillTarget& target) {
  nanobind::dict stages, targets;
  stages["instantiate"] = handler(target.instantiate);
  stages["execute"] = handler(target.execute);
  targets[kFillTarget] = stages;
  return targets;
}

// `name` must be another one in each module: XLA has one table of types for all platforms.
inline nanobind::dict type_registrations(const char* name, const FillTarget& target) {
  nanobind::dict type, types;
  void* const info = const_cast<void*>(static_cast<const void*>(target.type_info));
  type["type_id"] = nanobind::capsule(static_cast<void*>(target.type_id));
  type["type_info"] = nanobind::capsule(info);
  types[name] = type;
  return types;
}

inline void define_versions(nanobind::module_& m) {
  m.def("version", [] { return std::string(SEEDBED_VERSION); });
  m.def("plan_version", [] { return kPlanVersion; });
}

}  // namespace seedbed

#endif  // SEEDBED_REGISTRATIONS_H_
