// Start-up self-test of cuDNN's attention against our own kernel, for library versions that were not tested by hand: an
// engine that matches a graph wrongly gives wrong numbers without an error.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "cuda/ops/attention_graph.h"

namespace mb::cuda {

// Runs both on a small problem with the head size, the determinism and the mask of `shape`. Empty when they agree, else
// what differs. Blocks.
std::string check_attention(cudnn::Handle handle, cudaStream_t stream, AttentionShape shape);

}  // namespace mb::cuda
