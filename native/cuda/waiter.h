// How the host waits for the device: by polling, while it also asks the communicators whether they have failed. A
// collective whose peer is gone never lets its stream go on, and a plain wait on that stream would never return.
#pragma once
#include <cuda_runtime_api.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace mbcuda {

struct Comm;

class Waiter {
 public:
  // From now on the failure of this communicator ends every wait.
  void Watch(const std::shared_ptr<Comm>& comm);

  // A communicator was aborted. Kernels that waited for its members end, so from now on a wait that succeeds says
  // nothing about results: every wait fails while such a communicator is there.
  void Distrust() { distrusted_ = true; }

  // This memory is about to be given back: no communicator's window may hold it.
  void CloseWindows(const void* arena);

  // MB_OK once the event or all of the stream's work is done; else the device's failure or a communicator's. Any thread
  // that has made the device current.
  int ForEvent(cudaEvent_t event, const char* what);
  int ForStream(cudaStream_t stream, const char* what);

  // A wait ended without its work: kernels may hang, and whatever waits for the whole device (cudaFree among it) with
  // them.
  bool gave_up() const { return gave_up_; }

 private:
  template <class Query>
  int Poll(const char* what, Query query);
  int CheckComms();
  std::vector<std::shared_ptr<Comm>> Alive();

  std::mutex mutex_;
  std::vector<std::weak_ptr<Comm>> comms_;
  std::atomic<bool> gave_up_{false}, distrusted_{false};
};

}  // namespace mbcuda
