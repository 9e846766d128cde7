// The one exported symbol: the table of functions of abi.h.
#include <string>

#include "cuda/comm/nccl.h"
#include "cuda/device/describe.h"
#include "cuda/device/device.h"
#include "cuda/kernels/kernels.h"
#include "cuda/ops/attention.h"
#include "cuda/ops/gemm.h"

namespace mb::cuda {
namespace {

// Ends an op: with MBRIDGE_CUDA_SYNC=1 a kernel's failure is found at the op that caused it, at the price of all
// overlap.
int finish(mb_device* device, cudaStream_t stream, const char* op, int status) {
  if (status != MB_OK || !device->sync_each_op) return status;
  const cudaError_t error = cudaStreamSynchronize(stream);
  return error == cudaSuccess ? MB_OK : cuda_fail(error, op);
}

#define MB_LIBRARY_OP(NAME, name, tensors, scalars)
#define MB_OP(NAME, name, tensors, scalars)                                                        \
  int op_##name(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) { \
    cudaStream_t cuda_stream = nullptr;                                                            \
    MB_TRY(enter(device, stream, &cuda_stream));                                                   \
    return finish(device, cuda_stream, #name, kernels::op_##name(cuda_stream, t, nt, s, ns));      \
  }
#include "core/ops.def"
#undef MB_OP
#undef MB_LIBRARY_OP

int op_gemm(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  cudaStream_t cuda_stream = nullptr;
  MB_TRY(enter(device, stream, &cuda_stream));
  return finish(device, cuda_stream, "gemm", device->gemm->run(stream, cuda_stream, t, nt, s, ns));
}

int op_gemm_fp8(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  cudaStream_t cuda_stream = nullptr;
  MB_TRY(enter(device, stream, &cuda_stream));
  return finish(device, cuda_stream, "gemm_fp8", device->gemm->run_fp8(stream, cuda_stream, t, nt, s, ns));
}

int op_attention_fwd(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  cudaStream_t cuda_stream = nullptr;
  MB_TRY(enter(device, stream, &cuda_stream));
  return finish(device, cuda_stream, "attention_fwd", device->attention->forward(cuda_stream, t, nt, s, ns));
}

int op_attention_bwd(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  cudaStream_t cuda_stream = nullptr;
  MB_TRY(enter(device, stream, &cuda_stream));
  return finish(device, cuda_stream, "attention_bwd", device->attention->backward(cuda_stream, t, nt, s, ns));
}

int attention_workspace(mb_device* device, int dtype, int64_t b, int64_t sq, int64_t skv, int64_t hq, int64_t hkv,
                        int64_t d, int64_t offset, int deterministic, int64_t* bytes, char kernel[64]) {
  cudaStream_t stream = nullptr;
  MB_TRY(enter(device, 0, &stream));
  return device->attention->workspace(stream, dtype, {b, sq, skv, hq, hkv, d}, offset, deterministic != 0, bytes,
                                      kernel);
}

const char* describe_text() {
  thread_local std::string text;
  text = describe();
  return text.c_str();
}

mb_backend make_table() {
  mb_backend table = {};
  table.abi = MB_ABI;
  table.name = "cuda";
  table.last_error = last_error;
  table.device_count = device_count;
  table.open = open_device;
  table.close = close_device;
  table.info = device_info;
  table.alloc = alloc;
  table.release = release;
  table.host_alloc = host_alloc;
  table.host_release = host_release;
  table.write = write;
  table.read = read;
  table.fetch_begin = fetch_begin;
  table.fetch_wait = fetch_wait;
  table.copy = copy;
  table.host_register = host_register;
  table.host_unregister = host_unregister;
  table.read_async = read_async;
  table.event_create = event_create;
  table.event_destroy = event_destroy;
  table.record = record;
  table.wait = wait;
  table.synchronize = synchronize;
  table.capture_begin = capture_begin;
  table.capture_end = capture_end;
  table.graph_launch = graph_launch;
  table.graph_destroy = graph_destroy;
  table.elapsed_ms = elapsed_ms;
  table.attention_workspace = attention_workspace;
  table.describe = describe_text;
#define MB_OP(NAME, name, tensors, scalars) table.ops[MB_OP_##NAME] = op_##name;
#include "core/ops.def"
#undef MB_OP
  table.comm = nccl_table();
  return table;
}

}  // namespace
}  // namespace mb::cuda

extern "C" __attribute__((visibility("default"))) const mb_backend* mb_backend_entry(uint32_t abi) {
  static const mb_backend table = mb::cuda::make_table();
  return abi == MB_ABI ? &table : nullptr;
}
