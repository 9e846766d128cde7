// The CUDA kernels of the engine (GEMM and cuDNN attention live elsewhere).
//
// Every launcher takes the tensors and scalars of its op exactly as ops.def lists them, checks them as core/args does
// on every backend, enqueues on `stream` and returns an mb_status, with the text of what was found. None waits for the
// device, allocates, reads a device value on the host or uses float atomics, so all of them can be captured in a CUDA
// graph.
#pragma once
#include <cuda_runtime_api.h>

#include "core/args/attention.h"

namespace mb::cuda::kernels {

// One launcher an op. Attention is of our own: f32 and bf16, head sizes that are multiples of 8 up to 256, always
// deterministic; it serves as reference and where cuDNN does not apply. There is no gemm here.
#define MB_OP(NAME, name, tensors, scalars) \
  int op_##name(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns);
#include "core/ops.def"
#undef MB_OP

// Bytes of ws that op_attention_bwd needs (op_attention_fwd needs none).
int64_t attention_workspace_bytes(const AttentionSizes& sizes);

}  // namespace mb::cuda::kernels
