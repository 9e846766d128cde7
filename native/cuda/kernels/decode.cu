// The cache of keys and values, and attention over it. A row of keys is cut into chunks of MB_CHUNK_KEYS; each is
// summed by one block in a fixed order, and the chunks are added up in order. In bf16 that is the order of
// attention_chunks.cuh, whether a block has the heads of one query, or many queries.
//
// The cache lies as [slots][context][hkv][d], k and v alike.
#include "core/args/decode.h"
#include "cuda/kernels/attention_rows.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kLanes = 8;  // threads that share a key
constexpr int kThreads = 128;
constexpr int kGroups = kThreads / kLanes;  // keys side by side
constexpr int kChunk = MB_CHUNK_KEYS;

struct Cache {
  const int32_t *cells, *positions;
  int hq, hkv, slots, context;

  __host__ __device__ int chunks() const { return (context + kChunk - 1) / kChunk; }
  // Keys that token t sees; 0 where it has no place.
  __device__ int keys(int t) const {
    const int cell = cells[t], position = positions[t];
    return cell >= 0 && cell < slots && position >= 0 && position < context ? position + 1 : 0;
  }
};

// Queries of tokens with places in a cache.
struct CachedRows {
  Cache c;
  int count;

  __device__ int tokens() const { return count; }
  __device__ int cell(int t) const { return c.cells[t]; }
  __device__ Seen seen(int t) const { return {0, c.keys(t)}; }
  __device__ int64_t key_row(int cell) const { return int64_t(cell) * c.context; }
  __device__ void store_lse(float*, int, int, float) const {}
};

template <class T>
__global__ void kv_store_kernel(const T* qkv, T* k, T* v, Cache c, int kv_width, int q_width) {
  const int t = blockIdx.x;
  const int keys = c.keys(t);
  if (keys == 0) return;
  const T* from = qkv + int64_t(t) * (q_width + 2 * kv_width) + q_width;
  const int64_t to = (int64_t(c.cells[t]) * c.context + keys - 1) * kv_width;
  for (int i = int(threadIdx.x) * kVec<T>; i < kv_width; i += int(blockDim.x) * kVec<T>) {
    store16(k + to + i, load16(from + i));
    store16(v + to + i, load16(from + kv_width + i));
  }
}

// D elements of a row over kLanes threads, in chunks of N neighbours: chunk j of lane l begins at (j * kLanes + l) * N.
template <class T, int D>
struct Spread {
  static constexpr int kEach = D / kLanes;
  static constexpr int N = kEach < kVec<T> ? kEach : kVec<T>;
  static constexpr int kChunks = kEach / N;

  static __device__ __forceinline__ int at(int chunk, int lane) { return (chunk * kLanes + lane) * N; }
  static __device__ __forceinline__ void load(const T* row, int lane, float (&f)[kEach]) {
#pragma unroll
    for (int j = 0; j < kChunks; ++j) {
      const T* from = row + at(j, lane);
      if constexpr (N == kVec<T>) {
        float part[N];
        unpack<T>(load16(from), part);
#pragma unroll
        for (int e = 0; e < N; ++e) f[j * N + e] = part[e];
      } else {
#pragma unroll
        for (int e = 0; e < N; ++e) f[j * N + e] = to_float(from[e]);
      }
    }
  }
};

// Block (chunk, G heads, token): G query heads of one kv head over a chunk of keys. Leaves for each head the maximum of
// the scores, the sum of their exponentials and the weighted sum of values. Eight threads share a key; each
// eight go over every sixteenth key with a running softmax, and those are merged in order at the end.
template <class T, int D, int G>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const T* q, const T* k, const T* v, float* ws, Cache c, int ldq, float scale) {
  using S = Spread<T, D>;
  __shared__ float shared_top[kGroups][G], shared_sum[kGroups][G], shared_out[kGroups][D];
  const int t = blockIdx.z, keys = c.keys(t), begin = int(blockIdx.x) * kChunk;
  if (begin >= keys) return;
  const int end = min(begin + kChunk, keys);
  const int head = int(blockIdx.y) * G, group = c.hq / c.hkv, kv_head = head / group;
  const int lane = int(threadIdx.x) % kLanes, mine = int(threadIdx.x) / kLanes;

  float query[G][S::kEach], out[G][S::kEach], top[G], sum[G];
#pragma unroll
  for (int g = 0; g < G; ++g) {
    S::load(q + int64_t(t) * ldq + (head + g) * D, lane, query[g]);
    top[g] = -INFINITY;
    sum[g] = 0;
#pragma unroll
    for (int e = 0; e < S::kEach; ++e) out[g][e] = 0;
  }
  const int64_t first = (int64_t(c.cells[t]) * c.context * c.hkv + kv_head) * D;
  const int64_t stride = int64_t(c.hkv) * D;
  // All threads of a warp make the same rounds: the sums over lanes need them.
  for (int base = begin; base < end; base += kGroups) {
    const int key = base + mine;
    const bool here = key < end;
    const int64_t row = first + (here ? key : end - 1) * stride;
    float kf[S::kEach], vf[S::kEach];
    S::load(k + row, lane, kf);
    S::load(v + row, lane, vf);
    float score[G];
    // Every thread of a warp takes part in the sums over lanes, whether its key is there or not.
#pragma unroll
    for (int g = 0; g < G; ++g) {
      float dot = 0;
#pragma unroll
      for (int e = 0; e < S::kEach; ++e) dot += query[g][e] * kf[e];
      dot = lane_sum(dot, kLanes);
      score[g] = here ? dot * scale : -INFINITY;
    }
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const float now = fmaxf(top[g], score[g]);
      const float from = now == -INFINITY ? 0.0f : now;
      const float shrink = expf(top[g] - from), p = expf(score[g] - from);
      top[g] = now;
      sum[g] = sum[g] * shrink + p;
#pragma unroll
      for (int e = 0; e < S::kEach; ++e) out[g][e] = out[g][e] * shrink + p * vf[e];
    }
  }

  if (lane == 0) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      shared_top[mine][g] = top[g];
      shared_sum[mine][g] = sum[g];
    }
  }
  __syncthreads();
  for (int g = 0; g < G; ++g) {
    float highest = -INFINITY;
    for (int i = 0; i < kGroups; ++i) highest = fmaxf(highest, shared_top[i][g]);
    const float factor = expf(shared_top[mine][g] - highest);
#pragma unroll
    for (int j = 0; j < S::kChunks; ++j) {
#pragma unroll
      for (int e = 0; e < S::N; ++e) {
        float value = 0;
        // An unrolled choice of the head keeps `out` in registers.
#pragma unroll
        for (int h = 0; h < G; ++h) value = h == g ? out[h][j * S::N + e] : value;
        shared_out[mine][S::at(j, lane) + e] = value * factor;
      }
    }
    __syncthreads();
    float* to = ws + ((int64_t(t) * c.hq + head + g) * c.chunks() + blockIdx.x) * (D + 2);
    for (int e = int(threadIdx.x); e < D; e += kThreads) {
      float total = 0;
      for (int i = 0; i < kGroups; ++i) total += shared_out[i][e];
      to[2 + e] = total;
    }
    if (threadIdx.x == 0) {
      float total = 0;
      for (int i = 0; i < kGroups; ++i) total += shared_sum[i][g] * expf(shared_top[i][g] - highest);
      to[0] = highest;
      to[1] = total;
    }
    __syncthreads();
  }
}

// Block (chunk, up to 16 heads of a kv head, token), one warp: the same in bf16, on the tensor cores. Keys and values
// of a tile are on their way while the other ones are multiplied.
template <int DP>
__global__ void __launch_bounds__(32) decode_chunk_kernel(const bf16* q, const bf16* k, const bf16* v, float* ws,
                                                          Cache c, int d, int64_t ldq, float scale) {
  using P = MmaTiles<DP, 1>;
  __shared__ __align__(16) bf16 q_tile[kWarpQueries * P::kStride], k_tile[kTileKeys * P::kStride],
      v_tile[kTileKeys * P::kStride];
  const int t = blockIdx.z, keys = c.keys(t), begin = int(blockIdx.x) * kChunk;
  if (begin >= keys) return;
  const int end = min(begin + kChunk, keys), group = c.hq / c.hkv, blocks = (group + kWarpQueries - 1) / kWarpQueries;
  const int kv_head = int(blockIdx.y) / blocks, first = int(blockIdx.y) % blocks * kWarpQueries;
  const int heads = min(group - first, kWarpQueries), head = kv_head * group + first, lane = P::lane();
  const int64_t stride = int64_t(c.hkv) * d, row = (int64_t(c.cells[t]) * c.context) * stride + kv_head * d;
  const auto fetch = [&](bf16* tile, const bf16* from, int key0) {
    if (key0 < end)
      copy_tile<DP, kTileKeys, 32>(tile, from + row + key0 * stride, stride, min(end - key0, kTileKeys), d);
    commit_copies();
  };
  copy_tile<DP, kWarpQueries, 32>(q_tile, q + t * ldq + head * d, d, heads, d);
  fetch(k_tile, k, begin);
  fetch(v_tile, v, begin);
  PartialSoftmax<DP> chunk;
  chunk.clear();
  for (int key0 = begin; key0 < end; key0 += kTileKeys) {
    float score[8][4];
    wait_copies<1>();
    __syncwarp();
    tile_scores<DP>(q_tile, k_tile, score);
    __syncwarp();
    fetch(k_tile, k, key0 + kTileKeys);
    wait_copies<1>();
    __syncwarp();
    const Seen seen[2] = {{0, keys}, {0, keys}};
    add_tile<DP>(chunk, score, v_tile, key0, seen, scale * kLog2E);
    __syncwarp();
    fetch(v_tile, v, key0 + kTileKeys);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = lane_sum(chunk.sum[r], 4);
    const int own = lane / 4 + 8 * r;
    if (own >= heads) continue;
    float* to = ws + ((int64_t(t) * c.hq + head + own) * c.chunks() + blockIdx.x) * (d + 2);
    if (lane % 4 == 0) {
      to[0] = chunk.top[r];
      to[1] = sum;
    }
#pragma unroll
    for (int n = 0; n < DP / 8; ++n) {
      const int column = 8 * n + lane % 4 * 2;
      if (column >= d) break;
      *reinterpret_cast<float2*>(to + 2 + column) = make_float2(chunk.out[n][2 * r], chunk.out[n][2 * r + 1]);
    }
  }
}

// Block (head, token), a thread a column: the chunks, added up in order.
template <class T>
__global__ void __launch_bounds__(128) decode_merge_kernel(const float* ws, T* o, Cache c, int d) {
  const int head = blockIdx.x, t = blockIdx.y, keys = c.keys(t), column = int(threadIdx.x);
  if (column >= d) return;
  const int chunks = (keys + kChunk - 1) / kChunk;
  const float* from = ws + (int64_t(t) * c.hq + head) * c.chunks() * (d + 2);
  float top = -INFINITY, sum = 0, out = 0;
  for (int i = 0; i < chunks; ++i, from += d + 2) {
    if constexpr (sizeof(T) == 4) {
      const float now = fmaxf(top, from[0]), keep = expf(top - now), add = expf(from[0] - now);
      top = now;
      sum = sum * keep + from[1] * add;
      out = out * keep + from[2 + column] * add;
    } else {
      const Blend blend(top, from[0]);
      top = blend.top;
      sum = blend(sum, from[1]);
      out = blend(out, from[2 + column]);
    }
  }
  o[(int64_t(t) * c.hq + head) * d + column] = from_float<T>(softmax_result(out, sum));
}

Cache cache_of(const CacheArgs& z) {
  return {z.cells, z.positions, int(z.hq), int(z.hkv), int(z.slots), int(z.context)};
}

void merge_chunks(cudaStream_t stream, const DecodeArgs& z) {
  const dim3 grid(unsigned(z.hq), unsigned(z.tokens)), threads(unsigned(ceil_div(z.d, 32)) * 32);
  if (z.dtype == MB_F32) {
    decode_merge_kernel<<<grid, threads, 0, stream>>>(z.ws, static_cast<float*>(z.o), cache_of(z), int(z.d));
  } else {
    decode_merge_kernel<<<grid, threads, 0, stream>>>(z.ws, static_cast<bf16*>(z.o), cache_of(z), int(z.d));
  }
}

template <int D, int G>
void decode_f32(cudaStream_t stream, const DecodeArgs& z) {
  decode_kernel<float, D, G>
      <<<dim3(unsigned(z.chunks()), unsigned(z.hq / G), unsigned(z.tokens)), kThreads, 0, stream>>>(
          static_cast<const float*>(z.q), static_cast<const float*>(z.k), static_cast<const float*>(z.v), z.ws,
          cache_of(z), int(z.ldq), z.scale);
}

template <int D>
void decode_f32_group(cudaStream_t stream, const DecodeArgs& z) {
  const int64_t group = z.hq / z.hkv;
  if (group % 4 == 0) {
    decode_f32<D, 4>(stream, z);
  } else if (group % 2 == 0) {
    decode_f32<D, 2>(stream, z);
  } else {
    decode_f32<D, 1>(stream, z);
  }
}

template <int DP>
void decode_bf16(cudaStream_t stream, const DecodeArgs& z) {
  const int64_t blocks = z.hkv * ceil_div(z.hq / z.hkv, kWarpQueries);
  if (!allow_shared_memory(decode_chunk_kernel<DP>, 0)) return;
  decode_chunk_kernel<DP><<<dim3(unsigned(z.chunks()), unsigned(blocks), unsigned(z.tokens)), 32, 0, stream>>>(
      static_cast<const bf16*>(z.q), static_cast<const bf16*>(z.k), static_cast<const bf16*>(z.v), z.ws, cache_of(z),
      int(z.d), z.ldq, z.scale);
}

template <int DP>
void prompts_bf16(cudaStream_t stream, const DecodeArgs& z) {
  launch_rows<DP>(stream, z.q, z.k, z.v, z.o, nullptr, CachedRows{cache_of(z), int(z.tokens)}, z.tokens, z.hq, z.hkv,
                  z.d, z.ldq, z.kv_width(), z.kv_width(), z.q_width(), z.scale);
}

}  // namespace

int op_kv_store(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_KV_STORE], t, nt, s, ns);
  const KvStoreArgs z = read_kv_store(a);
  if (!a.ok() || z.tokens == 0) return a.status();
  const Cache c = cache_of(z);
  const auto run = [&](auto* qkv) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(qkv)>>;
    const int64_t vectors = z.kv_width() / kVec<T>;
    const int threads = vectors >= 256 ? 256 : int(ceil_div(vectors, 32)) * 32;
    kv_store_kernel<T><<<unsigned(z.tokens), threads, 0, stream>>>(qkv, static_cast<T*>(z.k), static_cast<T*>(z.v), c,
                                                                   int(z.kv_width()), int(z.q_width()));
  };
  if (z.dtype == MB_F32) {
    run(static_cast<const float*>(z.qkv));
  } else {
    run(static_cast<const bf16*>(z.qkv));
  }
  return launched("kv_store");
}

int op_attention_decode(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ATTENTION_DECODE], t, nt, s, ns);
  const DecodeArgs z = read_attention_decode(a);
  if (!a.ok() || z.tokens == 0) return a.status();
  const bool fits = z.dtype == MB_F32 ? z.d == 32 || z.d == 64 || z.d == 128 : z.d <= 128;
  if (!fits) {
    return fail(MB_ERR_UNSUPPORTED, "attention_decode: d is %lld; on a GPU heads of %s can generate",
                static_cast<long long>(z.d), z.dtype == MB_F32 ? "32, 64 and 128" : "up to 128");
  }
  if (z.dtype == MB_BF16 && z.prompts) {
    z.d <= 64 ? prompts_bf16<64>(stream, z) : prompts_bf16<128>(stream, z);
    return launched("attention_decode");
  }
  if (z.dtype == MB_BF16) {
    z.d <= 64 ? decode_bf16<64>(stream, z) : decode_bf16<128>(stream, z);
  } else {
    z.d == 32   ? decode_f32_group<32>(stream, z)
    : z.d == 64 ? decode_f32_group<64>(stream, z)
                : decode_f32_group<128>(stream, z);
  }
  merge_chunks(stream, z);
  return launched("attention_decode");
}

}  // namespace mb::cuda::kernels
