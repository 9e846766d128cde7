#include <algorithm>
#include <vector>

#include "node/addon.h"
#include "node/background.h"
#include "node/errors.h"

namespace mb::node {

Napi::Value Addon::arena_create(Info info) { return create_arena(info, false); }

Napi::Value Addon::host_arena_create(Info info) { return create_arena(info, true); }

Napi::Value Addon::create_arena(Info info, bool host) {
  const std::shared_ptr<Device>& owner = device(info, 0);
  const int64_t bytes = integer(info, 1, "bytes", 1, (int64_t{1} << 53) - 1);
  const mb_backend* backend = owner->backend;
  void* ptr = nullptr;
  check(info.Env(), backend, (host ? backend->host_alloc : backend->alloc)(owner->device, bytes, &ptr));
  const int64_t handle = state_.arenas.add(std::make_shared<Arena>(owner, ptr, bytes, host));
  return Napi::Number::New(info.Env(), static_cast<double>(handle));
}

void Addon::arena_free(Info info) {
  const double handle = number(info, 0, "arena");
  if (!state_.arenas.find(handle)) throw_argument(info.Env(), "arena %g does not exist", handle);
  state_.arenas.remove(handle);
}

void Addon::write(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const mb_buf dst = present(info.Env(), 0, *of);
  const Napi::Uint8Array src = byte_array(info, 2, "src");
  if (static_cast<int64_t>(src.ByteLength()) != dst.bytes) {
    throw_argument(info.Env(), "write: the tensor has %lld bytes, src %zu", static_cast<long long>(dst.bytes),
                   src.ByteLength());
  }
  if (dst.bytes > 0) check(info.Env(), of->backend, of->backend->write(of->device, stream, &dst, src.Data()));
}

void Addon::read(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const mb_buf src = present(info.Env(), 0, *of);
  Napi::Uint8Array dst = byte_array(info, 2, "dst");
  if (static_cast<int64_t>(dst.ByteLength()) != src.bytes) {
    throw_argument(info.Env(), "read: the tensor has %lld bytes, dst %zu", static_cast<long long>(src.bytes),
                   dst.ByteLength());
  }
  if (src.bytes > 0) check(info.Env(), of->backend, of->backend->read(of->device, stream, &src, dst.Data()));
}

Napi::Value Addon::fetch_begin(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const mb_buf src = present(info.Env(), 0, *of);
  int64_t ticket = 0;
  check(info.Env(), of->backend, of->backend->fetch_begin(of->device, stream, &src, &ticket));
  of->fetches[ticket] = src.bytes;
  return Napi::Number::New(info.Env(), static_cast<double>(ticket));
}

Napi::Value Addon::fetch_wait(Info info) {
  const std::shared_ptr<Device> of = device(info, 0);
  const int64_t ticket = integer(info, 1, "ticket", 0, (int64_t{1} << 53) - 1);
  const int64_t bytes = integer(info, 2, "bytes", 0, 65536);
  const auto begun = of->fetches.find(ticket);
  if (begun == of->fetches.end()) {
    throw_argument(info.Env(), "fetchWait: ticket %lld is not outstanding", static_cast<long long>(ticket));
  }
  if (begun->second != bytes) {
    throw_argument(info.Env(), "fetchWait: ticket %lld has %lld bytes, not %lld", static_cast<long long>(ticket),
                   static_cast<long long>(begun->second), static_cast<long long>(bytes));
  }
  of->fetches.erase(begun);
  const auto buffer = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(bytes));
  Background job;
  job.work = [of, ticket, buffer](std::string* error) {
    const int status = of->backend->fetch_wait(of->device, ticket, buffer->data());
    if (status != MB_OK) *error = of->backend->last_error();
    return status;
  };
  job.value = [buffer](Napi::Env env) -> Napi::Value {
    Napi::Uint8Array out = Napi::Uint8Array::New(env, buffer->size());
    std::copy(buffer->begin(), buffer->end(), out.Data());
    return out;
  };
  return run_in_background(info.Env(), state_.jobs, std::move(job));
}

void Addon::copy(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const mb_buf src = present(info.Env(), 0, *of);
  const mb_buf dst = present(info.Env(), 1, *of);
  check(info.Env(), of->backend, of->backend->copy(of->device, stream, &src, &dst));
}

void Addon::host_register(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  Napi::Uint8Array memory = byte_array(info, 1, "memory");
  const auto bytes = static_cast<int64_t>(memory.ByteLength());
  check(info.Env(), of->backend, of->backend->host_register(of->device, memory.Data(), bytes));
}

void Addon::host_unregister(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  check(info.Env(), of->backend, of->backend->host_unregister(of->device, byte_array(info, 1, "memory").Data()));
}

void Addon::read_async(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  Napi::Uint8Array to = byte_array(info, 2, "dst");
  const mb_buf src = present(info.Env(), 0, *of);
  if (static_cast<int64_t>(to.ByteLength()) != src.bytes) {
    throw_argument(info.Env(), "readAsync: %lld bytes into %zu", static_cast<long long>(src.bytes), to.ByteLength());
  }
  check(info.Env(), of->backend, of->backend->read_async(of->device, stream, &src, to.Data()));
}

}  // namespace mb::node
