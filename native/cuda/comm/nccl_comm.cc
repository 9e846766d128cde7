#include "cuda/comm/nccl_comm.h"

#include <chrono>
#include <thread>

#include "cuda/libs/libs.h"

namespace mb::cuda {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Hand-overs to NCCL's thread take tens of microseconds, so polling starts without sleeping.
void pause(int* rounds) {
  if (++*rounds < 4000) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

int aborted_fail(const Comm& comm, const char* op) {
  return fail(MB_ERR_PEER, "%s: %s: it was aborted, because a member failed or did not answer", comm.describe().c_str(),
              op);
}

int timeout_fail(const Comm& comm, const char* op, double seconds) {
  return fail(MB_ERR_TIMEOUT,
              "%s: %s: not every member came within %g s (dist.timeout_s). A member that died, or that makes its "
              "calls in another order, causes this: look at the other ranks' logs",
              comm.describe().c_str(), op, seconds);
}

}  // namespace

Comm::~Comm() {
  if (host_wait) cudaEventDestroy(host_wait);
  // cudaFree waits for the device, which an aborted communicator's peers may never let finish: the process ends soon.
  if (scratch && !aborted) cudaFree(scratch);
}

void Comm::stop_waiting() {
  std::lock_guard<std::mutex> lock(windows_lock);
  for (const std::unique_ptr<Window>& window : windows) window->abort();
}

std::string Comm::describe() const {
  std::string text =
      "communicator " + name + " (rank " + std::to_string(rank) + " of " + std::to_string(size) + "; global ranks ";
  for (size_t i = 0; i < ranks.size(); i++) text += (i ? "," : "") + std::to_string(ranks[i]);
  return text + ")";
}

int nccl_fail(const Comm& comm, const char* op, nccl::Result result) {
  if (comm.aborted) return aborted_fail(comm, op);
  int status = MB_ERR_LIBRARY;
  if (result == nccl::kRemoteError) status = MB_ERR_PEER;
  if (result == nccl::kUnhandledCudaError) status = MB_ERR_DEVICE;
  if (result == nccl::kInvalidArgument || result == nccl::kInvalidUsage) status = MB_ERR_ARGUMENT;
  const Nccl& lib = load_nccl();
  const char* detail = lib.GetLastError(nullptr);
  return fail(status, "%s: %s: NCCL %s: %s%s%s (NCCL_DEBUG=WARN prints more)", comm.describe().c_str(), op,
              lib.version.c_str(), lib.GetErrorString(result), detail && *detail ? ": " : "", detail ? detail : "");
}

int settle(Comm& comm, const char* op, nccl::Result result, double timeout_s) {
  const Nccl& lib = load_nccl();
  const auto start = Clock::now();
  int rounds = 0;
  while (result == nccl::kInProgress) {
    if (timeout_s > 0 && seconds_since(start) > timeout_s) return timeout_fail(comm, op, timeout_s);
    pause(&rounds);
    if (comm.aborted) return aborted_fail(comm, op);
    std::lock_guard<std::mutex> lock(comm.library);
    if (!comm.handle) return aborted_fail(comm, op);
    nccl::Result state = nccl::kInProgress;
    const nccl::Result asked = lib.CommGetAsyncError(comm.handle, &state);
    result = asked == nccl::kSuccess ? state : asked;
  }
  return result == nccl::kSuccess ? MB_OK : nccl_fail(comm, op, result);
}

int wait_for_stream(Comm& comm, const char* op, cudaStream_t stream) {
  MB_CUDA(cudaEventRecord(comm.host_wait, stream));
  const auto start = Clock::now();
  for (int rounds = 0;;) {
    const cudaError_t state = cudaEventQuery(comm.host_wait);
    if (state == cudaSuccess) return MB_OK;
    if (state != cudaErrorNotReady) return cuda_fail(state, op);
    cudaGetLastError();  // "not ready" is no error for the next launch to find
    if (comm.aborted) return aborted_fail(comm, op);
    if (comm.timeout_s > 0 && seconds_since(start) > comm.timeout_s) return timeout_fail(comm, op, comm.timeout_s);
    pause(&rounds);
    if (rounds % 1000 == 0) MB_TRY(check_comm(comm));
  }
}

int check_comm(Comm& comm) {
  if (comm.aborted) return aborted_fail(comm, "check");
  if (comm.size == 1) return MB_OK;
  {
    // Where the issuing thread is inside NCCL, its own polling sees the failure.
    std::unique_lock<std::mutex> lock(comm.library, std::try_to_lock);
    if (lock.owns_lock() && comm.handle) {
      nccl::Result state = nccl::kSuccess;
      const nccl::Result asked = load_nccl().CommGetAsyncError(comm.handle, &state);
      const nccl::Result result = asked == nccl::kSuccess ? state : asked;
      if (result != nccl::kSuccess && result != nccl::kInProgress) return nccl_fail(comm, "an earlier call", result);
    }
  }
  MB_CUDA(cudaSetDevice(comm.device->index));
  OpWatch::Op op;
  bool any = false;
  const cudaError_t state = comm.watch.oldest(&op, &any);
  if (state != cudaSuccess) return cuda_fail(state, comm.describe().c_str());
  if (any && comm.timeout_s > 0 && op.seconds > comm.timeout_s) {
    return fail(
        MB_ERR_TIMEOUT,
        "%s: %s #%lld was issued %.1f s ago and has not finished (dist.timeout_s is %g): %s. Look for a rank "
        "that died, or whose last op on this communicator has another number",
        comm.describe().c_str(), op.name, static_cast<long long>(op.sequence), op.seconds, comm.timeout_s,
        op.enqueued ? "it waits on the device for its turn or for a member" : "the host still connects to a member");
  }
  return MB_OK;
}

void abort_comm(const std::shared_ptr<Comm>& comm) {
  if (comm->aborted.exchange(true) || comm->size == 1) return;
  comm->device->waiter.distrust();
  comm->stop_waiting();
  // In a thread of its own: ending one communicator waits for its kernels, and those may stand in a stream behind the
  // hung kernel of another, which the caller can only abort once this returns.
  auto end = [comm, device = comm->device->index] {
    cudaSetDevice(device);
    nccl::Comm handle = nullptr;
    {
      // A blocking call of the issuing thread may hold the lock for good; NCCL then lets it go by the abort itself.
      std::unique_lock<std::mutex> lock(comm->library, std::defer_lock);
      for (int i = 0; i < 1000 && !lock.try_lock(); i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::swap(handle, comm->handle);
    }
    if (handle) load_nccl().CommAbort(handle);
    comm->abort_done = true;
  };
  try {
    std::thread(end).detach();
  } catch (const std::system_error&) {
    end();
  }
  for (int i = 0; i < 1000 && !comm->abort_done; i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

int copy_alone(Comm& comm, int stream, const mb_buf* in, const mb_buf* out, int64_t count) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(comm.device, stream, &s));
  if (in->ptr == out->ptr || count == 0) return MB_OK;
  MB_CUDA(cudaMemcpyAsync(out->ptr, in->ptr, static_cast<size_t>(count * dtype_size(in->dtype)), cudaMemcpyDefault, s));
  return MB_OK;
}

}  // namespace mb::cuda
