// The norm between two tensor-parallel products, fused with the sum over members in front of it and the gathering
// behind: what norm.cu computes, on rows that come from all members and go to all.
#include "core/op_args.h"
#include "cuda/kernels/norm_rows.cuh"
#include "cuda/kernels/peer.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kPerThread = kNormPerThread;
constexpr int kMaxThreads = kNormThreads;
// Alike on every device: blocks of one index meet, and the backward's number decides the order of a sum.
constexpr int kForwardBlocks = 264;
constexpr int kBackwardBlocks = 64;  // beside products, which want the other multiprocessors
static_assert(kForwardBlocks <= kPeerBlocks && kBackwardBlocks <= MB_REDUCE_PARTS);
static_assert(kNormCols == MB_COMM_COLS);

// This thread's elements of a row, summed over the members in the order of ranks.
template <class T, int P>
__device__ __forceinline__ void reduce_row(const Peers& peers, const T* row, bool active, int cols,
                                           float (&sum)[kPerThread / kVec<T>][kVec<T>]) {
  constexpr int N = kVec<T>, V = kPerThread / N, G = kTogether<P>;
#pragma unroll
  for (int begin = 0; begin < P; begin += G) {
    uint4 parts[G][V];
#pragma unroll
    for (int p = 0; p < G; ++p) {
      const T* from = at(row, peers, begin + p);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const int c = (threadIdx.x + i * blockDim.x) * N;
        parts[p][i] = active && c < cols ? load16(from + c) : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int p = 0; p < G; ++p) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        float f[N];
        unpack<T>(parts[p][i], f);
#pragma unroll
        for (int e = 0; e < N; ++e) sum[i][e] = begin + p == 0 ? f[e] : sum[i][e] + f[e];
      }
    }
  }
}

// The same 16 bytes into every member's memory.
template <class T, int P>
__device__ __forceinline__ void store_everywhere(const Peers& peers, T* ours, uint4 value) {
#pragma unroll
  for (int p = 0; p < P; ++p) store16(at(ours, peers, p), value);
}

template <class T>
__device__ __forceinline__ void load_weight(const T* w, int cols, uint4 (&weight)[kPerThread / kVec<T>]) {
  constexpr int N = kVec<T>, V = kPerThread / N;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int c = (threadIdx.x + i * blockDim.x) * N;
    weight[i] = c < cols ? load16(w + c) : make_uint4(0, 0, 0, 0);
  }
}

// blockDim.y rows at a time, blockDim.x threads a row. Two blocks a multiprocessor where the registers allow it.
template <class T, int P>
__global__ void __launch_bounds__(kMaxThreads, (P == 2 && sizeof(T) == 2 ? 2 : 1))
    reduce_norm_gather_kernel(Peers peers, const T* partial, const T* residual, const T* w, T* sum, T* y, T* full,
                              float* rstd, int64_t rows, int cols, float eps) {
  constexpr int N = kVec<T>, V = kPerThread / N;
  __shared__ float shared[2][kMaxThreads / 32];
  uint4 weight[V];
  load_weight(w, cols, weight);
  meet_block(peers, Phase::kBegin);
  int turn = 0;
  for (int64_t first = int64_t(blockIdx.x) * blockDim.y; first < rows; first += int64_t(gridDim.x) * blockDim.y) {
    const int64_t row = first + threadIdx.y;
    const bool active = row < rows;
    const int64_t base = row * cols, wide = (peers.rank * rows + row) * cols;
    uint4 value[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = (threadIdx.x + i * blockDim.x) * N;
      value[i] = active && c < cols ? load16(residual + base + c) : make_uint4(0, 0, 0, 0);
    }
    float f[V][N];
    reduce_row<T, P>(peers, partial + wide, active, cols, f);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = (threadIdx.x + i * blockDim.x) * N;
      float r[N];
      unpack<T>(value[i], r);
#pragma unroll
      for (int e = 0; e < N; ++e) f[i][e] += r[e];
      value[i] = pack<T>(f[i]);
      if (active && c < cols) store16(sum + base + c, value[i]);
      unpack<T>(value[i], f[i]);
#pragma unroll
      for (int e = 0; e < N; ++e) squares = fmaf(f[i][e], f[i][e], squares);
    }
    const float r = 1.0f / sqrtf(norm_row_sum(squares, shared, turn) / float(cols) + eps);
    turn ^= 1;
    if (active && threadIdx.x == 0) rstd[row] = r;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = (threadIdx.x + i * blockDim.x) * N;
      if (!active || c >= cols) break;
      float k[N];
      unpack<T>(weight[i], k);
#pragma unroll
      for (int e = 0; e < N; ++e) f[i][e] = rounded<T>(f[i][e] * r) * k[e];
      const uint4 out = pack<T>(f[i]);
      store_everywhere<T, P>(peers, full + wide + c, out);
      store16(y + base + c, out);
    }
  }
  meet_block(peers, Phase::kEnd);
}

// As rmsnorm_bwd_kernel of norm.cu, with the sum over members in front and the push to them behind. `full` may be null.
template <class T, int P>
__global__ void __launch_bounds__(kMaxThreads, 1)
    norm_bwd_gather_kernel(Peers peers, const T* partial, const T* x, const T* w, const float* rstd, T* dx, T* full,
                           float* ws, int64_t rows, int cols, bool accumulate_dx) {
  constexpr int N = kVec<T>, V = kPerThread / N;
  __shared__ float shared[2][kMaxThreads / 32];
  uint4 weight[V];
  load_weight(w, cols, weight);
  float dw[V][N] = {};
  meet_block(peers, Phase::kBegin);
  int turn = 0;
  for (int64_t first = int64_t(blockIdx.x) * blockDim.y; first < rows; first += int64_t(gridDim.x) * blockDim.y) {
    const int64_t row = first + threadIdx.y;
    const bool active = row < rows;
    const int64_t base = row * cols, wide = (peers.rank * rows + row) * cols;
    const float r = active ? rstd[row] : 0.0f;
    uint4 in[V], old[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = (threadIdx.x + i * blockDim.x) * N;
      const bool here = active && c < cols;
      in[i] = here ? load16(x + base + c) : make_uint4(0, 0, 0, 0);
      old[i] = here && accumulate_dx ? load16(dx + base + c) : make_uint4(0, 0, 0, 0);
    }
    float g[V][N];
    reduce_row<T, P>(peers, partial + wide, active, cols, g);
    float dot = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float n[N], k[N];
      unpack<T>(in[i], n);
      unpack<T>(weight[i], k);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        n[e] *= r;
        dw[i][e] = fmaf(g[i][e], rounded<T>(n[e]), dw[i][e]);
        g[i][e] *= k[e];
        dot = fmaf(g[i][e], n[e], dot);
      }
    }
    const float mean = norm_row_sum(dot, shared, turn) / float(cols);
    turn ^= 1;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = (threadIdx.x + i * blockDim.x) * N;
      if (!active || c >= cols) break;
      float n[N], o[N];
      unpack<T>(in[i], n);
      unpack<T>(old[i], o);
#pragma unroll
      for (int e = 0; e < N; ++e) o[e] += r * (g[i][e] - n[e] * r * mean);
      const uint4 out = pack<T>(o);
      store16(dx + base + c, out);
      if (full != nullptr) store_everywhere<T, P>(peers, full + wide + c, out);
    }
  }
  if (ws != nullptr) norm_column_sums(dw, cols, ws);
  meet_block(peers, Phase::kEnd);
}

dim3 row_block(int64_t cols) {
  const int threads = norm_row_threads(cols);
  return dim3(threads, kMaxThreads / threads);
}

int blocks_for(int64_t rows, dim3 block, int most) {
  const int64_t turns = ceil_div(rows, block.y);
  return int(turns < most ? turns : most);
}

// What both fused ops ask of their sizes.
void check_cols(OpArgs& a, int64_t cols, int dtype) {
  const int64_t unit = 16 / dtype_size(dtype);
  if (a.ok() && (cols % unit != 0 || cols > kNormCols)) {
    a.fail("cols is %lld, expected a multiple of %lld up to %d", (long long)cols, (long long)unit, kNormCols);
  }
}

}  // namespace

int reduce_norm_gather(cudaStream_t stream, const Peers& peers, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kCommOps[MB_COMM_OP_REDUCE_NORM_GATHER], t, nt, s, ns);
  const int64_t rows = a.size(0, 0, INT32_MAX), cols = a.size(1, 1);
  const float eps = float(a.real(2));
  const int dtype = a.act(0);
  const int64_t n = times(rows, cols);
  const void* partial = a.tensor16(0, dtype, times(n, peers.size));
  const void* residual = a.tensor16(1, dtype, n);
  const void* w = a.tensor16(2, dtype, cols);
  void* sum = a.tensor16(3, dtype, n);
  void* y = a.tensor16(4, dtype, n);
  void* full = a.tensor16(5, dtype, times(n, peers.size));
  float* rstd = a.f32(6, rows);
  a.same_or_distinct(1, 3);
  a.same_or_distinct(1, 4);
  a.distinct(3, 4);
  a.distinct(0, 3);
  a.distinct(0, 4);
  a.distinct(0, 5);
  a.distinct(1, 5);
  a.distinct(3, 5);
  a.distinct(4, 5);
  check_cols(a, cols, dtype);
  if (!a.ok() || rows == 0) return a.status();
  const dim3 block = row_block(cols);
  const int blocks = blocks_for(rows, block, kForwardBlocks);
  by_type(dtype, peers.size, [&](auto* type, auto members) {
    using T = std::remove_pointer_t<decltype(type)>;
    reduce_norm_gather_kernel<T, decltype(members)::value><<<blocks, block, 0, stream>>>(
        peers, static_cast<const T*>(partial), static_cast<const T*>(residual), static_cast<const T*>(w),
        static_cast<T*>(sum), static_cast<T*>(y), static_cast<T*>(full), rstd, rows, int(cols), eps);
  });
  return launched("reduce_norm_gather");
}

int norm_bwd_gather(cudaStream_t stream, const Peers& peers, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kCommOps[MB_COMM_OP_NORM_BWD_GATHER], t, nt, s, ns);
  const int64_t rows = a.size(0, 0, INT32_MAX), cols = a.size(1, 1);
  const bool accumulate_dx = a.flag(2), accumulate_dw = a.flag(3);
  const int dtype = a.act(0);
  const int64_t n = times(rows, cols);
  const void* partial = a.tensor16(0, dtype, times(n, peers.size));
  const void* x = a.tensor16(1, dtype, n);
  const void* w = a.tensor16(2, dtype, cols);
  const float* rstd = a.f32(3, rows);
  void* dx = a.tensor16(4, dtype, n);
  const bool wants_dw = a.present(5);
  float* dw = wants_dw ? a.f32(5, cols) : nullptr;
  float* ws = a.scratch(6, wants_dw ? times(MB_REDUCE_PARTS * 4, cols) : 0);
  void* full = a.present(7) ? a.tensor16(7, dtype, times(n, peers.size)) : nullptr;
  a.same_or_distinct(1, 4);
  a.distinct(0, 4);
  a.distinct(0, 7);
  a.distinct(1, 7);
  a.distinct(4, 7);
  check_cols(a, cols, dtype);
  if (!a.ok()) return a.status();
  if (rows == 0) {
    if (wants_dw) reduce_parts(stream, ws, 0, cols, cols, dw, nullptr, accumulate_dw);
    return launched("norm_bwd_gather");
  }
  const dim3 block = row_block(cols);
  // The grid decides the order of the sum over rows.
  const int parts = blocks_for(rows, block, kBackwardBlocks);
  by_type(dtype, peers.size, [&](auto* type, auto members) {
    using T = std::remove_pointer_t<decltype(type)>;
    norm_bwd_gather_kernel<T, decltype(members)::value><<<parts, block, 0, stream>>>(
        peers, static_cast<const T*>(partial), static_cast<const T*>(x), static_cast<const T*>(w), rstd,
        static_cast<T*>(dx), static_cast<T*>(full), wants_dw ? ws : nullptr, rows, int(cols), accumulate_dx);
  });
  if (wants_dw) reduce_parts(stream, ws, parts, cols, cols, dw, nullptr, accumulate_dw);
  return launched("norm_bwd_gather");
}

}  // namespace mb::cuda::kernels
