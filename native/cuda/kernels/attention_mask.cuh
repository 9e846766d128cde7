// Where attention's tensors lie, and which keys each query sees.
#pragma once
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {

// Sizes, and where things lie: see ATTENTION_FWD of ops.def.
struct Shape {
  int b, sq, skv, hq, hkv, d;
  int ldq, ldk, ldv, ldo, lddq, lddk, lddv;
  int kv_rows, offset;
  const int32_t* bounds;
  float scale;

  __device__ int64_t q_row(int batch, int i) const { return int64_t(batch) * sq + i; }
  __device__ int64_t kv_row(int batch, int j) const { return int64_t(batch) * kv_rows + j; }
  __device__ int64_t lse_at(int batch, int i, int head) const { return (int64_t(batch) * hq + head) * sq + i; }
};

// Keys that a query sees: [low, high).
struct Seen {
  int low, high;
  __device__ bool holds(int key) const { return key >= low && key < high; }
  // Whether any of n keys from `first` on is among them.
  __device__ bool touches(int first, int n) const { return low < first + n && high > first && low < high; }
};

__device__ __forceinline__ Seen seen_by(const Shape& z, int batch, int i) {
  if (i >= z.sq) return {0, 0};
  Seen seen = {0, min(i + z.offset + 1, z.skv)};
  if (z.bounds != nullptr) {
    const int32_t* bounds = z.bounds + 2 * z.q_row(batch, i);
    seen = {max(bounds[0], 0), min(bounds[1], seen.high)};
  }
  return seen;
}

// A barrier of the block; whether the tile of keys or queries that follows is needed. `touched` is this thread's say,
// and asked for only where there are bounds: else every tile of the loop is.
__device__ __forceinline__ bool meet_tile(const Shape& z, bool touched) {
  if (z.bounds != nullptr) return __syncthreads_or(touched);
  __syncthreads();
  return true;
}

// Tiles of keys that the queries [first, first + rows) may see.
template <class P>
__device__ __forceinline__ int key_tiles(const Shape& z, int first, int rows) {
  const int end = min(first + rows + z.offset, z.skv);
  return end <= 0 ? 0 : (end + P::kTile - 1) / P::kTile;
}

}  // namespace mb::cuda::kernels
