// Attention of many bf16 queries at once, in the order of attention_chunks.cuh: those of whole sequences, and those of
// prompts over a cache.
#pragma once
#include "core/args/attention.h"
#include "cuda/kernels/attention_chunks.cuh"

namespace mb::cuda::kernels {

// Queries of sequences: query t is the (t % sq)th of sequence t / sq.
struct SequenceRows {
  Shape z;

  __device__ int tokens() const { return z.b * z.sq; }
  __device__ int cell(int t) const { return t / z.sq; }
  __device__ Seen seen(int t) const { return seen_by(z, t / z.sq, t % z.sq); }
  __device__ int64_t key_row(int cell) const { return z.kv_row(cell, 0); }
  __device__ void store_lse(float* lse, int t, int head, float value) const {
    lse[z.lse_at(t / z.sq, t % z.sq, head)] = value;
  }
};

// Rows [begin, end) of a tile that look at the same keys, and which of these some row sees.
struct RowRun {
  int end;
  Range keys;
};

// The run that begins at row `begin` of the `rows` rows from token `first` on. All threads of a warp call it.
template <class Rows>
__device__ __forceinline__ RowRun run_of(const Rows& all, int first, int rows, int begin) {
  const int lane = int(threadIdx.x) % 32, cell = all.cell(first + begin);
  int end = rows;
  Range keys = {INT_MAX, 0};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane + 32 * half;
    if (row > begin && row < rows && all.cell(first + row) != cell) end = min(end, row);
  }
  end = __reduce_min_sync(0xffffffffu, end);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane + 32 * half;
    if (row < begin || row >= end) continue;
    const Seen seen = all.seen(first + row);
    if (seen.low < seen.high) keys = {min(keys.begin, seen.low), max(keys.end, seen.high)};
  }
  return {end, {__reduce_min_sync(0xffffffffu, keys.begin), __reduce_max_sync(0xffffffffu, keys.end)}};
}

constexpr int kRowThreads = 128, kRowTile = 64;

template <int DP>
constexpr int kRowBytes = 5 * kRowTile * MmaTiles<DP, 1>::kStride * int(sizeof(bf16));

// Block (tile of 64 queries, query head): a warp has 16 of the queries, and all share the tiles of keys and values, of
// which the next is on its way while one is multiplied. `k` and `v` are those of the first kv head.
template <int DP, class Rows>
__global__ void __launch_bounds__(kRowThreads, 2)
    attention_rows_kernel(const bf16* q, const bf16* k, const bf16* v, bf16* o, float* lse, Rows all, int group, int d,
                          int64_t ldq, int64_t ldk, int64_t ldv, int64_t ldo, float scale) {
  using P = MmaTiles<DP, 1>;
  constexpr int kTileSize = kRowTile * P::kStride;
  extern __shared__ __align__(16) unsigned char memory[];
  bf16* q_tile = reinterpret_cast<bf16*>(memory);
  bf16* kv_tiles = q_tile + kTileSize;                                  // keys and values in turn, twice
  const int first = (int(gridDim.x) - 1 - int(blockIdx.x)) * kRowTile;  // the longest first
  const int head = blockIdx.y, rows = min(all.tokens() - first, kRowTile), lane = P::lane();
  const int own = P::warp_row() + lane / 4;
  k += head / group * d;
  v += head / group * d;
  copy_tile<DP, kRowTile, kRowThreads>(q_tile, q + first * ldq + head * d, ldq, rows, d);
  commit_copies();
  bf16* const queries = q_tile + P::warp_row() * P::kStride;

  PartialSoftmax<DP> total, chunk;
  total.clear();
  chunk.clear();
  for (int begin = 0; begin < rows;) {
    const RowRun run = run_of(all, first, rows, begin);
    const int64_t key_row = all.key_row(all.cell(first + begin));
    const Range tiles = tiles_of<P>(run.keys);
    Seen seen[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = own + 8 * r;
      seen[r] = row >= begin && row < run.end ? all.seen(first + row) : Seen{0, 0};
    }
    const auto fetch = [&](int t) {
      bf16* to = kv_tiles + t % 2 * 2 * kTileSize;
      const int key0 = t * kTileKeys, keys = min(run.keys.end - key0, kTileKeys);
      copy_tile<DP, kTileKeys, kRowThreads>(to, k + (key_row + key0) * ldk, ldk, keys, d);
      copy_tile<DP, kTileKeys, kRowThreads>(to + kTileSize, v + (key_row + key0) * ldv, ldv, keys, d);
      commit_copies();
    };
    if (tiles.begin < tiles.end) fetch(tiles.begin);
    for (int t = tiles.begin; t < tiles.end; ++t) {
      wait_copies<0>();
      __syncthreads();
      if (t + 1 < tiles.end) fetch(t + 1);
      const bf16* keys = kv_tiles + t % 2 * 2 * kTileSize;
      const bool touched = seen[0].touches(t * kTileKeys, kTileKeys) || seen[1].touches(t * kTileKeys, kTileKeys);
      // A tile that a query sees nothing of changes none of its bits, so that a warp may leave it out.
      if (__any_sync(0xffffffffu, touched)) {
        float score[8][4];
        tile_scores<DP>(queries, keys, score);
        add_tile<DP>(chunk, score, keys + kTileSize, t * kTileKeys, seen, scale * kLog2E);
      }
      if ((t + 1) % (MB_CHUNK_KEYS / kTileKeys) == 0 || t + 1 == tiles.end) add_chunk<DP>(total, chunk);
    }
    __syncthreads();
    begin = run.end;
  }
  wait_copies<0>();
  __syncthreads();  // where there were no keys, queries may still be on their way

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = own + 8 * r;
#pragma unroll
    for (int n = 0; n < DP / 8; ++n) {
      *reinterpret_cast<__nv_bfloat162*>(q_tile + row * P::kStride + 8 * n + lane % 4 * 2) = __floats2bfloat162_rn(
          softmax_result(total.out[n][2 * r], total.sum[r]), softmax_result(total.out[n][2 * r + 1], total.sum[r]));
    }
    if (lse != nullptr && row < rows && lane % 4 == 0) {
      all.store_lse(lse, first + row, head, total.top[r] * kLn2 + logf(total.sum[r]));
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kWarpQueries * DP / 8 / 32; ++i) {
    const int at = i * 32 + lane, row = P::warp_row() + at / (DP / 8), c = at % (DP / 8) * 8;
    if (row < rows && c < d) store16(o + (first + row) * ldo + head * d + c, load16(q_tile + row * P::kStride + c));
  }
}

template <int DP, class Rows>
void launch_rows(cudaStream_t stream, const void* q, const void* k, const void* v, void* o, float* lse, const Rows& all,
                 int64_t tokens, int64_t hq, int64_t hkv, int64_t d, int64_t ldq, int64_t ldk, int64_t ldv, int64_t ldo,
                 float scale) {
  const auto kernel = attention_rows_kernel<DP, Rows>;
  if (!allow_shared_memory(kernel, kRowBytes<DP>)) return;
  kernel<<<dim3(unsigned(ceil_div(tokens, kRowTile)), unsigned(hq)), kRowThreads, kRowBytes<DP>, stream>>>(
      static_cast<const bf16*>(q), static_cast<const bf16*>(k), static_cast<const bf16*>(v), static_cast<bf16*>(o), lse,
      all, int(hq / hkv), int(d), ldq, ldk, ldv, ldo, scale);
}

}  // namespace mb::cuda::kernels
