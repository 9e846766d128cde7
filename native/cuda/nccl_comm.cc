#include "nccl_comm.h"

#include <chrono>
#include <thread>

#include "libs.h"

namespace mbcuda {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Hand-overs to NCCL's thread take tens of microseconds, so polling starts without sleeping.
void Pause(int* rounds) {
  if (++*rounds < 4000) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

int AbortedFail(const Comm& comm, const char* op) {
  return Fail(MB_ERR_PEER, "%s: %s: it was aborted, because a member failed or did not answer", comm.Describe().c_str(),
              op);
}

int TimeoutFail(const Comm& comm, const char* op, double seconds) {
  return Fail(MB_ERR_TIMEOUT,
              "%s: %s: not every member came within %g s (dist.timeout_s). A member that died, or that makes its "
              "calls in another order, causes this: look at the other ranks' logs",
              comm.Describe().c_str(), op, seconds);
}

}  // namespace

Comm::~Comm() {
  if (host_wait) cudaEventDestroy(host_wait);
  // cudaFree waits for the device, which an aborted communicator's peers may never let finish: the process ends soon.
  if (scratch && !aborted) cudaFree(scratch);
}

void Comm::StopWaiting() {
  std::lock_guard<std::mutex> lock(windows_lock);
  for (const std::unique_ptr<Window>& window : windows) window->Abort();
}

std::string Comm::Describe() const {
  std::string text =
      "communicator " + name + " (rank " + std::to_string(rank) + " of " + std::to_string(size) + "; global ranks ";
  for (size_t i = 0; i < ranks.size(); i++) text += (i ? "," : "") + std::to_string(ranks[i]);
  return text + ")";
}

int NcclFail(const Comm& comm, const char* op, nccl::Result result) {
  if (comm.aborted) return AbortedFail(comm, op);
  int status = MB_ERR_LIBRARY;
  if (result == nccl::kRemoteError) status = MB_ERR_PEER;
  if (result == nccl::kUnhandledCudaError) status = MB_ERR_DEVICE;
  if (result == nccl::kInvalidArgument || result == nccl::kInvalidUsage) status = MB_ERR_ARGUMENT;
  const Nccl& lib = LoadNccl();
  const char* detail = lib.GetLastError(nullptr);
  return Fail(status, "%s: %s: NCCL %s: %s%s%s (NCCL_DEBUG=WARN prints more)", comm.Describe().c_str(), op,
              lib.version.c_str(), lib.GetErrorString(result), detail && *detail ? ": " : "", detail ? detail : "");
}

int Settle(Comm& comm, const char* op, nccl::Result result, double timeout_s) {
  const Nccl& lib = LoadNccl();
  const auto start = Clock::now();
  int rounds = 0;
  while (result == nccl::kInProgress) {
    if (timeout_s > 0 && SecondsSince(start) > timeout_s) return TimeoutFail(comm, op, timeout_s);
    Pause(&rounds);
    if (comm.aborted) return AbortedFail(comm, op);
    std::lock_guard<std::mutex> lock(comm.library);
    if (!comm.handle) return AbortedFail(comm, op);
    nccl::Result state = nccl::kInProgress;
    const nccl::Result asked = lib.CommGetAsyncError(comm.handle, &state);
    result = asked == nccl::kSuccess ? state : asked;
  }
  return result == nccl::kSuccess ? MB_OK : NcclFail(comm, op, result);
}

int WaitForStream(Comm& comm, const char* op, cudaStream_t stream) {
  MB_CUDA(cudaEventRecord(comm.host_wait, stream));
  const auto start = Clock::now();
  for (int rounds = 0;;) {
    const cudaError_t state = cudaEventQuery(comm.host_wait);
    if (state == cudaSuccess) return MB_OK;
    if (state != cudaErrorNotReady) return CudaFail(state, op);
    cudaGetLastError();  // "not ready" is no error for the next launch to find
    if (comm.aborted) return AbortedFail(comm, op);
    if (comm.timeout_s > 0 && SecondsSince(start) > comm.timeout_s) return TimeoutFail(comm, op, comm.timeout_s);
    Pause(&rounds);
    if (rounds % 1000 == 0) MB_TRY(CheckComm(comm));
  }
}

int CheckComm(Comm& comm) {
  if (comm.aborted) return AbortedFail(comm, "check");
  if (comm.size == 1) return MB_OK;
  {
    // Where the issuing thread is inside NCCL, its own polling sees the failure.
    std::unique_lock<std::mutex> lock(comm.library, std::try_to_lock);
    if (lock.owns_lock() && comm.handle) {
      nccl::Result state = nccl::kSuccess;
      const nccl::Result asked = LoadNccl().CommGetAsyncError(comm.handle, &state);
      const nccl::Result result = asked == nccl::kSuccess ? state : asked;
      if (result != nccl::kSuccess && result != nccl::kInProgress) return NcclFail(comm, "an earlier call", result);
    }
  }
  MB_CUDA(cudaSetDevice(comm.device->index));
  OpWatch::Op op;
  bool any = false;
  const cudaError_t state = comm.watch.Oldest(&op, &any);
  if (state != cudaSuccess) return CudaFail(state, comm.Describe().c_str());
  if (any && comm.timeout_s > 0 && op.seconds > comm.timeout_s) {
    return Fail(
        MB_ERR_TIMEOUT,
        "%s: %s #%lld was issued %.1f s ago and has not finished (dist.timeout_s is %g): %s. Look for a rank "
        "that died, or whose last op on this communicator has another number",
        comm.Describe().c_str(), op.name, static_cast<long long>(op.sequence), op.seconds, comm.timeout_s,
        op.enqueued ? "it waits on the device for its turn or for a member" : "the host still connects to a member");
  }
  return MB_OK;
}

void AbortComm(const std::shared_ptr<Comm>& comm) {
  if (comm->aborted.exchange(true) || comm->size == 1) return;
  comm->device->waiter.Distrust();
  comm->StopWaiting();
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
    if (handle) LoadNccl().CommAbort(handle);
    comm->abort_done = true;
  };
  try {
    std::thread(end).detach();
  } catch (const std::system_error&) {
    end();
  }
  for (int i = 0; i < 1000 && !comm->abort_done; i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace mbcuda
