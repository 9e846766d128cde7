// RMSNorm, with the residual addition in front of it, and its backward.
//
// y = w * cast(x * rstd) as Hugging Face's Qwen3 computes it: the normalised row is rounded to act before the product
// with the weight, which is rounded again. Backward differentiates that: dw sums dy * cast(x * rstd) over rows.
#include "norm_rows.cuh"

namespace mbk {
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
void forward(cudaStream_t stream, const void* x, const void* delta, const void* w, void* sum, void* y, float* rstd,
             int64_t rows, int64_t cols, float eps) {
  const auto args = [&](auto kernel, int threads, auto columns) {
    kernel<<<unsigned(rows), threads, 0, stream>>>(static_cast<const T*>(x), static_cast<const T*>(delta),
                                                   static_cast<const T*>(w), static_cast<T*>(sum), static_cast<T*>(y),
                                                   rstd, columns, eps);
  };
  const bool vector = cols % kVec<T> == 0 && cols <= kNormCols && aligned16(x) && aligned16(delta) && aligned16(w) &&
                      aligned16(sum) && aligned16(y);
  if (vector) {
    args(rmsnorm_fwd_kernel<T, ADD>, norm_row_threads(cols), int(cols));
  } else {
    args(rmsnorm_fwd_any_kernel<T, ADD>, kAnyThreads, cols);
  }
}

template <class T>
void backward(cudaStream_t stream, const void* dy, const void* x, const void* w, const float* rstd, void* dx, float* dw,
              float* ws, int64_t rows, int64_t cols, bool accumulate_dx, bool accumulate_dw) {
  const bool vector =
      cols % kVec<T> == 0 && cols <= kNormCols && aligned16(dy) && aligned16(x) && aligned16(w) && aligned16(dx);
  const int threads = vector ? norm_row_threads(cols) : kAnyThreads;
  const int together = vector ? kMaxThreads / threads : 1;
  // The grid decides the order of the sum over rows, so it must not depend on the device.
  const int64_t turns = ceil_div(rows, together);
  const int parts = int(turns < MB_REDUCE_PARTS ? turns : MB_REDUCE_PARTS);
  const auto args = [&](auto kernel, dim3 block, auto columns) {
    kernel<<<parts, block, 0, stream>>>(static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<const T*>(w),
                                        rstd, static_cast<T*>(dx), dw == nullptr ? nullptr : ws, rows, columns,
                                        accumulate_dx);
  };
  if (vector) {
    args(rmsnorm_bwd_kernel<T>, dim3(threads, together), int(cols));
  } else {
    args(rmsnorm_bwd_any_kernel<T>, dim3(threads), cols);
  }
  if (dw != nullptr) reduce_parts(stream, ws, parts, cols, cols, dw, nullptr, accumulate_dw);
}

constexpr int64_t kMaxRows = 0x7fffffff;  // blocks of a grid

}  // namespace
}  // namespace mbk

using namespace mbk;

int mbk_rmsnorm_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("rmsnorm_fwd", t, nt, 4, s, ns, 3);
  const int64_t rows = a.size(0, "rows", 0, kMaxRows), cols = a.size(1, "cols", 1);
  const float eps = float(a.number(2, "eps"));
  const int dtype = a.act(0, "x");
  const void* x = a.tensor(0, "x", dtype, times(rows, cols));
  const void* w = a.tensor(1, "w", dtype, cols);
  void* y = a.tensor(2, "y", dtype, times(rows, cols));
  float* rstd = a.f32(3, "rstd", rows);
  a.same_or_distinct(0, "x", 2, "y");
  if (a.status != MB_OK || rows == 0) return a.status;
  if (dtype == MB_F32) {
    forward<float, false>(stream, x, nullptr, w, nullptr, y, rstd, rows, cols, eps);
  } else {
    forward<bf16, false>(stream, x, nullptr, w, nullptr, y, rstd, rows, cols, eps);
  }
  return launched("rmsnorm_fwd");
}

int mbk_add_rmsnorm_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("add_rmsnorm_fwd", t, nt, 6, s, ns, 3);
  const int64_t rows = a.size(0, "rows", 0, kMaxRows), cols = a.size(1, "cols", 1);
  const float eps = float(a.number(2, "eps"));
  const int dtype = a.act(0, "x");
  const int64_t n = times(rows, cols);
  const void* x = a.tensor(0, "x", dtype, n);
  const void* delta = a.tensor(1, "delta", dtype, n);
  const void* w = a.tensor(2, "w", dtype, cols);
  void* sum = a.tensor(3, "sum", dtype, n);
  void* y = a.tensor(4, "y", dtype, n);
  float* rstd = a.f32(5, "rstd", rows);
  a.same_or_distinct(0, "x", 3, "sum");
  a.same_or_distinct(1, "delta", 3, "sum");
  a.same_or_distinct(0, "x", 4, "y");
  a.same_or_distinct(1, "delta", 4, "y");
  a.distinct(3, "sum", 4, "y");
  if (a.status != MB_OK || rows == 0) return a.status;
  if (dtype == MB_F32) {
    forward<float, true>(stream, x, delta, w, sum, y, rstd, rows, cols, eps);
  } else {
    forward<bf16, true>(stream, x, delta, w, sum, y, rstd, rows, cols, eps);
  }
  return launched("add_rmsnorm_fwd");
}

int mbk_rmsnorm_bwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("rmsnorm_bwd", t, nt, 7, s, ns, 4);
  const int64_t rows = a.size(0, "rows", 0, kMaxRows), cols = a.size(1, "cols", 1);
  const bool accumulate_dx = a.flag(2, "accumulate_dx"), accumulate_dw = a.flag(3, "accumulate_dw");
  const int dtype = a.act(0, "dy");
  const int64_t n = times(rows, cols);
  const void* dy = a.tensor(0, "dy", dtype, n);
  const void* x = a.tensor(1, "x", dtype, n);
  const void* w = a.tensor(2, "w", dtype, cols);
  const float* rstd = a.f32(3, "rstd", rows);
  void* dx = a.tensor(4, "dx", dtype, n);
  const bool wants_dw = a.present(5);
  float* dw = wants_dw ? a.f32(5, "dw", cols) : nullptr;
  float* ws = static_cast<float*>(a.scratch(6, "ws", wants_dw ? times(MB_REDUCE_PARTS * 4, cols) : 0));
  a.same_or_distinct(0, "dy", 4, "dx");
  a.same_or_distinct(1, "x", 4, "dx");
  if (a.status != MB_OK) return a.status;
  if (rows == 0) {
    if (wants_dw) reduce_parts(stream, ws, 0, cols, cols, dw, nullptr, accumulate_dw);
  } else if (dtype == MB_F32) {
    backward<float>(stream, dy, x, w, rstd, dx, dw, ws, rows, cols, accumulate_dx, accumulate_dw);
  } else {
    backward<bf16>(stream, dy, x, w, rstd, dx, dw, ws, rows, cols, accumulate_dx, accumulate_dw);
  }
  return launched("rmsnorm_bwd");
}
