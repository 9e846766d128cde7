#include "node/watchdog.h"

#include <chrono>

#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {
namespace {

void note_finished(Comm& comm) {
  if (comm.table().calls == nullptr) return;
  int64_t made = 0, finished = 0;
  comm.table().calls(comm.comm, &made, &finished);
  flight_finished(comm.flight, finished);
}

}  // namespace

Watchdog::Watchdog(std::vector<std::weak_ptr<Comm>> comms, int interval_ms)
    : comms_(std::move(comms)), thread_([this, interval_ms] { watch(interval_ms); }) {}

Watchdog::~Watchdog() {
  stopping_ = true;
  thread_.join();
}

int Watchdog::failure(std::string* text) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  *text = text_;
  return status_;
}

void Watchdog::watch(int interval_ms) {
  while (!stopping_) {
    if (!check_all()) return;
    for (int waited = 0; waited < interval_ms && !stopping_; waited += 20) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
}

// False when one failed: there is nothing left to watch.
bool Watchdog::check_all() {
  for (const std::weak_ptr<Comm>& weak : comms_) {
    const std::shared_ptr<Comm> comm = weak.lock();
    if (!comm || stopping_) continue;
    const int status = comm->table().check(comm->comm);
    note_finished(*comm);
    if (status == MB_OK) continue;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      status_ = status;
      text_ = comm->device->backend->last_error();
    }
    for (const std::weak_ptr<Comm>& other : comms_) {
      if (const std::shared_ptr<Comm> alive = other.lock()) alive->table().abort(alive->comm);
    }
    return false;
  }
  return true;
}

Napi::Value Addon::watch(Info info) {
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
  const int64_t handle = state_.watchdogs.add(std::make_shared<Watchdog>(std::move(comms), interval));
  return Napi::Number::New(env, static_cast<double>(handle));
}

const std::shared_ptr<Watchdog>& Addon::watchdog(Info info) const {
  const double handle = number(info, 0, "watch");
  const std::shared_ptr<Watchdog>& found = state_.watchdogs.find(handle);
  if (!found) throw_argument(info.Env(), "watch %g does not exist", handle);
  return found;
}

void Addon::watch_stop(Info info) {
  watchdog(info);
  state_.watchdogs.remove(number(info, 0, "watch"));
}

void Addon::watch_check(Info info) {
  std::string text;
  const int status = watchdog(info)->failure(&text);
  if (status != MB_OK) throw make_error(info.Env(), status, text);
}

}  // namespace mb::node
