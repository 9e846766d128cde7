// The cache of keys and values, and attention of single queries over it. A row of keys is cut into parts whose size is
// a function of its length alone; each part is summed by one block in a fixed order, and the parts are added up in
// order.
//
// The cache lies as [slots][context][hkv][d], k and v alike.
#include "core/args/decode.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kLanes = 8;  // threads that share a key
constexpr int kThreads = 128;
constexpr int kGroups = kThreads / kLanes;  // keys side by side
constexpr int kPart = 128;                  // keys of the shortest part
constexpr int kParts = MB_DECODE_PARTS;

struct Cache {
  const int32_t *cells, *positions;
  int hq, hkv, slots, context;

  // Keys that token t sees; 0 where it has no place.
  __device__ int keys(int t) const {
    const int cell = cells[t], position = positions[t];
    return cell >= 0 && cell < slots && position >= 0 && position < context ? position + 1 : 0;
  }
};

__device__ __forceinline__ int part_size(int keys) { return kPart * ((keys + kPart * kParts - 1) / (kPart * kParts)); }

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

// Block (part, chunk of heads, token): G query heads of one kv head over the keys of a part. Leaves for each head the
// maximum of the scores, the sum of their exponentials and the weighted sum of values. Eight threads share a key; each
// eight go over every sixteenth key with a running softmax, and those are merged in order at the end.
template <class T, int D, int G>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const T* q, const T* k, const T* v, float* ws, Cache c, int ldq, float scale) {
  using S = Spread<T, D>;
  __shared__ float shared_top[kGroups][G], shared_sum[kGroups][G], shared_out[kGroups][D];
  const int t = blockIdx.z, keys = c.keys(t), size = part_size(keys);
  const int begin = int(blockIdx.x) * size;
  if (begin >= keys) return;
  const int end = begin + size < keys ? begin + size : keys;
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
    float* to = ws + ((int64_t(t) * c.hq + head + g) * kParts + blockIdx.x) * (D + 2);
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

// Block (head, token): the parts, added up in order.
template <class T, int D>
__global__ void __launch_bounds__(D) decode_merge_kernel(const float* ws, T* o, Cache c) {
  const int head = blockIdx.x, t = blockIdx.y, keys = c.keys(t);
  T* to = o + (int64_t(t) * c.hq + head) * D + threadIdx.x;
  if (keys == 0) {
    *to = from_float<T>(0.0f);
    return;
  }
  const int parts = (keys + part_size(keys) - 1) / part_size(keys);
  const float* from = ws + (int64_t(t) * c.hq + head) * kParts * (D + 2);
  float highest = -INFINITY;
  for (int i = 0; i < parts; ++i) highest = fmaxf(highest, from[i * (D + 2)]);
  float sum = 0, out = 0;
  for (int i = 0; i < parts; ++i) {
    const float factor = expf(from[i * (D + 2)] - highest);
    sum += from[i * (D + 2) + 1] * factor;
    out += from[i * (D + 2) + 2 + threadIdx.x] * factor;
  }
  *to = from_float<T>(out / sum);
}

Cache cache_of(const CacheArgs& z) {
  return {z.cells, z.positions, int(z.hq), int(z.hkv), int(z.slots), int(z.context)};
}

template <class T, int D, int G>
void decode(cudaStream_t stream, const DecodeArgs& z) {
  const Cache c = cache_of(z);
  const int64_t longest = ceil_div(z.context, kPart);
  const dim3 grid(unsigned(longest < kParts ? longest : kParts), unsigned(z.hq / G), unsigned(z.tokens));
  decode_kernel<T, D, G><<<grid, kThreads, 0, stream>>>(static_cast<const T*>(z.q), static_cast<const T*>(z.k),
                                                        static_cast<const T*>(z.v), z.ws, c, int(z.ldq), z.scale);
  decode_merge_kernel<T, D><<<dim3(unsigned(z.hq), unsigned(z.tokens)), D, 0, stream>>>(z.ws, static_cast<T*>(z.o), c);
}

template <class T, int D>
void by_group(cudaStream_t stream, const DecodeArgs& z) {
  const int64_t group = z.hq / z.hkv;
  if (group % 4 == 0) {
    decode<T, D, 4>(stream, z);
  } else if (group % 2 == 0) {
    decode<T, D, 2>(stream, z);
  } else {
    decode<T, D, 1>(stream, z);
  }
}

template <class T>
void by_dim(cudaStream_t stream, const DecodeArgs& z) {
  if (z.d == 32) {
    by_group<T, 32>(stream, z);
  } else if (z.d == 64) {
    by_group<T, 64>(stream, z);
  } else {
    by_group<T, 128>(stream, z);
  }
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
  if (z.d != 32 && z.d != 64 && z.d != 128) {
    return fail(MB_ERR_UNSUPPORTED, "attention_decode: d is %lld; on a GPU heads of 32, 64 and 128 can generate",
                static_cast<long long>(z.d));
  }
  if (z.dtype == MB_F32) {
    by_dim<float>(stream, z);
  } else {
    by_dim<bf16>(stream, z);
  }
  return launched("attention_decode");
}

}  // namespace mb::cuda::kernels
