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

struct Hyper {
  double beta1, beta2, eps, weight_decay;
};

__device__ __forceinline__ Adam adam_of(const double* state, const Hyper& h) {
  const double lr = state[MB_STATE_LR];
  return {float(state[MB_STATE_SCALE]),
          float(lr * h.weight_decay),
          float(lr / state[MB_STATE_BIAS1]),
          float(1.0 / sqrt(state[MB_STATE_BIAS2])),
          float(h.beta1),
          float(1.0 - h.beta1),
          float(h.beta2),
          float(1.0 - h.beta2),
          float(h.eps)};
}

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
    adamw_kernel(float* p, float* m, float* v, const float* g, T* out, const double* state, Span span, Hyper hyper) {
  if (state[MB_STATE_SKIP] != 0.0) return;
  __shared__ Adam shared;
  if (threadIdx.x == 0) shared = adam_of(state, hyper);
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

// Elements that are read and written at once.
template <class T>
struct alignas(kUnit * sizeof(T)) Unit {
  T x[kUnit];
};

template <class T>
__device__ __forceinline__ T kept(float x, uint32_t random) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    return __ushort_as_bfloat16(bf16_at_random(x, random));
  }
}

template <class P, class M, class V>
__device__ __forceinline__ void adamw_rounded_one(P& p, M& m, V& v, float g, const Adam& k, const PhiloxWords& random) {
  float fm = to_float(m), fv = to_float(v);
  p = kept<P>(adamw_one(to_float(p), fm, fv, g, k), random.w[1]);
  m = kept<M>(fm, random.w[0]);
  v = kept<V>(fv, random.w[0] >> 16);
}

template <class P, class M, class V, class G, class T>
__global__ void __launch_bounds__(kThreads)
    adamw_rounded_kernel(P* p, M* m, V* v, const G* g, T* out, const double* state, Span span, RandomPlace place,
                         Hyper hyper) {
  if (state[MB_STATE_SKIP] != 0.0) return;
  __shared__ Adam shared;
  if (threadIdx.x == 0) shared = adam_of(state, hyper);
  __syncthreads();
  const Adam k = shared;
  const auto update = uint32_t(state[MB_STATE_STEP]);
  const int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (first < span.vectors) {
    const int64_t at = span.head + first * kUnit;
    auto up = *reinterpret_cast<const Unit<P>*>(p + at);
    auto um = *reinterpret_cast<const Unit<M>*>(m + at);
    auto uv = *reinterpret_cast<const Unit<V>*>(v + at);
    const auto ug = *reinterpret_cast<const Unit<G>*>(g + at);
    int64_t row = at / place.cols, col = at - row * place.cols;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      const uint64_t index = (place.row0 + uint64_t(row)) * place.gcols + place.col0 + uint64_t(col);
      adamw_rounded_one(up.x[e], um.x[e], uv.x[e], to_float(ug.x[e]), k, rounding_words(index, update, place));
      if (++col == place.cols) {
        col = 0;
        ++row;
      }
    }
    *reinterpret_cast<Unit<P>*>(p + at) = up;
    *reinterpret_cast<Unit<M>*>(m + at) = um;
    *reinterpret_cast<Unit<V>*>(v + at) = uv;
    if (out != nullptr) {
      Unit<T> written;
#pragma unroll
      for (int e = 0; e < kUnit; ++e) written.x[e] = from_float<T>(to_float(up.x[e]));
      *reinterpret_cast<Unit<T>*>(out + at) = written;
    }
  }
  if (first < span.singles()) {
    const int64_t i = span.single(first);
    adamw_rounded_one(p[i], m[i], v[i], to_float(g[i]), k, rounding_words(place.index(i), update, place));
    if (out != nullptr) out[i] = from_float<T>(to_float(p[i]));
  }
}

// Calls body with a null pointer of the type that a dtype of f32 or bf16 stands for.
template <class Body>
void with_type(int dtype, const Body& body) {
  if (dtype == MB_F32) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<bf16*>(nullptr));
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
    kernel<<<grid, kThreads, 0, stream>>>(z.p, z.m, z.v, z.g, to, z.state, span,
                                          Hyper{z.beta1, z.beta2, z.eps, z.weight_decay});
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

int op_adamw_rounded(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ADAMW_ROUNDED], t, nt, s, ns);
  const AdamwRoundedArgs z = read_adamw_rounded(a);
  if (!a.ok() || z.n == 0) return a.status();
  const int out_dtype = z.out == nullptr ? MB_F32 : z.out_dtype;
  const Operand p{z.p, dtype_size(z.p_dtype)}, m{z.m, dtype_size(z.m_dtype)}, v{z.v, dtype_size(z.v_dtype)};
  const Operand out = z.out == nullptr ? p : Operand{z.out, dtype_size(out_dtype)};
  const Span span = span_of(z.n, kUnit, {p, m, v, {z.g, dtype_size(z.g_dtype)}, out});
  const unsigned grid = span_grid(span, kThreads, INT_MAX);
  const Hyper hyper{z.beta1, z.beta2, z.eps, z.weight_decay};
  with_type(z.p_dtype, [&](auto* as_p) {
    with_type(z.m_dtype, [&](auto* as_m) {
      with_type(z.v_dtype, [&](auto* as_v) {
        with_type(z.g_dtype, [&](auto* as_g) {
          with_type(out_dtype, [&](auto* as_out) {
            adamw_rounded_kernel<<<grid, kThreads, 0, stream>>>(
                static_cast<decltype(as_p)>(z.p), static_cast<decltype(as_m)>(z.m), static_cast<decltype(as_v)>(z.v),
                static_cast<decltype(as_g)>(const_cast<void*>(z.g)), static_cast<decltype(as_out)>(z.out), z.state,
                span, z.place, hyper);
          });
        });
      });
    });
  });
  return launched("adamw_rounded");
}

}  // namespace mb::cuda::kernels
