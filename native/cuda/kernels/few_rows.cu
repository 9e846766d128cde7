#include "cuda/kernels/attention_chunks.cuh"
#include "cuda/kernels/few_rows.h"

namespace mb::cuda::kernels {
namespace {

using Mma = MmaTiles<64, 1>;

constexpr int kBRows = 16, kDepth = 128, kStages = 8, kStride = kDepth + 8;

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
__device__ __forceinline__ void init_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(barrier))
               : "memory");
}
// Arrives when this thread's copies so far have.
__device__ __forceinline__ void arrive_with_copies(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void wait_barrier(uint64_t* barrier, int parity) {
  uint32_t done = 0;
  while (done == 0) {
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
  }
}

// 16 rows of B, which are the first operand so that they fill a tile, and up to 8 of A. One warp brings stages of
// kDepth columns into a ring, the other one multiplies: its chain of sums is as long as k, and it has time for nothing
// else.
__global__ void __launch_bounds__(64) few_rows_kernel(Product z) {
  constexpr int kStage = (kBRows + kFewRows) * kStride;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ uint64_t full[kStages], empty[kStages];
  bf16* const ring = reinterpret_cast<bf16*>(memory);
  const int lane = int(threadIdx.x) % 32, stages = int(z.k / kDepth), rows = int(z.m);
  const int64_t first = int64_t(blockIdx.x) * kBRows;
  if (threadIdx.x < kStages) {
    init_barrier(full + threadIdx.x, 32);
    init_barrier(empty + threadIdx.x, 1);
  }
  // Rows of A that are not there stay zero.
  for (int i = int(threadIdx.x); i < kStages * kStage / 8; i += 64) {
    reinterpret_cast<uint4*>(memory)[i] = make_uint4(0, 0, 0, 0);
  }
  __syncthreads();
  if (threadIdx.x >= 32) {
    const int row = lane / 16, column = lane % 16 * 8;
    const bf16* b = static_cast<const bf16*>(z.b) + (first + row) * z.ldb + column;
    const bf16* a = static_cast<const bf16*>(z.a) + row * z.lda + column;
    for (int stage = 0; stage < stages; ++stage, a += kDepth, b += kDepth) {
      const int slot = stage % kStages;
      if (stage >= kStages) wait_barrier(empty + slot, (stage / kStages - 1) % 2);
      bf16* to = ring + slot * kStage + row * kStride + column;
#pragma unroll
      for (int i = 0; i < kBRows; i += 2) copy16_async(to + i * kStride, b + i * z.ldb, true);
      for (int i = 0; row + i < rows; i += 2) copy16_async(to + (kBRows + i) * kStride, a + i * z.lda, true);
      arrive_with_copies(full + slot);
    }
    commit_copies();
    wait_copies<0>();
    return;
  }
  float acc[4] = {};
  for (int stage = 0; stage < stages; ++stage) {
    const int slot = stage % kStages;
    wait_barrier(full + slot, stage / kStages % 2);
    const bf16* from_b = ring + slot * kStage + Mma::down_first(kStride);
    const bf16* from_a = ring + slot * kStage + kBRows * kStride + lane % 8 * kStride + lane / 8 * 8;
    uint32_t w[kDepth / 16][4], x[kDepth / 32][4];
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) Mma::load_matrices(w[i], from_b + 16 * i);
#pragma unroll
    for (int i = 0; i < kDepth / 32; ++i) Mma::load_matrices(x[i], from_a + 32 * i);
    __syncwarp();
    if (lane == 0) arrive(empty + slot);
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      Mma::multiply(acc[0], acc[1], acc[2], acc[3], w[i], x[i / 2][i % 2 * 2], x[i / 2][i % 2 * 2 + 1]);
    }
  }
  bf16* d = static_cast<bf16*>(z.d) + first;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int row = lane % 4 * 2 + e % 2;
    if (row < rows) d[row * z.ldd + lane / 4 + e / 2 * 8] = __float2bfloat16_rn(acc[e]);
  }
}

// Two neighbours of a row, zero beyond its end.
__device__ __forceinline__ uint32_t two_of(const bf16* row, int64_t column, int64_t columns) {
  const bf16 zero = __float2bfloat16_rn(0.0f);
  const __nv_bfloat162 pair = {column < columns ? row[column] : zero, column + 1 < columns ? row[column + 1] : zero};
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// A warp: 16 x 8 elements of D, of each `step`th tile of rows.
__global__ void __launch_bounds__(32) in_order_kernel(Product z, int64_t step, unsigned long long* differing) {
  const int lane = int(threadIdx.x), g = lane / 4, t = lane % 4;
  const int64_t row0 = int64_t(blockIdx.y) * step * 16, column0 = int64_t(blockIdx.x) * 8;
  const auto row_of = [&](const void* base, int64_t row, int64_t rows, int64_t ld) {
    return static_cast<const bf16*>(base) + (row < rows ? row : rows - 1) * ld;
  };
  const bf16* upper = row_of(z.a, row0 + g, z.m, z.lda);
  const bf16* lower = row_of(z.a, row0 + g + 8, z.m, z.lda);
  const bf16* right = row_of(z.b, column0 + g, z.n, z.ldb);
  float c[4] = {};
  for (int64_t k = 0; k < z.k; k += 16) {
    const int64_t at = k + 2 * t;
    const uint32_t a[4] = {two_of(upper, at, z.k), two_of(lower, at, z.k), two_of(upper, at + 8, z.k),
                           two_of(lower, at + 8, z.k)};
    Mma::multiply(c[0], c[1], c[2], c[3], a, two_of(right, at, z.k), two_of(right, at + 8, z.k));
  }
  unsigned long long count = 0;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int64_t row = row0 + g + e / 2 * 8, column = column0 + 2 * t + e % 2;
    if (row >= z.m || column >= z.n) continue;
    bf16* to = static_cast<bf16*>(z.d) + row * z.ldd + column;
    const bf16 value = __float2bfloat16_rn(c[e]);
    if (differing == nullptr) {
      *to = value;
    } else {
      count += __bfloat16_as_ushort(*to) != __bfloat16_as_ushort(value);
    }
  }
  if (count > 0) atomicAdd(differing, count);
}

__global__ void fill_kernel(bf16* to, int64_t n, uint32_t seed) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    uint32_t word = uint32_t(i) * 2654435761u ^ seed * 0x9e3779b9u;
    const auto next = [&] {
      word ^= word >> 16;
      word *= 0x85ebca6bu;
      word ^= word >> 13;
      word *= 0xc2b2ae35u;
      word ^= word >> 16;
      return (float(word >> 8) + 0.5f) / 16777216.0f;
    };
    const float radius = sqrtf(-2 * logf(next()));
    to[i] = __float2bfloat16_rn(radius * cospif(2 * next()));
  }
}

void in_order(cudaStream_t stream, const Product& z, int64_t tiles, int64_t step, unsigned long long* differing) {
  in_order_kernel<<<dim3(unsigned(ceil_div(z.n, 8)), unsigned(tiles)), 32, 0, stream>>>(z, step, differing);
}

}  // namespace

bool fits_few_rows(const Product& z) {
  return z.m <= kFewRows && z.n % kBRows == 0 && z.k % kDepth == 0 && z.lda % 8 == 0 && z.ldb % 8 == 0 &&
         aligned16(z.a) && aligned16(z.b);
}

int few_rows(cudaStream_t stream, const Product& z) {
  constexpr int kBytes = kStages * (kBRows + kFewRows) * kStride * int(sizeof(bf16));
  if (allow_shared_memory(few_rows_kernel, kBytes)) few_rows_kernel<<<unsigned(z.n / kBRows), 64, kBytes, stream>>>(z);
  return launched("gemm of few rows");
}

int product_in_order(cudaStream_t stream, const Product& z) {
  in_order(stream, z, ceil_div(z.m, 16), 1, nullptr);
  return launched("gemm in order");
}

int compare_in_order(cudaStream_t stream, const Product& z, unsigned long long* differing) {
  const int64_t all = ceil_div(z.m, 16), tiles = all < 16 ? all : 16;
  in_order(stream, z, tiles, all / tiles, differing);
  return launched("gemm compared");
}

int fill_for_comparison(cudaStream_t stream, void* to, int64_t n, uint32_t seed) {
  fill_kernel<<<unsigned(ceil_div(n, 256) < 1024 ? ceil_div(n, 256) : 1024), 256, 0, stream>>>(static_cast<bf16*>(to),
                                                                                               n, seed);
  return launched("fill");
}

}  // namespace mb::cuda::kernels
