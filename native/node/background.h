// Work that blocks, off the JavaScript thread, as a promise.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <string>

#include "core/abi.h"

namespace mb::node {

struct Background {
  // Runs on a thread of its own; returns a status and stores the error text for a failure.
  std::function<int(std::string* error)> work;
  // Runs on the JavaScript thread after success: the promise's value.
  std::function<Napi::Value(Napi::Env)> value;
};

// A thread of its own, not one of libuv's four: work may block for minutes (a peer that never joins), and would keep
// file reads waiting and the process from exiting. If the environment ends first, the result is dropped with the
// functions.
Napi::Promise run_in_background(Napi::Env env, Background job);

}  // namespace mb::node
