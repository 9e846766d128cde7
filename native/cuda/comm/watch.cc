#include "cuda/comm/watch.h"

#include "cuda/device/error.h"

namespace mb::cuda {

OpWatch::~OpWatch() {
  for (Entry& entry : ring_) {
    if (entry.done) cudaEventDestroy(entry.done);
  }
}

int64_t OpWatch::begin(const char* name) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (next_ - first_ == kCapacity) first_++;
  Entry& entry = at(next_);
  entry.name = name;
  entry.start = Clock::now();
  entry.enqueued = false;
  return next_++;
}

int OpWatch::enqueued(cudaStream_t stream) {
  Entry* entry;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    entry = &at(next_ - 1);  // not read by others before it is marked
  }
  // Not under the lock: with a full queue behind a hung kernel this blocks, and the watchdog must still be able to ask.
  if (!entry->done) MB_CUDA(cudaEventCreateWithFlags(&entry->done, cudaEventDisableTiming));
  MB_CUDA(cudaEventRecord(entry->done, stream));
  std::lock_guard<std::mutex> lock(mutex_);
  entry->enqueued = true;
  return MB_OK;
}

void OpWatch::drop() {
  std::lock_guard<std::mutex> lock(mutex_);
  next_--;
  if (first_ > next_) first_ = next_;
}

void OpWatch::counts(int64_t* begun, int64_t* finished) {
  std::lock_guard<std::mutex> lock(mutex_);
  *begun = next_ - 1;
  *finished = first_ - 1;
}

cudaError_t OpWatch::oldest(Op* op, bool* any) {
  std::lock_guard<std::mutex> lock(mutex_);
  *any = false;
  for (; first_ < next_; first_++) {
    const Entry& entry = at(first_);
    if (entry.enqueued) {
      const cudaError_t state = cudaEventQuery(entry.done);
      if (state == cudaSuccess) continue;
      if (state != cudaErrorNotReady) return state;
      cudaGetLastError();  // "not ready" is no error to find later
    }
    *any = true;
    op->name = entry.name;
    op->sequence = first_;
    op->seconds = std::chrono::duration<double>(Clock::now() - entry.start).count();
    op->enqueued = entry.enqueued;
    return cudaSuccess;
  }
  return cudaSuccess;
}

}  // namespace mb::cuda
