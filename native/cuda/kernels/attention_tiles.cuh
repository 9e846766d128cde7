// The two matrix products of attention on tiles in shared memory, for one thread block.
//
// A policy fixes how a block's threads own the elements of a product: element [a][b] of a score tile [kTile][kTile] is
// at (row(a), col(b)), element [a][c] of an output tile [kTile][DP] at (row(a), out_col(c)). The threads that share a
// row are kRowLanes neighbouring lanes, where the policy keeps a row in one warp (kRowInWarp).
//   nt: acc[kTile][kTile] = A B^T over the first d columns of tiles A and B [kTile][kStride], which are zero beyond d
//   nn: acc[kTile][DP] += P B, P a score tile [kTile][kScoreStride] of T, B a tile [kTile][kStride]
#pragma once
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {

// float32 on the CUDA cores: 16 x 16 threads, each with every sixteenth row and column.
template <int DP>
struct SimtTiles {
  using T = float;
  static constexpr int kTile = DP <= 64 ? 64 : 32;  // so that the backward's tiles fit a multiprocessor twice up to 128
  static constexpr int kThreads = 256, kBlocks = DP <= 128 ? 2 : 1;
  static constexpr int kStride = DP + 4, kScoreStride = kTile + 4;  // 16 bytes beyond a multiple of the banks
  static constexpr int kRows = kTile / 16, kCols = kTile / 16, kOut = DP / 16, kRowLanes = 16;
  static constexpr bool kRowInWarp = true;

  static __device__ __forceinline__ int row(int a) { return int(threadIdx.x) / 16 + 16 * a; }
  static __device__ __forceinline__ int col(int b) { return int(threadIdx.x) % 16 + 16 * b; }
  static __device__ __forceinline__ int out_col(int c) { return int(threadIdx.x) % 16 * 4 + 64 * (c / 4) + c % 4; }
  static __device__ __forceinline__ float exponential(float x) { return expf(x); }

  static __device__ __forceinline__ float4 at(const float* p) { return *reinterpret_cast<const float4*>(p); }

  static __device__ __forceinline__ void nt(const float* a_tile, const float* b_tile, int d,
                                            float (&acc)[kRows][kCols]) {
#pragma unroll
    for (int a = 0; a < kRows; ++a) {
#pragma unroll
      for (int b = 0; b < kCols; ++b) acc[a][b] = 0;
    }
#pragma unroll 2
    for (int k = 0; k < d; k += 4) {
      float4 x[kRows], y[kCols];
#pragma unroll
      for (int a = 0; a < kRows; ++a) x[a] = at(a_tile + row(a) * kStride + k);
#pragma unroll
      for (int b = 0; b < kCols; ++b) y[b] = at(b_tile + col(b) * kStride + k);
#pragma unroll
      for (int a = 0; a < kRows; ++a) {
#pragma unroll
        for (int b = 0; b < kCols; ++b) {
          acc[a][b] = fmaf(x[a].x, y[b].x, acc[a][b]);
          acc[a][b] = fmaf(x[a].y, y[b].y, acc[a][b]);
          acc[a][b] = fmaf(x[a].z, y[b].z, acc[a][b]);
          acc[a][b] = fmaf(x[a].w, y[b].w, acc[a][b]);
        }
      }
    }
  }

  static __device__ __forceinline__ void store_score(float* p, int a, const float (&values)[kCols]) {
#pragma unroll
    for (int b = 0; b < kCols; ++b) p[row(a) * kScoreStride + col(b)] = values[b];
  }

  static __device__ __forceinline__ void nn(const float* p, const float* b_tile, float (&acc)[kRows][kOut]) {
#pragma unroll 1
    for (int j = 0; j < kTile; j += 4) {
      float x[kRows][4];
#pragma unroll
      for (int a = 0; a < kRows; ++a) {
        const float4 v = at(p + row(a) * kScoreStride + j);
        x[a][0] = v.x, x[a][1] = v.y, x[a][2] = v.z, x[a][3] = v.w;
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int c = 0; c < kOut; c += 4) {
          const float4 v = at(b_tile + (j + k) * kStride + out_col(c));
#pragma unroll
          for (int a = 0; a < kRows; ++a) {
            acc[a][c] = fmaf(x[a][k], v.x, acc[a][c]);
            acc[a][c + 1] = fmaf(x[a][k], v.y, acc[a][c + 1]);
            acc[a][c + 2] = fmaf(x[a][k], v.z, acc[a][c + 2]);
            acc[a][c + 3] = fmaf(x[a][k], v.w, acc[a][c + 3]);
          }
        }
      }
    }
  }
};

// bf16 on the tensor cores (m16n8k16, float32 accumulation): 4 x SPLIT warps; warp (r, c) has rows 16 r .. 16 r + 15
// and the c-th part of the columns.
template <int DP, int SPLIT>
struct MmaTiles {
  using T = bf16;
  static constexpr int kTile = 64;
  static constexpr int kThreads = 128 * SPLIT, kBlocks = DP <= 128 ? 2 : 1;
  static constexpr int kStride = DP + 8, kScoreStride = kTile + 8;  // 16 bytes beyond a multiple of the banks
  static constexpr int kRows = 2, kCols = kTile / 4 / SPLIT, kOut = DP / 4 / SPLIT, kRowLanes = 4;
  static constexpr bool kRowInWarp = SPLIT == 1;

  static __device__ __forceinline__ int lane() { return int(threadIdx.x) % 32; }
  static __device__ __forceinline__ int warp_row() { return int(threadIdx.x) / 32 % 4 * 16; }
  static __device__ __forceinline__ int part() { return int(threadIdx.x) / 128; }
  static __device__ __forceinline__ int row(int a) { return warp_row() + lane() / 4 + 8 * a; }
  static __device__ __forceinline__ int within(int c) { return c / 2 * 8 + lane() % 4 * 2 + c % 2; }
  static __device__ __forceinline__ int col(int b) { return part() * (kTile / SPLIT) + within(b); }
  static __device__ __forceinline__ int out_col(int c) { return part() * (DP / SPLIT) + within(c); }
  static __device__ __forceinline__ float exponential(float x) { return fast_exp(x); }

  static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const bf16* p) {
    const uint32_t at = uint32_t(__cvta_generic_to_shared(p));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }
  static __device__ __forceinline__ void load_transposed(uint32_t (&r)[4], const bf16* p) {
    const uint32_t at = uint32_t(__cvta_generic_to_shared(p));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }
  // Columns 2t, 2t + 1 of rows g and g + 8 of an 8-column tile.
  static __device__ __forceinline__ void multiply(float& c0, float& c1, float& c2, float& c3, const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  // Offset of this lane's row of a 16 x 16 block of a row-major matrix, whose four 8 x 8 matrices are wanted in the
  // order (0,0), (8,0), (0,8), (8,8) as (row, column): the A operand, and transposed the B operand of nn.
  static __device__ __forceinline__ int down_first(int stride) { return lane() % 16 * stride + lane() / 16 * 8; }
  // The same in the order (0,0), (0,8), (8,0), (8,8): the B operand of nt.
  static __device__ __forceinline__ int across_first(int stride) {
    return (lane() / 16 * 8 + lane() % 8) * stride + lane() / 8 % 2 * 8;
  }

  static __device__ __forceinline__ void nt(const bf16* a_tile, const bf16* b_tile, int d, float (&acc)[kRows][kCols]) {
#pragma unroll
    for (int a = 0; a < kRows; ++a) {
#pragma unroll
      for (int b = 0; b < kCols; ++b) acc[a][b] = 0;
    }
    const bf16* from_a = a_tile + warp_row() * kStride + down_first(kStride);
    const bf16* from_b = b_tile + part() * (kTile / SPLIT) * kStride + across_first(kStride);
#pragma unroll 2
    for (int k = 0; k < d; k += 16) {
      uint32_t a[4];
      load_matrices(a, from_a + k);
#pragma unroll
      for (int n = 0; n < kCols / 4; ++n) {  // 16 columns
        uint32_t b[4];
        load_matrices(b, from_b + n * 16 * kStride + k);
        multiply(acc[0][4 * n], acc[0][4 * n + 1], acc[1][4 * n], acc[1][4 * n + 1], a, b[0], b[1]);
        multiply(acc[0][4 * n + 2], acc[0][4 * n + 3], acc[1][4 * n + 2], acc[1][4 * n + 3], a, b[2], b[3]);
      }
    }
  }

  static __device__ __forceinline__ void store_score(bf16* p, int a, const float (&values)[kCols]) {
#pragma unroll
    for (int b = 0; b < kCols; b += 2) {
      *reinterpret_cast<__nv_bfloat162*>(p + row(a) * kScoreStride + col(b)) =
          __floats2bfloat162_rn(values[b], values[b + 1]);
    }
  }

  static __device__ __forceinline__ void nn(const bf16* p, const bf16* b_tile, float (&acc)[kRows][kOut]) {
    const bf16* from_p = p + warp_row() * kScoreStride + down_first(kScoreStride);
    const bf16* from_b = b_tile + part() * (DP / SPLIT) + down_first(kStride);
#pragma unroll
    for (int j = 0; j < kTile; j += 16) {
      uint32_t a[4];
      load_matrices(a, from_p + j);
#pragma unroll
      for (int n = 0; n < kOut / 4; ++n) {
        uint32_t b[4];
        load_transposed(b, from_b + j * kStride + n * 16);
        multiply(acc[0][4 * n], acc[0][4 * n + 1], acc[1][4 * n], acc[1][4 * n + 1], a, b[0], b[1]);
        multiply(acc[0][4 * n + 2], acc[0][4 * n + 3], acc[1][4 * n + 2], acc[1][4 * n + 3], a, b[2], b[3]);
      }
    }
  }
};

// Copies `rows` rows of d columns, `stride` elements apart, into a tile; the rest of the tile becomes zero.
template <class P, int DP>
__device__ __forceinline__ void load_tile(typename P::T* tile, const typename P::T* from, int64_t stride, int rows,
                                          int d) {
  constexpr int N = kVec<typename P::T>, kChunks = DP / N;
  for (int i = threadIdx.x; i < P::kTile * kChunks; i += P::kThreads) {
    const int r = i / kChunks, c = i % kChunks * N;
    const bool inside = r < rows && c < d;
    *reinterpret_cast<uint4*>(tile + r * P::kStride + c) =
        inside ? load16(from + r * stride + c) : make_uint4(0, 0, 0, 0);
  }
}

}  // namespace mb::cuda::kernels
