// Arenas that the members of a communicator have opened to each other, and the collectives that go through them: a GPU
// reads and writes its peers' memory itself, over NVLink, instead of handing both ends to NCCL.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include <atomic>
#include <memory>

#include "cuda/device/device.h"
#include "cuda/kernels/peer.h"

namespace mb::cuda {

struct Comm;

// One arena of each member. Closed when it is destroyed.
class Window {
 public:
  // Collective. *out stays null where some member's memory cannot be reached: another host, no peer access, arenas
  // that differ.
  static int open(Comm& comm, const mb_buf& arena, int64_t layout, std::unique_ptr<Window>* out);
  // Ends this member's way to the others' memory; nothing may use the window afterwards.
  void close();
  ~Window();
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  const void* base() const { return base_; }
  bool holds(const void* ptr, int64_t bytes) const;
  // For the next op on a stream.
  kernels::Peers next(int stream);
  // Kernels stop waiting for members that are gone. Any thread.
  void abort();

 private:
  Window(const Comm& comm, const mb_buf& arena);
  int connect(Comm& comm, int64_t layout, bool* usable);

  const int rank_, size_;
  char* const base_;
  const int64_t bytes_;
  char* bases_[kernels::kMostPeers] = {};      // where the members' arenas lie here
  uint32_t* flags_[kernels::kMostPeers] = {};  // kStreams * kPeerFlags words each
  int* aborted_ = nullptr;                     // pinned
  std::atomic<bool> gave_up_{false};
  uint32_t sequence_[kStreams] = {};
};

// The window that serves a collective over `pieces` of `bytes` from `read` on in every member, with results at `write`
// here, or null: then it goes through NCCL. All members decide alike.
Window* window_for(Comm& comm, const void* read, int64_t bytes, int pieces, const void* write);

// out [count] = sum over members of `in` at this rank's slice, which lies at the same place in every member.
int window_reduce_scatter(Comm& comm, Window& window, int stream, const mb_buf& in, const mb_buf& out, int64_t count);

// out [size * count]. `in` is this rank's slice of out, or lies at the same place in every member.
int window_all_gather(Comm& comm, Window& window, int stream, const mb_buf& in, const mb_buf& out, int64_t bytes);

using PeerKernel = int (*)(cudaStream_t, const kernels::Peers&, const mb_buf* t, int nt, const double* s, int ns);

// A fused op whose first tensor, and tensor `full` where it is present, lie in a window.
int window_op(Comm& comm, int stream, const char* name, PeerKernel kernel, int full, const mb_buf* t, int nt,
              const double* s, int ns);

}  // namespace mb::cuda
