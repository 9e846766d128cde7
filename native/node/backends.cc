#include <dlfcn.h>

#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {

void Addon::load_cuda(Info info) {
  const Napi::Env env = info.Env();
  const std::string path = text(info, 0, "path");
  if (state_.cuda != nullptr) {
    if (path == state_.cuda_path) return;
    throw_argument(env, "the CUDA backend was loaded from %s already", state_.cuda_path.c_str());
  }
  // LOCAL: its symbols and those of the libraries it opens stay out of other addons' way.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw make_error(env, MB_ERR_LIBRARY, std::string("cannot load the CUDA backend: ") + dlerror());
  const auto entry = reinterpret_cast<mb_backend_entry_fn>(dlsym(library, "mb_backend_entry"));
  const mb_backend* found = entry == nullptr ? nullptr : entry(MB_ABI);
  if (found == nullptr || found->abi != MB_ABI) {
    dlclose(library);
    throw make_error(
        env, MB_ERR_LIBRARY,
        path + (entry == nullptr ? ": has no mb_backend_entry" : ": was built for another ABI; rebuild it"));
  }
  state_.cuda = found;
  state_.cuda_path = path;
}

const mb_backend* Addon::backend(Info info, size_t i) const {
  const std::string name = text(info, i, "backend");
  if (name == "cpu") return state_.cpu;
  if (name != "cuda") throw_argument(info.Env(), "backend %s does not exist (cpu, cuda)", name.c_str());
  if (state_.cuda == nullptr) throw make_error(info.Env(), MB_ERR_LIBRARY, "the CUDA backend is not loaded");
  return state_.cuda;
}

Napi::Value Addon::describe(Info info) { return Napi::String::New(info.Env(), backend(info, 0)->describe()); }

Napi::Value Addon::device_count(Info info) {
  const mb_backend* table = backend(info, 0);
  int count = 0;
  check(info.Env(), table, table->device_count(&count));
  return Napi::Number::New(info.Env(), count);
}

Napi::Value Addon::open(Info info) {
  const mb_backend* table = backend(info, 0);
  const int index = static_cast<int>(integer(info, 1, "index", 0, 1 << 20));
  const int threads = static_cast<int>(integer(info, 2, "threads", 0, 1 << 20));
  mb_device* opened = nullptr;
  check(info.Env(), table, table->open(index, threads, &opened));
  const int64_t handle = state_.devices.add(std::make_shared<Device>(table, opened));
  return Napi::Number::New(info.Env(), static_cast<double>(handle));
}

void Addon::close(Info info) {
  const std::shared_ptr<Device> closing = device(info, 0);
  const auto of_it = [&](const auto& object) { return object.device == closing; };
  state_.comms.remove_if(of_it);
  state_.events.remove_if(of_it);
  state_.graphs.remove_if(of_it);
  state_.arenas.remove_if(of_it);
  state_.devices.remove(number(info, 0, "device"));
}

Napi::Value Addon::device_info(Info info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Device>& of = device(info, 0);
  mb_device_info found;
  check(env, of->backend, of->backend->info(of->device, &found));
  Napi::Object out = Napi::Object::New(env);
  out.Set("name", Napi::String::New(env, found.name));
  out.Set("totalBytes", Napi::Number::New(env, static_cast<double>(found.total_bytes)));
  out.Set("freeBytes", Napi::Number::New(env, static_cast<double>(found.free_bytes)));
  out.Set("peakTflops", Napi::Number::New(env, found.peak_tflops));
  out.Set("index", Napi::Number::New(env, found.index));
  out.Set("capability", Napi::Number::New(env, found.capability));
  out.Set("threads", Napi::Number::New(env, found.threads));
  out.Set("driver", Napi::Number::New(env, found.driver));
  return out;
}

Napi::Value Addon::handles(Info info) {
  const auto count = [&](size_t n) { return Napi::Number::New(info.Env(), static_cast<double>(n)); };
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("devices", count(state_.devices.count()));
  out.Set("arenas", count(state_.arenas.count()));
  out.Set("comms", count(state_.comms.count()));
  out.Set("events", count(state_.events.count()));
  out.Set("graphs", count(state_.graphs.count()));
  out.Set("watches", count(state_.watchdogs.count()));
  return out;
}

}  // namespace mb::node
