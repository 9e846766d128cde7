#include "core/args/fp8.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {

#define MB_UNBUILT(name)                                                               \
  int op_##name(cudaStream_t, const mb_buf*, int, const double*, int) {                \
    return fail(MB_ERR_UNSUPPORTED, #name ": not built for CUDA in this version yet"); \
  }
MB_UNBUILT(fp8_quantize)
MB_UNBUILT(swiglu_fwd_fp8)
MB_UNBUILT(swiglu_bwd_fp8)

}  // namespace mb::cuda::kernels
