// What a module hands to `jax.ffi`: handlers and the type of their state.
#ifndef SEEDBED_REGISTRATIONS_H_
#define SEEDBED_REGISTRATIONS_H_

#include <nanobind/nanobind.h>

#include "xla/ffi/api/c_api.h"

namespace seedbed {

using Handler = XLA_FFI_Error* (*)(XLA_FFI_CallFrame*);

inline nanobind::capsule handler(Handler function) {
  return nanobind::capsule(reinterpret_cast<void*>(function));
}

inline nanobind::dict fill_stages(Handler instantiate, Handler execute) {
  nanobind::dict stages;
  stages["instantiate"] = handler(instantiate);
  stages["execute"] = handler(execute);
  return stages;
}

// `name` must be another one in each module: XLA has one table of types for all platforms.
inline nanobind::dict fill_state_types(const char* name, XLA_FFI_TypeId* id,
                                       const XLA_FFI_TypeInfo* info) {
  nanobind::dict type, types;
  type["type_id"] = nanobind::capsule(static_cast<void*>(id));
  type["type_info"] = nanobind::capsule(const_cast<void*>(static_cast<const void*>(info)));
  types[name] = type;
  return types;
}

}  // namespace seedbed

#endif  // SEEDBED_REGISTRATIONS_H_
