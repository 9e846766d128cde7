#include "cuda/device/fetch.h"

#include <string.h>

#include "cuda/device/error.h"

namespace mb::cuda {

FetchSlots::~FetchSlots() {
  for (Slot& slot : slots_) {
    if (slot.done) cudaEventDestroy(slot.done);
  }
  if (base_) cudaFreeHost(base_);
}

int FetchSlots::begin(cudaStream_t stream, const void* src, size_t bytes, int64_t* ticket) {
  if (bytes > kSlotBytes) {
    return fail(MB_ERR_ARGUMENT, "fetch of %zu bytes: at most %zu can be fetched", bytes, kSlotBytes);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (!base_) {
    MB_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&base_), kSlots * kSlotBytes, cudaHostAllocDefault));
  }
  int index = 0;
  while (index < kSlots && slots_[index].state != State::kFree) index++;
  if (index == kSlots) {
    return fail(MB_ERR_ARGUMENT, "%d fetches are outstanding, and no more are possible: wait for one first", kSlots);
  }
  Slot& slot = slots_[index];
  if (!slot.done) MB_CUDA(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming));
  MB_CUDA(cudaMemcpyAsync(base_ + index * kSlotBytes, src, bytes, cudaMemcpyDefault, stream));
  MB_CUDA(cudaEventRecord(slot.done, stream));
  slot.state = State::kPending;
  slot.bytes = bytes;
  slot.ticket = next_++ * kSlots + index;
  *ticket = slot.ticket;
  return MB_OK;
}

int FetchSlots::wait(int64_t ticket, void* dst) {
  const int index = static_cast<int>(ticket % kSlots);
  if (ticket < 0) return fail(MB_ERR_ARGUMENT, "%lld is no fetch ticket", static_cast<long long>(ticket));
  Slot& slot = slots_[index];
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (slot.state != State::kPending || slot.ticket != ticket) {
      return fail(MB_ERR_ARGUMENT, "fetch ticket %lld is unknown, or already waited for",
                  static_cast<long long>(ticket));
    }
    slot.state = State::kWaiting;  // ours until it is free again: nobody else touches its event and bytes
  }
  const int status = waiter_->for_event(slot.done, "fetch from the device");
  if (status == MB_OK) memcpy(dst, base_ + index * kSlotBytes, slot.bytes);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    slot.state = State::kFree;
  }
  return status;
}

}  // namespace mb::cuda
