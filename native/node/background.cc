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
  try {
    if (task->status != MB_OK) throw make_error(env, task->status, task->error);
    task->deferred.Resolve(task->job.value(env));
  } catch (const Napi::Error& error) {
    try {
      task->deferred.Reject(error.Value());
    } catch (const Napi::Error&) {
      // the environment is ending
    }
  }
}

}  // namespace

void Jobs::begin() {
  const std::lock_guard<std::mutex> lock(mutex_);
  running_++;
}

void Jobs::end() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (--running_ == 0) changed_.notify_all();
}

void Jobs::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return running_ == 0; });
}

Napi::Promise run_in_background(Napi::Env env, Jobs& jobs, Background job) {
  auto* task = new Task{Napi::Promise::Deferred::New(env), std::move(job), MB_OK, {}};
  const Napi::Promise promise = task->deferred.Promise();
  auto done =
      Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "mbridge", 0, 1);
  jobs.begin();
  try {
    std::thread([task, done, &jobs] {
      task->status = task->job.work(&task->error);
      // Where the environment is ending, the function is its to free from here on.
      if (done.BlockingCall(task, settle) == napi_ok) {
        done.Release();
      } else {
        delete task;
      }
      jobs.end();
    }).detach();
  } catch (...) {  // a limit of threads
    jobs.end();
    done.Release();
    delete task;
    throw;
  }
  return promise;
}

}  // namespace mb::node
