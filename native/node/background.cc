#include "node/background.h"

#include <thread>

#include "node/errors.h"

namespace mb::node {
namespace {

struct Task {
  Napi::Promise::Deferred deferred;
  Background job;
  int status = MB_OK;
  std::string error;
};

void settle(Napi::Env env, Napi::Function, Task* raw) {
  const std::unique_ptr<Task> task(raw);
  if (env == nullptr) return;  // the environment is ending
  const Napi::HandleScope scope(env);
  if (task->status != MB_OK) {
    task->deferred.Reject(make_error(env, task->status, task->error).Value());
    return;
  }
  try {
    task->deferred.Resolve(task->job.value(env));
  } catch (const Napi::Error& error) {
    task->deferred.Reject(error.Value());
  }
}

}  // namespace

Napi::Promise run_in_background(Napi::Env env, Background job) {
  auto* task = new Task{Napi::Promise::Deferred::New(env), std::move(job), MB_OK, {}};
  const Napi::Promise promise = task->deferred.Promise();
  auto done =
      Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "mbridge", 0, 1);
  std::thread([task, done] {
    task->status = task->job.work(&task->error);
    if (done.BlockingCall(task, settle) != napi_ok) delete task;
    done.Release();
  }).detach();
  return promise;
}

}  // namespace mb::node
