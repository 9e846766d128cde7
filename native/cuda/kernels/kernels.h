// The CUDA kernels of the engine, one launcher per op of abi.h (GEMM and cuDNN attention live elsewhere).
//
// Every launcher takes the tensors and scalars of its op exactly as abi.h lists them, checks count, bytes, dtype,
// alignment and allowed aliasing, enqueues on `stream` and returns an mb_status; on failure the text of what was found
// is set through mb_cuda_set_error. None waits for the device, allocates, reads a device value on the host or uses
// float atomics, so all of them can be captured in a CUDA graph.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "../../core/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

// Sets the text that mb_backend::last_error returns on this thread. Defined by the backend, not by the kernels.
void mb_cuda_set_error(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

#define MBK_OP(name) int mbk_##name(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns)
MBK_OP(rmsnorm_fwd);
MBK_OP(add_rmsnorm_fwd);
MBK_OP(rmsnorm_bwd);
MBK_OP(rope_table);
MBK_OP(qknorm_rope_fwd);
MBK_OP(qknorm_rope_bwd);
// Attention of our own: f32 and bf16, head sizes that are multiples of 8 up to 256, always deterministic. It serves as
// reference and where cuDNN does not apply. Arguments as MB_OP_ATTENTION_FWD and _BWD.
MBK_OP(attention_fwd);
MBK_OP(attention_bwd);
MBK_OP(swiglu_fwd);
MBK_OP(swiglu_bwd);
MBK_OP(embed_fwd);
MBK_OP(embed_bwd);
MBK_OP(ce_stats);
MBK_OP(ce_rescale);
MBK_OP(ce_grad);
MBK_OP(add);
MBK_OP(cast);
MBK_OP(fill);
MBK_OP(scale);
MBK_OP(sumsq);
MBK_OP(optimizer_prepare);
MBK_OP(adamw);
MBK_OP(init_normal);

// Bytes of ws that mbk_attention_fwd and mbk_attention_bwd need for these sizes, or -1 with the error set where the
// sizes are not supported. dtype is MB_F32 or MB_BF16.
int64_t mbk_attention_workspace(int dtype, int64_t b, int64_t s, int64_t hq, int64_t hkv, int64_t d);

#ifdef __cplusplus
}
#endif
