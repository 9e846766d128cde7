// What an update needs to know, computed on the device, and AdamW over a flat run.
#include <limits.h>

#include "common.cuh"
#include "schedule.cuh"

namespace mbk {
namespace {

__global__ void prepare_kernel(const float* normsq, const float* acc, double* state, double clip, double beta1,
                               double beta2, Schedule schedule) {
  const double tokens = double(acc[1]);
  const double norm = sqrt(double(*normsq)) / tokens;
  const bool skip = !isfinite(norm);
  double factor = 1.0;
  if (clip > 0) {
    const double ratio = clip / (norm + 1e-6);
    if (ratio < 1.0) factor = ratio;
  }
  state[MB_STATE_GRAD_NORM] = norm;
  state[MB_STATE_SCALE] = factor / tokens;
  state[MB_STATE_SKIP] = skip ? 1.0 : 0.0;
  state[MB_STATE_LOSS] = double(acc[0]) / tokens;
  state[MB_STATE_TOKENS] = tokens;
  if (skip) {
    state[MB_STATE_SKIPPED_IN_ROW] += 1.0;
    return;
  }
  const double step = state[MB_STATE_STEP] + 1.0;
  state[MB_STATE_STEP] = step;
  state[MB_STATE_SKIPPED_IN_ROW] = 0.0;
  state[MB_STATE_LR] = learning_rate(schedule, step);
  state[MB_STATE_BIAS1] = 1.0 - pow(beta1, step);
  state[MB_STATE_BIAS2] = 1.0 - pow(beta2, step);
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
}  // namespace mbk

using namespace mbk;

int mbk_optimizer_prepare(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("optimizer_prepare", t, nt, 3, s, ns, 9);
  const float* normsq = a.f32(0, "normsq", 1);
  const float* acc = a.f32(1, "acc", 2);
  double* state = static_cast<double*>(a.tensor(2, "state", MB_F64, MB_STATE_COUNT));
  const double clip = a.number(0, "clip"), beta1 = a.number(1, "beta1"), beta2 = a.number(2, "beta2");
  const Schedule schedule = {a.number(3, "lr"),
                             a.number(4, "min_lr"),
                             double(a.size(5, "warmup")),
                             double(a.size(6, "decay_iters")),
                             int(a.size(7, "decay_style", 0, 3)),
                             double(a.size(8, "wsd_iters"))};
  if (a.status != MB_OK) return a.status;
  prepare_kernel<<<1, 1, 0, stream>>>(normsq, acc, state, clip, beta1, beta2, schedule);
  return launched("optimizer_prepare");
}

int mbk_adamw(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("adamw", t, nt, 6, s, ns, 5);
  const int64_t n = a.size(0, "n");
  const double beta1 = a.number(1, "beta1"), beta2 = a.number(2, "beta2"), eps = a.number(3, "eps");
  const double weight_decay = a.number(4, "weight_decay");
  float* p = a.f32(0, "p", n);
  float* m = a.f32(1, "m", n);
  float* v = a.f32(2, "v", n);
  const float* g = a.f32(3, "g", n);
  // out may be absent, or p itself: then p is the parameter that the model reads.
  const bool has_out = a.present(4) && t[4].ptr != t[0].ptr;
  const int dtype = a.present(4) ? a.act(4, "out") : MB_F32;
  void* out = a.present(4) ? a.tensor(4, "out", dtype, n) : nullptr;
  const double* state = static_cast<const double*>(a.tensor(5, "state", MB_F64, MB_STATE_COUNT));
  if (!has_out && dtype != MB_F32) a.fail("out is p, but has dtype %d", dtype);
  if (has_out) {
    a.distinct(0, "p", 4, "out");
    a.distinct(3, "g", 4, "out");
  }
  if (a.status != MB_OK || n == 0) return a.status;
  const int64_t element = mb::dtype_size(dtype);
  const Span span = has_out ? span_of(n, kUnit, {{p, 4}, {m, 4}, {v, 4}, {g, 4}, {out, element}})
                            : span_of(n, kUnit, {{p, 4}, {m, 4}, {v, 4}, {g, 4}});
  const unsigned grid = span_grid(span, kThreads, INT_MAX);
  const auto run = [&](auto kernel, auto* to) {
    kernel<<<grid, kThreads, 0, stream>>>(p, m, v, g, to, state, span, beta1, beta2, eps, weight_decay);
  };
  if (!has_out) {
    run(adamw_kernel<float, false>, static_cast<float*>(nullptr));
  } else if (dtype == MB_F32) {
    run(adamw_kernel<float, true>, static_cast<float*>(out));
  } else {
    run(adamw_kernel<bf16, true>, static_cast<bf16*>(out));
  }
  return launched("adamw");
}
