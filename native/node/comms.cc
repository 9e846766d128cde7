#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/dtype.h"
#include "node/addon.h"
#include "node/background.h"
#include "node/errors.h"

namespace mb::node {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 52;
constexpr size_t kTransferNumbers = 6;  // of a p2p: four of the tensor, peer, direction

std::vector<int32_t> rank_list(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsTypedArray() || info[i].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    throw_argument(info.Env(), "argument ranks must be an Int32Array");
  }
  const Napi::Int32Array list = info[i].As<Napi::Int32Array>();
  return {list.Data(), list.Data() + list.ElementLength()};
}

int64_t calls_made(const Comm& comm) {
  int64_t made = 0, finished = 0;
  if (comm.table().calls != nullptr) comm.table().calls(comm.comm, &made, &finished);
  return made;
}

// `record` ends as a call that failed with `status`, or whose members differ.
void check_call(Napi::Env env, const Comm& of, FlightCall& record, int status, const std::string& error) {
  record.end(status == CallCheck::kDiffers ? MB_ERR_MISMATCH : status, calls_made(of));
  if (status == CallCheck::kDiffers) throw make_error(env, MB_ERR_MISMATCH, error);
  check(env, of.device->backend, status);
}

}  // namespace

template <typename Make>
void Addon::together(Napi::Env env, Comm& of, int stream, const Call& call, Make make) {
  if (of.device->capturing) return check(env, of.device->backend, make());
  FlightCall record(of.flight, call);
  std::string error;
  int status = of.calls ? of.calls->compare(stream, call, &error) : MB_OK;
  if (status == MB_OK) status = make();
  check_call(env, of, record, status, error);
}

Napi::Value Addon::comm_make_id(Info info) {
  const std::shared_ptr<Device>& of = device(info, 0);
  Napi::Uint8Array id = Napi::Uint8Array::New(info.Env(), 128);
  const std::string address = info[1].IsUndefined() ? "" : text(info, 1, "address");
  const char* reached = info[1].IsUndefined() ? nullptr : address.c_str();
  check(info.Env(), of->backend, of->backend->comm.make_id(of->device, reached, id.Data()));
  return id;
}

Napi::Value Addon::comm_create(Info info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Device> of = device(info, 0);
  const Napi::Uint8Array id_array = byte_array(info, 1, "id");
  if (id_array.ByteLength() != 128)
    throw_argument(env, "argument id has %zu bytes, expected 128", id_array.ByteLength());
  std::array<uint8_t, 128> id;
  std::copy_n(id_array.Data(), 128, id.begin());
  const std::string name = text(info, 2, "name");
  const std::vector<int32_t> ranks = rank_list(info, 4);
  const int size = static_cast<int>(ranks.size());
  if (size == 0) throw_argument(env, "argument ranks is empty");
  const int rank = static_cast<int>(integer(info, 3, "rank", 0, size - 1));
  const double timeout = number(info, 5, "timeoutSeconds");
  if (!(timeout > 0)) throw_argument(env, "argument timeoutSeconds is %g, expected more than 0", timeout);

  const std::shared_ptr<FlightRecorder> recorder = state_.recorder;
  flight::Group* const flight = recorder->add(id.data(), name, rank, ranks, of->backend->comm.calls != nullptr);
  FlightCall record(flight, {.op = Collective::kCreate});

  // Owned by the job until JavaScript gets a handle: dropped and destroyed with it if the environment ends first.
  const auto created = std::make_shared<std::shared_ptr<Comm>>();
  Background job;
  job.work = [=](std::string* error) mutable {
    mb_comm* made = nullptr;
    const int status =
        of->backend->comm.create(of->device, id.data(), name.c_str(), rank, size, ranks.data(), timeout, &made);
    record.end(status);
    if (status != MB_OK) {
      *error = of->backend->last_error();
      return status;
    }
    *created = std::make_shared<Comm>(of, made, size, recorder, flight);
    return status;
  };
  State& state = state_;
  job.value = [created, &state](Napi::Env resolved) -> Napi::Value {
    return Napi::Number::New(resolved, static_cast<double>(state.comms.add(std::move(*created))));
  };
  return run_in_background(env, state_.jobs, std::move(job));
}

void Addon::comm_destroy(Info info) {
  comm(info, 0);
  state_.comms.remove(number(info, 0, "comm"));
}

void Addon::comm_abort(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  of->table().abort(of->comm);
}

void Addon::all_reduce(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const int64_t n = integer(info, 2, "n", 0, kMostElements);
  const int op = static_cast<int>(integer(info, 3, "reduce", MB_SUM, MB_MAX));
  const mb_buf in = present(info.Env(), 0, *of->device);
  const mb_buf out = present(info.Env(), 1, *of->device);
  together(info.Env(), *of, stream, {Collective::kAllReduce, in.dtype, op, n},
           [&] { return of->table().all_reduce(of->comm, stream, &in, &out, n, op); });
}

void Addon::reduce_scatter(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const int64_t n = integer(info, 2, "n", 0, kMostElements);
  const int op = static_cast<int>(integer(info, 3, "reduce", MB_SUM, MB_MAX));
  const mb_buf in = present(info.Env(), 0, *of->device);
  const mb_buf out = present(info.Env(), 1, *of->device);
  together(info.Env(), *of, stream, {Collective::kReduceScatter, in.dtype, op, n},
           [&] { return of->table().reduce_scatter(of->comm, stream, &in, &out, n, op); });
}

void Addon::all_gather(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const int64_t n = integer(info, 2, "n", 0, kMostElements);
  const mb_buf in = present(info.Env(), 0, *of->device);
  const mb_buf out = present(info.Env(), 1, *of->device);
  together(info.Env(), *of, stream, {Collective::kAllGather, in.dtype, 0, n},
           [&] { return of->table().all_gather(of->comm, stream, &in, &out, n); });
}

void Addon::broadcast(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const int64_t n = integer(info, 2, "n", 0, kMostElements);
  const int root = static_cast<int>(integer(info, 3, "root", 0, 1 << 20));
  const mb_buf buf = present(info.Env(), 0, *of->device);
  together(info.Env(), *of, stream, {Collective::kBroadcast, buf.dtype, root, n},
           [&] { return of->table().broadcast(of->comm, stream, &buf, n, root); });
}

void Addon::p2p(Info info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const Napi::Float64Array list = double_array(info, 2, "transfers");
  const size_t count = list.ElementLength() / kTransferNumbers;
  if (count * kTransferNumbers != list.ElementLength() || count >= 1 << 20) {
    throw_argument(env, "p2p: %zu numbers are no list of up to 2^20 transfers", list.ElementLength());
  }
  const double* tensors = list.Data();
  const double* pairs = tensors + 4 * count;
  std::vector<mb_p2p> transfers(count);
  for (size_t i = 0; i < count; ++i) {
    const double peer = pairs[2 * i];
    const double send = pairs[2 * i + 1];
    if (!(peer >= 0 && peer < 1 << 20) || (send != 0 && send != 1)) {
      throw_argument(env, "p2p: transfer %d has peer %g and direction %g", static_cast<int>(i), peer, send);
    }
    transfers[i] = {present(env, static_cast<int64_t>(i), *of->device, tensors), static_cast<int32_t>(peer),
                    static_cast<int32_t>(send)};
  }
  int64_t bytes = 0;
  for (const mb_p2p& transfer : transfers) bytes += transfer.buf.bytes;
  FlightCall record(of->device->capturing ? nullptr : of->flight, {Collective::kTransfers, MB_U8, 0, bytes},
                    transfers.data(), static_cast<int>(count));
  std::string error;
  const bool compares = of->calls != nullptr && !of->device->capturing;
  int status =
      compares ? of->calls->compare_transfers(stream, transfers.data(), static_cast<int>(count), &error) : MB_OK;
  if (status == MB_OK) status = of->table().p2p(of->comm, stream, transfers.data(), static_cast<int>(count));
  check_call(env, *of, record, status, error);
}

void Addon::all_to_all(Info info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  const Napi::Float64Array list = double_array(info, 2, "counts");
  const auto size = static_cast<size_t>(of->size);
  if (list.ElementLength() != 4 * size) {
    throw_argument(env, "allToAll: %zu counts and offsets in a group of %zu", list.ElementLength(), size);
  }
  std::vector<int64_t> counts(4 * size);
  for (size_t i = 0; i < counts.size(); ++i) {
    const double x = list.Data()[i];
    if (!(x >= 0 && x <= static_cast<double>(kMostElements)) || x != std::floor(x)) {
      throw_argument(env, "allToAll: count or offset %zu is %g", i, x);
    }
    counts[i] = static_cast<int64_t>(x);
  }
  const mb_buf in = present(env, 0, *of->device);
  const mb_buf out = present(env, 1, *of->device);
  const int64_t* at = counts.data();
  // How many elements it has is each member's own, but what one sends the other expects.
  const Call call = {Collective::kAllToAll, in.dtype};
  FlightCall record(of->device->capturing ? nullptr : of->flight, call);
  std::string error;
  int status = MB_OK;
  if (of->calls != nullptr && !of->device->capturing) {
    status = of->calls->compare(stream, call, &error);
    if (status == MB_OK) status = of->calls->compare_counts(stream, at, at + 2 * size, &error);
  }
  if (status == MB_OK) {
    status = of->table().all_to_all(of->comm, stream, &in, &out, at, at + size, at + 2 * size, at + 3 * size);
  }
  check_call(env, *of, record, status, error);
}

Napi::Value Addon::comm_share(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int64_t layout = integer(info, 1, "layout", 0, kMostElements);
  const mb_buf arena = present(info.Env(), 0, *of->device);
  int shared = 0;
  together(info.Env(), *of, 0, {.op = Collective::kShare},
           [&] { return of->table().share(of->comm, &arena, layout, &shared); });
  return Napi::Boolean::New(info.Env(), shared != 0);
}

void Addon::comm_unshare(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const mb_buf arena = present(info.Env(), 0, *of->device);
  together(info.Env(), *of, 0, {.op = Collective::kUnshare}, [&] { return of->table().unshare(of->comm, &arena); });
}

void Addon::comm_run(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const OpCall call = op_call(info, *of->device, MB_COMM_OP_COUNT);
  const mb_buf& first = call.tensors[0];
  const auto op = static_cast<Collective>(static_cast<int64_t>(Collective::kFusedOps) + call.op);
  const int64_t elements = call.nt > 0 ? first.bytes / std::max(1, dtype_size(first.dtype)) : 0;
  together(info.Env(), *of, call.stream, {op, first.dtype, 0, elements}, [&] {
    return of->table().ops[call.op](of->comm, of->device->device, call.stream, call.tensors, call.nt, call.scalars,
                                    call.ns);
  });
}

void Addon::comm_compare(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const std::string name = text(info, 1, "group");
  const int rank = static_cast<int>(integer(info, 2, "rank", 0, of->size - 1));
  const std::vector<int32_t> ranks = rank_list(info, 3);
  if (static_cast<int>(ranks.size()) != of->size) throw_argument(info.Env(), "argument ranks has %zu", ranks.size());
  of->calls = std::make_unique<CallCheck>(*of->device, of->comm, name, rank, ranks);
}

void Addon::barrier(Info info) {
  const std::shared_ptr<Comm>& of = comm(info, 0);
  const int stream = static_cast<int>(integer(info, 1, "stream", 0, 7));
  together(info.Env(), *of, stream, {.op = Collective::kBarrier},
           [&] { return of->table().barrier(of->comm, stream); });
}

}  // namespace mb::node
