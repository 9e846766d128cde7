// Causal grouped-query attention of our own, tile by tile with an online softmax; deterministic in both directions.
//
// Forward: a block per (query tile, query head, batch). Backward: delta = sum(dO * O) per row, then a block per (key
// tile, kv head, batch) sums dK and dV over query tiles and over the heads of the group, and a block per (query tile,
// query head, batch) sums dQ over key tiles. Everything is summed in one thread, in a fixed order.
#include "attention_tiles.cuh"

namespace mbk {
namespace {

struct Shape {
  int b, s, hq, hkv, d;
  float scale;

  // Elements between two positions of qkv and of o.
  __host__ __device__ int qkv_stride() const { return (hq + 2 * hkv) * d; }
  __host__ __device__ int o_stride() const { return hq * d; }
  // First element of a head (q heads, then k, then v) at a position.
  __device__ int64_t qkv_at(int batch, int i, int head) const {
    return (int64_t(batch) * s + i) * qkv_stride() + head * d;
  }
  __device__ int64_t o_at(int batch, int i, int head) const { return (int64_t(batch) * s + i) * o_stride() + head * d; }
  __device__ int64_t row_at(int batch, int i, int head) const { return (int64_t(batch) * hq + head) * s + i; }
};

// Rows of the tile that starts at `first`.
template <class P>
__device__ __forceinline__ int tile_rows(const Shape& z, int first) {
  return z.s - first < P::kTile ? z.s - first : P::kTile;
}

template <class P, int DP>
__global__ void __launch_bounds__(P::kThreads, P::kBlocks)
    attention_fwd_kernel(const typename P::T* qkv, typename P::T* o, float* lse, Shape z) {
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
  const int rows = tile_rows<P>(z, first);
  load_tile<P, DP>(q_tile, qkv + z.qkv_at(batch, first, head), z.qkv_stride(), rows, z.d);

  float acc[P::kRows][P::kOut] = {}, top[P::kRows], sum[P::kRows];
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) top[a] = -INFINITY, sum[a] = 0;
  for (int t = 0; t <= tile; ++t) {
    const int key0 = t * P::kTile;
    const int keys = tile_rows<P>(z, key0);
    __syncthreads();  // the last turn has read its tiles
    load_tile<P, DP>(k_tile, qkv + z.qkv_at(batch, key0, z.hq + kv), z.qkv_stride(), keys, z.d);
    load_tile<P, DP>(v_tile, qkv + z.qkv_at(batch, key0, z.hq + z.hkv + kv), z.qkv_stride(), keys, z.d);
    __syncthreads();
    float score[P::kRows][P::kCols];
    P::nt(q_tile, k_tile, z.d, score);
#pragma unroll
    for (int a = 0; a < P::kRows; ++a) {
      float highest = top[a];
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        const bool seen = t < tile || P::col(b) <= P::row(a);
        score[a][b] = seen ? score[a][b] * z.scale : -INFINITY;
        highest = fmaxf(highest, score[a][b]);
      }
#pragma unroll
      for (int k = P::kRowLanes / 2; k > 0; k /= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, k));
      const float keep = P::exponential(top[a] - highest);
      top[a] = highest;
      sum[a] *= keep;
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        score[a][b] = P::exponential(score[a][b] - highest);
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
    T* to = o + z.o_at(batch, i, head);
#pragma unroll
    for (int c = 0; c < P::kOut; ++c) {
      if (P::out_col(c) < z.d) to[P::out_col(c)] = from_float<T>(acc[a][c] / total);
    }
    if (threadIdx.x % P::kRowLanes == 0) lse[z.row_at(batch, i, head)] = top[a] + logf(total);
  }
}

// One warp a row.
template <class T>
__global__ void __launch_bounds__(256) attention_delta_kernel(const T* o, const T* d_o, float* delta, Shape z) {
  const int64_t row = int64_t(blockIdx.x) * 8 + threadIdx.x / 32;  // in the order of lse: batch, head, position
  if (row >= int64_t(z.b) * z.hq * z.s) return;
  const int i = int(row % z.s), head = int(row / z.s % z.hq), batch = int(row / z.s / z.hq);
  const int64_t at = z.o_at(batch, i, head);
  float sum = 0;
  for (int c = threadIdx.x % 32; c < z.d; c += 32) sum = fmaf(to_float(o[at + c]), to_float(d_o[at + c]), sum);
  sum = lane_sum(sum);
  if (threadIdx.x % 32 == 0) delta[row] = sum;
}

// Scores are computed transposed here: rows are keys, columns are queries.
template <class P, int DP>
__global__ void __launch_bounds__(P::kThreads, P::kBlocks)
    attention_dkv_kernel(const typename P::T* qkv, const typename P::T* d_o, const float* lse, const float* delta,
                         typename P::T* dqkv, Shape z) {
  using T = typename P::T;
  extern __shared__ __align__(16) unsigned char memory[];
  T* k_tile = reinterpret_cast<T*>(memory);
  T* v_tile = k_tile + P::kTile * P::kStride;
  T* q_tile = v_tile + P::kTile * P::kStride;
  T* do_tile = q_tile + P::kTile * P::kStride;
  T* p_tile = do_tile + P::kTile * P::kStride;
  T* ds_tile = p_tile + P::kTile * P::kScoreStride;
  const int tile = blockIdx.x, tiles = gridDim.x;
  const int kv = blockIdx.y, batch = blockIdx.z, group = z.hq / z.hkv;
  const int key0 = tile * P::kTile;
  const int keys = tile_rows<P>(z, key0);
  load_tile<P, DP>(k_tile, qkv + z.qkv_at(batch, key0, z.hq + kv), z.qkv_stride(), keys, z.d);
  load_tile<P, DP>(v_tile, qkv + z.qkv_at(batch, key0, z.hq + z.hkv + kv), z.qkv_stride(), keys, z.d);

  float dk[P::kRows][P::kOut] = {}, dv[P::kRows][P::kOut] = {};
  for (int head = kv * group; head < (kv + 1) * group; ++head) {
    for (int t = tile; t < tiles; ++t) {
      const int first = t * P::kTile;
      const int rows = tile_rows<P>(z, first);
      __syncthreads();  // the last turn has read its tiles
      load_tile<P, DP>(q_tile, qkv + z.qkv_at(batch, first, head), z.qkv_stride(), rows, z.d);
      load_tile<P, DP>(do_tile, d_o + z.o_at(batch, first, head), z.o_stride(), rows, z.d);
      __syncthreads();
      const float* lse_rows = lse + z.row_at(batch, first, head);
      const float* delta_rows = delta + z.row_at(batch, first, head);
      float p[P::kRows][P::kCols], ds[P::kRows][P::kCols];
      P::nt(k_tile, q_tile, z.d, p);
      P::nt(v_tile, do_tile, z.d, ds);
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        const int query = P::col(b);
        const float log_sum = query < rows ? lse_rows[query] : INFINITY, mean = query < rows ? delta_rows[query] : 0.0f;
#pragma unroll
        for (int a = 0; a < P::kRows; ++a) {
          const bool seen = t > tile || P::row(a) <= query;
          p[a][b] = seen ? P::exponential(p[a][b] * z.scale - log_sum) : 0.0f;
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
    T* to_k = dqkv + z.qkv_at(batch, key0 + P::row(a), z.hq + kv);
    T* to_v = to_k + z.hkv * z.d;
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
    attention_dq_kernel(const typename P::T* qkv, const typename P::T* d_o, const float* lse, const float* delta,
                        typename P::T* dqkv, Shape z) {
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
  const int rows = tile_rows<P>(z, first);
  load_tile<P, DP>(q_tile, qkv + z.qkv_at(batch, first, head), z.qkv_stride(), rows, z.d);
  load_tile<P, DP>(do_tile, d_o + z.o_at(batch, first, head), z.o_stride(), rows, z.d);
  float log_sum[P::kRows], mean[P::kRows];
#pragma unroll
  for (int a = 0; a < P::kRows; ++a) {
    const bool inside = P::row(a) < rows;
    const int64_t row = z.row_at(batch, first + P::row(a), head);
    log_sum[a] = inside ? lse[row] : INFINITY;
    mean[a] = inside ? delta[row] : 0.0f;
  }

  float dq[P::kRows][P::kOut] = {};
  for (int t = 0; t <= tile; ++t) {
    const int key0 = t * P::kTile;
    const int keys = tile_rows<P>(z, key0);
    __syncthreads();  // the last turn has read its tiles
    load_tile<P, DP>(k_tile, qkv + z.qkv_at(batch, key0, z.hq + kv), z.qkv_stride(), keys, z.d);
    load_tile<P, DP>(v_tile, qkv + z.qkv_at(batch, key0, z.hq + z.hkv + kv), z.qkv_stride(), keys, z.d);
    __syncthreads();
    float p[P::kRows][P::kCols], ds[P::kRows][P::kCols];
    P::nt(q_tile, k_tile, z.d, p);
    P::nt(do_tile, v_tile, z.d, ds);
#pragma unroll
    for (int a = 0; a < P::kRows; ++a) {
#pragma unroll
      for (int b = 0; b < P::kCols; ++b) {
        const bool seen = t < tile || P::col(b) <= P::row(a);
        const float weight = seen ? P::exponential(p[a][b] * z.scale - log_sum[a]) : 0.0f;
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
    T* to = dqkv + z.qkv_at(batch, first + P::row(a), head);
#pragma unroll
    for (int c = 0; c < P::kOut; ++c) {
      if (P::out_col(c) < z.d) to[P::out_col(c)] = from_float<T>(dq[a][c]);
    }
  }
}

// Launches a kernel of policy P with `tiles` operand tiles and `scores` score tiles in shared memory.
template <class P, class Kernel, class... Arguments>
void launch(cudaStream_t stream, Kernel kernel, int tiles, int scores, const Shape& z, int heads,
            Arguments... arguments) {
  const int bytes = int(sizeof(typename P::T)) * P::kTile * (tiles * P::kStride + scores * P::kScoreStride);
  // A refusal leaves its error behind for the check after the launch.
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) != cudaSuccess) return;
  const dim3 grid(unsigned(ceil_div(z.s, P::kTile)), unsigned(heads), unsigned(z.b));
  kernel<<<grid, P::kThreads, size_t(bytes), stream>>>(arguments..., z);
}

template <class F, class B, int DP>
struct Policies {
  using T = typename F::T;

  static void forward(cudaStream_t stream, const void* qkv, void* o, float* lse, const Shape& z) {
    launch<F>(stream, attention_fwd_kernel<F, DP>, 3, 1, z, z.hq, static_cast<const T*>(qkv), static_cast<T*>(o), lse);
  }

  static void backward(cudaStream_t stream, const void* qkv, const void* o, const float* lse, const void* d_o,
                       void* dqkv, float* delta, const Shape& z) {
    attention_delta_kernel<T><<<unsigned(ceil_div(int64_t(z.b) * z.hq * z.s, 8)), 256, 0, stream>>>(
        static_cast<const T*>(o), static_cast<const T*>(d_o), delta, z);
    launch<B>(stream, attention_dkv_kernel<B, DP>, 4, 2, z, z.hkv, static_cast<const T*>(qkv),
              static_cast<const T*>(d_o), lse, delta, static_cast<T*>(dqkv));
    launch<B>(stream, attention_dq_kernel<B, DP>, 4, 1, z, z.hq, static_cast<const T*>(qkv), static_cast<const T*>(d_o),
              lse, delta, static_cast<T*>(dqkv));
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

Shape read_shape(Args& a) {
  const Shape z = {int(a.size(0, "b", 0, 65535)),   int(a.size(1, "s", 0, 1 << 24)), int(a.size(2, "hq", 1, 65535)),
                   int(a.size(3, "hkv", 1, 65535)), int(a.size(4, "d", 8, 256)),     float(a.number(5, "scale"))};
  a.flag(6, "deterministic");  // always is
  if (z.hq % z.hkv != 0) a.fail("hq %d is not a multiple of hkv %d", z.hq, z.hkv);
  if (z.d % 8 != 0) a.fail("d is %d, expected a multiple of 8", z.d);
  if (times(times(z.b, z.s), z.hq) > (int64_t(1) << 33)) a.fail("b * s * hq is too large");
  return z;
}

}  // namespace
}  // namespace mbk

using namespace mbk;

int64_t mbk_attention_workspace(int dtype, int64_t b, int64_t s, int64_t hq, int64_t hkv, int64_t d) {
  const bool known = (dtype == MB_F32 || dtype == MB_BF16) && b >= 0 && s >= 0 && hkv >= 1 && hq >= hkv;
  if (!known || hq % hkv != 0 || d < 8 || d > 256 || d % 8 != 0) {
    mb_cuda_set_error(
        "attention: dtype %d, b %lld, s %lld, hq %lld, hkv %lld, d %lld: expected f32 or bf16, hq a multiple of hkv, "
        "and d a multiple of 8 up to 256",
        dtype, (long long)b, (long long)s, (long long)hq, (long long)hkv, (long long)d);
    return -1;
  }
  return times(times(times(b, s), hq), 4);
}

int mbk_attention_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("attention_fwd", t, nt, 4, s, ns, 7);
  const Shape z = read_shape(a);
  const int dtype = a.act(0, "qkv");
  const int64_t tokens = times(z.b, z.s);
  const void* qkv = a.tensor16(0, "qkv", dtype, times(tokens, z.qkv_stride()));
  void* o = a.tensor16(1, "o", dtype, times(tokens, z.o_stride()));
  float* lse = a.f32(2, "lse", times(tokens, z.hq));
  a.distinct(0, "qkv", 1, "o");
  if (a.status != MB_OK || tokens == 0) return a.status;
  dispatch(dtype, z.d, [&](auto p) { decltype(p)::forward(stream, qkv, o, lse, z); });
  return launched("attention_fwd");
}

int mbk_attention_bwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("attention_bwd", t, nt, 6, s, ns, 7);
  const Shape z = read_shape(a);
  const int dtype = a.act(0, "qkv");
  const int64_t tokens = times(z.b, z.s);
  const void* qkv = a.tensor16(0, "qkv", dtype, times(tokens, z.qkv_stride()));
  const void* o = a.tensor16(1, "o", dtype, times(tokens, z.o_stride()));
  const float* lse = a.f32(2, "lse", times(tokens, z.hq));
  const void* d_o = a.tensor16(3, "do", dtype, times(tokens, z.o_stride()));
  void* dqkv = a.tensor16(4, "dqkv", dtype, times(tokens, z.qkv_stride()));
  float* delta = static_cast<float*>(a.scratch(5, "ws", times(times(tokens, z.hq), 4)));
  a.distinct(0, "qkv", 4, "dqkv");
  a.distinct(3, "do", 4, "dqkv");
  if (a.status != MB_OK || tokens == 0) return a.status;
  dispatch(dtype, z.d, [&](auto p) { decltype(p)::backward(stream, qkv, o, lse, d_o, dqkv, delta, z); });
  return launched("attention_bwd");
}
