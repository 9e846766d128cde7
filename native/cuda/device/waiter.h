// How the host waits for the device: by polling, while it also asks the communicators whether they have failed. A
// collective whose peer is gone never lets its stream go on, and a plain wait on that stream would never return.
#pragma once
#include <cuda_runtime_api.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace mb::cuda {

struct Comm;

class Waiter {
 public:
  // From now on the failure of this communicator ends every wait.
  void watch(const std::shared_ptr<Comm>& comm);

  // A communicator was aborted. Kernels that waited for its members end, so from now on a wait that succeeds says
  // nothing about results: every wait fails while such a communicator is there.
  void distrust() { distrusted_ = true; }

  // This memory is about to be given back: no communicator's window may hold it.
  void close_windows(const void* arena);

  // MB_OK once the event or all of the stream's work is done; else the device's failure or a communicator's. Any thread
  // that has made the device current.
  int for_event(cudaEvent_t event, const char* what);
  int for_stream(cudaStream_t stream, const char* what);

  // A wait ended without its work: kernels may hang, and whatever waits for the whole device (cudaFree among it) with
  // them.
  bool gave_up() const { return gave_up_; }

 private:
  template <class Query>
  int poll(const char* what, Query query);
  int check_comms();
  std::vector<std::shared_ptr<Comm>> alive();

  std::mutex mutex_;
  std::vector<std::weak_ptr<Comm>> comms_;
  std::atomic<bool> gave_up_{false}, distrusted_{false};
};

}  // namespace mb::cuda
