// The XLA custom call `seedbed_fill_v1` for the CUDA platform.
#ifndef SEEDBED_CUDA_FFI_H_
#define SEEDBED_CUDA_FFI_H_

#include "ffi_common.h"

namespace seedbed::cuda {

FillTarget fill_target();

}  // namespace seedbed::cuda

#endif  // SEEDBED_CUDA_FFI_H_
