#include "nccl.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <thread>

#include "../core/dtype.h"
#include "libs.h"
#include "nccl_comm.h"

struct mb_comm {
  std::shared_ptr<mbcuda::Comm> shared;  // also held by the thread that aborts it
};

namespace mbcuda {
namespace {

nccl::DataType NcclType(int32_t dtype) {
  switch (dtype) {
    case MB_F64:
      return nccl::kFloat64;
    case MB_F32:
      return nccl::kFloat32;
    case MB_I32:
      return nccl::kInt32;
    case MB_BF16:
      return nccl::kBfloat16;
    default:
      return nccl::kUint8;
  }
}

nccl::RedOp NcclOp(int op) { return op == MB_MAX ? nccl::kMax : nccl::kSum; }

// Both buffers hold what the op reads and writes: `in` and `out` elements of one dtype.
int CheckPair(const Comm& comm, const char* op, const mb_buf* in, int64_t in_count, const mb_buf* out,
              int64_t out_count) {
  if (in->dtype != out->dtype || in->dtype < MB_F32 || in->dtype > MB_U8) {
    return Fail(MB_ERR_ARGUMENT, "%s: %s: dtypes %d and %d", comm.Describe().c_str(), op, in->dtype, out->dtype);
  }
  const int64_t element = mb::dtype_size(in->dtype);
  if (!in->ptr || !out->ptr || in_count < 0 || in->bytes < in_count * element || out->bytes < out_count * element) {
    return Fail(MB_ERR_ARGUMENT, "%s: %s: needs %lld bytes in and %lld out, has %lld and %lld", comm.Describe().c_str(),
                op, static_cast<long long>(in_count * element), static_cast<long long>(out_count * element),
                static_cast<long long>(in->bytes), static_cast<long long>(out->bytes));
  }
  return MB_OK;
}

int CheckReduce(const Comm& comm, const char* name, int op) {
  return op == MB_SUM || op == MB_MAX
             ? MB_OK
             : Fail(MB_ERR_ARGUMENT, "%s: %s: reduction %d does not exist", comm.Describe().c_str(), name, op);
}

// The collectives of a group of one.
int CopyAlone(Comm& comm, int stream, const mb_buf* in, const mb_buf* out, int64_t count) {
  cudaStream_t s = nullptr;
  MB_TRY(Enter(comm.device, stream, &s));
  if (in->ptr == out->ptr || count == 0) return MB_OK;
  MB_CUDA(
      cudaMemcpyAsync(out->ptr, in->ptr, static_cast<size_t>(count * mb::dtype_size(in->dtype)), cudaMemcpyDefault, s));
  return MB_OK;
}

int MakeId(mb_device* device, uint8_t id[128]) {
  MB_TRY(RequireLibrary(LoadNccl()));
  MB_CUDA(cudaSetDevice(device->index));
  nccl::UniqueId unique;
  const nccl::Result result = LoadNccl().GetUniqueId(&unique);
  if (result != nccl::kSuccess) {
    return Fail(MB_ERR_LIBRARY, "NCCL %s: make an id: %s: %s", LoadNccl().version.c_str(),
                LoadNccl().GetErrorString(result), LoadNccl().GetLastError(nullptr));
  }
  memcpy(id, unique.bytes, sizeof unique.bytes);
  return MB_OK;
}

// One all-reduce of a known pattern: the members are connected, and they are as many as they should be.
int Prove(Comm& comm, cudaStream_t stream) {
  MB_CUDA(cudaMemsetAsync(comm.scratch, 1, 4, stream));
  nccl::Result result;
  {
    std::lock_guard<std::mutex> lock(comm.library);
    if (!comm.handle) return NcclFail(comm, "first all-reduce", nccl::kRemoteError);
    result = LoadNccl().AllReduce(comm.scratch, comm.scratch, 1, nccl::kInt32, nccl::kSum, comm.handle, stream);
  }
  MB_TRY(Settle(comm, "first all-reduce", result, comm.timeout_s));
  MB_TRY(WaitForStream(comm, "first all-reduce", stream));
  uint32_t sum = 0;
  MB_CUDA(cudaMemcpyAsync(&sum, comm.scratch, 4, cudaMemcpyDeviceToHost, stream));
  MB_CUDA(cudaStreamSynchronize(stream));
  const uint32_t expected = 0x01010101u * static_cast<uint32_t>(comm.size);
  if (sum == expected) return MB_OK;
  return Fail(MB_ERR_LIBRARY,
              "%s: the first all-reduce gave %#x instead of %#x: members do not agree, or the link between "
              "the GPUs corrupts data",
              comm.Describe().c_str(), sum, expected);
}

int Connect(Comm& comm, const uint8_t id[128]) {
  const Nccl& lib = LoadNccl();
  MB_CUDA(cudaSetDevice(comm.device->index));
  MB_CUDA(cudaEventCreateWithFlags(&comm.host_wait, cudaEventDisableTiming));
  MB_CUDA(cudaMalloc(&comm.scratch, 256));
  nccl::UniqueId unique;
  memcpy(unique.bytes, id, sizeof unique.bytes);
  const char* blocking = getenv("MBRIDGE_NCCL_BLOCKING");
  nccl::Config config;
  config.blocking = blocking && strcmp(blocking, "1") == 0 ? 1 : 0;
  config.comm_name = comm.name.c_str();  // `comm` outlives the handle
  nccl::Result result;
  {
    std::lock_guard<std::mutex> lock(comm.library);
    result = lib.CommInitRankConfig(&comm.handle, comm.size, unique, comm.rank, &config);
  }
  MB_TRY(Settle(comm, "join", result, comm.timeout_s));
  // A stream of its own: this may run beside the thread that feeds the device's streams.
  cudaStream_t stream = nullptr;
  MB_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const int status = Prove(comm, stream);
  if (status == MB_OK) cudaStreamDestroy(stream);
  return status;
}

int Create(mb_device* device, const uint8_t id[128], const char* name, int rank, int size, const int32_t* ranks,
           double timeout_s, mb_comm** out) {
  *out = nullptr;
  if (size < 1 || rank < 0 || rank >= size) {
    return Fail(MB_ERR_ARGUMENT, "communicator %s: rank %d of %d", name, rank, size);
  }
  auto comm = std::make_shared<Comm>();
  comm->device = device;
  comm->name = name;
  comm->rank = rank;
  comm->size = size;
  comm->ranks.assign(ranks, ranks + size);
  comm->timeout_s = timeout_s;
  if (size > 1) {
    MB_TRY(RequireLibrary(LoadNccl()));
    const int status = Connect(*comm, id);
    if (status != MB_OK) {
      const std::string text = LastError();
      AbortComm(comm);
      return Fail(status, "%s", text.c_str());
    }
  }
  device->waiter.Watch(comm);
  *out = new mb_comm{std::move(comm)};
  return MB_OK;
}

void Destroy(mb_comm* handle) {
  if (!handle) return;
  const std::unique_ptr<mb_comm> owned(handle);
  Comm& comm = *owned->shared;
  if (comm.size == 1) return;
  cudaSetDevice(comm.device->index);
  // What is still under way gets 10 s to finish, and then is ended.
  bool idle = false;
  for (int i = 0; i < 10000 && !comm.aborted && !idle; i++) {
    OpWatch::Op op;
    bool any = false;
    if (comm.watch.Oldest(&op, &any) != cudaSuccess) break;
    idle = !any;
    if (any) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (idle && !comm.aborted) {
    nccl::Result result;
    {
      std::lock_guard<std::mutex> lock(comm.library);
      result = comm.handle ? LoadNccl().CommFinalize(comm.handle) : nccl::kRemoteError;
    }
    if (Settle(comm, "finalize", result, 10) == MB_OK) {
      std::lock_guard<std::mutex> lock(comm.library);
      if (comm.handle) LoadNccl().CommDestroy(comm.handle);
      comm.handle = nullptr;
      return;
    }
  }
  AbortComm(owned->shared);
}

void Abort(mb_comm* handle) {
  if (handle) AbortComm(handle->shared);
}

int AllReduce(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, int64_t n, int op) {
  Comm& comm = *handle->shared;
  MB_TRY(CheckReduce(comm, "all_reduce", op));
  MB_TRY(CheckPair(comm, "all_reduce", in, n, out, n));
  if (comm.size == 1) return CopyAlone(comm, stream, in, out, n);
  return Issue(comm, stream, "all_reduce", [&](nccl::Comm c, cudaStream_t s) {
    return LoadNccl().AllReduce(in->ptr, out->ptr, n, NcclType(in->dtype), NcclOp(op), c, s);
  });
}

int ReduceScatter(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, int64_t n, int op) {
  Comm& comm = *handle->shared;
  MB_TRY(CheckReduce(comm, "reduce_scatter", op));
  MB_TRY(CheckPair(comm, "reduce_scatter", in, n * comm.size, out, n));
  if (comm.size == 1) return CopyAlone(comm, stream, in, out, n);
  if (op == MB_SUM && (in->dtype == MB_F32 || in->dtype == MB_BF16)) {
    Window* window = WindowFor(comm, in->ptr, n * mb::dtype_size(in->dtype), comm.size, out->ptr);
    if (window) return WindowReduceScatter(comm, *window, stream, *in, *out, n);
  }
  return Issue(comm, stream, "reduce_scatter", [&](nccl::Comm c, cudaStream_t s) {
    return LoadNccl().ReduceScatter(in->ptr, out->ptr, n, NcclType(in->dtype), NcclOp(op), c, s);
  });
}

int AllGather(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, int64_t n) {
  Comm& comm = *handle->shared;
  MB_TRY(CheckPair(comm, "all_gather", in, n, out, n * comm.size));
  if (comm.size == 1) return CopyAlone(comm, stream, in, out, n);
  const int64_t bytes = n * mb::dtype_size(in->dtype);
  const bool in_place = in->ptr == static_cast<char*>(out->ptr) + comm.rank * bytes;
  Window* window =
      in_place ? WindowFor(comm, out->ptr, bytes, comm.size, out->ptr) : WindowFor(comm, in->ptr, bytes, 1, out->ptr);
  if (window) return WindowAllGather(comm, *window, stream, *in, *out, bytes);
  return Issue(comm, stream, "all_gather", [&](nccl::Comm c, cudaStream_t s) {
    return LoadNccl().AllGather(in->ptr, out->ptr, n, NcclType(in->dtype), c, s);
  });
}

int Broadcast(mb_comm* handle, int stream, const mb_buf* buf, int64_t n, int root) {
  Comm& comm = *handle->shared;
  if (root < 0 || root >= comm.size) {
    return Fail(MB_ERR_ARGUMENT, "%s: broadcast: root %d", comm.Describe().c_str(), root);
  }
  MB_TRY(CheckPair(comm, "broadcast", buf, n, buf, n));
  if (comm.size == 1) return MB_OK;
  return Issue(comm, stream, "broadcast", [&](nccl::Comm c, cudaStream_t s) {
    return LoadNccl().Broadcast(buf->ptr, buf->ptr, n, NcclType(buf->dtype), root, c, s);
  });
}

int P2p(mb_comm* handle, int stream, const mb_p2p* ops, int count) {
  Comm& comm = *handle->shared;
  for (int i = 0; i < count; i++) {
    const mb_buf& buf = ops[i].buf;
    if (ops[i].peer < 0 || ops[i].peer >= comm.size || ops[i].peer == comm.rank || (!buf.ptr && buf.bytes > 0)) {
      return Fail(MB_ERR_ARGUMENT, "%s: p2p: transfer %d has peer %d and %lld bytes; a peer is another member",
                  comm.Describe().c_str(), i, ops[i].peer, static_cast<long long>(buf.bytes));
    }
  }
  if (count <= 0) return MB_OK;
  return Issue(comm, stream, "p2p", [&](nccl::Comm c, cudaStream_t s) {
    const Nccl& lib = LoadNccl();
    nccl::Result result = lib.GroupStart();
    if (result != nccl::kSuccess) return result;
    for (int i = 0; i < count && (result == nccl::kSuccess || result == nccl::kInProgress); i++) {
      const mb_buf& buf = ops[i].buf;
      if (buf.bytes == 0) continue;
      result = ops[i].send ? lib.Send(buf.ptr, buf.bytes, nccl::kUint8, ops[i].peer, c, s)
                           : lib.Recv(buf.ptr, buf.bytes, nccl::kUint8, ops[i].peer, c, s);
    }
    const nccl::Result ended = lib.GroupEnd();  // always: the group must be closed on this thread
    return result == nccl::kSuccess || result == nccl::kInProgress ? ended : result;
  });
}

int Barrier(mb_comm* handle, int stream) {
  Comm& comm = *handle->shared;
  cudaStream_t s = nullptr;
  MB_TRY(Enter(comm.device, stream, &s));
  if (comm.size == 1) return comm.device->waiter.ForStream(s, "barrier");
  MB_TRY(Issue(comm, stream, "barrier", [&](nccl::Comm c, cudaStream_t cuda_stream) {
    return LoadNccl().AllReduce(comm.scratch, comm.scratch, 1, nccl::kInt32, nccl::kMax, c, cuda_stream);
  }));
  return WaitForStream(comm, "barrier", s);
}

int Share(mb_comm* handle, const mb_buf* arena, int64_t layout, int* shared) {
  Comm& comm = *handle->shared;
  *shared = 0;
  if (comm.size == 1) return MB_OK;
  std::unique_ptr<Window> window;
  MB_TRY(Window::Open(comm, *arena, layout, &window));
  if (!window) return MB_OK;
  std::lock_guard<std::mutex> lock(comm.windows_lock);
  comm.windows.push_back(std::move(window));
  *shared = 1;
  return MB_OK;
}

int Unshare(mb_comm* handle, const mb_buf* arena) {
  Comm& comm = *handle->shared;
  std::unique_ptr<Window> window;
  {
    std::lock_guard<std::mutex> lock(comm.windows_lock);
    const auto found = std::find_if(comm.windows.begin(), comm.windows.end(),
                                    [&](const std::unique_ptr<Window>& each) { return each->base() == arena->ptr; });
    if (found == comm.windows.end()) return MB_OK;
    window = std::move(*found);
    comm.windows.erase(found);
  }
  window->Close();
  return Barrier(handle, 0);
}

int ReduceNormGather(mb_comm* handle, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  return WindowOp(*handle->shared, stream, "reduce_norm_gather", mbk::reduce_norm_gather, 5, t, nt, s, ns);
}

int NormBwdGather(mb_comm* handle, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  return WindowOp(*handle->shared, stream, "norm_bwd_gather", mbk::norm_bwd_gather, 7, t, nt, s, ns);
}

int Check(mb_comm* handle) { return CheckComm(*handle->shared); }

}  // namespace

mb_comm_table NcclTable() {
  mb_comm_table table = {};
  table.make_id = MakeId;
  table.create = Create;
  table.destroy = Destroy;
  table.abort = Abort;
  table.all_reduce = AllReduce;
  table.reduce_scatter = ReduceScatter;
  table.all_gather = AllGather;
  table.broadcast = Broadcast;
  table.p2p = P2p;
  table.barrier = Barrier;
  table.check = Check;
  table.share = Share;
  table.unshare = Unshare;
  table.ops[MB_COMM_OP_REDUCE_NORM_GATHER] = ReduceNormGather;
  table.ops[MB_COMM_OP_NORM_BWD_GATHER] = NormBwdGather;
  return table;
}

}  // namespace mbcuda
