#include "cuda/comm/window.h"

#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

#include "core/dtype.h"
#include "cuda/comm/nccl_comm.h"
#include "cuda/libs/libs.h"

namespace mb::cuda {
namespace {

constexpr int64_t kFlagBytes = int64_t{kStreams} * kernels::kPeerFlags * sizeof(uint32_t);

// What a member tells the others.
struct Card {
  cudaIpcMemHandle_t arena, flags;
  int64_t bytes, layout;
  char host[64];
  int32_t usable;
};

// The boot of the kernel, which handles of memory do not outlive or leave.
void read_host(char (&host)[64]) {
  memset(host, 0, sizeof host);
  if (FILE* file = fopen("/proc/sys/kernel/random/boot_id", "re")) {
    if (!fgets(host, sizeof host, file)) host[0] = 0;
    fclose(file);
  }
}

static_assert(sizeof(Card) * (kernels::kMostPeers + 1) <= Comm::kScratchBytes);

// all[r] = member r's `mine`, at most a Card, through NCCL. Blocks, but waits for nothing else that the device does:
// the copies of a model that comes back go on beside it.
int exchange(Comm& comm, const void* mine, void* all, size_t bytes) {
  // A stream of its own, as when the communicator was proven.
  cudaStream_t stream = nullptr;
  MB_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  char* const staging = static_cast<char*>(comm.scratch);
  char* const gathered = staging + bytes;
  MB_CUDA(cudaMemcpyAsync(staging, mine, bytes, cudaMemcpyHostToDevice, stream));
  nccl::Result result;
  {
    std::lock_guard<std::mutex> lock(comm.library);
    if (!comm.handle) return nccl_fail(comm, "share", nccl::kRemoteError);
    result = load_nccl().AllGather(staging, gathered, bytes, nccl::kUint8, comm.handle, stream);
  }
  MB_TRY(settle(comm, "share", result, comm.timeout_s));
  MB_TRY(wait_for_stream(comm, "share", stream));
  MB_CUDA(cudaMemcpyAsync(all, gathered, bytes * static_cast<size_t>(comm.size), cudaMemcpyDeviceToHost, stream));
  MB_CUDA(cudaStreamSynchronize(stream));
  cudaStreamDestroy(stream);
  return MB_OK;
}

// Whether all members say yes.
int agree(Comm& comm, bool yes, bool* all) {
  const int32_t mine = yes;
  std::vector<int32_t> said(static_cast<size_t>(comm.size));
  MB_TRY(exchange(comm, &mine, said.data(), sizeof mine));
  *all = true;
  for (int32_t each : said) *all = *all && each != 0;
  return MB_OK;
}

template <class T>
bool open_handle(const cudaIpcMemHandle_t& handle, T** out) {
  void* memory = nullptr;
  const bool opened = cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess) == cudaSuccess;
  if (!opened) cudaGetLastError();  // not an error: NCCL serves
  *out = static_cast<T*>(memory);
  return opened;
}

int launched() {
  MB_CUDA(cudaGetLastError());
  return MB_OK;
}

}  // namespace

int Window::open(Comm& comm, const mb_buf& arena, int64_t layout, std::unique_ptr<Window>* out) {
  if (comm.size != 2 && comm.size != 4 && comm.size != 8) return MB_OK;  // the kernels know no others
  MB_CUDA(cudaSetDevice(comm.device->index));
  std::unique_ptr<Window> window(new Window(comm, arena));
  bool usable = false;
  const int status = window->connect(comm, layout, &usable);
  if (status != MB_OK) window->abort();  // an exchange may hang on the device, and so would giving memory back
  if (status == MB_OK && usable) *out = std::move(window);
  return status;
}

Window::Window(const Comm& comm, const mb_buf& arena)
    : rank_(comm.rank), size_(comm.size), base_(static_cast<char*>(arena.ptr)), bytes_(arena.bytes) {
  bases_[rank_] = base_;
}

int Window::connect(Comm& comm, int64_t layout, bool* usable) {
  // All of an IPC handle's allocation is opened to the members: the flags get one of their own.
  void* memory = nullptr;
  MB_CUDA(cudaMalloc(&memory, kFlagBytes));
  flags_[rank_] = static_cast<uint32_t*>(memory);
  MB_CUDA(cudaMemset(memory, 0, kFlagBytes));
  MB_CUDA(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocPortable));
  aborted_ = static_cast<int*>(memory);
  *aborted_ = 0;
  MB_CUDA(cudaStreamSynchronize(nullptr));  // no longer: copies into the arena may be under way
  Card mine = {};
  mine.bytes = bytes_;
  mine.layout = layout;
  read_host(mine.host);
  mine.usable = mine.host[0] && cudaIpcGetMemHandle(&mine.arena, base_) == cudaSuccess &&
                cudaIpcGetMemHandle(&mine.flags, flags_[rank_]) == cudaSuccess;
  cudaGetLastError();
  std::vector<Card> cards(static_cast<size_t>(size_));
  MB_TRY(exchange(comm, &mine, cards.data(), sizeof mine));
  bool opened = true;
  for (const Card& card : cards) {
    opened = opened && card.usable && card.bytes == mine.bytes && card.layout == mine.layout &&
             memcmp(card.host, mine.host, sizeof mine.host) == 0;
  }
  for (int member = 0; opened && member < size_; member++) {
    if (member == rank_) continue;
    const Card& card = cards[static_cast<size_t>(member)];
    opened = open_handle(card.arena, &bases_[member]) && open_handle(card.flags, &flags_[member]);
  }
  return agree(comm, opened, usable);
}

void Window::close() {
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
  close();
  if (flags_[rank_]) cudaFree(flags_[rank_]);
  if (aborted_) cudaFreeHost(aborted_);
  cudaGetLastError();
}

bool Window::holds(const void* ptr, int64_t bytes) const {
  const char* p = static_cast<const char*>(ptr);
  return p >= base_ && bytes <= bytes_ && p - base_ <= bytes_ - bytes;
}

kernels::Peers Window::next(int stream) {
  kernels::Peers peers = {};
  peers.rank = rank_;
  peers.size = size_;
  for (int member = 0; member < size_; member++) {
    peers.shift[member] = bases_[member] - base_;
    peers.flags[member] = flags_[member] + int64_t{stream} * kernels::kPeerFlags;
  }
  peers.aborted = aborted_;
  peers.sequence = ++sequence_[stream];
  return peers;
}

void Window::abort() {
  gave_up_ = true;
  if (aborted_) *static_cast<volatile int*>(aborted_) = 1;
}

Window* window_for(Comm& comm, const void* read, int64_t bytes, int pieces, const void* write) {
  const auto whole = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (bytes % 16 != 0 || !whole(read) || !whole(write)) return nullptr;
  for (const std::unique_ptr<Window>& window : comm.windows) {
    if (window->holds(read, bytes * pieces)) return window.get();
  }
  return nullptr;
}

int window_reduce_scatter(Comm& comm, Window& window, int stream, const mb_buf& in, const mb_buf& out, int64_t count) {
  return issue_watched(comm, stream, "reduce_scatter", [&](cudaStream_t s) {
    const int64_t bytes = count * dtype_size(in.dtype);
    kernels::reduce(s, window.next(stream), static_cast<const char*>(in.ptr) + comm.rank * bytes, out.ptr, count,
                    in.dtype);
    return launched();
  });
}

int window_all_gather(Comm& comm, Window& window, int stream, const mb_buf& in, const mb_buf& out, int64_t bytes) {
  return issue_watched(comm, stream, "all_gather", [&](cudaStream_t s) {
    const kernels::Peers peers = window.next(stream);
    char* to = static_cast<char*>(out.ptr);
    const char* from = static_cast<const char*>(in.ptr);
    const bool in_place = from == to + comm.rank * bytes;
    kernels::meet(s, peers, kernels::Phase::kBegin);
    // Copy engines move it, so no multiprocessor is taken from the products beside it. Each member begins with another.
    for (int turn = 1; turn < comm.size; turn++) {
      const int member = (comm.rank + turn) % comm.size;
      const char* theirs = (in_place ? to + member * bytes : from) + peers.shift[member];
      MB_CUDA(cudaMemcpyAsync(to + member * bytes, theirs, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, s));
    }
    if (!in_place) {
      MB_CUDA(cudaMemcpyAsync(to + comm.rank * bytes, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, s));
    }
    kernels::meet(s, peers, kernels::Phase::kEnd);
    return launched();
  });
}

int window_op(Comm& comm, int stream, const char* name, PeerKernel kernel, int full, const mb_buf* t, int nt,
              const double* s, int ns) {
  Window* window = nt > full && t[0].ptr ? window_for(comm, t[0].ptr, t[0].bytes, 1, t[0].ptr) : nullptr;
  // What is written into the members' memory must lie in the same window.
  if (!window || (t[full].ptr && !window->holds(t[full].ptr, t[full].bytes))) {
    return fail(MB_ERR_ARGUMENT, "%s: %s: partial and full lie in no one arena that the members share",
                comm.describe().c_str(), name);
  }
  return issue_watched(comm, stream, name,
                       [&](cudaStream_t on) { return kernel(on, window->next(stream), t, nt, s, ns); });
}

}  // namespace mb::cuda
