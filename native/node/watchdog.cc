#include "node/watchdog.h"

#include <chrono>

#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {

void Watchdog::start(std::vector<std::weak_ptr<Comm>> comms, int interval_ms) {
  stop();
  stopping_ = false;
  thread_ = std::thread([this, comms = std::move(comms), interval_ms] { watch(comms, interval_ms); });
}

void Watchdog::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

int Watchdog::failure(std::string* text) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  *text = text_;
  return status_;
}

void Watchdog::watch(const std::vector<std::weak_ptr<Comm>>& comms, int interval_ms) {
  while (!stopping_) {
    if (!check_all(comms)) return;
    for (int waited = 0; waited < interval_ms && !stopping_; waited += 20) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
}

// False when one failed: there is nothing left to watch.
bool Watchdog::check_all(const std::vector<std::weak_ptr<Comm>>& comms) {
  for (const std::weak_ptr<Comm>& weak : comms) {
    const std::shared_ptr<Comm> comm = weak.lock();
    if (!comm || stopping_) continue;
    const int status = comm->table().check(comm->comm);
    if (status == MB_OK) continue;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      status_ = status;
      text_ = comm->device->backend->last_error();
    }
    for (const std::weak_ptr<Comm>& other : comms) {
      if (const std::shared_ptr<Comm> alive = other.lock()) alive->table().abort(alive->comm);
    }
    return false;
  }
  return true;
}

void Addon::watch(Info info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArray()) throw_argument(env, "argument comms must be an array");
  const Napi::Array handles = info[0].As<Napi::Array>();
  const int interval = static_cast<int>(integer(info, 1, "intervalMs", 1, 60'000));
  std::vector<std::weak_ptr<Comm>> comms;
  for (uint32_t i = 0; i < handles.Length(); ++i) {
    const Napi::Value handle = handles[i];
    const double number = handle.IsNumber() ? handle.As<Napi::Number>().DoubleValue() : -1;
    const std::shared_ptr<Comm>& comm = state_.comms.find(number);
    if (!comm) throw_argument(env, "argument comms: %g is no communicator", number);
    comms.push_back(comm);
  }
  state_.watchdog.start(std::move(comms), interval);
}

void Addon::watch_stop(Info) { state_.watchdog.stop(); }

void Addon::watch_check(Info info) {
  std::string text;
  const int status = state_.watchdog.failure(&text);
  if (status != MB_OK) throw make_error(info.Env(), status, text);
}

}  // namespace mb::node
