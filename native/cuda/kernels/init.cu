// Weights from a counter-based stream: an element depends on its global index alone, so every layout draws the same.
#include "common.cuh"
#include "philox.cuh"

namespace mbk {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    init_normal_kernel(T* out, int64_t rows, int64_t cols, uint64_t row0, uint64_t col0, uint64_t gcols, double std,
                       uint32_t key0, uint32_t key1) {
  const int64_t n = rows * cols;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads) {
    const int64_t r = i / cols, c = i - r * cols;
    const uint64_t index = (row0 + uint64_t(r)) * gcols + col0 + uint64_t(c);
    out[i] = from_float<T>(float(normal_at(index, key0, key1) * std));
  }
}

}  // namespace
}  // namespace mbk

using namespace mbk;

int mbk_init_normal(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("init_normal", t, nt, 1, s, ns, 10);
  const int64_t rows = a.size(0, "rows"), cols = a.size(1, "cols");
  const int64_t row0 = a.size(2, "row0"), col0 = a.size(3, "col0"), gcols = a.size(4, "gcols");
  const double std = a.number(5, "std");
  const int64_t word = 0xffffffffLL;
  const uint32_t key0 = uint32_t(a.size(6, "seed_lo", 0, word)) ^ uint32_t(a.size(8, "key_lo", 0, word));
  const uint32_t key1 = uint32_t(a.size(7, "seed_hi", 0, word)) ^ uint32_t(a.size(9, "key_hi", 0, word));
  if (col0 + cols > gcols)
    a.fail("gcols is %lld, fewer than columns %lld + %lld", (long long)gcols, (long long)col0, (long long)cols);
  const int dtype = a.act(0, "out");
  const int64_t n = times(rows, cols);
  void* out = a.tensor(0, "out", dtype, n);
  if (a.status != MB_OK || n == 0) return a.status;
  const int64_t blocks = ceil_div(n, kThreads);
  const unsigned grid = unsigned(blocks < (1 << 20) ? blocks : 1 << 20);
  const auto run = [&](auto kernel, auto* to) {
    kernel<<<grid, kThreads, 0, stream>>>(to, rows, cols, uint64_t(row0), uint64_t(col0), uint64_t(gcols), std, key0,
                                          key1);
  };
  if (dtype == MB_F32) {
    run(init_normal_kernel<float>, static_cast<float*>(out));
  } else {
    run(init_normal_kernel<bf16>, static_cast<bf16*>(out));
  }
  return launched("init_normal");
}
