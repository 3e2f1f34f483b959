// The XLA custom call `seedbed_fill_v1` for the cpu platform.
#ifndef SEEDBED_CPU_FFI_H_
#define SEEDBED_CPU_FFI_H_

#include "ffi_common.h"

namespace seedbed {

FillTarget fill_target();

}  // namespace seedbed

#endif  // SEEDBED_CPU_FFI_H_
