// The CPU "device": a thread pool, scratch memory for packing, and the kernels for this machine's instruction set.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/abi.h"
#include "core/args/attention.h"
#include "core/pool.h"
#include "cpu/kernels.h"

namespace mb {

// Whole pages of zeroed memory.
struct Pages {
  void* ptr = nullptr;
  int64_t bytes = 0;
};
// Commits the memory now, so that a machine without it refuses here and does not kill the process later. MB_OK or
// MB_ERR_MEMORY.
int commit_pages(int64_t bytes, Pages* out);
void release_pages(const Pages& pages);

}  // namespace mb

struct mb_event {
  const bool timed;
  bool recorded = false;
  double seconds = 0;
};

struct mb_device {
  mb_device(int threads, const mb::Kernels& table) : pool(threads), kernels(table) {}
  ~mb_device();

  mb::Pool pool;
  const mb::Kernels& kernels;

  // Of the thread that opened the device: set by mb_cpu_thread_ended, and what its communicators look at.
  std::atomic<bool> thread_ended{false};

  // gemm: packed B of one block, and packed A of each thread (gemm.cc says how large).
  mb::Pages packing;

  std::mutex mutex;  // of what follows: fetch_wait comes from any thread
  std::unordered_map<void*, mb::Pages> arenas;
  std::map<int64_t, std::vector<uint8_t>> fetches;
  int64_t next_ticket = 1;
  std::vector<std::array<uint8_t, 128>> ids;  // of groups that were not made yet

  // Splits rows of `width` elements among the threads; small work stays on the caller's.
  template <class Body>
  void rows(int64_t n, int64_t width, const Body& body) {
    constexpr int64_t kGrain = 8192;  // elements: some microseconds of work, more than it costs to share it
    pool.split(n, (kGrain + width - 1) / (width < 1 ? 1 : width), body);
  }
};

namespace mb {

// Parts of a reduction over rows, fixed by the shape so that the threads do not change the result.
inline int64_t reduce_parts(int64_t rows) {
  const int64_t parts = (rows + 31) / 32;
  return parts < 1 ? 1 : parts > MB_REDUCE_PARTS ? MB_REDUCE_PARTS : parts;
}

// out[c] = (accumulate ? out[c] : 0) + sum over parts of ws[part * cols + c], in order.
inline void sum_parts(mb_device* device, const float* ws, int64_t parts, int64_t cols, float* out, bool accumulate) {
  device->rows(cols, parts, [&](int64_t begin, int64_t end, int) {
    device->kernels.sum_parts(ws, parts, cols, out, accumulate, begin, end);
  });
}

// acc += { sum of rowloss, sum of mask }.
inline void add_losses(const float* rowloss, const float* mask, int64_t rows, float* acc) {
  double loss = 0, count = 0;
  for (int64_t i = 0; i < rows; ++i) {
    loss += static_cast<double>(rowloss[i]);
    count += static_cast<double>(mask[i]);
  }
  acc[0] += static_cast<float>(loss);
  acc[1] += static_cast<float>(count);
}

// Floats that the gemm of one device needs for packing.
int64_t gemm_packing_floats(const Kernels& kernels, int threads);

// Bytes of ws for attention, forward or backward.
int64_t attention_bytes(mb_device* device, const AttentionSizes& sizes, bool backward);

#define MB_OP(NAME, name, tensors, scalars) \
  int op_##name(mb_device*, int stream, const mb_buf* t, int nt, const double* s, int ns);
#include "core/ops.def"
#undef MB_OP

// Collectives between processes, and the ops fused with them.
mb_comm_table comm_table();

}  // namespace mb
