#include <cmath>

#include "core/dtype.h"
#include "node/addon.h"
#include "node/errors.h"

namespace mb::node {

const std::shared_ptr<Device>& Addon::device(Info info, size_t i) const {
  const double handle = number(info, i, "device");
  const std::shared_ptr<Device>& found = state_.devices.find(handle);
  if (!found) throw_argument(info.Env(), "device %g is not open", handle);
  return found;
}

const std::shared_ptr<Comm>& Addon::comm(Info info, size_t i) const {
  const double handle = number(info, i, "comm");
  const std::shared_ptr<Comm>& found = state_.comms.find(handle);
  if (!found) throw_argument(info.Env(), "communicator %g does not exist", handle);
  return found;
}

mb_event* Addon::event(Info info, size_t i, const Device& owner) const {
  const double handle = number(info, i, "event");
  const std::shared_ptr<Event>& found = state_.events.find(handle);
  if (!found) throw_argument(info.Env(), "event %g does not exist", handle);
  if (found->device.get() != &owner) throw_argument(info.Env(), "event %g is of another device", handle);
  return found->event;
}

mb_buf Addon::tensor(Napi::Env env, int64_t i, const Device& owner) const {
  const double* a = args_ + 4 * i;
  const int index = static_cast<int>(i);
  if (a[0] == -1) return {nullptr, 0, MB_F32, 0};
  const std::shared_ptr<Arena>& arena = state_.arenas.find(a[0]);
  if (!arena) throw_argument(env, "tensor %d: arena %g does not exist", index, a[0]);
  if (arena->device.get() != &owner) throw_argument(env, "tensor %d: arena %g is of another device", index, a[0]);
  const int size = a[3] >= 0 && a[3] < 256 && a[3] == std::floor(a[3]) ? dtype_size(static_cast<int>(a[3])) : 0;
  if (size == 0) throw_argument(env, "tensor %d: dtype %g does not exist", index, a[3]);
  const double limit = static_cast<double>(arena->bytes);
  // The comparisons fail for NaN as well. limit < 2^53, so sums and remainders of what passes are exact.
  if (!(a[1] >= 0 && a[2] >= 0 && a[1] <= limit && a[2] <= limit - a[1]) || a[1] != std::floor(a[1]) ||
      a[2] != std::floor(a[2])) {
    throw_argument(env, "tensor %d: offset %.17g, %.17g bytes: arena %g has %.17g bytes", index, a[1], a[2], a[0],
                   limit);
  }
  const int64_t offset = static_cast<int64_t>(a[1]);
  const int64_t bytes = static_cast<int64_t>(a[2]);
  if (offset % size != 0 || bytes % size != 0) {
    throw_argument(env, "tensor %d: offset %lld, %lld bytes: not whole %s elements", index,
                   static_cast<long long>(offset), static_cast<long long>(bytes), dtype_name(static_cast<int>(a[3])));
  }
  return {static_cast<char*>(arena->ptr) + offset, bytes, static_cast<int32_t>(a[3]), 0};
}

mb_buf Addon::present(Napi::Env env, int64_t i, const Device& owner) const {
  const mb_buf buf = tensor(env, i, owner);
  if (buf.ptr == nullptr) throw_argument(env, "tensor %d is absent", static_cast<int>(i));
  return buf;
}

Addon::OpCall Addon::op_call(Info info, const Device& owner, int64_t ops) const {
  OpCall call;
  call.stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  call.op = integer(info, 2, "op", 0, ops - 1);
  call.nt = static_cast<int>(integer(info, 3, "nt", 0, kTensors));
  call.ns = static_cast<int>(integer(info, 4, "ns", 0, kScalars));
  for (int i = 0; i < call.nt; ++i) call.tensors[i] = tensor(info.Env(), i, owner);
  call.scalars = args_ + 4 * call.nt;
  return call;
}

}  // namespace mb::node
