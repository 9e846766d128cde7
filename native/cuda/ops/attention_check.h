// Start-up self-test of cuDNN's attention against our own kernel, for library versions that were not tested by hand: an
// engine that matches a graph wrongly gives wrong numbers without an error.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "cuda/ops/attention_graph.h"

namespace mb::cuda {

// Runs both on a small problem with this head size and grouping. Empty when they agree, else what differs. Blocks.
std::string check_attention(cudnn::Handle handle, cudaStream_t stream, int64_t head_dim, bool deterministic);

}  // namespace mb::cuda
