// The largest logits of each row of a vocabulary shard, and of several shards.
#include "core/args/distill.h"
#include "core/top_k.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = MB_MOST_TOP_K;  // one sorts as many keys

// Sorts one key a thread, the largest first. All threads call it, and may read afterwards.
__device__ void sort_keys(uint64_t* keys) {
  const int i = int(threadIdx.x);
  for (int size = 2; size <= kThreads; size *= 2) {
    for (int apart = size / 2; apart > 0; apart /= 2) {
      __syncthreads();
      const int other = i ^ apart;
      if (other < i) continue;
      const uint64_t a = keys[i], b = keys[other];
      const bool descending = (i & size) == 0;
      if (descending ? a < b : a > b) {
        keys[i] = b;
        keys[other] = a;
      }
    }
  }
  __syncthreads();
}

// One row a block. Keys are unique, so that what is found, and its order, depends on no order of threads.
template <class T>
__global__ void __launch_bounds__(kThreads)
    top_k_kernel(const T* logits, float* values, int32_t* ids, int cols, int k, int vstart) {
  __shared__ uint64_t keys[kThreads];
  __shared__ unsigned sums[256];
  __shared__ unsigned chosen, left, found;
  __shared__ bool all;
  const T* x = logits + int64_t(blockIdx.x) * cols;
  const int thread = int(threadIdx.x), kept = k < cols ? k : cols;
  const auto key_at = [&](int i) { return top_key(to_float(x[i]), vstart + i); };

  // The k-th largest of the threads' largest is no larger than the k-th largest of all.
  uint64_t largest = 0;
  for (int i = thread; i < cols; i += kThreads) {
    const uint64_t key = key_at(i);
    largest = key > largest ? key : largest;
  }
  keys[thread] = largest;
  sort_keys(keys);
  const uint64_t bound = keys[kept - 1];

  if (cols > kThreads) {
    // The k-th largest of all, byte by byte, up to where a byte is taken whole.
    uint64_t last = 0;
    unsigned target = unsigned(kept);
    for (int shift = 56; shift >= 0; shift -= 8) {
      if (thread < 256) sums[thread] = 0;
      __syncthreads();
      for (int i = thread; i < cols; i += kThreads) {
        const uint64_t key = key_at(i);
        if (key < bound || (shift < 56 && key >> (shift + 8) != last >> (shift + 8))) continue;
        atomicAdd(&sums[key >> shift & 255], 1u);
      }
      __syncthreads();
      if (thread == 0) {
        unsigned byte = 255, rest = target;
        for (; byte > 0 && sums[byte] < rest; --byte) rest -= sums[byte];
        chosen = byte;
        left = rest;
        all = sums[byte] == rest;
        found = 0;
      }
      __syncthreads();
      last |= uint64_t(chosen) << shift;
      target = left;
      if (all) break;
    }
    keys[thread] = 0;
    __syncthreads();
    for (int i = thread; i < cols; i += kThreads) {
      const uint64_t key = key_at(i);
      if (key >= last && key >= bound) keys[atomicAdd(&found, 1u)] = key;
    }
    sort_keys(keys);
  }
  if (thread >= k) return;
  const int64_t to = int64_t(blockIdx.x) * k + thread;
  const int32_t token = thread < kept ? token_of_key(keys[thread]) : INT32_MAX;
  ids[to] = token;
  values[to] = thread < kept ? to_float(x[token - vstart]) : -INFINITY;
}

__global__ void top_k_merge_kernel(TopKArgs z) {
  const int64_t row = blockIdx.x;
  const float inverse = float(1 / z.temperature);
  const float base = logf(z.sums[row]) + z.gmax[row] * inverse;
  for (int64_t i = threadIdx.x; i < z.shards * z.k; i += blockDim.x) {
    const int64_t shard = i / z.k;
    const int64_t place = merged_place(z.values_in, z.lists, z.shards, z.rows, z.k, row, shard, i % z.k);
    if (place >= z.k) continue;
    const int64_t from = (shard * z.rows + row) * z.k + i % z.k, to = row * z.k + place;
    z.values[to] = -(base - z.values_in[from] * inverse);
    z.ids[to] = z.lists[from];
  }
}

template <class T>
__global__ void top_k_gather_kernel(TopKArgs z) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= z.rows * z.k) return;
  const int64_t at = z.lists[i] - z.vstart;
  z.values[i] = at >= 0 && at < z.cols ? to_float(static_cast<const T*>(z.logits)[i / z.k * z.cols + at]) : 0.0f;
}

}  // namespace

int op_top_k(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_TOP_K], t, nt, s, ns);
  const TopKArgs z = read_top_k(a);
  if (!a.ok() || z.rows == 0) return a.status();
  const auto run = [&](const auto* logits) {
    top_k_kernel<<<unsigned(z.rows), kThreads, 0, stream>>>(logits, z.values, z.ids, int(z.cols), int(z.k),
                                                            int(z.vstart));
  };
  if (z.dtype == MB_F32) {
    run(static_cast<const float*>(z.logits));
  } else {
    run(static_cast<const bf16*>(z.logits));
  }
  return launched("top_k");
}

int op_top_k_merge(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_TOP_K_MERGE], t, nt, s, ns);
  const TopKArgs z = read_top_k_merge(a);
  if (!a.ok() || z.rows == 0) return a.status();
  top_k_merge_kernel<<<unsigned(z.rows), 128, 0, stream>>>(z);
  return launched("top_k_merge");
}

int op_top_k_gather(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_TOP_K_GATHER], t, nt, s, ns);
  const TopKArgs z = read_top_k_gather(a);
  if (!a.ok() || z.rows == 0) return a.status();
  const auto blocks = unsigned(ceil_div(z.rows * z.k, 256));
  if (z.dtype == MB_F32) {
    top_k_gather_kernel<float><<<blocks, 256, 0, stream>>>(z);
  } else {
    top_k_gather_kernel<bf16><<<blocks, 256, 0, stream>>>(z);
  }
  return launched("top_k_gather");
}

}  // namespace mb::cuda::kernels
