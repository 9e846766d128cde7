#include "cuda/device/waiter.h"

#include <chrono>
#include <thread>

#include "cuda/comm/nccl_comm.h"
#include "cuda/device/error.h"

namespace mb::cuda {

void Waiter::watch(const std::shared_ptr<Comm>& comm) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(comms_, [](const std::weak_ptr<Comm>& known) { return known.expired(); });
  comms_.push_back(comm);
}

std::vector<std::shared_ptr<Comm>> Waiter::alive() {
  std::vector<std::shared_ptr<Comm>> alive;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const std::weak_ptr<Comm>& known : comms_) {
    if (std::shared_ptr<Comm> comm = known.lock()) alive.push_back(std::move(comm));
  }
  return alive;
}

void Waiter::close_windows(const void* arena) {
  for (const std::shared_ptr<Comm>& comm : alive()) {
    std::lock_guard<std::mutex> lock(comm->windows_lock);
    std::erase_if(comm->windows, [&](const std::unique_ptr<Window>& window) { return window->base() == arena; });
  }
}

int Waiter::check_comms() {
  for (const std::shared_ptr<Comm>& comm : alive()) MB_TRY(check_comm(*comm));
  return MB_OK;
}

template <class Query>
int Waiter::poll(const char* what, Query query) {
  for (int rounds = 1;; rounds++) {
    const cudaError_t state = query();
    if (state == cudaSuccess) return distrusted_ ? check_comms() : MB_OK;
    if (state != cudaErrorNotReady) {
      gave_up_ = true;
      return cuda_fail(state, what);
    }
    cudaGetLastError();  // "not ready" is no error for the next launch to find
    if (rounds < 200) {
      std::this_thread::yield();
      continue;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
    if (rounds % 1000 != 0) continue;  // about every 0.1 s
    const int status = check_comms();
    if (status != MB_OK) {
      gave_up_ = true;
      return status;
    }
  }
}

int Waiter::for_event(cudaEvent_t event, const char* what) {
  return poll(what, [event] { return cudaEventQuery(event); });
}

int Waiter::for_stream(cudaStream_t stream, const char* what) {
  return poll(what, [stream] { return cudaStreamQuery(stream); });
}

}  // namespace mb::cuda
