// The one exported symbol: the table of functions of abi.h.
#include <string>

#include "attention.h"
#include "describe.h"
#include "device.h"
#include "gemm.h"
#include "kernels/kernels.h"
#include "nccl.h"

namespace mbcuda {
namespace {

// Ends an op: with MBRIDGE_CUDA_SYNC=1 a kernel's failure is found at the op that caused it, at the price of all
// overlap.
int Finish(mb_device* device, cudaStream_t stream, const char* op, int status) {
  if (status != MB_OK || !device->sync_each_op) return status;
  const cudaError_t error = cudaStreamSynchronize(stream);
  return error == cudaSuccess ? MB_OK : CudaFail(error, op);
}

#define MB_KERNEL_OP(name)                                                                         \
  int Op_##name(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) { \
    cudaStream_t cuda_stream = nullptr;                                                            \
    MB_TRY(Enter(device, stream, &cuda_stream));                                                   \
    return Finish(device, cuda_stream, #name, mbk_##name(cuda_stream, t, nt, s, ns));              \
  }
MB_KERNEL_OP(rmsnorm_fwd)
MB_KERNEL_OP(add_rmsnorm_fwd)
MB_KERNEL_OP(rmsnorm_bwd)
MB_KERNEL_OP(rope_table)
MB_KERNEL_OP(qknorm_rope_fwd)
MB_KERNEL_OP(qknorm_rope_bwd)
MB_KERNEL_OP(swiglu_fwd)
MB_KERNEL_OP(swiglu_bwd)
MB_KERNEL_OP(embed_fwd)
MB_KERNEL_OP(embed_bwd)
MB_KERNEL_OP(ce_stats)
MB_KERNEL_OP(ce_rescale)
MB_KERNEL_OP(ce_grad)
MB_KERNEL_OP(add)
MB_KERNEL_OP(cast)
MB_KERNEL_OP(fill)
MB_KERNEL_OP(scale)
MB_KERNEL_OP(sumsq)
MB_KERNEL_OP(optimizer_prepare)
MB_KERNEL_OP(adamw)
MB_KERNEL_OP(init_normal)
#undef MB_KERNEL_OP

int Op_gemm(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  cudaStream_t cuda_stream = nullptr;
  MB_TRY(Enter(device, stream, &cuda_stream));
  return Finish(device, cuda_stream, "gemm", device->gemm->Run(stream, cuda_stream, t, nt, s, ns));
}

int Op_attention_fwd(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  cudaStream_t cuda_stream = nullptr;
  MB_TRY(Enter(device, stream, &cuda_stream));
  return Finish(device, cuda_stream, "attention_fwd", device->attention->Forward(cuda_stream, t, nt, s, ns));
}

int Op_attention_bwd(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  cudaStream_t cuda_stream = nullptr;
  MB_TRY(Enter(device, stream, &cuda_stream));
  return Finish(device, cuda_stream, "attention_bwd", device->attention->Backward(cuda_stream, t, nt, s, ns));
}

int AttentionWorkspace(mb_device* device, int dtype, int64_t b, int64_t s, int64_t hq, int64_t hkv, int64_t d,
                       int deterministic, int64_t* bytes, char kernel[64]) {
  cudaStream_t stream = nullptr;
  MB_TRY(Enter(device, 0, &stream));
  return device->attention->Workspace(stream, dtype, {b, s, hq, hkv, d, deterministic != 0}, bytes, kernel);
}

const char* DescribeText() {
  thread_local std::string text;
  text = Describe();
  return text.c_str();
}

mb_backend MakeTable() {
  mb_backend table = {};
  table.abi = MB_ABI;
  table.name = "cuda";
  table.last_error = LastError;
  table.device_count = DeviceCount;
  table.open = OpenDevice;
  table.close = CloseDevice;
  table.info = DeviceInfo;
  table.alloc = Alloc;
  table.release = Release;
  table.write = Write;
  table.read = Read;
  table.fetch_begin = FetchBegin;
  table.fetch_wait = FetchWait;
  table.copy = Copy;
  table.host_register = HostRegister;
  table.host_unregister = HostUnregister;
  table.read_async = ReadAsync;
  table.event_create = EventCreate;
  table.event_destroy = EventDestroy;
  table.record = Record;
  table.wait = Wait;
  table.synchronize = Synchronize;
  table.elapsed_ms = ElapsedMs;
  table.attention_workspace = AttentionWorkspace;
  table.describe = DescribeText;
  table.ops[MB_OP_GEMM] = Op_gemm;
  table.ops[MB_OP_RMSNORM_FWD] = Op_rmsnorm_fwd;
  table.ops[MB_OP_ADD_RMSNORM_FWD] = Op_add_rmsnorm_fwd;
  table.ops[MB_OP_RMSNORM_BWD] = Op_rmsnorm_bwd;
  table.ops[MB_OP_ROPE_TABLE] = Op_rope_table;
  table.ops[MB_OP_QKNORM_ROPE_FWD] = Op_qknorm_rope_fwd;
  table.ops[MB_OP_QKNORM_ROPE_BWD] = Op_qknorm_rope_bwd;
  table.ops[MB_OP_ATTENTION_FWD] = Op_attention_fwd;
  table.ops[MB_OP_ATTENTION_BWD] = Op_attention_bwd;
  table.ops[MB_OP_SWIGLU_FWD] = Op_swiglu_fwd;
  table.ops[MB_OP_SWIGLU_BWD] = Op_swiglu_bwd;
  table.ops[MB_OP_EMBED_FWD] = Op_embed_fwd;
  table.ops[MB_OP_EMBED_BWD] = Op_embed_bwd;
  table.ops[MB_OP_CE_STATS] = Op_ce_stats;
  table.ops[MB_OP_CE_RESCALE] = Op_ce_rescale;
  table.ops[MB_OP_CE_GRAD] = Op_ce_grad;
  table.ops[MB_OP_ADD] = Op_add;
  table.ops[MB_OP_CAST] = Op_cast;
  table.ops[MB_OP_FILL] = Op_fill;
  table.ops[MB_OP_SCALE] = Op_scale;
  table.ops[MB_OP_SUMSQ] = Op_sumsq;
  table.ops[MB_OP_OPTIMIZER_PREPARE] = Op_optimizer_prepare;
  table.ops[MB_OP_ADAMW] = Op_adamw;
  table.ops[MB_OP_INIT_NORMAL] = Op_init_normal;
  table.comm = NcclTable();
  return table;
}

}  // namespace
}  // namespace mbcuda

extern "C" __attribute__((visibility("default"))) const mb_backend* mb_backend_entry(uint32_t abi) {
  static const mb_backend table = mbcuda::MakeTable();
  return abi == MB_ABI ? &table : nullptr;
}
