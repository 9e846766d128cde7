// One GPU: its streams, events, staging memory and the state of the libraries on it.
//
// Threads: ops, copies and collectives of one device are issued by one thread at a time. fetch_wait, and abort and
// check of a communicator, may come from any other thread at the same time.
#pragma once
#include <cuda_runtime_api.h>

#include <memory>

#include "cuda/device/error.h"
#include "cuda/device/fetch.h"
#include "cuda/device/staging.h"
#include "cuda/device/waiter.h"

namespace mb::cuda {

constexpr int kStreams = 8;

class Gemm;
class Attention;

}  // namespace mb::cuda

struct mb_event {
  cudaEvent_t event = nullptr;
  bool timed = false, recorded = false;
};

struct mb_graph {
  cudaGraphExec_t exec = nullptr;
};

struct mb_device {
  int index = 0;
  bool sync_each_op = false;  // MBRIDGE_CUDA_SYNC=1
  cudaDeviceProp properties = {};
  cudaStream_t streams[mb::cuda::kStreams] = {};
  mb::cuda::Waiter waiter;
  mb::cuda::StagingRing staging{&waiter};
  mb::cuda::ReadBuffers read_buffers{&waiter};
  mb::cuda::FetchSlots fetches{&waiter};
  std::unique_ptr<mb::cuda::Gemm> gemm;
  std::unique_ptr<mb::cuda::Attention> attention;

  mb_device();
  ~mb_device();
};

namespace mb::cuda {

int device_count(int* count);
int open_device(int index, int threads, mb_device** out);
void close_device(mb_device* device);
int device_info(mb_device* device, mb_device_info* out);
int alloc(mb_device* device, int64_t bytes, void** out);
void release(mb_device* device, void* memory);
int host_alloc(mb_device* device, int64_t bytes, void** out);
void host_release(mb_device* device, void* memory);
int write(mb_device* device, int stream, const mb_buf* dst, const void* src);
int read(mb_device* device, int stream, const mb_buf* src, void* dst);
int host_register(mb_device* device, void* ptr, int64_t bytes);
int host_unregister(mb_device* device, void* ptr);
int read_async(mb_device* device, int stream, const mb_buf* src, void* dst);
int fetch_begin(mb_device* device, int stream, const mb_buf* src, int64_t* ticket);
int fetch_wait(mb_device* device, int64_t ticket, void* dst);
int copy(mb_device* device, int stream, const mb_buf* src, const mb_buf* dst);
int event_create(mb_device* device, int timed, mb_event** out);
void event_destroy(mb_device* device, mb_event* event);
int record(mb_device* device, int stream, mb_event* event);
int wait(mb_device* device, int stream, mb_event* event);
int synchronize(mb_device* device);
int capture_begin(mb_device* device, int stream);
int capture_end(mb_device* device, int stream, mb_graph** out);
int graph_launch(mb_device* device, int stream, mb_graph* graph);
void graph_destroy(mb_device* device, mb_graph* graph);
int elapsed_ms(mb_device* device, mb_event* first, mb_event* second, double* ms);

// Makes the device current on this thread and resolves the stream. Every entry point begins with it: CUDA's current
// device is per thread, and calls come from several.
int enter(mb_device* device, int stream, cudaStream_t* out);

// Dense bf16 peak in TFLOP/s from NVIDIA's data sheets; 0 where unknown.
double peak_tflops(const char* name);

}  // namespace mb::cuda
