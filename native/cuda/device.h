// One GPU: its streams, events, staging memory and the state of the libraries on it.
//
// Threads: ops, copies and collectives of one device are issued by one thread at a time. FetchWait, and abort and check
// of a communicator, may come from any other thread at the same time.
#pragma once
#include <cuda_runtime_api.h>

#include <memory>

#include "error.h"
#include "fetch.h"
#include "staging.h"
#include "waiter.h"

namespace mbcuda {

constexpr int kStreams = 8;

class Gemm;
class Attention;

}  // namespace mbcuda

struct mb_event {
  cudaEvent_t event = nullptr;
  bool timed = false, recorded = false;
};

struct mb_device {
  int index = 0;
  bool sync_each_op = false;  // MBRIDGE_CUDA_SYNC=1
  cudaDeviceProp properties = {};
  cudaStream_t streams[mbcuda::kStreams] = {};
  mbcuda::Waiter waiter;
  mbcuda::StagingRing staging{&waiter};
  mbcuda::ReadBuffers read_buffers{&waiter};
  mbcuda::FetchSlots fetches{&waiter};
  std::unique_ptr<mbcuda::Gemm> gemm;
  std::unique_ptr<mbcuda::Attention> attention;

  mb_device();
  ~mb_device();
};

namespace mbcuda {

int DeviceCount(int* count);
int OpenDevice(int index, int threads, mb_device** out);
void CloseDevice(mb_device* device);
int DeviceInfo(mb_device* device, mb_device_info* out);
int Alloc(mb_device* device, int64_t bytes, void** out);
void Release(mb_device* device, void* memory);
int Write(mb_device* device, int stream, const mb_buf* dst, const void* src);
int Read(mb_device* device, int stream, const mb_buf* src, void* dst);
int HostRegister(mb_device* device, void* ptr, int64_t bytes);
int HostUnregister(mb_device* device, void* ptr);
int ReadAsync(mb_device* device, int stream, const mb_buf* src, void* dst);
int FetchBegin(mb_device* device, int stream, const mb_buf* src, int64_t* ticket);
int FetchWait(mb_device* device, int64_t ticket, void* dst);
int Copy(mb_device* device, int stream, const mb_buf* src, const mb_buf* dst);
int EventCreate(mb_device* device, int timed, mb_event** out);
void EventDestroy(mb_device* device, mb_event* event);
int Record(mb_device* device, int stream, mb_event* event);
int Wait(mb_device* device, int stream, mb_event* event);
int Synchronize(mb_device* device);
int ElapsedMs(mb_device* device, mb_event* first, mb_event* second, double* ms);

// Makes the device current on this thread and resolves the stream. Every entry point begins with it: CUDA's current
// device is per thread, and calls come from several.
int Enter(mb_device* device, int stream, cudaStream_t* out);

// Dense bf16 peak in TFLOP/s from NVIDIA's data sheets; 0 where unknown.
double PeakTflops(const char* name);

}  // namespace mbcuda
