// Embedding of one vocabulary shard, and its gradient summed in a fixed order.
#include "core/args/tokens.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

// One token a block. Tokens of other shards give zeros.
template <class T, int N>
__global__ void embed_fwd_kernel(const int32_t* ids, const T* w, T* out, int64_t h, int64_t vstart, int64_t vrows) {
  const int64_t id = int64_t(ids[blockIdx.x]) - vstart;
  const bool here = id >= 0 && id < vrows;
  const T* from = w + (here ? id * h : 0);
  T* to = out + int64_t(blockIdx.x) * h;
  for (int64_t c = int64_t(threadIdx.x) * N; c < h; c += int64_t(blockDim.x) * N) {
    if constexpr (N == 1) {
      to[c] = here ? from[c] : from_float<T>(0.0f);
    } else {
      store16(to + c, here ? load16(from + c) : make_uint4(0, 0, 0, 0));
    }
  }
}

constexpr int kThreads = 128;  // of the backward
constexpr int kAhead = 8;      // rows in flight

// Block (p, y): if a run of equal ids in `order` starts at p, adds its rows to dw, for the columns of chunk y. The
// length is known before the sum starts, so that several rows are loaded at once; they are added in that order.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embed_bwd_kernel(const int32_t* ids, const int32_t* order, const T* dout, float* dw, int64_t tokens, int64_t h,
                     int64_t vstart, int64_t vrows) {
  __shared__ int32_t rows[kThreads];
  const int64_t p = blockIdx.x;
  const int32_t id = ids[order[p]];
  if (p > 0 && ids[order[p - 1]] == id) return;
  const int64_t row = int64_t(id) - vstart;
  if (row < 0 || row >= vrows) return;
  // Equal ids are neighbours in `order`: find the first position behind them by doubling, then by halving.
  int64_t low = p, step = 1;
  while (low + step < tokens && ids[order[low + step]] == id) {
    low += step;
    step *= 2;
  }
  int64_t end = low + step < tokens ? low + step : tokens;  // ids[order[low]] == id, and end is behind the run
  while (end - low > 1) {
    const int64_t middle = low + (end - low) / 2;
    if (ids[order[middle]] == id) {
      low = middle;
    } else {
      end = middle;
    }
  }
  const int64_t c = (int64_t(blockIdx.y) * kThreads + threadIdx.x) * N;
  const bool active = c < h;
  float sum[N];
#pragma unroll
  for (int e = 0; e < N; ++e) sum[e] = 0;
  for (int64_t first = p; first < end; first += kThreads) {
    const int count = int(end - first < kThreads ? end - first : kThreads);
    __syncthreads();
    if (int(threadIdx.x) < count) rows[threadIdx.x] = order[first + threadIdx.x];
    __syncthreads();
    for (int k = 0; k < count && active; k += kAhead) {
      uint4 raw[kAhead];
      float single[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const T* from = dout + int64_t(k + j < count ? rows[k + j] : 0) * h + c;
        if constexpr (N == 1) {
          single[j] = k + j < count ? to_float(*from) : 0.0f;
        } else {
          raw[j] = k + j < count ? load16(from) : make_uint4(0, 0, 0, 0);
        }
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if constexpr (N == 1) {
          sum[0] += single[j];
        } else {
          float f[N];
          unpack<T>(raw[j], f);
#pragma unroll
          for (int e = 0; e < N; ++e) sum[e] += f[e];
        }
      }
    }
  }
  if (!active) return;
  float* to = dw + row * h + c;
  if constexpr (N == 1) {
    *to += sum[0];
  } else {
#pragma unroll
    for (int e = 0; e < N; e += 4) {
      float4 v = *reinterpret_cast<float4*>(to + e);
      v.x += sum[e];
      v.y += sum[e + 1];
      v.z += sum[e + 2];
      v.w += sum[e + 3];
      *reinterpret_cast<float4*>(to + e) = v;
    }
  }
}

template <class T>
void forward(cudaStream_t stream, const EmbedArgs& z) {
  const bool vector = z.h % kVec<T> == 0 && aligned16(z.in) && aligned16(z.out);
  const int64_t work = vector ? z.h / kVec<T> : z.h;
  const int threads = work >= 256 ? 256 : int(ceil_div(work, 32)) * 32;
  const auto run = [&](auto kernel) {
    kernel<<<unsigned(z.tokens), threads, 0, stream>>>(z.ids, static_cast<const T*>(z.in), static_cast<T*>(z.out), z.h,
                                                       z.vstart, z.vrows);
  };
  if (vector) {
    run(embed_fwd_kernel<T, kVec<T>>);
  } else {
    run(embed_fwd_kernel<T, 1>);
  }
}

template <class T>
void backward(cudaStream_t stream, const EmbedArgs& z) {
  const bool vector = z.h % kVec<T> == 0 && aligned16(z.in) && aligned16(z.out);
  const dim3 grid(unsigned(z.tokens), unsigned(ceil_div(vector ? z.h / kVec<T> : z.h, kThreads)));
  const auto run = [&](auto kernel) {
    kernel<<<grid, kThreads, 0, stream>>>(z.ids, z.order, static_cast<const T*>(z.in), static_cast<float*>(z.out),
                                          z.tokens, z.h, z.vstart, z.vrows);
  };
  if (vector) {
    run(embed_bwd_kernel<T, kVec<T>>);
  } else {
    run(embed_bwd_kernel<T, 1>);
  }
}

}  // namespace

int op_embed_fwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_EMBED_FWD], t, nt, s, ns);
  const EmbedArgs z = read_embed_fwd(a);
  if (!a.ok() || z.tokens == 0) return a.status();
  if (z.dtype == MB_F32) {
    forward<float>(stream, z);
  } else {
    forward<bf16>(stream, z);
  }
  return launched("embed_fwd");
}

int op_embed_bwd(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_EMBED_BWD], t, nt, s, ns);
  const EmbedArgs z = read_embed_bwd(a);
  if (!a.ok() || z.tokens == 0) return a.status();
  if (z.dtype == MB_F32) {
    backward<float>(stream, z);
  } else {
    backward<bf16>(stream, z);
  }
  return launched("embed_bwd");
}

}  // namespace mb::cuda::kernels
