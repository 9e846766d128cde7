// Every kernel of one instruction set; table.cc collects them into a Kernels.
#pragma once
#include "cpu/kernels.h"

namespace mb::MB_ISA {

void pack_a(const float* a, int64_t row, int64_t col, int64_t m, int64_t k, float* dst);
void pack_b(const float* b, int64_t row, int64_t col, int64_t n, int64_t k, float* dst);
void gemm_block(const GemmBlock& g);
void pack_few(const float* a, int64_t lda, int64_t m, int64_t lanes, int64_t k, float* dst);
void gemm_few(const GemmFew& g, int64_t block, int64_t begin, int64_t end);

void rmsnorm_fwd(const RmsnormFwd& p, int64_t begin, int64_t end);
void rmsnorm_bwd(const RmsnormBwd& p, int64_t begin, int64_t end, float* dw);
void qknorm_fwd(const QknormFwd& p, int64_t begin, int64_t end);
void qknorm_bwd(const QknormBwd& p, int64_t begin, int64_t end, float* dw);
void sum_parts(const float* in, int64_t parts, int64_t stride, float* out, bool accumulate, int64_t begin, int64_t end);

int64_t attn_scratch(int64_t d, bool backward);
void attn_pack(const Attention& p, int64_t batch, int64_t kv_head, bool backward);
void attn_fwd(const Attention& p, int64_t batch, int64_t head, int64_t index, float* scratch);
void attn_bwd(const Attention& p, int64_t batch, int64_t head, float* scratch);
void attn_reduce(const Attention& p, int64_t batch, int64_t kv_head, int64_t begin, int64_t end);
void attn_decode(const Decode& p);

void swiglu_fwd(const float* gu, float* out, int64_t f, int64_t begin, int64_t end);
void swiglu_bwd(const float* dout, const float* gu, float* dgu, int64_t f, int64_t begin, int64_t end);
void ce_stats(const Loss& p, int64_t begin, int64_t end);
void ce_rescale(float* sums, const float* max, const float* gmax, int64_t begin, int64_t end);
void ce_grad(const Loss& p, int64_t begin, int64_t end);
void token_moment(const TokenLoss& p, int64_t begin, int64_t end);
void token_grad(const TokenLoss& p, int64_t begin, int64_t end);
void soft_sums(const Soft& p, int64_t begin, int64_t end);
void soft_grad(const SoftGrad& p);

void add(const float* a, const float* b, float* out, int64_t begin, int64_t end);
double sumsq(const float* x, int64_t n);
double sumsq_bf16(const uint16_t* x, int64_t n);
void adamw(const Adamw& p, int64_t begin, int64_t end);

}  // namespace mb::MB_ISA
