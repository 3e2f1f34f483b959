// The XLA custom call `seedbed_fill_v1` for the cpu platform.
#ifndef SEEDBED_CPU_FFI_H_
#define SEEDBED_CPU_FFI_H_

#include "xla/ffi/api/ffi.h"

namespace seedbed {

// Decodes the plan, once for each compiled program, into a state object of the type below.
XLA_FFI_Error* fill_instantiate(XLA_FFI_CallFrame* frame);

// Checks the buffers against the plan and runs it.
XLA_FFI_Error* fill_execute(XLA_FFI_CallFrame* frame);

// The state type, which must be registered before the target.
XLA_FFI_TypeId* fill_state_type_id();
const XLA_FFI_TypeInfo* fill_state_type_info();

}  // namespace seedbed

#endif  // SEEDBED_CPU_FFI_H_
