// Masked grouped-query attention of our own, tile by tile with an online softmax; deterministic in both directions.
//
// Forward: a block per (query tile, query head, batch); in bf16 with heads of up to 128 that of attention_rows.cuh.
// Backward: delta = sum(dO * O) per row, then a block per (key
// tile, kv head, batch) sums dK and dV over query tiles and over the heads of the group, and a block per (query tile,
// query head, batch) sums dQ over key tiles. Everything is summed in one thread, in a fixed order.
#include "core/args/attention.h"
#include "cuda/kernels/attention_mask.cuh"
#include "cuda/kernels/attention_rows.cuh"
#include "cuda/kernels/attention_tiles.cuh"

namespace mb::cuda::kernels {
namespace {

template <class P, int DP>
__global__ void __launch_bounds__(P::kThreads, P::kBlocks)
    attention_fwd_kernel(const typename P::T* q, const typename P::T* k, const typename P::T* v, typename P::T* o,
                         float* lse, Shape z) {
  using T = typename P::T;
  static_assert(P::kRowInWarp, "the softmax reduces a row inside a warp");
  extern __shared__ __align__(16) unsigned char memory[];
  T* q_tile = reinterpret_cast<T*>(memory);
  T* k_tile = q_tile + P::kTile * P::kStride;
  T* v_tile = k_tile + P::kTile * P::kStride;
  T* p_tile = v_tile + P::kTile * P::kStride;
  const int tile = int(gridDim.x) - 1 - int(blockIdx.x);  // the longest first
  const int head = blockIdx.y, batch = blockIdx.z, kv = head / (z.hq / z.hkv);
  const int first = tile * P::kTile;
  const int rows = min(z.sq - first, P::kTile);
  load_tile<P, DP>(q_tile, q + z.q_row(batch, first) * z.ldq + head * z.d, z.ldq, rows, z.d);

  float acc[P::kRows][P::kOut] = {}, top[P::kRows], sum[P::kRows];
  Seen seen[P::kRows];
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) {
    top[a] = -INFINITY, sum[a] = 0;
    seen[a] = seen_by(z, batch, first + P::row(a));
  }
  const Range tiles = key_tiles<P>(z, first, rows, seen);
  for (int t = tiles.begin; t < tiles.end; ++t) {
    const int key0 = t * P::kTile;
    const int keys = min(z.skv - key0, P::kTile);
    bool touched = false;
#pragma unroll
    for (int a = 0; a < P::kRows; ++a) touched = touched || seen[a].touches(key0, P::kTile);
    if (!meet_tile(z, touched)) continue;  // the last turn has read its tiles
    load_tile<P, DP>(k_tile, k + z.kv_row(batch, key0) * z.ldk + kv * z.d, z.ldk, keys, z.d);
    load_tile<P, DP>(v_tile, v + z.kv_row(batch, key0) * z.ldv + kv * z.d, z.ldv, keys, z.d);
    __syncthreads();
    float score[P::kRows][P::kCols];
    P::nt(q_tile, k_tile, z.d, score);
#pragma unroll
    for (int a = 0; a < P::kRows; ++a) {
      float highest = top[a];
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        score[a][b] = seen[a].holds(key0 + P::col(b)) ? score[a][b] * z.scale : -INFINITY;
        highest = fmaxf(highest, score[a][b]);
      }
#pragma unroll
      for (int w = P::kRowLanes / 2; w > 0; w /= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, w));
      const float base = highest == -INFINITY ? 0.0f : highest;  // nothing seen yet: -inf less -inf would be no number
      const float keep = P::exponential(top[a] - base);
      top[a] = highest;
      sum[a] *= keep;
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        score[a][b] = P::exponential(score[a][b] - base);
        sum[a] += score[a][b];
      }
#pragma unroll
      for (int c = 0; c < P::kOut; ++c) acc[a][c] *= keep;
      P::store_score(p_tile, a, score[a]);
    }
    __syncthreads();
    P::nn(p_tile, v_tile, acc);
  }
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) {
    const float total = lane_sum(sum[a], P::kRowLanes);
    if (P::row(a) >= rows) continue;
    const int i = first + P::row(a);
    T* to = o + z.q_row(batch, i) * z.ldo + head * z.d;
#pragma unroll
    for (int c = 0; c < P::kOut; ++c) {
      if (P::out_col(c) < z.d) to[P::out_col(c)] = from_float<T>(total == 0 ? 0.0f : acc[a][c] / total);
    }
    if (threadIdx.x % P::kRowLanes == 0) lse[z.lse_at(batch, i, head)] = top[a] + logf(total);
  }
}

// One warp a row.
template <class T>
__global__ void __launch_bounds__(256) attention_delta_kernel(const T* o, const T* d_o, float* delta, Shape z) {
  const int64_t row = int64_t(blockIdx.x) * 8 + threadIdx.x / 32;  // in the order of lse: batch, head, position
  if (row >= int64_t(z.b) * z.hq * z.sq) return;
  const int i = int(row % z.sq), head = int(row / z.sq % z.hq), batch = int(row / z.sq / z.hq);
  const int64_t at = z.q_row(batch, i) * z.ldo + head * z.d;
  float sum = 0;
  for (int c = threadIdx.x % 32; c < z.d; c += 32) sum = fmaf(to_float(o[at + c]), to_float(d_o[at + c]), sum);
  sum = lane_sum(sum);
  if (threadIdx.x % 32 == 0) delta[row] = sum;
}

// Scores are computed transposed here: rows are keys, columns are queries.
template <class P, int DP>
__global__ void __launch_bounds__(P::kThreads, P::kBlocks)
    attention_dkv_kernel(const typename P::T* q, const typename P::T* k, const typename P::T* v,
                         const typename P::T* d_o, const float* lse, const float* delta, typename P::T* to_dk,
                         typename P::T* to_dv, Shape z) {
  using T = typename P::T;
  extern __shared__ __align__(16) unsigned char memory[];
  T* k_tile = reinterpret_cast<T*>(memory);
  T* v_tile = k_tile + P::kTile * P::kStride;
  T* q_tile = v_tile + P::kTile * P::kStride;
  T* do_tile = q_tile + P::kTile * P::kStride;
  T* p_tile = do_tile + P::kTile * P::kStride;
  T* ds_tile = p_tile + P::kTile * P::kScoreStride;
  const int kv = blockIdx.y, batch = blockIdx.z, group = z.hq / z.hkv;
  const int key0 = int(blockIdx.x) * P::kTile;
  const int keys = min(z.skv - key0, P::kTile);
  load_tile<P, DP>(k_tile, k + z.kv_row(batch, key0) * z.ldk + kv * z.d, z.ldk, keys, z.d);
  load_tile<P, DP>(v_tile, v + z.kv_row(batch, key0) * z.ldv + kv * z.d, z.ldv, keys, z.d);

  float dk[P::kRows][P::kOut] = {}, dv[P::kRows][P::kOut] = {};
  const Range tiles = query_tiles<P>(z, batch, key0);
  for (int head = kv * group; head < (kv + 1) * group; ++head) {
    for (int t = tiles.begin; t < tiles.end; ++t) {
      const int first = t * P::kTile;
      const int rows = min(z.sq - first, P::kTile);
      bool touched = false;
      if (z.bounds != nullptr) {
#pragma unroll
        for (int b = 0; b < P::kCols; ++b) {
          touched = touched || seen_by(z, batch, first + P::col(b)).touches(key0, P::kTile);
        }
      }
      if (!meet_tile(z, touched)) continue;  // the last turn has read its tiles
      load_tile<P, DP>(q_tile, q + z.q_row(batch, first) * z.ldq + head * z.d, z.ldq, rows, z.d);
      load_tile<P, DP>(do_tile, d_o + z.q_row(batch, first) * z.ldo + head * z.d, z.ldo, rows, z.d);
      __syncthreads();
      const float* lse_rows = lse + z.lse_at(batch, first, head);
      const float* delta_rows = delta + z.lse_at(batch, first, head);
      float p[P::kRows][P::kCols], ds[P::kRows][P::kCols];
      P::nt(k_tile, q_tile, z.d, p);
      P::nt(v_tile, do_tile, z.d, ds);
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        const int query = P::col(b);
        const float log_sum = query < rows ? lse_rows[query] : INFINITY, mean = query < rows ? delta_rows[query] : 0.0f;
        const Seen seen = seen_by(z, batch, first + query);
#pragma unroll
        for (int a = 0; a < P::kRows; ++a) {
          p[a][b] = seen.holds(key0 + P::row(a)) ? P::exponential(p[a][b] * z.scale - log_sum) : 0.0f;
          ds[a][b] = p[a][b] * (ds[a][b] - mean) * z.scale;
        }
      }
#pragma unroll
      for (int a = 0; a < P::kRows; ++a) {
        P::store_score(p_tile, a, p[a]);
        P::store_score(ds_tile, a, ds[a]);
      }
      __syncthreads();
      P::nn(p_tile, do_tile, dv);
      P::nn(ds_tile, q_tile, dk);
    }
  }
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) {
    if (P::row(a) >= keys) continue;
    const int64_t row = z.kv_row(batch, key0 + P::row(a));
    T* to_k = to_dk + row * z.lddk + kv * z.d;
    T* to_v = to_dv + row * z.lddv + kv * z.d;
#pragma unroll
    for (int c = 0; c < P::kOut; ++c) {
      if (P::out_col(c) >= z.d) continue;
      to_k[P::out_col(c)] = from_float<T>(dk[a][c]);
      to_v[P::out_col(c)] = from_float<T>(dv[a][c]);
    }
  }
}

template <class P, int DP>
__global__ void __launch_bounds__(P::kThreads, P::kBlocks)
    attention_dq_kernel(const typename P::T* q, const typename P::T* k, const typename P::T* v,
                        const typename P::T* d_o, const float* lse, const float* delta, typename P::T* to_dq, Shape z) {
  using T = typename P::T;
  extern __shared__ __align__(16) unsigned char memory[];
  T* q_tile = reinterpret_cast<T*>(memory);
  T* do_tile = q_tile + P::kTile * P::kStride;
  T* k_tile = do_tile + P::kTile * P::kStride;
  T* v_tile = k_tile + P::kTile * P::kStride;
  T* ds_tile = v_tile + P::kTile * P::kStride;
  const int tile = int(gridDim.x) - 1 - int(blockIdx.x);  // the longest first
  const int head = blockIdx.y, batch = blockIdx.z, kv = head / (z.hq / z.hkv);
  const int first = tile * P::kTile;
  const int rows = min(z.sq - first, P::kTile);
  load_tile<P, DP>(q_tile, q + z.q_row(batch, first) * z.ldq + head * z.d, z.ldq, rows, z.d);
  load_tile<P, DP>(do_tile, d_o + z.q_row(batch, first) * z.ldo + head * z.d, z.ldo, rows, z.d);
  float log_sum[P::kRows], mean[P::kRows];
  Seen seen[P::kRows];
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) {
    const bool inside = P::row(a) < rows;
    const int64_t row = z.lse_at(batch, first + P::row(a), head);
    log_sum[a] = inside ? lse[row] : INFINITY;
    mean[a] = inside ? delta[row] : 0.0f;
    seen[a] = seen_by(z, batch, first + P::row(a));
  }

  float dq[P::kRows][P::kOut] = {};
  const Range tiles = key_tiles<P>(z, first, rows, seen);
  for (int t = tiles.begin; t < tiles.end; ++t) {
    const int key0 = t * P::kTile;
    const int keys = min(z.skv - key0, P::kTile);
    bool touched = false;
#pragma unroll
    for (int a = 0; a < P::kRows; ++a) touched = touched || seen[a].touches(key0, P::kTile);
    if (!meet_tile(z, touched)) continue;  // the last turn has read its tiles
    load_tile<P, DP>(k_tile, k + z.kv_row(batch, key0) * z.ldk + kv * z.d, z.ldk, keys, z.d);
    load_tile<P, DP>(v_tile, v + z.kv_row(batch, key0) * z.ldv + kv * z.d, z.ldv, keys, z.d);
    __syncthreads();
    float p[P::kRows][P::kCols], ds[P::kRows][P::kCols];
    P::nt(q_tile, k_tile, z.d, p);
    P::nt(do_tile, v_tile, z.d, ds);
#pragma unroll
    for (int a = 0; a < P::kRows; ++a) {
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        const bool holds = seen[a].holds(key0 + P::col(b));
        const float weight = holds ? P::exponential(p[a][b] * z.scale - log_sum[a]) : 0.0f;
        ds[a][b] = weight * (ds[a][b] - mean[a]) * z.scale;
      }
      P::store_score(ds_tile, a, ds[a]);
    }
    __syncthreads();
    P::nn(ds_tile, k_tile, dq);
  }
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) {
    if (P::row(a) >= rows) continue;
    T* to = to_dq + z.q_row(batch, first + P::row(a)) * z.lddq + head * z.d;
#pragma unroll
    for (int c = 0; c < P::kOut; ++c) {
      if (P::out_col(c) < z.d) to[P::out_col(c)] = from_float<T>(dq[a][c]);
    }
  }
}

// Launches a kernel of policy P over tiles of `positions`, with `tiles` operand tiles and `scores` score tiles in
// shared memory.
template <class P, class Kernel, class... Arguments>
void launch(cudaStream_t stream, Kernel kernel, int tiles, int scores, int positions, int heads, const Shape& z,
            Arguments... arguments) {
  const int bytes = int(sizeof(typename P::T)) * P::kTile * (tiles * P::kStride + scores * P::kScoreStride);
  // A refusal leaves its error behind for the check after the launch.
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) != cudaSuccess) return;
  const dim3 grid(unsigned(ceil_div(positions, P::kTile)), unsigned(heads), unsigned(z.b));
  kernel<<<grid, P::kThreads, size_t(bytes), stream>>>(arguments..., z);
}

Shape shape_of(const AttentionArgs& z) {
  return {int(z.b),    int(z.sq),      int(z.skv),    int(z.hq),  int(z.hkv),  int(z.d),
          int(z.ldq),  int(z.ldk),     int(z.ldv),    int(z.ldo), int(z.lddq), int(z.lddk),
          int(z.lddv), int(z.kv_rows), int(z.offset), z.bounds,   z.scale};
}

template <class F, class B, int DP>
struct Policies {
  using T = typename F::T;

  static void forward(cudaStream_t stream, const AttentionArgs& a) {
    const Shape z = shape_of(a);
    if constexpr (std::is_same_v<T, bf16> && DP <= 128) {
      launch_rows<DP>(stream, a.q, a.k, a.v, a.o, a.lse, SequenceRows{z}, a.b * a.sq, a.hq, a.hkv, a.d, a.ldq, a.ldk,
                      a.ldv, a.ldo, z.scale);
      return;
    }
    launch<F>(stream, attention_fwd_kernel<F, DP>, 3, 1, z.sq, z.hq, z, static_cast<const T*>(a.q),
              static_cast<const T*>(a.k), static_cast<const T*>(a.v), static_cast<T*>(a.o), a.lse);
  }

  static void backward(cudaStream_t stream, const AttentionArgs& a, float* delta) {
    const Shape z = shape_of(a);
    const T *q = static_cast<const T*>(a.q), *k = static_cast<const T*>(a.k), *v = static_cast<const T*>(a.v);
    const T* d_o = static_cast<const T*>(a.d_o);
    attention_delta_kernel<T><<<unsigned(ceil_div(int64_t(z.b) * z.hq * z.sq, 8)), 256, 0, stream>>>(
        static_cast<const T*>(a.o), d_o, delta, z);
    launch<B>(stream, attention_dkv_kernel<B, DP>, 4, 2, z.skv, z.hkv, z, q, k, v, d_o, a.lse, delta,
              static_cast<T*>(a.dk), static_cast<T*>(a.dv));
    launch<B>(stream, attention_dq_kernel<B, DP>, 4, 1, z.sq, z.hq, z, q, k, v, d_o, a.lse, delta,
              static_cast<T*>(a.dq));
  }
};

template <int DP>
using F32 = Policies<SimtTiles<DP>, SimtTiles<DP>, DP>;
template <int DP>
using Bf16 = Policies<MmaTiles<DP, 1>, MmaTiles<DP, 2>, DP>;

// Calls f with the policies for this dtype and the smallest tile width that holds d.
template <class Call>
void dispatch(int dtype, int64_t d, const Call& f) {
  if (dtype == MB_F32) {
    d <= 64 ? f(F32<64>()) : d <= 128 ? f(F32<128>()) : f(F32<256>());
  } else {
    d <= 64 ? f(Bf16<64>()) : d <= 128 ? f(Bf16<128>()) : f(Bf16<256>());
  }
}

}  // namespace

int64_t attention_workspace_bytes(const AttentionSizes& z) { return times(times(times(z.b, z.sq), z.hq), 4); }

int op_attention_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ATTENTION_FWD], t, nt, s, ns);
  const AttentionArgs z = read_attention_fwd(a);
  if (!a.ok()) return a.status();
  dispatch(z.dtype, z.d, [&](auto p) { decltype(p)::forward(stream, z); });
  return launched("attention_fwd");
}

int op_attention_bwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ATTENTION_BWD], t, nt, s, ns);
  const AttentionArgs z = read_attention_bwd(a);
  float* delta = a.scratch(10, attention_workspace_bytes(z));
  if (!a.ok()) return a.status();
  dispatch(z.dtype, z.d, [&](auto p) { decltype(p)::backward(stream, z, delta); });
  return launched("attention_bwd");
}

}  // namespace mb::cuda::kernels
