// The compute kernels, compiled once per instruction set (cpu/kernels/*.cc). They work on plain pointers that the ops
// have checked, on the part [begin, end) of rows or elements that one task was given.
#pragma once
#include <stdint.h>

namespace mb {

// One block of a gemm: packed panels in, D out. The first block along k applies beta to C, later ones add to D.
struct GemmBlock {
  const float* a;  // panels of `rows` rows: [ceil(m / rows)][k][rows]
  const float* b;  // panels of `cols` columns: [ceil(n / cols)][k][cols]
  int64_t m, n, k;
  float alpha, beta;
  const float* c;  // may be d, or null when beta is 0
  int64_t ldc;
  float* d;
  int64_t ldd;
};

struct RmsnormFwd {
  const float* x;
  const float* delta;  // null for the plain norm
  const float* w;
  float* sum;  // with delta only
  float* y;
  float* rstd;
  int64_t cols;
  float eps;
};

struct RmsnormBwd {
  const float *dy, *x, *w, *rstd;
  float* dx;
  int64_t cols;
  bool accumulate_dx;
};

struct QknormFwd {
  const float *qkv, *wq, *wk, *table;  // wq and wk null: rotation only
  const int32_t* positions;
  float *out, *rstd;
  int64_t hq, hkv, d;
  float eps;
};

struct QknormBwd {
  float* dqkv;
  const float *qkv, *wq, *wk, *table;  // wq and wk null: rotation only
  const int32_t* positions;
  const float* rstd;
  int64_t hq, hkv, d;
};

struct Attention {
  const float *q, *k, *v;
  float* o;    // read by the backward
  float* lse;  // read by the backward
  const float* d_o;
  float *dq, *dk, *dv;
  const int32_t* bounds;  // null: none
  int64_t b, sq, skv, hq, hkv, d;
  int64_t ldq, ldk, ldv, ldo, lddq, lddk, lddv;
  int64_t kv_rows, offset;
  float scale;
  // Packed copies of keys and values, `packed` floats a (batch, kv head); see attention.cc for their layout.
  float *keys, *values, *keys_by_dim;
  int64_t packed;
  // Backward: partial gradients of keys and values, `partial` floats a (batch, q head).
  float *partial_dk, *partial_dv;
  int64_t partial;
};

// The query heads that share one kv head, of one token.
struct Decode {
  const float *q, *k, *v;  // k: panels of MB_CACHE_STEP keys, [keys / step][d][step]
  float* o;
  int64_t heads, d, keys, ldv;
  float scale;
};

// D[m,n] = A[m,k] B[n,k]^T for few rows m: B is read as it lies.
struct GemmFew {
  const float* a;  // [k][lanes], `lanes` a multiple of a vector, zero beyond m
  const float* b;
  int64_t m, lanes, k, ldb;
  float* d;
  int64_t ldd;
};

struct Loss {
  float* logits;
  const int32_t* targets;
  const float* mask;
  const float* gmax;
  const float* sums;  // [2, rows]
  float* stats;       // [3, rows]
  float* rowloss;
  int64_t rows, cols, vstart;
};

struct TokenLoss {
  float* logits;
  const int32_t* targets;
  const float *gmax, *sums;  // sums [2, rows]
  const float *dlogprob, *dentropy, *entropy;
  float* moment;
  int64_t rows, cols, vstart;
};

// Rows at a temperature, of which `inverse` is one over it.
struct Soft {
  float* logits;
  const float* teacher;  // null: none
  const float *gmax, *tmax;
  float* sums;  // [1 or 3, rows]
  float inverse;
  int64_t rows, cols;
};

// x = student * exp((x - xmax) * inverse) - teacher * exp((y - ymax) * inverse), over a row.
struct SoftGrad {
  float* x;
  const float* y;  // null: none
  int64_t cols;
  float xmax, ymax, inverse, student, teacher;
};

struct Adamw {
  float *p, *m, *v;
  const float* g;
  float* out;                                    // null when it is p
  float scale, beta1, rest1, beta2, rest2, eps;  // rest: 1 - beta
  float decay, step, root;                       // 1 - lr * weight_decay, lr / bias1, 1 / bias2
};

struct Kernels {
  const char* name;

  int64_t gemm_rows, gemm_cols;
  // Rows [0, m) of op(A) at columns [0, k) into panels; element (r, c) is a[r * row + c * col] and one of the strides
  // is
  // 1. dst needs W floats more than the panels.
  void (*pack_a)(const float* a, int64_t row, int64_t col, int64_t m, int64_t k, float* dst);
  // One panel of up to gemm_cols columns of op(B), zero-padded; element (r, c) is b[r * row + c * col].
  void (*pack_b)(const float* b, int64_t row, int64_t col, int64_t n, int64_t k, float* dst);
  void (*gemm_block)(const GemmBlock&);
  int64_t gemm_few_lanes;  // of one vector; twice as many is the most that gemm_few takes
  // a as gemm_few takes it, from rows `lda` apart.
  void (*pack_few)(const float* a, int64_t lda, int64_t m, int64_t lanes, int64_t k, float* dst);
  // Columns [begin, end) of D. Sums run along k in blocks of `block`, as those of gemm_block.
  void (*gemm_few)(const GemmFew&, int64_t block, int64_t begin, int64_t end);

  void (*rmsnorm_fwd)(const RmsnormFwd&, int64_t begin, int64_t end);
  // dw (null: not wanted) is overwritten with the sum over these rows.
  void (*rmsnorm_bwd)(const RmsnormBwd&, int64_t begin, int64_t end, float* dw);
  void (*qknorm_fwd)(const QknormFwd&, int64_t begin, int64_t end);
  // dw [2 * d] (null: not wanted) is overwritten with the sums for q, then k.
  void (*qknorm_bwd)(const QknormBwd&, int64_t begin, int64_t end, float* dw);
  // out[c] = (accumulate ? out[c] : 0) + sum over p < parts of in[p * stride + c], in order.
  void (*sum_parts)(const float* in, int64_t parts, int64_t stride, float* out, bool accumulate, int64_t begin,
                    int64_t end);

  int64_t attn_queries;                               // queries of one tile
  int64_t attn_rows;                                  // keys of one panel; divides head_dim
  int64_t (*attn_scratch)(int64_t d, bool backward);  // floats one task needs
  void (*attn_pack)(const Attention&, int64_t batch, int64_t kv_head, bool backward);
  void (*attn_fwd)(const Attention&, int64_t batch, int64_t head, int64_t tile, float* scratch);
  void (*attn_bwd)(const Attention&, int64_t batch, int64_t head, float* scratch);
  // Adds up the partial gradients of a kv head's q heads into dk and dv, rows [begin, end) of the sequence.
  void (*attn_reduce)(const Attention&, int64_t batch, int64_t kv_head, int64_t begin, int64_t end);

  void (*attn_decode)(const Decode&);

  void (*swiglu_fwd)(const float* gu, float* out, int64_t f, int64_t begin, int64_t end);
  void (*swiglu_bwd)(const float* dout, const float* gu, float* dgu, int64_t f, int64_t begin, int64_t end);
  void (*ce_stats)(const Loss&, int64_t begin, int64_t end);
  void (*ce_rescale)(float* sums, const float* max, const float* gmax, int64_t begin, int64_t end);
  void (*ce_grad)(const Loss&, int64_t begin, int64_t end);
  void (*token_moment)(const TokenLoss&, int64_t begin, int64_t end);
  void (*token_grad)(const TokenLoss&, int64_t begin, int64_t end);
  void (*soft_sums)(const Soft&, int64_t begin, int64_t end);
  void (*soft_grad)(const SoftGrad&);

  void (*add)(const float* a, const float* b, float* out, int64_t begin, int64_t end);
  double (*sumsq)(const float* x, int64_t n);
  double (*sumsq_bf16)(const uint16_t* x, int64_t n);
  void (*adamw)(const Adamw&, int64_t begin, int64_t end);
};

// The tables that this build has; the caller picks one that the machine can run.
const Kernels& kernels_base();
#if defined(MB_X86_LEVELS)
const Kernels& kernels_v3();  // x86-64-v3: AVX2, FMA
const Kernels& kernels_v4();  // x86-64-v4: AVX-512
#endif

}  // namespace mb
