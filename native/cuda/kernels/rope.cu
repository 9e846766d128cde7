// Per-head RMSNorm of q and k fused with RoPE, forward and backward.
//
// A head is handled by a group of lanes of one warp. Each lane holds the same columns of both halves of the head, so
// the rotation (half-split, pairs i and i + d/2) needs no exchange and only the sum of squares crosses lanes.
#include "core/args/rope.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kBwdThreads = 384;
constexpr int kMaxHead = 256;

// Loads and stores of N neighbouring elements: 16 bytes, or one element where N is 1.
template <class T, int N>
__device__ __forceinline__ void load(const T* p, float* f) {
  if constexpr (N == 1) {
    f[0] = to_float(*p);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += kVec<T>) {
      float part[kVec<T>];
      unpack<T>(load16(p + i), part);
#pragma unroll
      for (int e = 0; e < kVec<T>; ++e) f[i + e] = part[e];
    }
  }
}

template <class T, int N>
__device__ __forceinline__ void store(T* p, const float* f) {
  if constexpr (N == 1) {
    *p = from_float<T>(f[0]);
  } else {
    static_assert(N == kVec<T>);
    float part[N];
#pragma unroll
    for (int e = 0; e < N; ++e) part[e] = f[e];
    store16(p, pack<T>(part));
  }
}

struct Heads {
  uint32_t items;  // tokens * heads to handle
  int hq, hkv, d;
  int lanes;  // of a head: a power of two
};

// N elements an access, M accesses a lane and half: (kVec<T>, 1) with d/2 = lanes * N, or (1, 4) with 32 lanes for any
// even d up to 256 and any alignment. Heads are q, k and, where out is not qkv, v, which is copied.
template <class T, int N, int M>
__global__ void __launch_bounds__(kThreads)
    qknorm_rope_fwd_kernel(const T* qkv, const T* wq, const T* wk, const float* table, const int32_t* positions, T* out,
                           float* rstd, Heads h, int heads, float eps) {
  constexpr int R = N * M;
  const uint32_t item = blockIdx.x * uint32_t(kThreads / h.lanes) + threadIdx.x / uint32_t(h.lanes);
  const bool active = item < h.items;
  const uint32_t token = active ? item / uint32_t(heads) : 0;
  const int head = active ? int(item - token * uint32_t(heads)) : 0;
  const int lane = threadIdx.x & (h.lanes - 1), half = h.d / 2;
  const int64_t base = (int64_t(token) * (h.hq + 2 * h.hkv) + head) * h.d;
  const bool normed = head < h.hq + h.hkv;
  const T* w = head < h.hq ? wq : wk;
  const float* angles = table + int64_t(normed && active ? positions[token] : 0) * h.d;
  float x1[R], x2[R], c[R], s[R], squares = 0;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int i = (lane + m * h.lanes) * N;
#pragma unroll
    for (int e = 0; e < N; ++e) x1[m * N + e] = x2[m * N + e] = c[m * N + e] = s[m * N + e] = 0;
    if (!active || i >= half) continue;
    load<T, N>(qkv + base + i, x1 + m * N);
    load<T, N>(qkv + base + half + i, x2 + m * N);
    if (!normed) continue;
    load<float, N>(angles + i, c + m * N);
    load<float, N>(angles + half + i, s + m * N);
  }
#pragma unroll
  for (int e = 0; e < R; ++e) squares = fmaf(x1[e], x1[e], fmaf(x2[e], x2[e], squares));
  squares = lane_sum(squares, h.lanes);
  const float r = 1.0f / sqrtf(squares / float(h.d) + eps);
  if (!active) return;
  if (normed && lane == 0) rstd[int64_t(token) * (h.hq + h.hkv) + head] = r;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int i = (lane + m * h.lanes) * N;
    if (i >= half) continue;
    float* a = x1 + m * N;
    float* b = x2 + m * N;
    if (normed) {
      float w1[N], w2[N];
      load<T, N>(w + i, w1);
      load<T, N>(w + half + i, w2);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float y1 = rounded<T>(rounded<T>(a[e] * r) * w1[e]);
        const float y2 = rounded<T>(rounded<T>(b[e] * r) * w2[e]);
        a[e] = y1 * c[m * N + e] - y2 * s[m * N + e];
        b[e] = y2 * c[m * N + e] + y1 * s[m * N + e];
      }
    }
    store<T, N>(out + base + i, a);
    store<T, N>(out + base + half + i, b);
  }
}

// The rotation alone, by the angles times `direction`, 1 or -1. Heads as in the forward.
template <class T, int N, int M>
__global__ void __launch_bounds__(kThreads) rotate_kernel(const T* from, const float* table, const int32_t* positions,
                                                          T* to, Heads h, int heads, float direction) {
  const uint32_t item = blockIdx.x * uint32_t(kThreads / h.lanes) + threadIdx.x / uint32_t(h.lanes);
  if (item >= h.items) return;
  const uint32_t token = item / uint32_t(heads);
  const int head = int(item - token * uint32_t(heads));
  const int lane = threadIdx.x & (h.lanes - 1), half = h.d / 2;
  const int64_t base = (int64_t(token) * (h.hq + 2 * h.hkv) + head) * h.d;
  const bool turned = head < h.hq + h.hkv;
  const float* angles = table + int64_t(turned ? positions[token] : 0) * h.d;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int i = (lane + m * h.lanes) * N;
    if (i >= half) continue;
    float a[N], b[N];
    load<T, N>(from + base + i, a);
    load<T, N>(from + base + half + i, b);
    if (turned) {
      float c[N], s[N];
      load<float, N>(angles + i, c);
      load<float, N>(angles + half + i, s);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float x = a[e], y = b[e], sine = direction * s[e];
        a[e] = x * c[e] - y * sine;
        b[e] = y * c[e] + x * sine;
      }
    }
    store<T, N>(to + base + i, a);
    store<T, N>(to + base + half + i, b);
  }
}

// First all q heads, then all k heads, so that a thread sums one weight's gradient at a time. Each block leaves its
// sums in ws[block][2d]: dwq, dwk. With y = w * n, n = x * rstd, g = dy * w: dx = rstd * (g - n * mean(g * n)).
template <class T, int N, int M>
__global__ void __launch_bounds__(kBwdThreads, 2)
    qknorm_rope_bwd_kernel(T* dqkv, const T* qkv, const T* wq, const T* wk, const float* table,
                           const int32_t* positions, const float* rstd, float* ws, uint32_t tokens, Heads h) {
  constexpr int R = N * M, kWarps = kBwdThreads / 32;
  __shared__ float sums[kWarps][kMaxHead];
  const int groups = kBwdThreads / h.lanes, half = h.d / 2;
  const int group = threadIdx.x / h.lanes, lane = threadIdx.x & (h.lanes - 1);
  const int warp = threadIdx.x / 32;
  for (int phase = 0; phase < 2; ++phase) {
    const uint32_t heads = phase == 0 ? h.hq : h.hkv;
    const int head0 = phase == 0 ? 0 : h.hq;
    const T* w = phase == 0 ? wq : wk;
    const uint32_t items = tokens * heads, stride = gridDim.x * groups;
    float dw1[R], dw2[R];
#pragma unroll
    for (int e = 0; e < R; ++e) dw1[e] = dw2[e] = 0;
    // Whole blocks make the same number of turns, because the sum over lanes needs every lane of the warp.
    for (uint32_t turn = blockIdx.x * groups; turn < items; turn += stride) {
      const uint32_t item = turn + group;
      const bool active = item < items;
      const uint32_t token = active ? item / heads : 0;
      const int head = head0 + (active ? int(item - token * heads) : 0);
      const int64_t base = (int64_t(token) * (h.hq + 2 * h.hkv) + head) * h.d;
      const float r = active ? rstd[int64_t(token) * (h.hq + h.hkv) + head] : 0.0f;
      const float* angles = table + int64_t(active ? positions[token] : 0) * h.d;
      float g1[R], g2[R], n1[R], n2[R], dot = 0;
#pragma unroll
      for (int m = 0; m < M; ++m) {
        const int i = (lane + m * h.lanes) * N;
#pragma unroll
        for (int e = 0; e < N; ++e) g1[m * N + e] = g2[m * N + e] = n1[m * N + e] = n2[m * N + e] = 0;
        if (!active || i >= half) continue;
        load<T, N>(dqkv + base + i, g1 + m * N);
        load<T, N>(dqkv + base + half + i, g2 + m * N);
        load<T, N>(qkv + base + i, n1 + m * N);
        load<T, N>(qkv + base + half + i, n2 + m * N);
        float c[N], s[N], w1[N], w2[N];
        load<float, N>(angles + i, c);
        load<float, N>(angles + half + i, s);
        load<T, N>(w + i, w1);
        load<T, N>(w + half + i, w2);
#pragma unroll
        for (int e = 0; e < N; ++e) {
          const int k = m * N + e;
          const float y1 = g1[k] * c[e] + g2[k] * s[e], y2 = g2[k] * c[e] - g1[k] * s[e];
          n1[k] *= r;
          n2[k] *= r;
          dw1[k] = fmaf(y1, rounded<T>(n1[k]), dw1[k]);
          dw2[k] = fmaf(y2, rounded<T>(n2[k]), dw2[k]);
          g1[k] = y1 * w1[e];
          g2[k] = y2 * w2[e];
          dot = fmaf(g1[k], n1[k], fmaf(g2[k], n2[k], dot));
        }
      }
      const float mean = lane_sum(dot, h.lanes) / float(h.d);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        const int i = (lane + m * h.lanes) * N;
        if (!active || i >= half) continue;
#pragma unroll
        for (int e = 0; e < N; ++e) {
          const int k = m * N + e;
          g1[k] = r * (g1[k] - n1[k] * mean);
          g2[k] = r * (g2[k] - n2[k] * mean);
        }
        store<T, N>(dqkv + base + i, g1 + m * N);
        store<T, N>(dqkv + base + half + i, g2 + m * N);
      }
    }
    if (ws == nullptr) continue;
      // Over the groups of a warp, then over the warps in order.
#pragma unroll
    for (int e = 0; e < R; ++e) {
      for (int k = h.lanes; k < 32; k *= 2) {
        dw1[e] += __shfl_xor_sync(0xffffffffu, dw1[e], k);
        dw2[e] += __shfl_xor_sync(0xffffffffu, dw2[e], k);
      }
    }
    __syncthreads();  // the first phase's sums have been read
    if (threadIdx.x % 32 < h.lanes) {
#pragma unroll
      for (int m = 0; m < M; ++m) {
        const int i = (lane + m * h.lanes) * N;
        if (i >= half) continue;
#pragma unroll
        for (int e = 0; e < N; ++e) {
          sums[warp][i + e] = dw1[m * N + e];
          sums[warp][half + i + e] = dw2[m * N + e];
        }
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < h.d; i += kBwdThreads) {
      float sum = 0;
      for (int k = 0; k < kWarps; ++k) sum += sums[k][i];
      ws[(int64_t(blockIdx.x) * 2 + phase) * h.d + i] = sum;
    }
  }
}

// Lanes of a head in the 16-byte kernels, or 0 where the head does not fit them.
template <class T>
int vector_lanes(int64_t d) {
  const int64_t lanes = d / 2 / kVec<T>;
  const bool fits = d % (2 * kVec<T>) == 0 && lanes <= 32 && (lanes & (lanes - 1)) == 0;
  return fits ? int(lanes) : 0;
}

template <class T>
void forward(cudaStream_t stream, const QknormFwdArgs& z) {
  const int heads = int(z.hq + z.hkv + (z.out == z.qkv ? 0 : z.hkv));
  const int lanes = vector_lanes<T>(z.d);
  const bool vector =
      lanes > 0 && aligned16(z.qkv) && aligned16(z.wq) && aligned16(z.wk) && aligned16(z.table) && aligned16(z.out);
  const Heads h = {uint32_t(z.tokens * heads), int(z.hq), int(z.hkv), int(z.d), vector ? lanes : 32};
  const unsigned grid = unsigned(ceil_div(int64_t(h.items), kThreads / h.lanes));
  const auto run = [&](auto kernel) {
    kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(z.qkv), static_cast<const T*>(z.wq),
                                          static_cast<const T*>(z.wk), z.table, z.positions, static_cast<T*>(z.out),
                                          z.rstd, h, heads, z.eps);
  };
  if (vector) {
    run(qknorm_rope_fwd_kernel<T, kVec<T>, 1>);
  } else {
    run(qknorm_rope_fwd_kernel<T, 1, 4>);
  }
}

template <class T>
void rotate(cudaStream_t stream, const QknormArgs& z, const void* from, void* to, float direction) {
  const int heads = int(z.hq + z.hkv + (to == from ? 0 : z.hkv));
  const int lanes = vector_lanes<T>(z.d);
  const bool vector = lanes > 0 && aligned16(from) && aligned16(z.table) && aligned16(to);
  const Heads h = {uint32_t(z.tokens * heads), int(z.hq), int(z.hkv), int(z.d), vector ? lanes : 32};
  const unsigned grid = unsigned(ceil_div(int64_t(h.items), kThreads / h.lanes));
  const auto run = [&](auto kernel) {
    kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(from), z.table, z.positions, static_cast<T*>(to), h,
                                          heads, direction);
  };
  if (vector) {
    run(rotate_kernel<T, kVec<T>, 1>);
  } else {
    run(rotate_kernel<T, 1, 4>);
  }
}

template <class T>
void backward(cudaStream_t stream, const QknormBwdArgs& z) {
  const int lanes = vector_lanes<T>(z.d);
  const bool vector =
      lanes > 0 && aligned16(z.dqkv) && aligned16(z.qkv) && aligned16(z.wq) && aligned16(z.wk) && aligned16(z.table);
  const Heads h = {0, int(z.hq), int(z.hkv), int(z.d), vector ? lanes : 32};
  // The grid decides the order of the sum over heads, so it must not depend on the device.
  const int64_t blocks = ceil_div(z.tokens * (z.hq > z.hkv ? z.hq : z.hkv), kBwdThreads / h.lanes);
  const int parts = int(blocks < MB_REDUCE_PARTS ? blocks : MB_REDUCE_PARTS);
  const auto run = [&](auto kernel) {
    kernel<<<parts, kBwdThreads, 0, stream>>>(static_cast<T*>(z.dqkv), static_cast<const T*>(z.qkv),
                                              static_cast<const T*>(z.wq), static_cast<const T*>(z.wk), z.table,
                                              z.positions, z.rstd, z.ws, uint32_t(z.tokens), h);
  };
  if (vector) {
    run(qknorm_rope_bwd_kernel<T, kVec<T>, 1>);
  } else {
    run(qknorm_rope_bwd_kernel<T, 1, 4>);
  }
  if (z.ws != nullptr) reduce_parts(stream, z.ws, parts, 2 * z.d, z.d, z.dwq, z.dwk, z.accumulate_dw);
}

}  // namespace

int op_qknorm_rope_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_QKNORM_ROPE_FWD], t, nt, s, ns);
  const QknormFwdArgs z = read_qknorm_rope_fwd(a);
  if (!a.ok() || z.tokens == 0) return a.status();
  const bool f32 = z.dtype == MB_F32;
  if (z.norm) {
    f32 ? forward<float>(stream, z) : forward<bf16>(stream, z);
  } else {
    f32 ? rotate<float>(stream, z, z.qkv, z.out, 1) : rotate<bf16>(stream, z, z.qkv, z.out, 1);
  }
  return launched("qknorm_rope_fwd");
}

int op_qknorm_rope_bwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_QKNORM_ROPE_BWD], t, nt, s, ns);
  const QknormBwdArgs z = read_qknorm_rope_bwd(a);
  if (!a.ok()) return a.status();
  const bool f32 = z.dtype == MB_F32;
  if (z.tokens == 0) {
    if (z.ws != nullptr) reduce_parts(stream, z.ws, 0, 2 * z.d, z.d, z.dwq, z.dwk, z.accumulate_dw);
  } else if (z.norm) {
    f32 ? backward<float>(stream, z) : backward<bf16>(stream, z);
  } else {
    f32 ? rotate<float>(stream, z, z.dqkv, z.dqkv, -1) : rotate<bf16>(stream, z, z.dqkv, z.dqkv, -1);
  }
  return launched("qknorm_rope_bwd");
}

}  // namespace mb::cuda::kernels
