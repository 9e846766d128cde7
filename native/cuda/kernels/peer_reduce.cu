// The sum of the members' memory, and the meeting that copies between them begin and end with.
#include "cuda/kernels/peer.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kReduceBlocks = 32;  // beside products, which want the other multiprocessors
static_assert(kReduceBlocks <= kPeerBlocks);
static_assert(MB_COMM_SMALL <= kPeerBlocks * kMaxThreads * 16);

__global__ void meet_kernel(Peers peers, Phase phase) { meet_block(peers, phase); }

template <class T, int P>
__global__ void __launch_bounds__(kMaxThreads, 1) reduce_kernel(Peers peers, const T* in, T* out, int64_t vectors) {
  constexpr int N = kVec<T>, G = kTogether<P>, U = P > G ? 2 : 16 / G;  // U: what registers hold
  meet_block(peers, Phase::kBegin);
  const int64_t stride = int64_t(gridDim.x) * kMaxThreads;
  for (int64_t first = int64_t(blockIdx.x) * kMaxThreads + threadIdx.x; first < vectors; first += stride * U) {
    float sum[U][N] = {};
#pragma unroll
    for (int begin = 0; begin < P; begin += G) {
      uint4 parts[G][U];
#pragma unroll
      for (int p = 0; p < G; ++p) {
        const T* from = at(in, peers, begin + p);
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const int64_t i = first + u * stride;
          parts[p][u] = i < vectors ? load16(from + i * N) : make_uint4(0, 0, 0, 0);
        }
      }
#pragma unroll
      for (int p = 0; p < G; ++p) {
#pragma unroll
        for (int u = 0; u < U; ++u) {
          float f[N];
          unpack<T>(parts[p][u], f);
#pragma unroll
          for (int e = 0; e < N; ++e) sum[u][e] += f[e];
        }
      }
    }
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const int64_t i = first + u * stride;
      if (i < vectors) store16(out + i * N, pack<T>(sum[u]));
    }
  }
  meet_block(peers, Phase::kEnd);
}

// One vector a thread, so that every member has read all before anyone writes.
template <class T, int P>
__global__ void __launch_bounds__(kMaxThreads, 1) all_reduce_kernel(Peers peers, T* x, int64_t vectors, bool maximum) {
  constexpr int N = kVec<T>;
  const int64_t i = int64_t(blockIdx.x) * kMaxThreads + threadIdx.x;
  float result[N];
  meet_block(peers, Phase::kBegin);
  if (i < vectors) {
    uint4 parts[P];
#pragma unroll
    for (int p = 0; p < P; ++p) parts[p] = load16(at(x, peers, p) + i * N);
    unpack<T>(parts[0], result);
#pragma unroll
    for (int p = 1; p < P; ++p) {
      float f[N];
      unpack<T>(parts[p], f);
#pragma unroll
      for (int e = 0; e < N; ++e) result[e] = maximum ? fmaxf(result[e], f[e]) : result[e] + f[e];
    }
  }
  meet_block(peers, Phase::kEnd);
  if (i < vectors) store16(x + i * N, pack<T>(result));
}

}  // namespace

void meet(cudaStream_t stream, const Peers& peers, Phase phase) { meet_kernel<<<1, 32, 0, stream>>>(peers, phase); }

void reduce(cudaStream_t stream, const Peers& peers, const void* in, void* out, int64_t count, int dtype) {
  by_type(dtype, peers.size, [&](auto* type, auto members) {
    using T = std::remove_pointer_t<decltype(type)>;
    reduce_kernel<T, decltype(members)::value><<<kReduceBlocks, kMaxThreads, 0, stream>>>(
        peers, static_cast<const T*>(in), static_cast<T*>(out), count / kVec<T>);
  });
}

int all_reduce_small(cudaStream_t stream, const Peers& peers, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kCommOps[MB_COMM_OP_ALL_REDUCE_SMALL], t, nt, s, ns);
  const int dtype = a.act(0), unit = 16 / dtype_size(dtype);
  const int64_t n = a.size(0, 0, MB_COMM_SMALL / dtype_size(dtype));
  const bool maximum = a.flag(1);
  void* x = a.tensor16(0, dtype, n);
  if (a.ok() && n % unit != 0) a.fail("n is %lld, expected a multiple of %d", (long long)n, unit);
  if (!a.ok() || n == 0) return a.status();
  const int blocks = int(ceil_div(n / unit, kMaxThreads));
  by_type(dtype, peers.size, [&](auto* type, auto members) {
    using T = std::remove_pointer_t<decltype(type)>;
    all_reduce_kernel<T, decltype(members)::value>
        <<<blocks, kMaxThreads, 0, stream>>>(peers, static_cast<T*>(x), n / unit, maximum);
  });
  return launched("all_reduce_small");
}

}  // namespace mb::cuda::kernels
