// Calls of a stream that are kept and run as a whole.
#include <cuda_runtime_api.h>

#include <memory>

#include "cuda/device/device.h"

namespace mb::cuda {

int capture_begin(mb_device* device, int stream) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  // Other threads go on waiting for fetches and looking after communicators.
  MB_CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
  return MB_OK;
}

int capture_end(mb_device* device, int stream, mb_graph** out) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  cudaGraph_t captured = nullptr;
  MB_CUDA(cudaStreamEndCapture(s, &captured));
  auto made = std::make_unique<mb_graph>();
  const cudaError_t status = cudaGraphInstantiate(&made->exec, captured, 0);
  cudaGraphDestroy(captured);
  MB_CUDA(status);
  *out = made.release();
  return MB_OK;
}

int graph_launch(mb_device* device, int stream, mb_graph* graph) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  MB_CUDA(cudaGraphLaunch(graph->exec, s));
  return MB_OK;
}

void graph_destroy(mb_device* device, mb_graph* graph) {
  // After a failed wait nothing is given back, as in close_device.
  if (!device->waiter.gave_up()) {
    cudaSetDevice(device->index);
    cudaGraphExecDestroy(graph->exec);  // one that runs is released when it has ended
  }
  delete graph;
}

}  // namespace mb::cuda
