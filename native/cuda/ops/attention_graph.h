// Causal grouped-query attention as two cuDNN graphs over the interleaved [b, s, hq + 2*hkv, d] buffers of abi.h.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/ops/cudnn_graph.h"

namespace mb::cuda {

struct AttentionShape {
  int64_t b, s, hq, hkv, d;
  bool deterministic;  // of the backward
};

struct AttentionBuffers {
  void* qkv = nullptr;
  void* o = nullptr;
  void* lse = nullptr;
  void* dout = nullptr;  // backward only
  void* dqkv = nullptr;
  void* workspace = nullptr;
};

// Plans for one shape. Making one compiles kernels: 0.1 s when the driver has them cached, seconds when it has not.
class CudnnAttention {
 public:
  CudnnAttention(cudnn::Handle handle, const AttentionShape& shape);  // throws CudnnError

  // Bytes that either direction needs. The deterministic backward's grow with the square of s (b*hq*s*s*2 bytes more).
  int64_t workspace_bytes() const { return workspace_bytes_; }
  void forward(cudnn::Handle handle, const AttentionBuffers& buffers, float scale) const;
  void backward(cudnn::Handle handle, const AttentionBuffers& buffers, float scale) const;

 private:
  AttentionShape shape_;
  Plan forward_, backward_;
  int64_t accumulator_bytes_, sums_bytes_, workspace_bytes_;
};

}  // namespace mb::cuda
