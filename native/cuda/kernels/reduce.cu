// Second stage of the reductions over rows, and the sum of squares.
#include "core/args/pointwise.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

// 32 columns a block; warp y adds parts y, y + 32, ..., then the 32 sums of a column are added as a fixed tree.
__global__ void reduce_parts_kernel(const float* ws, int parts, int64_t cols, int64_t split, float* out0, float* out1,
                                    bool accumulate) {
  __shared__ float sums[32][33];
  const int x = threadIdx.x, y = threadIdx.y;
  const int64_t column = int64_t(blockIdx.x) * 32 + x;
  float sum = 0;
  if (column < cols) {
#pragma unroll 8
    for (int part = y; part < parts; part += 32) sum += ws[part * cols + column];
  }
  sums[y][x] = sum;
  __syncthreads();
  const float total = lane_sum(sums[x][y]);
  const int64_t target = int64_t(blockIdx.x) * 32 + y;
  if (x == 0 && target < cols) {
    float* out = target < split ? out0 : out1;
    if (out != nullptr) {
      out += target < split ? target : target - split;
      *out = (accumulate ? *out : 0.0f) + total;
    }
  }
}

constexpr int kSumThreads = 512;
constexpr int kSumLoads = 4;

// Squares are added in float32 inside 16 bytes and in float64 beyond, so the error does not grow with n.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 2) sumsq_kernel(const T* x, Span span, float* parts) {
  constexpr int N = kVec<T>;
  __shared__ double shared[32];
  const int64_t stride = int64_t(gridDim.x) * kSumThreads;
  const int64_t first = int64_t(blockIdx.x) * kSumThreads + threadIdx.x;
  const T* body = x + span.head;
  double sum = 0;
  for (int64_t i = first; i < span.vectors; i += stride * kSumLoads) {
    uint4 raw[kSumLoads];
#pragma unroll
    for (int k = 0; k < kSumLoads; ++k) {
      const int64_t at = i + k * stride;
      raw[k] = at < span.vectors ? load16_once(body + at * N) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int k = 0; k < kSumLoads; ++k) {
      float f[N];
      unpack<T>(raw[k], f);
      float part = 0;
#pragma unroll
      for (int e = 0; e < N; ++e) part = fmaf(f[e], f[e], part);
      sum += double(part);
    }
  }
  for (int64_t k = first; k < span.singles(); k += stride) {
    const double f = to_float(x[span.single(k)]);
    sum += f * f;
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = float(sum);
}

__global__ void sumsq_total_kernel(const float* parts, int count, float* out, bool accumulate) {
  __shared__ double shared[32];
  const double mine = int(threadIdx.x) < count ? double(parts[threadIdx.x]) : 0.0;
  const double total = block_sum(mine, shared);
  if (threadIdx.x == 0) *out = float((accumulate ? double(*out) : 0.0) + total);
}

template <class T>
void sumsq(cudaStream_t stream, const void* x, int64_t n, float* out, float* ws, bool accumulate) {
  const Span span = span_of(n, kVec<T>, {{x, sizeof(T)}});
  const unsigned grid = n == 0 ? 0 : span_grid(span, kSumThreads, MB_REDUCE_PARTS);
  if (grid > 0) sumsq_kernel<T><<<grid, kSumThreads, 0, stream>>>(static_cast<const T*>(x), span, ws);
  sumsq_total_kernel<<<1, MB_REDUCE_PARTS, 0, stream>>>(ws, int(grid), out, accumulate);
}

}  // namespace

void reduce_parts(cudaStream_t stream, const float* ws, int parts, int64_t cols, int64_t split, float* out0,
                  float* out1, bool accumulate) {
  if (cols == 0) return;
  reduce_parts_kernel<<<unsigned(ceil_div(cols, 32)), dim3(32, 32), 0, stream>>>(ws, parts, cols, split, out0, out1,
                                                                                 accumulate);
}

int op_sumsq(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SUMSQ], t, nt, s, ns);
  const SumsqArgs z = read_sumsq(a);
  if (!a.ok()) return a.status();
  if (z.dtype == MB_F32) {
    sumsq<float>(stream, z.x, z.n, z.out, z.ws, z.accumulate);
  } else {
    sumsq<bf16>(stream, z.x, z.n, z.out, z.ws, z.accumulate);
  }
  return launched("sumsq");
}

}  // namespace mb::cuda::kernels
