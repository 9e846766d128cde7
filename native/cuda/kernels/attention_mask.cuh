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

// [begin, end); empty where begin is not below end.
struct Range {
  int begin, end;
};

// The least range that holds those of all threads of the block, which all call it, once a kernel.
__device__ __forceinline__ Range block_span(Range own) {
  __shared__ int begin, end;
  if (threadIdx.x == 0) begin = INT_MAX, end = 0;
  __syncthreads();
  if (own.begin < own.end) {
    atomicMin(&begin, own.begin);
    atomicMax(&end, own.end);
  }
  __syncthreads();
  return {begin, end};
}

template <class P>
__device__ __forceinline__ Range tiles_of(Range rows) {
  return {rows.begin / P::kTile, rows.end <= 0 ? 0 : (rows.end + P::kTile - 1) / P::kTile};
}

// Tiles of keys from the first to the last that the queries [first, first + rows) may see; `seen` is of this thread.
template <class P>
__device__ __forceinline__ Range key_tiles(const Shape& z, int first, int rows, const Seen (&seen)[P::kRows]) {
  if (z.bounds == nullptr) return tiles_of<P>({0, min(first + rows + z.offset, z.skv)});
  Range own = {INT_MAX, 0};
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) {
    if (seen[a].low < seen[a].high) own = {min(own.begin, seen[a].low), max(own.end, seen[a].high)};
  }
  return tiles_of<P>(block_span(own));
}

// Tiles of queries from the first to the last that may see a key of the tile at `key0`.
template <class P>
__device__ __forceinline__ Range query_tiles(const Shape& z, int batch, int key0) {
  const int begin = max(key0 - z.offset, 0);  // the first query that is not before these keys
  if (z.bounds == nullptr) return tiles_of<P>({begin, z.sq});
  Range own = {INT_MAX, 0};
  for (int i = begin + int(threadIdx.x); i < z.sq; i += P::kThreads) {
    if (seen_by(z, batch, i).touches(key0, P::kTile)) own = {min(own.begin, i), i + 1};
  }
  return tiles_of<P>(block_span(own));
}

}  // namespace mb::cuda::kernels
