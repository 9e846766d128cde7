#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {

void Addon::run(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const OpCall call = op_call(info, *of, MB_OP_COUNT);
  check(info.Env(), of->backend,
        of->backend->ops[call.op](of->device, call.stream, call.tensors, call.nt, call.scalars, call.ns));
}

Napi::Value Addon::event_create(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  if (!info[1].IsBoolean()) throw_argument(info.Env(), "argument timed must be a boolean");
  mb_event* created = nullptr;
  check(info.Env(), of->backend, of->backend->event_create(of->device, info[1].As<Napi::Boolean>().Value(), &created));
  const int64_t handle = state_.events.add(std::make_shared<Event>(of, created));
  return Napi::Number::New(info.Env(), static_cast<double>(handle));
}

void Addon::event_destroy(Info info) {
  const double handle = number(info, 0, "event");
  if (!state_.events.find(handle)) throw_argument(info.Env(), "event %g does not exist", handle);
  state_.events.remove(handle);
}

void Addon::record(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  check(info.Env(), of->backend, of->backend->record(of->device, stream, event(info, 2, *of)));
}

void Addon::wait(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  check(info.Env(), of->backend, of->backend->wait(of->device, stream, event(info, 2, *of)));
}

void Addon::synchronize(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  check(info.Env(), of->backend, of->backend->synchronize(of->device));
}

void Addon::capture_begin(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  check(info.Env(), of->backend, of->backend->capture_begin(of->device, stream));
  of->capturing = true;
}

Napi::Value Addon::capture_end(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  mb_graph* captured = nullptr;
  of->capturing = false;
  check(info.Env(), of->backend, of->backend->capture_end(of->device, stream, &captured));
  const int64_t handle = state_.graphs.add(std::make_shared<Graph>(of, captured));
  return Napi::Number::New(info.Env(), static_cast<double>(handle));
}

void Addon::graph_launch(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const double handle = number(info, 2, "graph");
  const std::shared_ptr<Graph>& found = state_.graphs.find(handle);
  if (!found || found->device != of) throw_argument(info.Env(), "graph %g does not exist on this device", handle);
  check(info.Env(), of->backend, of->backend->graph_launch(of->device, stream, found->graph));
}

void Addon::graph_destroy(Info info) {
  const double handle = number(info, 0, "graph");
  if (!state_.graphs.find(handle)) throw_argument(info.Env(), "graph %g does not exist", handle);
  state_.graphs.remove(handle);
}

Napi::Value Addon::elapsed_ms(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  mb_event* const first = event(info, 1, *of);
  mb_event* const second = event(info, 2, *of);
  double ms = 0;
  check(info.Env(), of->backend, of->backend->elapsed_ms(of->device, first, second, &ms));
  return Napi::Number::New(info.Env(), ms);
}

Napi::Value Addon::attention_workspace(Info info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Device>& of = device(info, 0);
  constexpr int64_t kMost = int64_t{1} << 40;
  const int dtype = static_cast<int>(integer(info, 1, "dtype", 0, MB_U8));
  const int64_t b = integer(info, 2, "b", 1, kMost);
  const int64_t sq = integer(info, 3, "sq", 1, kMost);
  const int64_t skv = integer(info, 4, "skv", 1, kMost);
  const int64_t hq = integer(info, 5, "hq", 1, kMost);
  const int64_t hkv = integer(info, 6, "hkv", 1, kMost);
  const int64_t d = integer(info, 7, "d", 1, kMost);
  const int64_t offset = integer(info, 8, "offset", -kMost, kMost);
  if (!info[9].IsBoolean()) throw_argument(env, "argument deterministic must be a boolean");
  const int deterministic = info[9].As<Napi::Boolean>().Value() ? 1 : 0;
  int64_t bytes = 0;
  char kernel[64] = "";
  check(env, of->backend,
        of->backend->attention_workspace(of->device, dtype, b, sq, skv, hq, hkv, d, offset, deterministic, &bytes,
                                         kernel));
  Napi::Object out = Napi::Object::New(env);
  out.Set("bytes", Napi::Number::New(env, static_cast<double>(bytes)));
  out.Set("kernel", Napi::String::New(env, kernel));
  return out;
}

}  // namespace mb::node
