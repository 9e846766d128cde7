// SwiGLU over gu = gate | up, forward and backward, one pass each.
#include "core/args/pointwise.h"
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/swiglu.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 256;

// One group of kVec<T> columns a thread; `groups` of them make a row of f columns.
template <class T>
__global__ void __launch_bounds__(kThreads) swiglu_fwd_kernel(const T* gu, T* out, uint32_t items, uint32_t groups) {
  constexpr int N = kVec<T>;
  const uint32_t item = blockIdx.x * uint32_t(kThreads) + threadIdx.x;
  if (item >= items) return;
  const uint32_t row = item / groups;
  const T* gate = gu + (int64_t(row) * groups + item) * N;  // row * 2f + column
  float g[N], u[N];
  unpack<T>(load16(gate), g);
  unpack<T>(load16(gate + int64_t(groups) * N), u);
#pragma unroll
  for (int e = 0; e < N; ++e) g[e] = forward_one<T>(g[e], u[e]);
  store16(out + int64_t(item) * N, pack<T>(g));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    swiglu_bwd_kernel(const T* dout, const T* gu, T* dgu, uint32_t items, uint32_t groups) {
  constexpr int N = kVec<T>;
  const uint32_t item = blockIdx.x * uint32_t(kThreads) + threadIdx.x;
  if (item >= items) return;
  const uint32_t row = item / groups;
  const int64_t at = (int64_t(row) * groups + item) * N, up = at + int64_t(groups) * N;
  float d[N], g[N], u[N];
  unpack<T>(load16(dout + int64_t(item) * N), d);
  unpack<T>(load16(gu + at), g);
  unpack<T>(load16(gu + up), u);
#pragma unroll
  for (int e = 0; e < N; ++e) backward_one<T>(d[e], g[e], u[e]);
  store16(dgu + at, pack<T>(g));
  store16(dgu + up, pack<T>(u));
}

// Any f, alignment and size.
template <class T>
__global__ void __launch_bounds__(kThreads) swiglu_fwd_any_kernel(const T* gu, T* out, int64_t rows, int64_t f) {
  for (int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x; k < rows * f; k += int64_t(gridDim.x) * kThreads) {
    const int64_t at = k / f * f + k;
    out[k] = from_float<T>(forward_one<T>(to_float(gu[at]), to_float(gu[at + f])));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    swiglu_bwd_any_kernel(const T* dout, const T* gu, T* dgu, int64_t rows, int64_t f) {
  for (int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x; k < rows * f; k += int64_t(gridDim.x) * kThreads) {
    const int64_t at = k / f * f + k;
    float gate = to_float(gu[at]), up = to_float(gu[at + f]);
    backward_one<T>(to_float(dout[k]), gate, up);
    dgu[at] = from_float<T>(gate);
    dgu[at + f] = from_float<T>(up);
  }
}

// Whether 16-byte accesses, counted in 32 bits, cover it.
template <class T>
bool fits_vectors(const SwigluArgs& z) {
  return z.f % kVec<T> == 0 && z.tokens * (z.f / kVec<T>) < (int64_t(1) << 32) - kThreads;
}

unsigned any_grid(const SwigluArgs& z) {
  const int64_t blocks = ceil_div(z.tokens * z.f, kThreads);
  return unsigned(blocks < (1 << 20) ? blocks : 1 << 20);
}

template <class T>
void forward(cudaStream_t stream, const SwigluArgs& z) {
  const T* gu = static_cast<const T*>(z.gu);
  T* out = static_cast<T*>(z.out);
  if (fits_vectors<T>(z) && aligned16(gu) && aligned16(out)) {
    const uint32_t groups = uint32_t(z.f / kVec<T>), items = uint32_t(z.tokens * groups);
    swiglu_fwd_kernel<T><<<unsigned(ceil_div(items, kThreads)), kThreads, 0, stream>>>(gu, out, items, groups);
  } else {
    swiglu_fwd_any_kernel<T><<<any_grid(z), kThreads, 0, stream>>>(gu, out, z.tokens, z.f);
  }
}

template <class T>
void backward(cudaStream_t stream, const SwigluArgs& z) {
  const T* dout = static_cast<const T*>(z.dout);
  const T* gu = static_cast<const T*>(z.gu);
  T* dgu = static_cast<T*>(z.out);
  if (fits_vectors<T>(z) && aligned16(dout) && aligned16(gu) && aligned16(dgu)) {
    const uint32_t groups = uint32_t(z.f / kVec<T>), items = uint32_t(z.tokens * groups);
    swiglu_bwd_kernel<T><<<unsigned(ceil_div(items, kThreads)), kThreads, 0, stream>>>(dout, gu, dgu, items, groups);
  } else {
    swiglu_bwd_any_kernel<T><<<any_grid(z), kThreads, 0, stream>>>(dout, gu, dgu, z.tokens, z.f);
  }
}

}  // namespace

int op_swiglu_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SWIGLU_FWD], t, nt, s, ns);
  const SwigluArgs z = read_swiglu_fwd(a);
  if (!a.ok() || z.tokens == 0) return a.status();
  if (z.dtype == MB_F32) {
    forward<float>(stream, z);
  } else {
    forward<bf16>(stream, z);
  }
  return launched("swiglu_fwd");
}

int op_swiglu_bwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_SWIGLU_BWD], t, nt, s, ns);
  const SwigluArgs z = read_swiglu_bwd(a);
  if (!a.ok() || z.tokens == 0) return a.status();
  if (z.dtype == MB_F32) {
    backward<float>(stream, z);
  } else {
    backward<bf16>(stream, z);
  }
  return launched("swiglu_bwd");
}

}  // namespace mb::cuda::kernels
