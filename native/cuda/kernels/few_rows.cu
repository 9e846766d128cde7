#include "cuda/kernels/few_rows.h"

#include "cuda/kernels/attention_chunks.cuh"

namespace mb::cuda::kernels {
namespace {

using Mma = MmaTiles<64, 1>;

constexpr int kBRows = 16, kDepth = 128, kStages = 8, kStride = kDepth + 8;

// A warp: 16 rows of B, and as many of A as there are in tiles of 8, through a ring of stages of `kDepth` columns. B is the
// first operand, so that its rows fill the tile.
template <int TILES>
__global__ void __launch_bounds__(32) few_rows_kernel(Product z) {
  constexpr int kStage = (kBRows + 8 * TILES) * kStride;
  extern __shared__ __align__(16) unsigned char memory[];
  bf16* const ring = reinterpret_cast<bf16*>(memory);
  const int lane = int(threadIdx.x);
  const int64_t first = int64_t(blockIdx.x) * kBRows;
  const bf16* b = static_cast<const bf16*>(z.b) + first * z.ldb;
  const bf16* a = static_cast<const bf16*>(z.a);
  const int stages = int(z.k / kDepth), rows = int(z.m);
  const auto fetch = [&](int stage) {
    if (stage < stages) {
      bf16* to = ring + stage % kStages * kStage;
#pragma unroll
      for (int i = 0; i < kBRows * kDepth / 8 / 32; ++i) {
        const int at = i * 32 + lane, r = at / (kDepth / 8), c = at % (kDepth / 8) * 8;
        copy16_async(to + r * kStride + c, b + r * z.ldb + stage * kDepth + c, true);
      }
      to += kBRows * kStride;
#pragma unroll
      for (int i = 0; i < 8 * TILES * kDepth / 8 / 32; ++i) {
        const int at = i * 32 + lane, r = at / (kDepth / 8), c = at % (kDepth / 8) * 8;
        copy16_async(to + r * kStride + c, r < rows ? a + r * z.lda + stage * kDepth + c : a, r < rows);
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) fetch(i);
  float acc[TILES][4] = {};
  for (int stage = 0; stage < stages; ++stage) {
    wait_copies<kStages - 2>();
    __syncwarp();
    fetch(stage + kStages - 1);
    const bf16* from_b = ring + stage % kStages * kStage + Mma::down_first(kStride);
    const bf16* from_a = ring + stage % kStages * kStage + kBRows * kStride + lane % 8 * kStride + lane / 8 * 8;
#pragma unroll
    for (int c = 0; c < kDepth; c += 32) {
      uint32_t w[2][4];
      Mma::load_matrices(w[0], from_b + c);
      Mma::load_matrices(w[1], from_b + c + 16);
#pragma unroll
      for (int i = 0; i < TILES; ++i) {
        uint32_t x[4];
        Mma::load_matrices(x, from_a + i * 8 * kStride + c);
        Mma::multiply(acc[i][0], acc[i][1], acc[i][2], acc[i][3], w[0], x[0], x[1]);
        Mma::multiply(acc[i][0], acc[i][1], acc[i][2], acc[i][3], w[1], x[2], x[3]);
      }
    }
    __syncwarp();
  }
  bf16* d = static_cast<bf16*>(z.d) + first;
#pragma unroll
  for (int i = 0; i < TILES; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = 8 * i + lane % 4 * 2 + e % 2;
      if (row < rows) d[row * z.ldd + lane / 4 + e / 2 * 8] = __float2bfloat16_rn(acc[i][e]);
    }
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

template <int TILES>
void launch_few(cudaStream_t stream, const Product& z) {
  constexpr int kBytes = kStages * (kBRows + 8 * TILES) * kStride * int(sizeof(bf16));
  const auto kernel = few_rows_kernel<TILES>;
  if (!allow_shared_memory(kernel, kBytes)) return;
  kernel<<<unsigned(z.n / kBRows), 32, kBytes, stream>>>(z);
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
  z.m <= 8 ? launch_few<1>(stream, z) : launch_few<2>(stream, z);
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
  fill_kernel<<<unsigned(ceil_div(n, 256) < 1024 ? ceil_div(n, 256) : 1024), 256, 0, stream>>>(static_cast<bf16*>(to), n,
                                                                                             seed);
  return launched("fill");
}

}  // namespace mb::cuda::kernels
