// The order in which bf16 attention adds up keys, alike in every kernel of ours: chunks of MB_CHUNK_KEYS keys, counted
// from the first key of the sequence; in a chunk an online softmax over tiles of 64 keys; then the chunks, in order.
// What a query gets depends on the keys that it sees alone, whether a block has one query or 64, and one chunk or all.
//
// A warp has 16 queries. A thread owns rows lane / 4 and lane / 4 + 8 of them, with columns 8 n + lane % 4 * 2 and the
// next one. Contractions are spelled out, so that they are the same wherever this is compiled. Exponents are of two.
#pragma once
#include "cuda/kernels/attention_mask.cuh"
#include "cuda/kernels/attention_tiles.cuh"

namespace mb::cuda::kernels {

constexpr int kTileKeys = 64, kWarpQueries = 16;
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
static_assert(MB_CHUNK_KEYS % kTileKeys == 0);

// 2^x; exactly 1 at 0, and 0 at -inf.
__device__ __forceinline__ float exp_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What part of a softmax has found: the highest exponent, the sum of powers below it, and the weighted sum of values.
template <int DP>
struct PartialSoftmax {
  float out[DP / 8][4], top[2], sum[2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < DP / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[n][e] = 0;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = -INFINITY, sum[r] = 0;
  }
};

// How two parts with these highest exponents are put together.
struct Blend {
  float top, keep, add;

  __device__ __forceinline__ Blend(float total, float part) {
    top = fmaxf(total, part);
    const float base = top == -INFINITY ? 0.0f : top;  // nothing seen yet: -inf less -inf would be no number
    keep = exp_two(__fsub_rn(total, base));
    add = exp_two(__fsub_rn(part, base));
  }
  __device__ __forceinline__ float operator()(float total, float part) const {
    return __fmaf_rn(part, add, __fmul_rn(total, keep));
  }
};

__device__ __forceinline__ float softmax_result(float out, float sum) { return sum == 0 ? 0.0f : __fdiv_rn(out, sum); }

// score = q k^T of 16 queries and 64 keys, tiles with MmaTiles's stride.
template <int DP>
__device__ __forceinline__ void tile_scores(const bf16* q, const bf16* k, float (&score)[8][4]) {
  using P = MmaTiles<DP, 1>;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) score[n][e] = 0;
  }
  const bf16* from_q = q + P::down_first(P::kStride);
  const bf16* from_k = k + P::across_first(P::kStride);
#pragma unroll
  for (int c = 0; c < DP; c += 16) {
    uint32_t a[4];
    P::load_matrices(a, from_q + c);
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      P::load_matrices(b, from_k + n * 8 * P::kStride + c);
      P::multiply(score[n][0], score[n][1], score[n][2], score[n][3], a, b[0], b[1]);
      P::multiply(score[n + 1][0], score[n + 1][1], score[n + 1][2], score[n + 1][3], a, b[2], b[3]);
    }
  }
}

// Adds the tile whose first key is `key0` to a chunk's softmax; `scale` is times log2 e.
template <int DP>
__device__ __forceinline__ void add_tile(PartialSoftmax<DP>& chunk, float (&score)[8][4], const bf16* v, int key0,
                                         const Seen (&seen)[2], float scale) {
  using P = MmaTiles<DP, 1>;
  const int lane = P::lane();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool whole = seen[r].low <= key0 && seen[r].high >= key0 + kTileKeys;
    float top = chunk.top[r];
    if (whole) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) top = fmaxf(top, score[n][e] = __fmul_rn(score[n][e], scale));
      }
    } else {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          const bool holds = seen[r].holds(key0 + 8 * n + lane % 4 * 2 + e % 2);
          top = fmaxf(top, score[n][e] = holds ? __fmul_rn(score[n][e], scale) : -INFINITY);
        }
      }
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    const float base = top == -INFINITY ? 0.0f : top;
    const float keep = exp_two(__fsub_rn(chunk.top[r], base));
    float sum = __fmul_rn(chunk.sum[r], keep);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        score[n][e] = exp_two(__fsub_rn(score[n][e], base));
        sum = __fadd_rn(sum, score[n][e]);
      }
    }
    chunk.top[r] = top;
    chunk.sum[r] = sum;
#pragma unroll
    for (int n = 0; n < DP / 8; ++n) {
      chunk.out[n][2 * r] = __fmul_rn(chunk.out[n][2 * r], keep);
      chunk.out[n][2 * r + 1] = __fmul_rn(chunk.out[n][2 * r + 1], keep);
    }
  }
  const auto pair = [](float x, float y) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&both);
  };
  const bf16* from_v = v + P::down_first(P::kStride);
#pragma unroll
  for (int j = 0; j < 4; ++j) {  // 16 keys
    const float(&left)[4] = score[2 * j];
    const float(&right)[4] = score[2 * j + 1];
    const uint32_t a[4] = {pair(left[0], left[1]), pair(left[2], left[3]), pair(right[0], right[1]),
                           pair(right[2], right[3])};
#pragma unroll
    for (int n = 0; n < DP / 8; n += 2) {
      uint32_t b[4];
      P::load_transposed(b, from_v + j * 16 * P::kStride + n * 8);
      P::multiply(chunk.out[n][0], chunk.out[n][1], chunk.out[n][2], chunk.out[n][3], a, b[0], b[1]);
      P::multiply(chunk.out[n + 1][0], chunk.out[n + 1][1], chunk.out[n + 1][2], chunk.out[n + 1][3], a, b[2], b[3]);
    }
  }
}

// Adds a whole chunk, which ends with it.
template <int DP>
__device__ __forceinline__ void add_chunk(PartialSoftmax<DP>& total, PartialSoftmax<DP>& chunk) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const Blend blend(total.top[r], chunk.top[r]);
    total.top[r] = blend.top;
    total.sum[r] = blend(total.sum[r], lane_sum(chunk.sum[r], 4));
#pragma unroll
    for (int n = 0; n < DP / 8; ++n) {
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; ++e) total.out[n][e] = blend(total.out[n][e], chunk.out[n][e]);
    }
  }
  chunk.clear();
}

// ---- Tiles into shared memory, without waiting ----------------------------------------------------------------------

// Reads nothing where not `inside`.
__device__ __forceinline__ void copy16_async(bf16* to, const bf16* from, bool inside) {
  const uint32_t at = uint32_t(__cvta_generic_to_shared(to));
  const int bytes = inside ? 16 : 0;  // the rest becomes zero
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the last N groups have arrived, as far as this thread's copies go.
template <int N>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// `rows` rows of d columns, `stride` elements apart, into a tile of ROWS x DP; the rest of it becomes zero.
template <int DP, int ROWS, int THREADS>
__device__ __forceinline__ void copy_tile(bf16* tile, const bf16* from, int64_t stride, int rows, int d) {
  constexpr int kStride = MmaTiles<DP, 1>::kStride, kChunks = DP / 8, kTurn = THREADS / kChunks;  // rows at once
  const int thread = int(threadIdx.x) % THREADS, first = thread / kChunks, column = thread % kChunks * 8;
  const int here = column < d ? rows : 0;
  tile += first * kStride + column;
  from += first * stride + column;
#pragma unroll 4  // all at once, their addresses would take the registers
  for (int row = first; row < ROWS; row += kTurn) {
    copy16_async(tile, from, row < here);
    tile += kTurn * kStride;
    from += kTurn * stride;
  }
}

}  // namespace mb::cuda::kernels
