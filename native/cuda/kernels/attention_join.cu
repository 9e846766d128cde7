// Joins attentions over different keys of the same queries.
#include "core/args/attention.h"
#include "core/attention_join.h"
#include "cuda/kernels/common.cuh"

namespace mb::cuda::kernels {
namespace {

constexpr int kThreads = 256;

// A warp a row of d elements, in the order of lse: sequence, head, position. d is even.
template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_join_kernel(const T* o_part, const float* lse_part, T* o, float* lse, float* sum, int64_t rows, int s,
                          int h, int d, bool first) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const int64_t position = row % s, head = row / s % h, sequence = row / s / h;
  const int64_t at = ((sequence * s + position) * h + head) * d;
  const AttentionJoin join = join_attention(lse[row], lse_part[row]);
  __syncwarp();  // all have read lse
  if (threadIdx.x % 32 == 0) lse[row] = join.lse;
  for (int i = 2 * (threadIdx.x % 32); i < d; i += 64) {
    float2 total;
    if (first) {
      total = {to_float(o[at + i]), to_float(o[at + i + 1])};
    } else {
      total = *reinterpret_cast<const float2*>(sum + at + i);
    }
    total.x = join.share * total.x + join.share_of_part * to_float(o_part[at + i]);
    total.y = join.share * total.y + join.share_of_part * to_float(o_part[at + i + 1]);
    *reinterpret_cast<float2*>(sum + at + i) = total;
    o[at + i] = from_float<T>(total.x);
    o[at + i + 1] = from_float<T>(total.y);
  }
}

template <class T>
void join(cudaStream_t stream, const AttentionJoinArgs& z) {
  const int64_t rows = z.b * z.h * z.s;
  attention_join_kernel<T><<<unsigned(ceil_div(rows, kThreads / 32)), kThreads, 0, stream>>>(
      static_cast<const T*>(z.o_part), z.lse_part, static_cast<T*>(z.o), z.lse, z.sum, rows, int(z.s), int(z.h),
      int(z.d), z.first);
}

}  // namespace

int op_attention_join(cudaStream_t stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs a(kOps[MB_OP_ATTENTION_JOIN], t, nt, s, ns);
  const AttentionJoinArgs z = read_attention_join(a);
  a.require(times(times(z.b, z.s), z.h) <= int64_t{1} << 33, "b * s * h of at most 2^33");
  if (!a.ok()) return a.status();
  if (z.dtype == MB_F32) {
    join<float>(stream, z);
  } else {
    join<bf16>(stream, z);
  }
  return launched("attention_join");
}

}  // namespace mb::cuda::kernels
