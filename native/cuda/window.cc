#include "window.h"

#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

#include "libs.h"
#include "nccl_comm.h"

namespace mbcuda {
namespace {

constexpr int64_t kFlagBytes = int64_t{kStreams} * mbk::kPeerFlags * sizeof(uint32_t);

// What a member tells the others.
struct Card {
  cudaIpcMemHandle_t arena, flags;
  int64_t bytes, layout;
  char host[64];
  int32_t usable;
};

// The boot of the kernel, which handles of memory do not outlive or leave.
void ReadHost(char (&host)[64]) {
  memset(host, 0, sizeof host);
  if (FILE* file = fopen("/proc/sys/kernel/random/boot_id", "re")) {
    if (!fgets(host, sizeof host, file)) host[0] = 0;
    fclose(file);
  }
}

// all[r] = member r's `mine`, through NCCL. Blocks.
int Exchange(Comm& comm, const void* mine, void* all, size_t bytes) {
  void* staging = nullptr;
  MB_CUDA(cudaMalloc(&staging, bytes * static_cast<size_t>(comm.size + 1)));
  // A stream of its own, as when the communicator was proven.
  cudaStream_t stream = nullptr;
  MB_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  char* gathered = static_cast<char*>(staging) + bytes;
  MB_CUDA(cudaMemcpyAsync(staging, mine, bytes, cudaMemcpyHostToDevice, stream));
  nccl::Result result;
  {
    std::lock_guard<std::mutex> lock(comm.library);
    if (!comm.handle) return NcclFail(comm, "share", nccl::kRemoteError);
    result = LoadNccl().AllGather(staging, gathered, bytes, nccl::kUint8, comm.handle, stream);
  }
  // On failure staging stays: cudaFree would wait for what hangs.
  MB_TRY(Settle(comm, "share", result, comm.timeout_s));
  MB_TRY(WaitForStream(comm, "share", stream));
  MB_CUDA(cudaMemcpyAsync(all, gathered, bytes * static_cast<size_t>(comm.size), cudaMemcpyDeviceToHost, stream));
  MB_CUDA(cudaStreamSynchronize(stream));
  cudaStreamDestroy(stream);
  cudaFree(staging);
  return MB_OK;
}

// Whether all members say yes.
int Agree(Comm& comm, bool yes, bool* all) {
  const int32_t mine = yes;
  std::vector<int32_t> said(static_cast<size_t>(comm.size));
  MB_TRY(Exchange(comm, &mine, said.data(), sizeof mine));
  *all = true;
  for (int32_t each : said) *all = *all && each != 0;
  return MB_OK;
}

template <class T>
bool OpenHandle(const cudaIpcMemHandle_t& handle, T** out) {
  void* memory = nullptr;
  const bool opened = cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess) == cudaSuccess;
  if (!opened) cudaGetLastError();  // not an error: NCCL serves
  *out = static_cast<T*>(memory);
  return opened;
}

int Launched() {
  MB_CUDA(cudaGetLastError());
  return MB_OK;
}

}  // namespace

int Window::Open(Comm& comm, const mb_buf& arena, int64_t layout, std::unique_ptr<Window>* out) {
  MB_CUDA(cudaSetDevice(comm.device->index));
  const int size = comm.size, rank = comm.rank;
  std::unique_ptr<Window> window(new Window);
  window->rank_ = rank;
  window->size_ = size;
  window->base_ = static_cast<char*>(arena.ptr);
  window->bytes_ = arena.bytes;
  Card mine = {};
  mine.bytes = arena.bytes;
  mine.layout = layout;
  ReadHost(mine.host);
  const bool fits = size == 2 || size == 4 || size == 8;
  if (fits) {
    // All of an IPC handle's allocation is opened to the members: the flags get one of their own.
    void* memory = nullptr;
    MB_CUDA(cudaMalloc(&memory, kFlagBytes));
    window->flags_[rank] = static_cast<uint32_t*>(memory);
    MB_CUDA(cudaMemset(memory, 0, kFlagBytes));
    MB_CUDA(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocPortable));
    window->aborted_ = static_cast<int*>(memory);
    *window->aborted_ = 0;
    MB_CUDA(cudaDeviceSynchronize());
    mine.usable = cudaIpcGetMemHandle(&mine.arena, arena.ptr) == cudaSuccess &&
                  cudaIpcGetMemHandle(&mine.flags, window->flags_[rank]) == cudaSuccess;
    cudaGetLastError();
  }
  std::vector<Card> cards(static_cast<size_t>(size));
  MB_TRY(Exchange(comm, &mine, cards.data(), sizeof mine));
  bool usable = fits;
  for (const Card& card : cards) {
    usable = usable && card.usable && card.bytes == mine.bytes && card.layout == mine.layout && mine.host[0] &&
             memcmp(card.host, mine.host, sizeof mine.host) == 0;
  }
  window->bases_[fits ? rank : 0] = window->base_;
  for (int member = 0; usable && member < size; member++) {
    if (member == rank) continue;
    const Card& card = cards[static_cast<size_t>(member)];
    usable = OpenHandle(card.arena, &window->bases_[member]) && OpenHandle(card.flags, &window->flags_[member]);
  }
  bool all = false;
  MB_TRY(Agree(comm, usable, &all));
  if (all) *out = std::move(window);
  return MB_OK;
}

Window::~Window() {
  if (gave_up_) return;  // kernels may still read all of it
  for (int member = 0; member < size_ && member < mbk::kMostPeers; member++) {
    if (member == rank_) continue;
    if (bases_[member]) cudaIpcCloseMemHandle(bases_[member]);
    if (flags_[member]) cudaIpcCloseMemHandle(flags_[member]);
  }
  if (rank_ < mbk::kMostPeers && flags_[rank_]) cudaFree(flags_[rank_]);
  if (aborted_) cudaFreeHost(aborted_);
}

bool Window::Holds(const void* ptr, int64_t bytes) const {
  const char* p = static_cast<const char*>(ptr);
  return p >= base_ && bytes <= bytes_ && p - base_ <= bytes_ - bytes;
}

mbk::Peers Window::Next(int stream) {
  mbk::Peers peers = {};
  peers.rank = rank_;
  peers.size = size_;
  for (int member = 0; member < size_; member++) {
    peers.shift[member] = bases_[member] - base_;
    peers.flags[member] = flags_[member] + int64_t{stream} * mbk::kPeerFlags;
  }
  peers.aborted = aborted_;
  peers.sequence = ++sequence_[stream];
  return peers;
}

void Window::Abort() {
  gave_up_ = true;
  if (aborted_) *static_cast<volatile int*>(aborted_) = 1;
}

Window* WindowFor(Comm& comm, const void* read, int64_t bytes, int pieces, const void* write) {
  const auto whole = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (bytes % 16 != 0 || !whole(read) || !whole(write)) return nullptr;
  for (const std::unique_ptr<Window>& window : comm.windows) {
    if (window->Holds(read, bytes * pieces)) return window.get();
  }
  return nullptr;
}

int WindowReduceScatter(Comm& comm, Window& window, int stream, const mb_buf& in, const mb_buf& out, int64_t count) {
  return IssueWatched(comm, stream, "reduce_scatter", [&](cudaStream_t s) {
    const int64_t bytes = count * (in.dtype == MB_F32 ? 4 : 2);
    mbk::reduce(s, window.Next(stream), static_cast<const char*>(in.ptr) + comm.rank * bytes, out.ptr, count, in.dtype);
    return Launched();
  });
}

int WindowAllGather(Comm& comm, Window& window, int stream, const mb_buf& in, const mb_buf& out, int64_t bytes) {
  return IssueWatched(comm, stream, "all_gather", [&](cudaStream_t s) {
    const mbk::Peers peers = window.Next(stream);
    char* to = static_cast<char*>(out.ptr);
    const char* from = static_cast<const char*>(in.ptr);
    const bool in_place = from == to + comm.rank * bytes;
    mbk::meet(s, peers, mbk::Phase::kBegin);
    // Copy engines move it, so no multiprocessor is taken from the products beside it. Each member begins with another.
    for (int turn = 1; turn < comm.size; turn++) {
      const int member = (comm.rank + turn) % comm.size;
      const char* theirs = (in_place ? to + member * bytes : from) + peers.shift[member];
      MB_CUDA(cudaMemcpyAsync(to + member * bytes, theirs, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, s));
    }
    if (!in_place) {
      MB_CUDA(cudaMemcpyAsync(to + comm.rank * bytes, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, s));
    }
    mbk::meet(s, peers, mbk::Phase::kEnd);
    return Launched();
  });
}

int WindowOp(Comm& comm, int stream, const char* name, PeerKernel kernel, const mb_buf* t, int nt, const double* s,
             int ns) {
  Window* window = nt > 0 && t[0].ptr ? WindowFor(comm, t[0].ptr, t[0].bytes, 1, t[0].ptr) : nullptr;
  if (!window) {
    return Fail(MB_ERR_ARGUMENT, "%s: %s: its tensors lie in no arena that the members share", comm.Describe().c_str(),
                name);
  }
  return IssueWatched(comm, stream, name,
                      [&](cudaStream_t on) { return kernel(on, window->Next(stream), t, nt, s, ns); });
}

}  // namespace mbcuda
