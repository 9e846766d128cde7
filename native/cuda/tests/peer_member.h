// A process of a group whose members have opened their memory to each other, for tests of the kernels over it: members
// that share a GPU take turns on it, so one GPU is enough for any group.
#pragma once
#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "core/dtype.h"
#include "cuda/device/error.h"
#include "cuda/kernels/peer.h"

namespace mb::cuda::peer_test {

using kernels::Peers;

// What the processes of a group share.
struct Board {
  std::atomic<int> arrived, failed, checks;
  cudaIpcMemHandle_t arenas[kernels::kMostPeers], flags[kernels::kMostPeers];
};

constexpr int64_t kArenaBytes = 64 << 20;

[[noreturn]] inline void die(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  _exit(3);
}
inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) die(what, cudaGetErrorString(error));
}
#define CUDA(call) check_cuda((call), #call)

// A number in [-1, 1) that depends on where it stands.
inline double value(uint64_t seed, int64_t index) {
  uint64_t z = (seed * 0x9e3779b97f4a7c15u) ^ (static_cast<uint64_t>(index) * 0xbf58476d1ce4e5b9u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1;
}

using Doubles = std::vector<double>;

class Member {
 public:
  Member(Board* board, int rank, int size) : board_(board), rank_(rank), size_(size) {
    int devices = 0;
    CUDA(cudaGetDeviceCount(&devices));
    CUDA(cudaSetDevice(rank % devices));
    void* memory = nullptr;
    CUDA(cudaMalloc(&memory, kArenaBytes));
    arena_ = static_cast<char*>(memory);
    CUDA(cudaMalloc(&memory, kernels::kPeerFlags * sizeof(uint32_t)));
    CUDA(cudaMemset(memory, 0, kernels::kPeerFlags * sizeof(uint32_t)));
    peers_.flags[rank] = static_cast<uint32_t*>(memory);
    CUDA(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocDefault));
    aborted_ = static_cast<int*>(memory);
    *aborted_ = 0;
    CUDA(cudaStreamCreate(&stream_));
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaIpcGetMemHandle(&board->arenas[rank], arena_));
    CUDA(cudaIpcGetMemHandle(&board->flags[rank], peers_.flags[rank]));
    meet();
    peers_.rank = rank;
    peers_.size = size;
    peers_.aborted = aborted_;
    for (int member = 0; member < size; member++) {
      if (member == rank) continue;
      CUDA(cudaIpcOpenMemHandle(&memory, board->arenas[member], cudaIpcMemLazyEnablePeerAccess));
      peers_.shift[member] = static_cast<char*>(memory) - arena_;
      CUDA(cudaIpcOpenMemHandle(&memory, board->flags[member], cudaIpcMemLazyEnablePeerAccess));
      peers_.flags[member] = static_cast<uint32_t*>(memory);
    }
    meet();
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  cudaStream_t stream() const { return stream_; }

  // All processes of the group have come here.
  void meet() {
    meetings_++;
    board_->arrived++;
    while (board_->arrived < meetings_ * size_) usleep(50);
  }

  const Peers& next() {
    peers_.sequence++;
    return peers_;
  }
  void abort() { *static_cast<volatile int*>(aborted_) = 1; }

  // Memory at the same place in every member, filled with NaN.
  mb_buf take(int64_t count, int dtype) {
    const int64_t bytes = count * dtype_size(dtype);
    const mb_buf buf = {arena_ + used_, bytes, dtype, 0};
    used_ += (bytes + 255) / 256 * 256;
    if (used_ > kArenaBytes) die("a case", "is larger than the arena");
    CUDA(cudaMemset(buf.ptr, 0xff, static_cast<size_t>(bytes)));
    return buf;
  }
  void reset() {
    CUDA(cudaDeviceSynchronize());
    meet();
    used_ = 0;
  }

  // Values as the dtype holds them.
  static Doubles values(uint64_t seed, int64_t count, int dtype, double scale = 1) {
    Doubles values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; i++) {
      const float x = static_cast<float>(scale * value(seed, i));
      values[static_cast<size_t>(i)] = dtype == MB_BF16 ? mb::bf16_to_f32(mb::f32_to_bf16(x)) : x;
    }
    return values;
  }
  static void write(const mb_buf& to, const Doubles& values) {
    std::vector<float> f(values.begin(), values.end());
    std::vector<uint16_t> h(to.dtype == MB_BF16 ? values.size() : 0);
    for (size_t i = 0; i < h.size(); i++) h[i] = mb::f32_to_bf16(f[i]);
    CUDA(cudaMemcpy(to.ptr, to.dtype == MB_BF16 ? static_cast<void*>(h.data()) : f.data(),
                    static_cast<size_t>(to.bytes), cudaMemcpyHostToDevice));
  }
  static Doubles read(const mb_buf& from) {
    std::vector<char> raw(static_cast<size_t>(from.bytes));
    CUDA(cudaMemcpy(raw.data(), from.ptr, raw.size(), cudaMemcpyDeviceToHost));
    Doubles values;
    for (size_t at = 0; at < raw.size(); at += static_cast<size_t>(dtype_size(from.dtype))) {
      uint16_t h;
      float f;
      memcpy(&h, &raw[at], 2);
      if (from.dtype == MB_BF16) {
        f = mb::bf16_to_f32(h);
      } else {
        memcpy(&f, &raw[at], 4);
      }
      values.push_back(f);
    }
    return values;
  }

  void close(const char* what, const Doubles& found, const Doubles& expected, double tolerance) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); i++) {
      error += (found[i] - expected[i]) * (found[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
    is(found.size() == expected.size() && sqrt(error) <= tolerance * sqrt(norm), what, sqrt(error / norm));
  }
  void is(bool holds, const char* what, double found = 0) {
    board_->checks++;
    if (holds) return;
    board_->failed++;
    fprintf(stderr, "FAILED %s: %s on rank %d of %d: %g\n", name, what, rank_, size_, found);
  }

  char name[128] = "";

 private:
  Board* const board_;
  const int rank_, size_;
  int meetings_ = 0;
  char* arena_ = nullptr;
  int64_t used_ = 0;
  int* aborted_ = nullptr;
  Peers peers_ = {};
  cudaStream_t stream_ = nullptr;
};

inline void run(Member& m, int status, const char* what) {
  m.is(status == MB_OK, status == MB_OK ? what : mb::last_error());
  CUDA(cudaStreamSynchronize(m.stream()));
  m.meet();
}

}  // namespace mb::cuda::peer_test
