#include "cpu/kernels/attention.h"
#include "cpu/kernels/functions.h"
#include "cpu/kernels/simd.h"

// MB_ISA is base, v3 or v4; the accessor is kernels_base, kernels_v3 or kernels_v4.
#define MB_JOIN_(a, b) a##b
#define MB_JOIN(a, b) MB_JOIN_(a, b)
#define MB_TEXT_(a) #a
#define MB_TEXT(a) MB_TEXT_(a)

namespace mb {

const Kernels& MB_JOIN(kernels_, MB_ISA)() {
  using namespace MB_ISA;
  static constexpr Kernels table = {
      .name = MB_TEXT(MB_ISA),
      .gemm_rows = kGemmRows,
      .gemm_cols = 2 * W,
      .pack_a = pack_a,
      .pack_b = pack_b,
      .gemm_block = gemm_block,
      .gemm_few_lanes = W,
      .pack_few = pack_few,
      .gemm_few = gemm_few,
      .rmsnorm_fwd = rmsnorm_fwd,
      .rmsnorm_bwd = rmsnorm_bwd,
      .qknorm_fwd = qknorm_fwd,
      .qknorm_bwd = qknorm_bwd,
      .sum_parts = sum_parts,
      .attn_queries = kQueries,
      .attn_rows = kAttnRows,
      .attn_scratch = attn_scratch,
      .attn_pack = attn_pack,
      .attn_fwd = attn_fwd,
      .attn_bwd = attn_bwd,
      .attn_reduce = attn_reduce,
      .attn_decode = attn_decode,
      .swiglu_fwd = swiglu_fwd,
      .swiglu_bwd = swiglu_bwd,
      .ce_stats = ce_stats,
      .ce_rescale = ce_rescale,
      .ce_grad = ce_grad,
      .token_moment = token_moment,
      .token_grad = token_grad,
      .soft_sums = soft_sums,
      .soft_grad = soft_grad,
      .add = add,
      .sumsq = sumsq,
      .sumsq_bf16 = sumsq_bf16,
      .adamw = adamw,
  };
  return table;
}

}  // namespace mb
