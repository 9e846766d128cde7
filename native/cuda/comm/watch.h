// The collectives of one communicator that have not finished, oldest first: what a watchdog thread asks about.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include <chrono>
#include <mutex>
#include <vector>

namespace mb::cuda {

class OpWatch {
 public:
  struct Op {
    const char* name = "";  // a literal
    int64_t sequence = 0;   // counted from 1, alike on all ranks that make the same calls
    double seconds = 0;     // since it was issued
    bool enqueued = false;  // false: the host is still inside the library, connecting
  };

  OpWatch() : ring_(kCapacity) {}
  ~OpWatch();

  // Around an op, by the issuing thread: before the library is called, and after its work is on the stream.
  int64_t begin(const char* name);
  int enqueued(cudaStream_t stream);
  // The op failed before it reached the stream.
  void drop();

  // Ops begun, and those of them that `oldest` has found finished. Any thread.
  void counts(int64_t* begun, int64_t* finished);

  // The oldest unfinished op, if any; CUDA's error where the device failed. Any thread, with the device made current.
  cudaError_t oldest(Op* op, bool* any);

 private:
  using Clock = std::chrono::steady_clock;
  // More than a step issues on one communicator before the host waits; older entries are forgotten beyond it, and the
  // ones after them, on the same streams, are then the oldest known.
  static constexpr int64_t kCapacity = 512;
  struct Entry {
    const char* name = "";
    Clock::time_point start;
    cudaEvent_t done = nullptr;
    bool enqueued = false;
  };
  Entry& at(int64_t sequence) { return ring_[sequence % kCapacity]; }

  std::mutex mutex_;
  std::vector<Entry> ring_;
  int64_t first_ = 1;  // oldest unfinished
  int64_t next_ = 1;
};

}  // namespace mb::cuda
