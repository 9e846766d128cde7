// A bias added to every row, and its gradient: the sum of rows.
#include "core/args/pointwise.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsTogether = 4;  // loads in flight a thread
constexpr int kBlocks = 2112;     // some a multiprocessor: results do not depend on it

// N neighbouring columns as float32: 16 bytes, or one element.
template <class T, int N>
__device__ __forceinline__ void load(const T* p, float (&f)[N]) {
  if constexpr (N == 1) {
    f[0] = to_float(*p);
  } else {
    unpack<T>(load16(p), f);
  }
}

template <class T, int N>
__device__ __forceinline__ void store(T* p, const float (&f)[N]) {
  if constexpr (N == 1) {
    *p = from_float<T>(f[0]);
  } else {
    store16(p, pack<T>(f));
  }
}

// A thread has N columns, and every gridDim.y-th row of them.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) bias_add_kernel(T* y, const T* bias, int64_t rows, int64_t cols) {
  const int64_t c = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (c >= cols) return;
  float b[N];
  load<T, N>(bias + c, b);
#pragma unroll 4
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    float f[N];
    load<T, N>(y + row * cols + c, f);
#pragma unroll
    for (int e = 0; e < N; ++e) f[e] += b[e];
    store<T, N>(y + row * cols + c, f);
  }
}

// Part blockIdx.y of the rows, added up in order.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) bias_grad_kernel(const T* dy, float* ws, int64_t rows, int64_t cols) {
  const int64_t c = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (c >= cols) return;
  const int64_t first = rows * blockIdx.y / gridDim.y, last = rows * (blockIdx.y + 1) / gridDim.y;
  float sum[N] = {};
#pragma unroll 4
  for (int64_t row = first; row < last; ++row) {
    float f[N];
    load<T, N>(dy + row * cols + c, f);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += f[e];
  }
#pragma unroll
  for (int e = 0; e < N; ++e) ws[blockIdx.y * cols + c + e] = sum[e];
}

template <class T>
unsigned column_blocks(int64_t cols, bool vector) {
  return unsigned(ceil_div(vector ? cols / kVec<T> : cols, kThreads));
}

template <class T>
void add_bias(cudaStream_t stream, const BiasAddArgs& z) {
  const bool vector = z.cols % kVec<T> == 0 && aligned16(z.y) && aligned16(z.bias);
  const unsigned columns = column_blocks<T>(z.cols, vector);
  const int64_t most = ceil_div(z.rows, kRowsTogether), wanted = ceil_div(kBlocks, columns);
  const dim3 grid(columns, unsigned(most < wanted ? most : wanted));
  const auto run = [&](auto kernel) {
    kernel<<<grid, kThreads, 0, stream>>>(static_cast<T*>(z.y), static_cast<const T*>(z.bias), z.rows, z.cols);
  };
  if (vector) {
    run(bias_add_kernel<T, kVec<T>>);
  } else {
    run(bias_add_kernel<T, 1>);
  }
}

template <class T>
void bias_gradient(cudaStream_t stream, const BiasGradArgs& z) {
  const bool vector = z.cols % kVec<T> == 0 && aligned16(z.dy);
  // The number of parts decides the order of the sum, so it must not depend on the device.
  const int parts = int(z.rows < MB_REDUCE_PARTS ? z.rows : MB_REDUCE_PARTS);
  const dim3 grid(column_blocks<T>(z.cols, vector), unsigned(parts));
  const auto run = [&](auto kernel) {
    if (parts > 0) kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(z.dy), z.ws, z.rows, z.cols);
  };
  if (vector) {
    run(bias_grad_kernel<T, kVec<T>>);
  } else {
    run(bias_grad_kernel<T, 1>);
  }
  reduce_parts(stream, z.ws, parts, z.cols, z.cols, z.db, nullptr, z.accumulate);
}

}  // namespace

int op_bias_add(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_BIAS_ADD], t, nt, s, ns);
  const BiasAddArgs z = read_bias_add(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    add_bias<float>(stream, z);
  } else {
    add_bias<bf16>(stream, z);
  }
  return launched("bias_add");
}

int op_bias_grad(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_BIAS_GRAD], t, nt, s, ns);
  const BiasGradArgs z = read_bias_grad(a);
  if (!a.ok()) return a.status();
  if (z.dtype == MB_F32) {
    bias_gradient<float>(stream, z);
  } else {
    bias_gradient<bf16>(stream, z);
  }
  return launched("bias_grad");
}

}  // namespace mb::cuda::kernels
