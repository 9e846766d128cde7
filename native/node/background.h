// Work that blocks, off the JavaScript thread, as a promise.
#pragma once
#include <napi.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "core/abi.h"

namespace mb::node {

struct Background {
  // Runs on a thread of its own; returns a status and stores the error text for a failure.
  std::function<int(std::string* error)> work;
  // Runs on the JavaScript thread after success: the promise's value.
  std::function<Napi::Value(Napi::Env)> value;
};

// The jobs of an environment that are not over.
class Jobs {
 public:
  void begin();
  void end();
  void wait();  // until there are none

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int running_ = 0;
};

// A thread of its own, not one of libuv's four: work may block for minutes (a peer that never joins), and would keep
// file reads waiting and the process from exiting. If the environment ends first, the result is dropped with the
// functions; `jobs` outlives it.
Napi::Promise run_in_background(Napi::Env env, Jobs& jobs, Background job);

}  // namespace mb::node
