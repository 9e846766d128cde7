// Grouped-query attention as a cuDNN graph for each direction.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include <compare>

#include "cuda/ops/cudnn_graph.h"

namespace mb::cuda {

struct AttentionShape {
  int64_t b, sq, skv, hq, hkv, d;
  // Elements from a token to the next one.
  int64_t ldq, ldk, ldv, ldo;
  int64_t lddq, lddk, lddv;  // backward only; else 0
  int64_t kv_rows;           // from a sequence's first key to the next one's
  int64_t lse_heads;         // heads from a sequence's logsumexp to the next one's: hq, or more where these are some
  bool causal;               // query i sees the keys up to skv - sq + i; else all of them
  bool backward, deterministic;

  auto operator<=>(const AttentionShape&) const = default;
};

struct AttentionBuffers {
  void* q = nullptr;
  void* k = nullptr;
  void* v = nullptr;
  void* o = nullptr;
  void* lse = nullptr;
  void* dout = nullptr;  // backward only, as what follows but for the workspace
  void* dq = nullptr;
  void* dk = nullptr;
  void* dv = nullptr;
  void* workspace = nullptr;
};

// The plan for one shape. Making one compiles kernels: 0.1 s when the driver has them cached, seconds when it has not.
class CudnnAttention {
 public:
  CudnnAttention(cudnn::Handle handle, const AttentionShape& shape);  // throws CudnnError

  int64_t workspace_bytes() const { return accumulator_bytes_ + sums_bytes_ + plan_.workspace_bytes(); }
  void run(cudnn::Handle handle, const AttentionBuffers& buffers, float scale) const;

 private:
  AttentionShape shape_;
  Plan plan_;
  int64_t accumulator_bytes_ = 0, sums_bytes_ = 0;
};

}  // namespace mb::cuda
