// The table of cosines and sines that RoPE reads.
#include "common.cuh"

namespace mbk {
namespace {

constexpr int kThreads = 256;

__global__ void rope_table_kernel(float* out, int64_t positions, int half, double theta) {
  const int64_t n = positions * half;
  for (int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; k < n; k += int64_t(gridDim.x) * blockDim.x) {
    const int64_t p = k / half;
    const int i = int(k % half);
    const double angle = double(p) * pow(theta, -double(i) / double(half));
    double sine, cosine;
    sincos(angle, &sine, &cosine);
    out[p * 2 * half + i] = float(cosine);
    out[p * 2 * half + half + i] = float(sine);
  }
}

}  // namespace
}  // namespace mbk

using namespace mbk;

int mbk_rope_table(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  Args a("rope_table", t, nt, 1, s, ns, 3);
  const int64_t positions = a.size(0, "positions"), d = a.size(1, "d", 2, 65536);
  const double theta = a.number(2, "theta");
  if (d % 2 != 0) a.fail("d is %lld, expected an even number", (long long)d);
  if (!(theta > 0)) a.fail("theta is %g, expected a positive number", theta);
  float* out = a.f32(0, "out", times(positions, d));
  if (a.status != MB_OK || positions == 0) return a.status;
  const int64_t blocks = ceil_div(positions * (d / 2), kThreads);
  rope_table_kernel<<<unsigned(blocks < 65536 ? blocks : 65536), kThreads, 0, stream>>>(out, positions, int(d / 2),
                                                                                        theta);
  return launched("rope_table");
}
