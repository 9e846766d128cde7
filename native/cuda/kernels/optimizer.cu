// What an update needs to know, computed on the device, and AdamW over a flat run.
#include <limits.h>

#include "core/args/optimizer.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

__global__ void prepare_kernel(const float* normsq, const float* acc, double* state, OptimizerStep step) {
  prepare_step(step, double(*normsq), double(acc[0]), double(acc[1]), state);
}

constexpr int kThreads = 256;
// Elements a thread and access: 16 bytes of float32, so that a warp's accesses are contiguous.
constexpr int kUnit = 4;

struct Adam {
  float scale, decay, step_size, root_scale, beta1, one_beta1, beta2, one_beta2, eps;
};

// p -= lr * wd * p; p -= lr / bias1 * m / (sqrt(v / bias2) + eps).
__device__ __forceinline__ float adamw_one(float p, float& m, float& v, float g, const Adam& k) {
  g *= k.scale;
  m = fmaf(k.beta1, m, k.one_beta1 * g);
  v = fmaf(k.beta2, v, k.one_beta2 * g * g);
  return p - k.decay * p - k.step_size * m / (sqrtf(v) * k.root_scale + k.eps);
}

__device__ __forceinline__ void store4(float* to, const float (&x)[4]) { store16(to, pack<float>(x)); }
__device__ __forceinline__ void store4(bf16* to, const float (&x)[4]) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(x[0], x[1]), high = __floats2bfloat162_rn(x[2], x[3]);
  *reinterpret_cast<uint2*>(to) =
      make_uint2(*reinterpret_cast<const unsigned*>(&low), *reinterpret_cast<const unsigned*>(&high));
}

// A unit and a single element a thread: on an H200, blocks that go on to further units reach 9 % less of the memory's
// rate (docs/performance.md).
template <class T, bool OUT>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(float* p, float* m, float* v, const float* g, T* out, const double* state, Span span, double beta1,
                 double beta2, double eps, double weight_decay) {
  if (state[MB_STATE_SKIP] != 0.0) return;
  __shared__ Adam shared;
  if (threadIdx.x == 0) {
    const double lr = state[MB_STATE_LR];
    shared = {float(state[MB_STATE_SCALE]),
              float(lr * weight_decay),
              float(lr / state[MB_STATE_BIAS1]),
              float(1.0 / sqrt(state[MB_STATE_BIAS2])),
              float(beta1),
              float(1.0 - beta1),
              float(beta2),
              float(1.0 - beta2),
              float(eps)};
  }
  __syncthreads();
  const Adam k = shared;
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (first < span.vectors) {
    const int64_t at = span.head + first * kUnit;
    const uint4 raw[4] = {load16_once(p + at), load16_once(m + at), load16_once(v + at), load16_once(g + at)};
    float fp[4], fm[4], fv[4], fg[4];
    unpack<float>(raw[0], fp);
    unpack<float>(raw[1], fm);
    unpack<float>(raw[2], fv);
    unpack<float>(raw[3], fg);
#pragma unroll
    for (int e = 0; e < 4; ++e) fp[e] = adamw_one(fp[e], fm[e], fv[e], fg[e], k);
    store16_once(p + at, pack<float>(fp));
    store16_once(m + at, pack<float>(fm));
    store16_once(v + at, pack<float>(fv));
    if constexpr (OUT) store4(out + at, fp);
  }
  if (first < span.singles()) {
    const int64_t i = span.single(first);
    float fm = m[i], fv = v[i];
    const float fp = adamw_one(p[i], fm, fv, g[i], k);
    p[i] = fp;
    m[i] = fm;
    v[i] = fv;
    if constexpr (OUT) out[i] = from_float<T>(fp);
  }
}

}  // namespace

int op_optimizer_prepare(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_OPTIMIZER_PREPARE], t, nt, s, ns);
  const PrepareArgs z = read_optimizer_prepare(a);
  if (!a.ok()) return a.status();
  prepare_kernel<<<1, 1, 0, stream>>>(z.normsq, z.acc, z.state, z.step);
  return launched("optimizer_prepare");
}

int op_adamw(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ADAMW], t, nt, s, ns);
  const AdamwArgs z = read_adamw(a);
  if (!a.ok() || z.n == 0) return a.status();
  const int64_t element = dtype_size(z.dtype);
  const Span span = z.out != nullptr ? span_of(z.n, kUnit, {{z.p, 4}, {z.m, 4}, {z.v, 4}, {z.g, 4}, {z.out, element}})
                                     : span_of(z.n, kUnit, {{z.p, 4}, {z.m, 4}, {z.v, 4}, {z.g, 4}});
  const unsigned grid = span_grid(span, kThreads, INT_MAX);
  const auto run = [&](auto kernel, auto* to) {
    kernel<<<grid, kThreads, 0, stream>>>(z.p, z.m, z.v, z.g, to, z.state, span, z.beta1, z.beta2, z.eps,
                                          z.weight_decay);
  };
  if (z.out == nullptr) {
    run(adamw_kernel<float, false>, static_cast<float*>(nullptr));
  } else if (z.dtype == MB_F32) {
    run(adamw_kernel<float, true>, static_cast<float*>(z.out));
  } else {
    run(adamw_kernel<bf16, true>, static_cast<bf16*>(z.out));
  }
  return launched("adamw");
}

}  // namespace mb::cuda::kernels
