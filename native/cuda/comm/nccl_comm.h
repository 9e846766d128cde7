// One NCCL communicator and how calls on it are made, waited for, watched and ended.
#pragma once
#include <stdint.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/comm/watch.h"
#include "cuda/comm/window.h"
#include "cuda/device/device.h"
#include "cuda/libs/abi_nccl.h"

namespace mb::cuda {
struct Comm;
}

struct mb_comm {
  std::shared_ptr<mb::cuda::Comm> shared;  // also held by the thread that aborts it
};

namespace mb::cuda {

struct Comm {
  mb_device* device = nullptr;
  std::string name;
  int rank = 0, size = 1;
  std::vector<int32_t> ranks;  // global
  double timeout_s = 0;        // 0: none

  // Every NCCL call on `handle` is made under this lock: NCCL's own calls on one communicator may not overlap, not even
  // the one that asks for its state. It is held for the length of one call, never while polling.
  std::mutex library;
  nccl::Comm handle = nullptr;
  std::atomic<bool> aborted{false};
  std::atomic<bool> abort_done{false};
  OpWatch watch;
  static constexpr size_t kScratchBytes = 4096;
  void* scratch = nullptr;  // on the device, for barriers and what members tell each other of their memory
  cudaEvent_t host_wait = nullptr;
  // Arenas that the members share. The issuing thread alone changes it, under the lock; an abort reads it under the
  // lock.
  std::vector<std::unique_ptr<Window>> windows;
  std::mutex windows_lock;

  ~Comm();

  // Kernels that read the members' memory stop waiting for them.
  void stop_waiting();

  // "communicator dp_cp (rank 1 of 4; global ranks 0,2,4,6)"
  std::string describe() const;
};

// The status of an NCCL result, with the text set.
int nccl_fail(const Comm& comm, const char* op, nccl::Result result);

// Polls while the result is in progress: MB_OK, NCCL's failure, MB_ERR_PEER once aborted, MB_ERR_TIMEOUT.
int settle(Comm& comm, const char* op, nccl::Result result, double timeout_s);

// Blocks until what is on the stream now is done, as Settle does.
int wait_for_stream(Comm& comm, const char* op, cudaStream_t stream);

// MB_OK, or what has gone wrong with it. Any thread.
int check_comm(Comm& comm);

// Ends it from any thread, also while another is inside a call; returns within about a second.
void abort_comm(const std::shared_ptr<Comm>& comm);

// Enqueues the work of a collective and puts it on watch. `work` takes the stream and returns a status.
template <class Work>
int issue_watched(Comm& comm, int stream, const char* op, Work work) {
  cudaStream_t s = nullptr;
  MB_TRY(enter(comm.device, stream, &s));
  if (comm.aborted) return nccl_fail(comm, op, nccl::kRemoteError);
  comm.watch.begin(op);
  const int status = work(s);
  if (status == MB_OK) return comm.watch.enqueued(s);
  if (status != MB_ERR_TIMEOUT) comm.watch.drop();
  return status;
}

// The same for one of NCCL's: makes `call` on the communicator and waits until its work is on the stream.
template <class Call>
int issue(Comm& comm, int stream, const char* op, Call call) {
  return issue_watched(comm, stream, op, [&](cudaStream_t s) {
    nccl::Result result;
    {
      std::lock_guard<std::mutex> lock(comm.library);
      result = comm.handle ? call(comm.handle, s) : nccl::kRemoteError;
    }
    return settle(comm, op, result, comm.timeout_s);
  });
}

// The collectives of a group of one.
int copy_alone(Comm& comm, int stream, const mb_buf* in, const mb_buf* out, int64_t count);

// nccl_p2p.cc
int p2p(mb_comm* handle, int stream, const mb_p2p* ops, int count);
int all_to_all(mb_comm* handle, int stream, const mb_buf* in, const mb_buf* out, const int64_t* send_counts,
               const int64_t* send_offsets, const int64_t* recv_counts, const int64_t* recv_offsets);

}  // namespace mb::cuda
