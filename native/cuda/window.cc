#include "window.h"

#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

#include "../core/dtype.h"
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
  if (comm.size != 2 && comm.size != 4 && comm.size != 8) return MB_OK;  // the kernels know no others
  MB_CUDA(cudaSetDevice(comm.device->index));
  std::unique_ptr<Window> window(new Window(comm, arena));
  bool usable = false;
  const int status = window->Connect(comm, layout, &usable);
  if (status != MB_OK) window->Abort();  // an exchange may hang on the device, and so would giving memory back
  if (status == MB_OK && usable) *out = std::move(window);
  return status;
}

Window::Window(const Comm& comm, const mb_buf& arena)
    : rank_(comm.rank), size_(comm.size), base_(static_cast<char*>(arena.ptr)), bytes_(arena.bytes) {
  bases_[rank_] = base_;
}

int Window::Connect(Comm& comm, int64_t layout, bool* usable) {
  // All of an IPC handle's allocation is opened to the members: the flags get one of their own.
  void* memory = nullptr;
  MB_CUDA(cudaMalloc(&memory, kFlagBytes));
  flags_[rank_] = static_cast<uint32_t*>(memory);
  MB_CUDA(cudaMemset(memory, 0, kFlagBytes));
  MB_CUDA(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocPortable));
  aborted_ = static_cast<int*>(memory);
  *aborted_ = 0;
  MB_CUDA(cudaDeviceSynchronize());
  Card mine = {};
  mine.bytes = bytes_;
  mine.layout = layout;
  ReadHost(mine.host);
  mine.usable = mine.host[0] && cudaIpcGetMemHandle(&mine.arena, base_) == cudaSuccess &&
                cudaIpcGetMemHandle(&mine.flags, flags_[rank_]) == cudaSuccess;
  cudaGetLastError();
  std::vector<Card> cards(static_cast<size_t>(size_));
  MB_TRY(Exchange(comm, &mine, cards.data(), sizeof mine));
  bool opened = true;
  for (const Card& card : cards) {
    opened = opened && card.usable && card.bytes == mine.bytes && card.layout == mine.layout &&
             memcmp(card.host, mine.host, sizeof mine.host) == 0;
  }
  for (int member = 0; opened && member < size_; member++) {
    if (member == rank_) continue;
    const Card& card = cards[static_cast<size_t>(member)];
    opened = OpenHandle(card.arena, &bases_[member]) && OpenHandle(card.flags, &flags_[member]);
  }
  return Agree(comm, opened, usable);
}

void Window::Close() {
  if (gave_up_) return;  // kernels may still read all of it
  for (int member = 0; member < size_; member++) {
    if (member == rank_) continue;
    if (bases_[member]) cudaIpcCloseMemHandle(bases_[member]);
    if (flags_[member]) cudaIpcCloseMemHandle(flags_[member]);
    bases_[member] = nullptr;
    flags_[member] = nullptr;
  }
  cudaGetLastError();  // a failure to close is no error for the next launch to find
}

Window::~Window() {
  if (gave_up_) return;
  Close();
  if (flags_[rank_]) cudaFree(flags_[rank_]);
  if (aborted_) cudaFreeHost(aborted_);
  cudaGetLastError();
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
    const int64_t bytes = count * mb::dtype_size(in.dtype);
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

int WindowOp(Comm& comm, int stream, const char* name, PeerKernel kernel, int full, const mb_buf* t, int nt,
             const double* s, int ns) {
  Window* window = nt > full && t[0].ptr ? WindowFor(comm, t[0].ptr, t[0].bytes, 1, t[0].ptr) : nullptr;
  // What is written into the members' memory must lie in the same window.
  if (!window || (t[full].ptr && !window->Holds(t[full].ptr, t[full].bytes))) {
    return Fail(MB_ERR_ARGUMENT, "%s: %s: partial and full lie in no one arena that the members share",
                comm.Describe().c_str(), name);
  }
  return IssueWatched(comm, stream, name,
                      [&](cudaStream_t on) { return kernel(on, window->Next(stream), t, nt, s, ns); });
}

}  // namespace mbcuda
