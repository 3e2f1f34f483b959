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

inline nanobind::dict fill_state_types(XLA_FFI_TypeId* id, const XLA_FFI_TypeInfo* info) {
  nanobind::dict type, types;
  type["type_id"] = nanobind::capsule(static_cast<void*>(id));
  type["type_info"] = nanobind::capsule(const_cast<void*>(static_cast<const void*>(info)));
  types["seedbed_fill_state_v1"] = type;
  return types;
}

}  // namespace seedbed

#endif  // SEEDBED_REGISTRATIONS_H_
