// Pinned host memory between the caller's pageable memory and the device.
#pragma once
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include <deque>
#include <mutex>
#include <vector>

#include "cuda/device/waiter.h"

namespace mb::cuda {

// Host to device. The source is copied into a ring and sent from there, so that the caller may reuse it at once and
// many small writes can wait on their streams without blocking the host; the host waits only when the ring is full.
class StagingRing {
 public:
  explicit StagingRing(Waiter* waiter) : waiter_(waiter) {}
  ~StagingRing();
  int write(cudaStream_t stream, void* dst, const void* src, size_t bytes);

 private:
  struct Segment {
    size_t begin, end;
    cudaEvent_t sent;
  };
  int reserve(size_t bytes, size_t* begin);
  int retire_oldest();

  Waiter* const waiter_;
  std::mutex mutex_;
  char* base_ = nullptr;
  size_t head_ = 0;           // where the next segment begins
  std::deque<Segment> live_;  // in the order of their places in the ring
  std::vector<cudaEvent_t> idle_;
};

// Device to host, blocking: two buffers, so that copying out overlaps the next transfer.
class ReadBuffers {
 public:
  explicit ReadBuffers(Waiter* waiter) : waiter_(waiter) {}
  ~ReadBuffers();
  int read(cudaStream_t stream, void* dst, const void* src, size_t bytes);

 private:
  Waiter* const waiter_;
  std::mutex mutex_;
  char* base_ = nullptr;
  cudaEvent_t filled_[2] = {};
};

}  // namespace mb::cuda
