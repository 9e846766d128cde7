// What a loss of tokens is made from: log-probability and entropy of each row, and the gradient of the logits in place.
#include "core/args/tokens.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 512;

// Calls body(i, logit) for the logits of a row, and stores what it returns where Body::kStores.
template <class T, bool VECTOR, class Body>
__device__ __forceinline__ void for_logits(T* row, int64_t v, Body& body) {
  if constexpr (VECTOR) {
    constexpr int N = kVec<T>;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < v / N; i += kThreads) {
      float f[N];
      unpack<T>(load16(row + i * N), f);
#pragma unroll
      for (int e = 0; e < N; ++e) f[e] = body(i * N + e, f[e]);
      if constexpr (Body::kStores) store16(row + i * N, pack<T>(f));
    }
  } else {
    for (int64_t i = threadIdx.x; i < v; i += kThreads) {
      const float result = body(i, to_float(row[i]));
      if constexpr (Body::kStores) row[i] = from_float<T>(result);
    }
  }
}

template <class T>
struct Moment {
  static constexpr bool kStores = false;
  float max;
  double sum;

  __device__ __forceinline__ float operator()(int64_t, float x) {
    const float d = x - max, e = exponential<T>(d);
    if (!(e == 0)) sum += double(e * d);  // 0 of a logit of -inf, NaN of a NaN
    return x;
  }
};

template <class T>
struct Gradient {
  static constexpr bool kStores = true;
  float max, constant, slope, dlogprob;
  int64_t target;

  __device__ __forceinline__ float operator()(int64_t i, float x) {
    const float d = x - max, e = exponential<T>(d);
    const float shared = e == 0 ? 0.0f : e * (constant + slope * d);
    return i == target ? shared + dlogprob : shared;
  }
};

struct Zero {
  static constexpr bool kStores = true;
  __device__ __forceinline__ float operator()(int64_t, float) { return 0.0f; }
};

// One row a block.
template <class T, bool VECTOR>
__global__ void __launch_bounds__(kThreads)
    moment_kernel(const T* logits, const float* gmax, float* moment, int64_t v) {
  __shared__ double shared[32];
  const int64_t r = blockIdx.x;
  Moment<T> mine{gmax[r], 0.0};
  // Only read: Moment stores nothing.
  for_logits<T, VECTOR>(const_cast<T*>(logits) + r * v, v, mine);
  const double sum = block_sum(mine.sum, shared);
  if (threadIdx.x == 0) moment[r] = float(sum);
}

template <class T, bool VECTOR>
__global__ void __launch_bounds__(kThreads) gradient_kernel(TokenArgs z) {
  const int64_t r = blockIdx.x;
  T* row = static_cast<T*>(z.logits) + r * z.cols;
  const float dlogprob = z.dlogprob[r], dentropy = z.dentropy[r];
  if (dlogprob == 0 && dentropy == 0) {
    Zero zero;
    for_logits<T, VECTOR>(row, z.cols, zero);
    return;
  }
  // p * (-dlogprob - dentropy * (x - max - log sum + entropy)), with p = exp(x - max) / sum.
  const float sum = z.sums[r];
  const float constant = (-dlogprob - dentropy * (z.entropy_in[r] - logf(sum))) / sum;
  Gradient<T> body{z.gmax[r], constant, -dentropy / sum, dlogprob, int64_t(z.targets[r]) - z.vstart};
  for_logits<T, VECTOR>(row, z.cols, body);
}

__global__ void values_kernel(TokenArgs z) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= z.rows) return;
  const float log_sum = logf(z.sums[i]);
  z.logprob[i] = -(log_sum + z.gmax[i] - z.sums[z.rows + i]);
  z.entropy[i] = log_sum - z.moment_in[i] / z.sums[i];
}

template <class T>
void moment(cudaStream_t stream, const TokenArgs& z) {
  const T* logits = static_cast<const T*>(z.logits);
  const auto run = [&](auto kernel) {
    kernel<<<unsigned(z.rows), kThreads, 0, stream>>>(logits, z.gmax, z.moment, z.cols);
  };
  if (z.cols % kVec<T> == 0 && aligned16(logits)) {
    run(moment_kernel<T, true>);
  } else {
    run(moment_kernel<T, false>);
  }
}

template <class T>
void gradient(cudaStream_t stream, const TokenArgs& z) {
  const auto run = [&](auto kernel) { kernel<<<unsigned(z.rows), kThreads, 0, stream>>>(z); };
  if (z.cols % kVec<T> == 0 && aligned16(z.logits)) {
    run(gradient_kernel<T, true>);
  } else {
    run(gradient_kernel<T, false>);
  }
}

}  // namespace

int op_token_moment(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_TOKEN_MOMENT], t, nt, s, ns);
  const TokenArgs z = read_token_moment(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    moment<float>(stream, z);
  } else {
    moment<bf16>(stream, z);
  }
  return launched("token_moment");
}

int op_token_values(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_TOKEN_VALUES], t, nt, s, ns);
  const TokenArgs z = read_token_values(a);
  if (!a.ok() || z.rows == 0) return a.status();
  values_kernel<<<unsigned(ceil_div(z.rows, 256)), 256, 0, stream>>>(z);
  return launched("token_values");
}

int op_token_grad(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_TOKEN_GRAD], t, nt, s, ns);
  const TokenArgs z = read_token_grad(a);
  if (!a.ok() || z.rows == 0) return a.status();
  if (z.dtype == MB_F32) {
    gradient<float>(stream, z);
  } else {
    gradient<bf16>(stream, z);
  }
  return launched("token_grad");
}

}  // namespace mb::cuda::kernels
