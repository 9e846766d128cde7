// Small asynchronous reads (metrics): enqueued now, collected later by any thread.
#pragma once
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include <mutex>

#include "cuda/device/waiter.h"

namespace mb::cuda {

class FetchSlots {
 public:
  static constexpr int kSlots = 16;
  static constexpr size_t kSlotBytes = 64 << 10;

  explicit FetchSlots(Waiter* waiter) : waiter_(waiter) {}
  ~FetchSlots();
  int begin(cudaStream_t stream, const void* src, size_t bytes, int64_t* ticket);
  // The caller has made the device current on its thread.
  int wait(int64_t ticket, void* dst);

 private:
  enum class State { kFree, kPending, kWaiting };
  struct Slot {
    State state = State::kFree;
    int64_t ticket = -1;
    size_t bytes = 0;
    cudaEvent_t done = nullptr;
  };
  Waiter* const waiter_;
  std::mutex mutex_;  // of the slots' fields; never held while waiting for the device
  char* base_ = nullptr;
  int64_t next_ = 0;
  Slot slots_[kSlots];
};

}  // namespace mb::cuda
