#include "cuda/device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "cuda/ops/attention.h"
#include "cuda/ops/gemm.h"

mb_device::mb_device() = default;

mb_device::~mb_device() {
  attention.reset();  // the libraries know the streams
  gemm.reset();
  for (cudaStream_t stream : streams) {
    if (stream) cudaStreamDestroy(stream);
  }
}

namespace mb::cuda {
namespace {

int check_buffer(const mb_buf* buf, const char* what) {
  return buf && buf->ptr && buf->bytes >= 0 ? MB_OK : fail(MB_ERR_ARGUMENT, "%s: no memory given", what);
}

}  // namespace

double peak_tflops(const char* name) {
  struct Row {
    const char* part;
    double peak;
  };
  // The first match counts: variants of lower power before the plain name. The space keeps GH200 and GB200 out.
  static constexpr Row kTable[] = {
      {" H200 NVL", 835}, {" H200", 989}, {" H100 NVL", 835}, {" H100 PCIe", 756},
      {" H100", 989},     {" A100", 312}, {" B200", 2250},
  };
  for (const Row& row : kTable) {
    if (strstr(name, row.part)) return row.peak;
  }
  return 0;
}

int enter(mb_device* device, int stream, cudaStream_t* out) {
  if (stream < 0 || stream >= kStreams) {
    return fail(MB_ERR_ARGUMENT, "stream %d does not exist: a device has streams 0 to %d", stream, kStreams - 1);
  }
  MB_CUDA(cudaSetDevice(device->index));
  *out = device->streams[stream];
  return MB_OK;
}

int device_count(int* count) {
  *count = 0;
  int driver = 0;
  cudaDriverGetVersion(&driver);
  const cudaError_t error = cudaGetDeviceCount(count);
  if (error == cudaSuccess) return MB_OK;
  *count = 0;
  cudaGetLastError();
  if (driver == 0) {
    return fail(MB_ERR_DEVICE,
                "no CUDA device: %s (%s): no NVIDIA driver is loaded on this machine, or it is not visible "
                "in this container",
                cudaGetErrorString(error), cudaGetErrorName(error));
  }
  return fail(MB_ERR_DEVICE, "no CUDA device: %s (%s); the driver supports CUDA %d.%d, this build needs %d.0",
              cudaGetErrorString(error), cudaGetErrorName(error), driver / 1000, driver % 1000 / 10,
              CUDART_VERSION / 1000);
}

int open_device(int index, int /*threads*/, mb_device** out) {
  *out = nullptr;
  int count = 0;
  MB_TRY(device_count(&count));
  if (index < 0 || index >= count) {
    return fail(MB_ERR_ARGUMENT, "device %d does not exist: %d visible (CUDA_VISIBLE_DEVICES=%s)", index, count,
                getenv("CUDA_VISIBLE_DEVICES") ? getenv("CUDA_VISIBLE_DEVICES") : "unset");
  }
  MB_CUDA(cudaSetDevice(index));
  MB_CUDA(cudaFree(nullptr));  // makes the context now, so that its failures are named here
  std::unique_ptr<mb_device> device(new (std::nothrow) mb_device);
  if (!device) return fail(MB_ERR_MEMORY, "out of host memory");
  device->index = index;
  const char* sync = getenv("MBRIDGE_CUDA_SYNC");
  device->sync_each_op = sync && strcmp(sync, "1") == 0;
  MB_CUDA(cudaGetDeviceProperties(&device->properties, index));
  if (device->properties.major < 8) {
    return fail(MB_ERR_UNSUPPORTED, "%s has compute capability %d.%d; bf16 training needs 8.0 or newer",
                device->properties.name, device->properties.major, device->properties.minor);
  }
  int least = 0, greatest = 0;
  MB_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  for (int i = 0; i < kStreams; i++) {
    // Stream 0 computes. The others communicate: their few thread blocks must not wait behind a queue of gemm tiles.
    MB_CUDA(cudaStreamCreateWithPriority(&device->streams[i], cudaStreamNonBlocking, i == 0 ? least : greatest));
  }
  device->gemm = std::make_unique<Gemm>();
  device->attention = std::make_unique<Attention>();
  // Taken before the caller reads the free memory and sizes its arena. A missing library is reported by the op that
  // needs it, so that copies, elementwise ops and describe() work without.
  device->gemm->prepare(0);
  *out = device.release();
  return MB_OK;
}

void close_device(mb_device* device) {
  if (!device) return;
  cudaSetDevice(device->index);
  // After a failed wait nothing can be given back: cudaFree and its like would wait for the kernels that hang.
  if (synchronize(device) == MB_OK && !device->waiter.gave_up()) delete device;
}

int device_info(mb_device* device, mb_device_info* out) {
  MB_CUDA(cudaSetDevice(device->index));
  *out = {};
  size_t free_bytes = 0, total_bytes = 0;
  MB_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  snprintf(out->name, sizeof out->name, "%.127s", device->properties.name);
  out->total_bytes = static_cast<int64_t>(total_bytes);
  out->free_bytes = static_cast<int64_t>(free_bytes);
  out->peak_tflops = peak_tflops(device->properties.name);
  out->index = device->index;
  out->capability = device->properties.major * 10 + device->properties.minor;
  MB_CUDA(cudaDriverGetVersion(&out->driver));
  return MB_OK;
}

int alloc(mb_device* device, int64_t bytes, void** out) {
  *out = nullptr;
  if (bytes <= 0) return fail(MB_ERR_ARGUMENT, "allocation of %lld bytes", static_cast<long long>(bytes));
  MB_CUDA(cudaSetDevice(device->index));
  const size_t size = static_cast<size_t>(bytes);
  const cudaError_t error = cudaMalloc(out, size);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return fail(MB_ERR_MEMORY, "the device refused %lld bytes (%.2f GiB): %.2f of %.2f GiB are free on %s %d",
                static_cast<long long>(bytes), bytes / 1073741824.0, free_bytes / 1073741824.0,
                total_bytes / 1073741824.0, device->properties.name, device->index);
  }
  MB_CUDA(error);
  return MB_OK;
}

void release(mb_device* device, void* memory) {
  if (!memory || device->waiter.gave_up()) return;
  cudaSetDevice(device->index);
  // cudaFree would wait too, but could not be aborted. Members that still have the memory open read it no more: their
  // last op on it ended together with ours.
  if (synchronize(device) != MB_OK) return;
  device->waiter.close_windows(memory);
  cudaFree(memory);
}

int host_alloc(mb_device* device, int64_t bytes, void** out) {
  *out = nullptr;
  if (bytes <= 0) return fail(MB_ERR_ARGUMENT, "allocation of %lld bytes", static_cast<long long>(bytes));
  MB_CUDA(cudaSetDevice(device->index));
  const cudaError_t error = cudaHostAlloc(out, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation || error == cudaErrorInvalidValue) {  // the latter for sizes beyond any memory
    cudaGetLastError();
    return fail(MB_ERR_MEMORY, "the system refused %lld bytes (%.2f GiB) of pinned memory",
                static_cast<long long>(bytes), bytes / 1073741824.0);
  }
  MB_CUDA(error);
  return MB_OK;
}

void host_release(mb_device* device, void* memory) {
  if (!memory || device->waiter.gave_up()) return;
  cudaSetDevice(device->index);
  cudaFreeHost(memory);
}

int write(mb_device* device, int stream, const mb_buf* dst, const void* src) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  MB_TRY(check_buffer(dst, "write"));
  return device->staging.write(s, dst->ptr, src, static_cast<size_t>(dst->bytes));
}

int read(mb_device* device, int stream, const mb_buf* src, void* dst) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  MB_TRY(check_buffer(src, "read"));
  return device->read_buffers.read(s, dst, src->ptr, static_cast<size_t>(src->bytes));
}

int host_register(mb_device* device, void* ptr, int64_t bytes) {
  MB_CUDA(cudaSetDevice(device->index));
  const cudaError_t error = cudaHostRegister(ptr, static_cast<size_t>(bytes), cudaHostRegisterDefault);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return fail(MB_ERR_MEMORY, "the system refused to pin %lld bytes of memory", static_cast<long long>(bytes));
  }
  MB_CUDA(error);
  return MB_OK;
}

int host_unregister(mb_device* device, void* ptr) {
  MB_CUDA(cudaSetDevice(device->index));
  MB_CUDA(cudaHostUnregister(ptr));
  return MB_OK;
}

int read_async(mb_device* device, int stream, const mb_buf* src, void* dst) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  MB_TRY(check_buffer(src, "read_async"));
  MB_CUDA(cudaMemcpyAsync(dst, src->ptr, static_cast<size_t>(src->bytes), cudaMemcpyDeviceToHost, s));
  return MB_OK;
}

int fetch_begin(mb_device* device, int stream, const mb_buf* src, int64_t* ticket) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  MB_TRY(check_buffer(src, "fetch"));
  return device->fetches.begin(s, src->ptr, static_cast<size_t>(src->bytes), ticket);
}

int fetch_wait(mb_device* device, int64_t ticket, void* dst) {
  MB_CUDA(cudaSetDevice(device->index));
  return device->fetches.wait(ticket, dst);
}

int copy(mb_device* device, int stream, const mb_buf* src, const mb_buf* dst) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  MB_TRY(check_buffer(src, "copy"));
  MB_TRY(check_buffer(dst, "copy"));
  if (src->bytes != dst->bytes) {
    return fail(MB_ERR_ARGUMENT, "copy of %lld bytes into %lld", static_cast<long long>(src->bytes),
                static_cast<long long>(dst->bytes));
  }
  if (src->ptr == dst->ptr) return MB_OK;
  MB_CUDA(cudaMemcpyAsync(dst->ptr, src->ptr, static_cast<size_t>(src->bytes), cudaMemcpyDefault, s));
  return MB_OK;
}

int event_create(mb_device* device, int timed, mb_event** out) {
  MB_CUDA(cudaSetDevice(device->index));
  auto made = std::make_unique<mb_event>();
  made->timed = timed != 0;
  MB_CUDA(cudaEventCreateWithFlags(&made->event, timed ? cudaEventDefault : cudaEventDisableTiming));
  *out = made.release();
  return MB_OK;
}

void event_destroy(mb_device* device, mb_event* event) {
  // After a failed wait nothing is given back, as in close_device.
  if (!device->waiter.gave_up()) {
    cudaSetDevice(device->index);
    cudaEventDestroy(event->event);  // what is pending on it stays ordered: CUDA releases it when that has completed
  }
  delete event;
}

int record(mb_device* device, int stream, mb_event* event) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  MB_CUDA(cudaEventRecord(event->event, s));
  event->recorded = true;
  return MB_OK;
}

int wait(mb_device* device, int stream, mb_event* event) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(device, stream, &s));
  if (!event->recorded) {
    return fail(MB_ERR_ARGUMENT, "stream %d waits for an event that was never recorded", stream);
  }
  MB_CUDA(cudaStreamWaitEvent(s, event->event, 0));
  return MB_OK;
}

int synchronize(mb_device* device) {
  MB_CUDA(cudaSetDevice(device->index));
  for (cudaStream_t stream : device->streams) MB_TRY(device->waiter.for_stream(stream, "synchronize"));
  return MB_OK;
}

int elapsed_ms(mb_device* device, mb_event* first, mb_event* second, double* ms) {
  MB_CUDA(cudaSetDevice(device->index));
  for (const mb_event* event : {first, second}) {
    if (!event->timed) return fail(MB_ERR_ARGUMENT, "elapsed_ms: the event was not made to measure time");
    if (!event->recorded) return fail(MB_ERR_ARGUMENT, "elapsed_ms: the event was never recorded");
    MB_TRY(device->waiter.for_event(event->event, "elapsed_ms"));
  }
  float elapsed = 0;
  MB_CUDA(cudaEventElapsedTime(&elapsed, first->event, second->event));
  *ms = elapsed;
  return MB_OK;
}

}  // namespace mb::cuda
