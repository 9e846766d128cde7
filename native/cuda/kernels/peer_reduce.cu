// The sum of the members' memory, and the meeting that copies between them begin and end with.
#include "cuda/kernels/peer.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kReduceBlocks = 32;  // beside products, which want the other multiprocessors
static_assert(kReduceBlocks <= kPeerBlocks);

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

}  // namespace

void meet(cudaStream_t stream, const Peers& peers, Phase phase) { meet_kernel<<<1, 32, 0, stream>>>(peers, phase); }

void reduce(cudaStream_t stream, const Peers& peers, const void* in, void* out, int64_t count, int dtype) {
  by_type(dtype, peers.size, [&](auto* type, auto members) {
    using T = std::remove_pointer_t<decltype(type)>;
    reduce_kernel<T, decltype(members)::value><<<kReduceBlocks, kMaxThreads, 0, stream>>>(
        peers, static_cast<const T*>(in), static_cast<T*>(out), count / kVec<T>);
  });
}

}  // namespace mb::cuda::kernels
