// A thread that asks communicators whether they have failed, whatever JavaScript is doing. A GPU's collective that
// waits for a dead peer blocks the stream, then the queue, then the host inside a launch: only another thread can end
// that.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "node/objects.h"

namespace mb::node {

class Watchdog {
 public:
  // Watches these until one fails or is gone; then aborts all of them and keeps the first failure.
  Watchdog(std::vector<std::weak_ptr<Comm>> comms, int interval_ms);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // MB_OK, or the status of the failure with its text.
  int failure(std::string* text) const;

 private:
  void watch(int interval_ms);
  bool check_all();

  const std::vector<std::weak_ptr<Comm>> comms_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  int status_ = MB_OK;
  std::string text_;
  std::thread thread_;
};

}  // namespace mb::node
