// The table of cosines and sines that RoPE reads.
#include "core/args/rope.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 256;

// Frequencies are given in F, or, where the pointer is null, those of theta.
template <class F>
__global__ void rope_table_kernel(float* out, int64_t positions, int half, double theta, const F* frequencies,
                                  double scale) {
  const int64_t n = positions * half;
  for (int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; k < n; k += int64_t(gridDim.x) * blockDim.x) {
    const int64_t p = k / half;
    const int i = int(k % half);
    const double frequency = frequencies != nullptr ? double(frequencies[i]) : pow(theta, -double(i) / double(half));
    double sine, cosine;
    sincos(double(p) * frequency, &sine, &cosine);
    out[p * 2 * half + i] = float(cosine * scale);
    out[p * 2 * half + half + i] = float(sine * scale);
  }
}

}  // namespace

int op_rope_table(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ROPE_TABLE], t, nt, s, ns);
  const RopeTableArgs z = read_rope_table(a);
  if (!a.ok() || z.positions == 0) return a.status();
  const int64_t blocks = ceil_div(z.positions * (z.d / 2), kThreads);
  const auto run = [&](const auto* frequencies) {
    rope_table_kernel<<<unsigned(blocks < 65536 ? blocks : 65536), kThreads, 0, stream>>>(
        z.out, z.positions, int(z.d / 2), z.theta, frequencies, z.scale);
  };
  if (z.frequencies_f32 != nullptr) {
    run(z.frequencies_f32);
  } else {
    run(z.frequencies);
  }
  return launched("rope_table");
}

}  // namespace mb::cuda::kernels
