// Weights from a counter-based stream: an element depends on its global index alone, so every layout draws the same.
#include "core/args/optimizer.h"
#include "core/philox.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) init_normal_kernel(T* out, int64_t n, RandomPlace place, double std) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads) {
    out[i] = from_float<T>(float(normal_at(place.index(i), place.key0, place.key1) * std));
  }
}

}  // namespace

int op_init_normal(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_INIT_NORMAL], t, nt, s, ns);
  const InitNormalArgs z = read_init_normal(a);
  const int64_t n = times(z.rows, z.place.cols);
  if (!a.ok() || n == 0) return a.status();
  const int64_t blocks = ceil_div(n, kThreads);
  const unsigned grid = unsigned(blocks < (1 << 20) ? blocks : 1 << 20);
  const auto run = [&](auto kernel, auto* to) { kernel<<<grid, kThreads, 0, stream>>>(to, n, z.place, z.std); };
  if (z.dtype == MB_F32) {
    run(init_normal_kernel<float>, static_cast<float*>(z.out));
  } else {
    run(init_normal_kernel<bf16>, static_cast<bf16*>(z.out));
  }
  return launched("init_normal");
}

}  // namespace mb::cuda::kernels
