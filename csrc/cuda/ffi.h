// The XLA custom call `seedbed_fill_v1` for the CUDA platform.
#ifndef SEEDBED_CUDA_FFI_H_
#define SEEDBED_CUDA_FFI_H_

#include "xla/ffi/api/ffi.h"

namespace seedbed::cuda {

// As those of csrc/cpu/ffi.h.
XLA_FFI_Error* fill_instantiate(XLA_FFI_CallFrame* frame);
XLA_FFI_Error* fill_execute(XLA_FFI_CallFrame* frame);
XLA_FFI_TypeId* fill_state_type_id();
const XLA_FFI_TypeInfo* fill_state_type_info();

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_FFI_H_
