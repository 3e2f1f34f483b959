// The XLA custom call `seedbed_threefry_v1` for the cpu platform.
#ifndef SEEDBED_CPU_CIPHER_FFI_H_
#define SEEDBED_CPU_CIPHER_FFI_H_

#include "xla/ffi/api/ffi.h"

namespace seedbed {

// Operands k0, k1, c0, c1, results of one shape: checks the buffers and runs the cipher on them.
XLA_FFI_Error* threefry_execute(XLA_FFI_CallFrame* frame);

}  // namespace seedbed

#endif  // SEEDBED_CPU_CIPHER_FFI_H_
