// What the norms share: how the threads of a block hold rows, and the sums over a row and over rows.
#pragma once
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {

// Each thread holds 16 elements of a row in registers, so 512 threads hold the longest row. blockDim.x threads a row,
// blockDim.y rows a block.
constexpr int kNormPerThread = 16;
constexpr int kNormThreads = 512;
constexpr int kNormCols = kNormPerThread * kNormThreads;

// Threads that hold a row.
inline int norm_row_threads(int64_t cols) { return int(ceil_div(cols, kNormPerThread * 32)) * 32; }

// Sum over the threads of a row. All threads of the block come here, `turn` alternating from row to row: a turn's sums
// go to the half of `shared` that was last read before the previous turn's barrier, so one barrier a row is enough.
__device__ __forceinline__ float norm_row_sum(float v, float (*shared)[kNormThreads / 32], int turn) {
  const int warps = blockDim.x / 32, slot = threadIdx.y * warps;
  v = lane_sum(v);
  if (threadIdx.x % 32 == 0) shared[turn][slot + threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < warps; ++i) total += shared[turn][slot + i];
  return total;
}

// Leaves the block's sums over its rows, of which each thread holds its columns', in ws[block].
template <int V, int N>
__device__ __forceinline__ void norm_column_sums(const float (&sums)[V][N], int cols, float* ws) {
  __shared__ float columns[kNormCols];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int c = (threadIdx.x + i * blockDim.x) * N;
    if (c >= cols) break;
#pragma unroll
    for (int e = 0; e < N; ++e) columns[threadIdx.y * cols + c + e] = sums[i][e];
  }
  __syncthreads();
  for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < cols; c += blockDim.x * blockDim.y) {
    float sum = 0;
    for (int y = 0; y < int(blockDim.y); ++y) sum += columns[y * cols + c];
    ws[int64_t(blockIdx.x) * cols + c] = sum;
  }
}

}  // namespace mb::cuda::kernels
