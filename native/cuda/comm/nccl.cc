#include "cuda/comm/nccl.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <thread>

#include "core/op_args.h"
#include "cuda/comm/nccl_comm.h"
#include "cuda/libs/libs.h"

namespace mb::cuda {
namespace {

nccl::DataType nccl_type(int32_t dtype) {
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

nccl::RedOp nccl_op(int op) { return op == MB_MAX ? nccl::kMax : nccl::kSum; }

// Both buffers hold what the op reads and writes: `in` and `out` elements of one dtype.
int check_pair(const Comm& comm, const char* op, const mb_buf* in, int64_t in_count, const mb_buf* out,
               int64_t out_count) {
  if (in->dtype != out->dtype || in->dtype < MB_F32 || in->dtype > MB_U8) {
    return fail(MB_ERR_ARGUMENT, "%s: %s: dtypes %d and %d", comm.describe().c_str(), op, in->dtype, out->dtype);
  }
  const int64_t element = dtype_size(in->dtype);
  const int64_t in_bytes = times(in_count, element), out_bytes = times(out_count, element);
  if (!in->ptr || !out->ptr || in_count < 0 || in->bytes < in_bytes || out->bytes < out_bytes) {
    return fail(MB_ERR_ARGUMENT, "%s: %s: needs %lld bytes in and %lld out, has %lld and %lld", comm.describe().c_str(),
                op, static_cast<long long>(in_bytes), static_cast<long long>(out_bytes),
                static_cast<long long>(in->bytes), static_cast<long long>(out->bytes));
  }
  return MB_OK;
}

int check_reduce(const Comm& comm, const char* name, int op) {
  return op == MB_SUM || op == MB_MAX
             ? MB_OK
             : fail(MB_ERR_ARGUMENT, "%s: %s: reduction %d does not exist", comm.describe().c_str(), name, op);
}

int make_id(mb_device* device, const char*, uint8_t id[128]) {
  MB_TRY(require_library(load_nccl()));
  MB_CUDA(cudaSetDevice(device->index));
  nccl::UniqueId unique;
  const nccl::Result result = load_nccl().GetUniqueId(&unique);
  if (result != nccl::kSuccess) {
    return fail(MB_ERR_LIBRARY, "NCCL %s: make an id: %s: %s", load_nccl().version.c_str(),
                load_nccl().GetErrorString(result), load_nccl().GetLastError(nullptr));
  }
  memcpy(id, unique.bytes, sizeof unique.bytes);
  return MB_OK;
}

// One all-reduce of a known pattern: the members are connected, and they are as many as they should be.
int prove(Comm& comm, cudaStream_t stream) {
  MB_CUDA(cudaMemsetAsync(comm.scratch, 1, 4, stream));
  nccl::Result result;
  {
    std::lock_guard<std::mutex> lock(comm.library);
    if (!comm.handle) return nccl_fail(comm, "first all-reduce", nccl::kRemoteError);
    result = load_nccl().AllReduce(comm.scratch, comm.scratch, 1, nccl::kInt32, nccl::kSum, comm.handle, stream);
  }
  MB_TRY(settle(comm, "first all-reduce", result, comm.timeout_s));
  MB_TRY(wait_for_stream(comm, "first all-reduce", stream));
  uint32_t sum = 0;
  MB_CUDA(cudaMemcpyAsync(&sum, comm.scratch, 4, cudaMemcpyDeviceToHost, stream));
  MB_CUDA(cudaStreamSynchronize(stream));
  const uint32_t expected = 0x01010101u * static_cast<uint32_t>(comm.size);
  if (sum == expected) return MB_OK;
  return fail(MB_ERR_LIBRARY,
              "%s: the first all-reduce gave %#x instead of %#x: members do not agree, or the link between "
              "the GPUs corrupts data",
              comm.describe().c_str(), sum, expected);
}

int connect(Comm& comm, const uint8_t id[128]) {
  const Nccl& lib = load_nccl();
  MB_CUDA(cudaSetDevice(comm.device->index));
  MB_CUDA(cudaEventCreateWithFlags(&comm.host_wait, cudaEventDisableTiming));
  MB_CUDA(cudaMalloc(&comm.scratch, Comm::kScratchBytes));
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
  MB_TRY(settle(comm, "join", result, comm.timeout_s));
  // A stream of its own: this may run beside the thread that feeds the device's streams.
  cudaStream_t stream = nullptr;
  MB_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const int status = prove(comm, stream);
  if (status == MB_OK) cudaStreamDestroy(stream);
  return status;
}

int create(mb_device* device, const uint8_t id[128], const char* name, int rank, int size, const int32_t* ranks,
           double timeout_s, mb_comm** out) {
  *out = nullptr;
  if (size < 1 || rank < 0 || rank >= size) {
    return fail(MB_ERR_ARGUMENT, "communicator %s: rank %d of %d", name, rank, size);
  }
  auto comm = std::make_shared<Comm>();
  comm->device = device;
  comm->name = name;
  comm->rank = rank;
  comm->size = size;
  comm->ranks.assign(ranks, ranks + size);
  comm->timeout_s = timeout_s;
  if (size > 1) {
    MB_TRY(require_library(load_nccl()));
    const int status = connect(*comm, id);
    if (status != MB_OK) {
      const std::string text = last_error();
      abort_comm(comm);
      return fail(status, "%s", text.c_str());
    }
  }
  device->waiter.watch(comm);
  *out = new mb_comm{std::move(comm)};
  return MB_OK;
}

void destroy(mb_comm* handle) {
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
    if (comm.watch.oldest(&op, &any) != cudaSuccess) break;
    idle = !any;
    if (any) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (idle && !comm.aborted) {
    nccl::Result result;
    {
      std::lock_guard<std::mutex> lock(comm.library);
      result = comm.handle ? load_nccl().CommFinalize(comm.handle) : nccl::kRemoteError;
    }
    if (settle(comm, "finalize", result, 10) == MB_OK) {
      std::lock_guard<std::mutex> lock(comm.library);
      if (comm.handle) load_nccl().CommDestroy(comm.handle);
      comm.handle = nullptr;
      return;
    }
  }
  abort_comm(owned->shared);
}

void abort(mb_comm* handle) {
  if (handle) abort_comm(handle->shared);
}

int all_reduce(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, int64_t n, int op) {
  Comm& comm = *handle->shared;
  MB_TRY(check_reduce(comm, "all_reduce", op));
  MB_TRY(check_pair(comm, "all_reduce", in, n, out, n));
  if (comm.size == 1) return copy_alone(comm, stream, in, out, n);
  return issue(comm, stream, "all_reduce", [&](nccl::Comm c, cudaStream_t s) {
    return load_nccl().AllReduce(in->ptr, out->ptr, n, nccl_type(in->dtype), nccl_op(op), c, s);
  });
}

int reduce_scatter(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, int64_t n, int op) {
  Comm& comm = *handle->shared;
  MB_TRY(check_reduce(comm, "reduce_scatter", op));
  MB_TRY(check_pair(comm, "reduce_scatter", in, times(n, comm.size), out, n));
  if (comm.size == 1) return copy_alone(comm, stream, in, out, n);
  if (op == MB_SUM && (in->dtype == MB_F32 || in->dtype == MB_BF16)) {
    Window* window = window_for(comm, in->ptr, n * dtype_size(in->dtype), comm.size, out->ptr);
    if (window) return window_reduce_scatter(comm, *window, stream, *in, *out, n);
  }
  return issue(comm, stream, "reduce_scatter", [&](nccl::Comm c, cudaStream_t s) {
    return load_nccl().ReduceScatter(in->ptr, out->ptr, n, nccl_type(in->dtype), nccl_op(op), c, s);
  });
}

int all_gather(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, int64_t n) {
  Comm& comm = *handle->shared;
  MB_TRY(check_pair(comm, "all_gather", in, n, out, times(n, comm.size)));
  if (comm.size == 1) return copy_alone(comm, stream, in, out, n);
  const int64_t bytes = n * dtype_size(in->dtype);
  const bool in_place = in->ptr == static_cast<char*>(out->ptr) + comm.rank * bytes;
  Window* window =
      in_place ? window_for(comm, out->ptr, bytes, comm.size, out->ptr) : window_for(comm, in->ptr, bytes, 1, out->ptr);
  if (window) return window_all_gather(comm, *window, stream, *in, *out, bytes);
  return issue(comm, stream, "all_gather", [&](nccl::Comm c, cudaStream_t s) {
    return load_nccl().AllGather(in->ptr, out->ptr, n, nccl_type(in->dtype), c, s);
  });
}

int broadcast(mb_comm* handle, int stream, const mb_buf* buf, int64_t n, int root) {
  Comm& comm = *handle->shared;
  if (root < 0 || root >= comm.size) {
    return fail(MB_ERR_ARGUMENT, "%s: broadcast: root %d", comm.describe().c_str(), root);
  }
  MB_TRY(check_pair(comm, "broadcast", buf, n, buf, n));
  if (comm.size == 1) return MB_OK;
  return issue(comm, stream, "broadcast", [&](nccl::Comm c, cudaStream_t s) {
    return load_nccl().Broadcast(buf->ptr, buf->ptr, n, nccl_type(buf->dtype), root, c, s);
  });
}

int barrier(mb_comm* handle, int stream) {
  Comm& comm = *handle->shared;
  cudaStream_t s = nullptr;
  MB_TRY(enter(comm.device, stream, &s));
  if (comm.size == 1) return comm.device->waiter.for_stream(s, "barrier");
  MB_TRY(issue(comm, stream, "barrier", [&](nccl::Comm c, cudaStream_t cuda_stream) {
    return load_nccl().AllReduce(comm.scratch, comm.scratch, 1, nccl::kInt32, nccl::kMax, c, cuda_stream);
  }));
  return wait_for_stream(comm, "barrier", s);
}

int share(mb_comm* handle, const mb_buf* arena, int64_t layout, int* shared) {
  Comm& comm = *handle->shared;
  *shared = 0;
  if (comm.size == 1) return MB_OK;
  std::unique_ptr<Window> window;
  MB_TRY(Window::open(comm, *arena, layout, &window));
  if (!window) return MB_OK;
  std::lock_guard<std::mutex> lock(comm.windows_lock);
  comm.windows.push_back(std::move(window));
  *shared = 1;
  return MB_OK;
}

int unshare(mb_comm* handle, const mb_buf* arena) {
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
  window->close();
  return barrier(handle, 0);
}

int reduce_norm_gather(mb_comm* handle, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  return window_op(*handle->shared, stream, "reduce_norm_gather", kernels::reduce_norm_gather, 5, t, nt, s, ns);
}

int norm_bwd_gather(mb_comm* handle, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  return window_op(*handle->shared, stream, "norm_bwd_gather", kernels::norm_bwd_gather, 7, t, nt, s, ns);
}

int all_reduce_small(mb_comm* handle, mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  return window_op(*handle->shared, stream, "all_reduce_small", kernels::all_reduce_small, 0, t, nt, s, ns);
}

int check(mb_comm* handle) { return check_comm(*handle->shared); }

void calls(mb_comm* handle, int64_t* made, int64_t* finished) { handle->shared->watch.counts(made, finished); }

}  // namespace

mb_comm_table nccl_table() {
  mb_comm_table table = {};
  table.make_id = make_id;
  table.create = create;
  table.destroy = destroy;
  table.abort = abort;
  table.all_reduce = all_reduce;
  table.reduce_scatter = reduce_scatter;
  table.all_gather = all_gather;
  table.broadcast = broadcast;
  table.p2p = p2p;
  table.all_to_all = all_to_all;
  table.barrier = barrier;
  table.check = check;
  table.share = share;
  table.unshare = unshare;
  table.calls = calls;
  table.ops[MB_COMM_OP_REDUCE_NORM_GATHER] = reduce_norm_gather;
  table.ops[MB_COMM_OP_NORM_BWD_GATHER] = norm_bwd_gather;
  table.ops[MB_COMM_OP_ALL_REDUCE_SMALL] = all_reduce_small;
  return table;
}

}  // namespace mb::cuda
