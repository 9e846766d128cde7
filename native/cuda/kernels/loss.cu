// Vocabulary-parallel cross entropy: statistics of one shard, rescaling, and the gradient in place.
#include "core/args/tokens.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kLoads = 4;  // 16-byte loads in flight a thread

// Below every finite logit's use and finite itself, so that differences of two maxima are never NaN.
constexpr float kLowest = -FLT_MAX;

// Running maximum and sum of exp(x - max).
struct Softmax {
  float max, sum;
};

__device__ __forceinline__ Softmax merge(Softmax a, Softmax b) {
  const float max = fmaxf(a.max, b.max);
  return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

// N neighbouring logits: 16 bytes, or one.
template <class T, int N>
struct Chunk {
  uint4 raw;

  __device__ __forceinline__ void load(const T* p) {
    if constexpr (N == 1) {
      raw.x = __float_as_uint(to_float(*p));
    } else {
      raw = load16(p);
    }
  }
  __device__ __forceinline__ void get(float (&f)[N]) const {
    if constexpr (N == 1) {
      f[0] = __uint_as_float(raw.x);
    } else {
      unpack<T>(raw, f);
    }
  }
  static __device__ __forceinline__ void store(T* p, const float (&f)[N]) {
    if constexpr (N == 1) {
      *p = from_float<T>(f[0]);
    } else {
      store16(p, pack<T>(f));
    }
  }
};

// Adds K chunks to a running maximum and sum.
template <class T, int N, int K>
__device__ __forceinline__ void add_chunks(Softmax& mine, const Chunk<T, N> (&chunks)[K]) {
  float f[K][N], top = mine.max;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    chunks[k].get(f[k]);
#pragma unroll
    for (int e = 0; e < N; ++e) top = fmaxf(top, f[k][e]);
  }
  float sum = mine.sum * exponential<T>(mine.max - top);
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int e = 0; e < N; ++e) sum += exponential<T>(f[k][e] - top);
  }
  mine.max = top;
  mine.sum = sum;
}

// One row a block, read once.
template <class T, bool VECTOR>
__global__ void __launch_bounds__(kThreads)
    ce_stats_kernel(const T* logits, const int32_t* targets, float* stats, int64_t rows, int64_t v, int64_t vstart) {
  constexpr int N = VECTOR ? kVec<T> : 1;
  __shared__ Softmax shared[kThreads / 32];
  const T* row = logits + int64_t(blockIdx.x) * v;
  const int groups = int(v / N);
  Softmax mine = {kLowest, 0.0f};
  int i = threadIdx.x;
  for (; i + (kLoads - 1) * kThreads < groups; i += kThreads * kLoads) {
    Chunk<T, N> chunks[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) chunks[k].load(row + int64_t(i + k * kThreads) * N);
    add_chunks(mine, chunks);
  }
  Chunk<T, N> last[kLoads - 1][1];
#pragma unroll
  for (int k = 0; k < kLoads - 1; ++k) {
    if (i + k * kThreads < groups) last[k][0].load(row + int64_t(i + k * kThreads) * N);
  }
#pragma unroll
  for (int k = 0; k < kLoads - 1; ++k) {
    if (i + k * kThreads < groups) add_chunks(mine, last[k]);
  }
#pragma unroll
  for (int k = 16; k > 0; k /= 2) {
    const Softmax other = {__shfl_xor_sync(0xffffffffu, mine.max, k), __shfl_xor_sync(0xffffffffu, mine.sum, k)};
    mine = merge(mine, other);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kThreads / 32; ++i) mine = merge(mine, shared[i]);
  const int64_t target = int64_t(targets[blockIdx.x]) - vstart;
  stats[blockIdx.x] = mine.max;
  stats[rows + blockIdx.x] = mine.sum;
  stats[2 * rows + blockIdx.x] = target >= 0 && target < v ? to_float(row[target]) : 0.0f;
}

__global__ void ce_rescale_kernel(float* stats, const float* gmax, int64_t rows) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < rows) stats[rows + i] *= expf(stats[i] - gmax[i]);
}

// One row a block, in place. Rows run backwards: the end of the logits is what the L2 cache still holds. The row's loss
// comes from sums alone, so it does not race with the overwriting.
template <class T, bool VECTOR>
__global__ void __launch_bounds__(kThreads)
    ce_grad_kernel(T* logits, const int32_t* targets, const float* mask, const float* gmax, const float* sums,
                   float* rowloss, int64_t rows, int64_t v, int64_t vstart) {
  constexpr int N = VECTOR ? kVec<T> : 1;
  const int64_t r = rows - 1 - int64_t(blockIdx.x);
  T* row = logits + r * v;
  const int groups = int(v / N);
  const float weight = mask[r], max = gmax[r], total = sums[r];
  const int64_t local = int64_t(targets[r]) - vstart;
  const int target = local >= 0 && local < v ? int(local) : -1;
  if (threadIdx.x == 0) rowloss[r] = weight == 0 ? 0.0f : (logf(total) + max - sums[rows + r]) * weight;
  if (weight == 0) {  // ignored rows are zero whatever their logits hold
    for (int i = threadIdx.x; i < groups; i += kThreads) {
      if constexpr (VECTOR) {
        store16(row + int64_t(i) * N, make_uint4(0, 0, 0, 0));
      } else {
        row[i] = from_float<T>(0.0f);
      }
    }
    return;
  }
  const float factor = weight / total;
  const auto finish = [&](const Chunk<T, N>& chunk, int at) {
    float f[N];
    chunk.get(f);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      f[e] = exponential<T>(f[e] - max) * factor;
      if (at * N + e == target) f[e] -= weight;
    }
    Chunk<T, N>::store(row + int64_t(at) * N, f);
  };
  int i = threadIdx.x;
  for (; i + (kLoads - 1) * kThreads < groups; i += kThreads * kLoads) {
    Chunk<T, N> chunks[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) chunks[k].load(row + int64_t(i + k * kThreads) * N);
#pragma unroll
    for (int k = 0; k < kLoads; ++k) finish(chunks[k], i + k * kThreads);
  }
  Chunk<T, N> last[kLoads - 1];
#pragma unroll
  for (int k = 0; k < kLoads - 1; ++k) {
    if (i + k * kThreads < groups) last[k].load(row + int64_t(i + k * kThreads) * N);
  }
#pragma unroll
  for (int k = 0; k < kLoads - 1; ++k) {
    if (i + k * kThreads < groups) finish(last[k], i + k * kThreads);
  }
}

constexpr int kSumThreads = 1024;

// One block, so that the order of the sum is fixed.
__global__ void __launch_bounds__(kSumThreads)
    ce_sum_kernel(const float* rowloss, const float* mask, float* acc, int64_t rows) {
  __shared__ double shared[2][32];
  double loss = 0, count = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < rows; i += kSumThreads) {
    loss += double(rowloss[i]);
    count += double(mask[i]);
  }
  loss = block_sum(loss, shared[0]);
  count = block_sum(count, shared[1]);
  if (threadIdx.x == 0) {
    acc[0] = float(double(acc[0]) + loss);
    acc[1] = float(double(acc[1]) + count);
  }
}

template <class T>
void stats(cudaStream_t stream, const LossArgs& z) {
  const T* logits = static_cast<const T*>(z.logits);
  const auto run = [&](auto kernel) {
    kernel<<<unsigned(z.rows), kThreads, 0, stream>>>(logits, z.targets, z.stats, z.rows, z.cols, z.vstart);
  };
  if (z.cols % kVec<T> == 0 && aligned16(logits)) {
    run(ce_stats_kernel<T, true>);
  } else {
    run(ce_stats_kernel<T, false>);
  }
}

template <class T>
void gradient(cudaStream_t stream, const LossArgs& z) {
  T* logits = static_cast<T*>(z.logits);
  const auto run = [&](auto kernel) {
    kernel<<<unsigned(z.rows), kThreads, 0, stream>>>(logits, z.targets, z.mask, z.gmax, z.sums, z.rowloss, z.rows,
                                                      z.cols, z.vstart);
  };
  if (z.cols % kVec<T> == 0 && aligned16(logits)) {
    run(ce_grad_kernel<T, true>);
  } else {
    run(ce_grad_kernel<T, false>);
  }
}

}  // namespace

void add_losses(cudaStream_t stream, const float* rowloss, const float* mask, int64_t rows, float* acc) {
  ce_sum_kernel<<<1, kSumThreads, 0, stream>>>(rowloss, mask, acc, rows);
}

int op_ce_stats(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_CE_STATS], t, nt, s, ns);
  const LossArgs z = read_ce_stats(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    stats<float>(stream, z);
  } else {
    stats<bf16>(stream, z);
  }
  return launched("ce_stats");
}

int op_ce_rescale(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_CE_RESCALE], t, nt, s, ns);
  const RescaleArgs z = read_ce_rescale(a);
  if (!a.ok() || z.rows == 0) return a.status();
  ce_rescale_kernel<<<unsigned(ceil_div(z.rows, 256)), 256, 0, stream>>>(z.stats, z.gmax, z.rows);
  return launched("ce_rescale");
}

int op_ce_grad(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_CE_GRAD], t, nt, s, ns);
  const LossArgs z = read_ce_grad(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    gradient<float>(stream, z);
  } else {
    gradient<bf16>(stream, z);
  }
  add_losses(stream, z.rowloss, z.mask, z.rows, z.acc);
  return launched("ce_grad");
}

}  // namespace mb::cuda::kernels
