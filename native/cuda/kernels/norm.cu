// RMSNorm, with the residual addition in front of it, and its backward.
//
// y = w * cast(x * rstd) as Hugging Face's Qwen3 computes it: the normalised row is rounded to act before the product
// with the weight, which is rounded again. Backward differentiates that: dw sums dy * cast(x * rstd) over rows.
#include "core/args/norm.h"
#include "cuda/kernels/norm_rows.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kPerThread = kNormPerThread;
constexpr int kMaxThreads = kNormThreads;
constexpr int kAnyThreads = 256;  // of the kernels for any length and alignment

// One block a row. sum and delta are used only when ADD; sum may be x.
template <class T, bool ADD>
__global__ void __launch_bounds__(kMaxThreads)
    rmsnorm_fwd_kernel(const T* x, const T* delta, const T* w, T* sum, T* y, float* rstd, int cols, float eps) {
  constexpr int N = kVec<T>, V = kPerThread / N;
  __shared__ float shared[32];
  const int64_t base = int64_t(blockIdx.x) * cols;
  uint4 row[V], added[V], weight[V];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int c = (threadIdx.x + i * blockDim.x) * N;
    row[i] = c < cols ? load16(x + base + c) : make_uint4(0, 0, 0, 0);
    if (ADD) added[i] = c < cols ? load16(delta + base + c) : make_uint4(0, 0, 0, 0);
    weight[i] = c < cols ? load16(w + c) : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int c = (threadIdx.x + i * blockDim.x) * N;
    float f[N];
    unpack<T>(row[i], f);
    if (ADD && c < cols) {
      float d[N];
      unpack<T>(added[i], d);
#pragma unroll
      for (int e = 0; e < N; ++e) f[e] += d[e];
      row[i] = pack<T>(f);
      store16(sum + base + c, row[i]);
      unpack<T>(row[i], f);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) squares = fmaf(f[e], f[e], squares);
  }
  const float r = 1.0f / sqrtf(block_sum(squares, shared) / float(cols) + eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = r;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int c = (threadIdx.x + i * blockDim.x) * N;
    if (c >= cols) break;
    float f[N], g[N];
    unpack<T>(row[i], f);
    unpack<T>(weight[i], g);
#pragma unroll
    for (int e = 0; e < N; ++e) f[e] = rounded<T>(f[e] * r) * g[e];
    store16(y + base + c, pack<T>(f));
  }
}

template <class T, bool ADD>
__global__ void __launch_bounds__(kAnyThreads)
    rmsnorm_fwd_any_kernel(const T* x, const T* delta, const T* w, T* sum, T* y, float* rstd, int64_t cols, float eps) {
  __shared__ float shared[32];
  const int64_t base = int64_t(blockIdx.x) * cols;
  const T* row = ADD ? sum : x;
  float squares = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kAnyThreads) {
    float f = to_float(x[base + c]);
    if (ADD) {
      const T rounded_sum = from_float<T>(f + to_float(delta[base + c]));
      sum[base + c] = rounded_sum;
      f = to_float(rounded_sum);
    }
    squares = fmaf(f, f, squares);
  }
  const float r = 1.0f / sqrtf(block_sum(squares, shared) / float(cols) + eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = r;
  for (int64_t c = threadIdx.x; c < cols; c += kAnyThreads)
    y[base + c] = from_float<T>(rounded<T>(to_float(row[base + c]) * r) * to_float(w[c]));
}

// blockDim.y rows at a time, blockDim.x threads a row. With g = dy * w and n = x * rstd:
// dx = rstd * (g - n * mean(g * n)). Each block sums dw over its rows in registers and leaves it in ws[block].
template <class T>
__global__ void __launch_bounds__(kMaxThreads, sizeof(T) == 2 ? 2 : 1)
    rmsnorm_bwd_kernel(const T* dy, const T* x, const T* w, const float* rstd, T* dx, float* ws, int64_t rows, int cols,
                       bool accumulate_dx) {
  constexpr int N = kVec<T>, V = kPerThread / N;
  __shared__ float shared[2][kMaxThreads / 32];
  float dw[V][N] = {};
  int turn = 0;
  // All threads of the block make the same number of turns.
  for (int64_t first = int64_t(blockIdx.x) * blockDim.y; first < rows; first += int64_t(gridDim.x) * blockDim.y) {
    const int64_t row = first + threadIdx.y;
    const bool active = row < rows;
    const int64_t base = row * cols;
    const float r = active ? rstd[row] : 0.0f;
    uint4 grad[V], in[V], old[V], weight[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = (threadIdx.x + i * blockDim.x) * N;
      const bool here = active && c < cols;
      grad[i] = here ? load16(dy + base + c) : make_uint4(0, 0, 0, 0);
      in[i] = here ? load16(x + base + c) : make_uint4(0, 0, 0, 0);
      weight[i] = here ? load16(w + c) : make_uint4(0, 0, 0, 0);
      old[i] = here && accumulate_dx ? load16(dx + base + c) : make_uint4(0, 0, 0, 0);
    }
    float dot = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float g[N], n[N], k[N];
      unpack<T>(grad[i], g);
      unpack<T>(in[i], n);
      unpack<T>(weight[i], k);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        n[e] *= r;
        dot = fmaf(g[e] * k[e], n[e], dot);
        dw[i][e] = fmaf(g[e], rounded<T>(n[e]), dw[i][e]);
      }
    }
    const float mean = norm_row_sum(dot, shared, turn) / float(cols);
    turn ^= 1;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = (threadIdx.x + i * blockDim.x) * N;
      if (!active || c >= cols) break;
      float g[N], n[N], k[N], o[N];
      unpack<T>(grad[i], g);
      unpack<T>(in[i], n);
      unpack<T>(weight[i], k);
      unpack<T>(old[i], o);
#pragma unroll
      for (int e = 0; e < N; ++e) o[e] += r * (g[e] * k[e] - n[e] * r * mean);
      store16(dx + base + c, pack<T>(o));
    }
  }
  if (ws != nullptr) norm_column_sums(dw, cols, ws);
}

// One row at a time; every thread owns its columns of ws[block].
template <class T>
__global__ void __launch_bounds__(kAnyThreads)
    rmsnorm_bwd_any_kernel(const T* dy, const T* x, const T* w, const float* rstd, T* dx, float* ws, int64_t rows,
                           int64_t cols, bool accumulate_dx) {
  __shared__ float shared[2][32];
  int turn = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t base = row * cols;
    const float r = rstd[row];
    float dot = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kAnyThreads) {
      const float g = to_float(dy[base + c]), n = to_float(x[base + c]) * r;
      dot = fmaf(g * to_float(w[c]), n, dot);
      if (ws != nullptr) {
        float* dw = ws + int64_t(blockIdx.x) * cols + c;
        *dw = fmaf(g, rounded<T>(n), row == blockIdx.x ? 0.0f : *dw);
      }
    }
    const float mean = block_sum(dot, shared[turn]) / float(cols);
    turn ^= 1;
    for (int64_t c = threadIdx.x; c < cols; c += kAnyThreads) {
      const float g = to_float(dy[base + c]) * to_float(w[c]), n = to_float(x[base + c]) * r;
      dx[base + c] = from_float<T>((accumulate_dx ? to_float(dx[base + c]) : 0.0f) + r * (g - n * mean));
    }
  }
}

template <class T, bool ADD>
void forward(cudaStream_t stream, const RmsnormFwdArgs& z) {
  const auto run = [&](auto kernel, int threads, auto columns) {
    kernel<<<unsigned(z.rows), threads, 0, stream>>>(static_cast<const T*>(z.x), static_cast<const T*>(z.delta),
                                                     static_cast<const T*>(z.w), static_cast<T*>(z.sum),
                                                     static_cast<T*>(z.y), z.rstd, columns, z.eps);
  };
  const bool vector = z.cols % kVec<T> == 0 && z.cols <= kNormCols && aligned16(z.x) && aligned16(z.delta) &&
                      aligned16(z.w) && aligned16(z.sum) && aligned16(z.y);
  if (vector) {
    run(rmsnorm_fwd_kernel<T, ADD>, norm_row_threads(z.cols), int(z.cols));
  } else {
    run(rmsnorm_fwd_any_kernel<T, ADD>, kAnyThreads, z.cols);
  }
}

template <class T>
void backward(cudaStream_t stream, const RmsnormBwdArgs& z) {
  const bool vector = z.cols % kVec<T> == 0 && z.cols <= kNormCols && aligned16(z.dy) && aligned16(z.x) &&
                      aligned16(z.w) && aligned16(z.dx);
  const int threads = vector ? norm_row_threads(z.cols) : kAnyThreads;
  const int together = vector ? kMaxThreads / threads : 1;
  // The grid decides the order of the sum over rows, so it must not depend on the device.
  const int64_t turns = ceil_div(z.rows, together);
  const int parts = int(turns < MB_REDUCE_PARTS ? turns : MB_REDUCE_PARTS);
  const auto run = [&](auto kernel, dim3 block, auto columns) {
    kernel<<<parts, block, 0, stream>>>(static_cast<const T*>(z.dy), static_cast<const T*>(z.x),
                                        static_cast<const T*>(z.w), z.rstd, static_cast<T*>(z.dx), z.ws, z.rows,
                                        columns, z.accumulate_dx);
  };
  if (vector) {
    run(rmsnorm_bwd_kernel<T>, dim3(threads, together), int(z.cols));
  } else {
    run(rmsnorm_bwd_any_kernel<T>, dim3(threads), z.cols);
  }
  if (z.dw != nullptr) reduce_parts(stream, z.ws, parts, z.cols, z.cols, z.dw, nullptr, z.accumulate_dw);
}

}  // namespace

int op_rmsnorm_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_RMSNORM_FWD], t, nt, s, ns);
  const RmsnormFwdArgs z = read_rmsnorm_fwd(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    forward<float, false>(stream, z);
  } else {
    forward<bf16, false>(stream, z);
  }
  return launched("rmsnorm_fwd");
}

int op_add_rmsnorm_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ADD_RMSNORM_FWD], t, nt, s, ns);
  const RmsnormFwdArgs z = read_add_rmsnorm_fwd(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    forward<float, true>(stream, z);
  } else {
    forward<bf16, true>(stream, z);
  }
  return launched("add_rmsnorm_fwd");
}

int op_rmsnorm_bwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_RMSNORM_BWD], t, nt, s, ns);
  const RmsnormBwdArgs z = read_rmsnorm_bwd(a);
  if (!a.ok()) return a.status();
  if (z.rows == 0) {
    if (z.dw != nullptr) reduce_parts(stream, z.ws, 0, z.cols, z.cols, z.dw, nullptr, z.accumulate_dw);
  } else if (z.dtype == MB_F32) {
    backward<float>(stream, z);
  } else {
    backward<bf16>(stream, z);
  }
  return launched("rmsnorm_bwd");
}

}  // namespace mb::cuda::kernels
