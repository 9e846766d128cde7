// Arguments of the ops over the vocabulary: EMBED_*, CE_* and TOKEN_* of ops.def.
#pragma once
#include "core/op_args.h"

namespace mb {

struct EmbedArgs {
  int64_t tokens, h, vstart, vrows;
  int dtype;
  const int32_t *ids, *order;  // order: backward only
  const void* in;              // w, or dout
  void* out;                   // out, or dw (f32)
};

inline EmbedArgs read_embed_sizes(OpArgs& a) {
  EmbedArgs z{};
  z.tokens = a.size(0, 0, INT32_MAX);
  z.h = a.size(1, 1, int64_t{1} << 22);
  z.vstart = a.size(2, 0, INT32_MAX);
  z.vrows = a.size(3, 1, INT32_MAX);
  z.ids = a.i32(0, z.tokens);
  return z;
}

inline EmbedArgs read_embed_fwd(OpArgs& a) {
  EmbedArgs z = read_embed_sizes(a);
  z.dtype = a.act(1);
  z.in = a.tensor(1, z.dtype, times(z.vrows, z.h));
  z.out = a.tensor(2, z.dtype, times(z.tokens, z.h));
  a.distinct(1, 2);
  return z;
}

inline EmbedArgs read_embed_bwd(OpArgs& a) {
  EmbedArgs z = read_embed_sizes(a);
  z.dtype = a.act(2);
  z.order = a.i32(1, z.tokens);
  z.in = a.tensor(2, z.dtype, times(z.tokens, z.h));
  z.out = a.f32(3, times(z.vrows, z.h));
  a.distinct(2, 3);
  return z;
}

struct LossArgs {
  int64_t rows, cols, vstart;
  int dtype;
  void* logits;
  const int32_t* targets;
  float* stats;                     // CE_STATS
  const float *mask, *gmax, *sums;  // CE_GRAD
  float *acc, *rowloss;
};

inline LossArgs read_logits(OpArgs& a) {
  LossArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.cols = a.size(1, 1, int64_t{1} << 30);
  z.vstart = a.size(2, 0, INT32_MAX);
  z.dtype = a.act(0);
  z.logits = a.tensor(0, z.dtype, times(z.rows, z.cols));
  z.targets = a.i32(1, z.rows);
  return z;
}

inline LossArgs read_ce_stats(OpArgs& a) {
  LossArgs z = read_logits(a);
  z.stats = a.f32(2, times(z.rows, 3));
  return z;
}

inline LossArgs read_ce_grad(OpArgs& a) {
  LossArgs z = read_logits(a);
  z.mask = a.f32(2, z.rows);
  z.gmax = a.f32(3, z.rows);
  z.sums = a.f32(4, times(z.rows, 2));
  z.acc = a.f32(5, 2);
  z.rowloss = a.f32(6, z.rows);
  return z;
}

// TOKEN_*.
struct TokenArgs {
  int64_t rows, cols, vstart;
  int dtype;
  void* logits;
  const int32_t* targets;
  const float *gmax, *sums, *dlogprob, *dentropy, *entropy_in;
  const float* moment_in;
  float *moment, *logprob, *entropy;
};

inline TokenArgs read_token_moment(OpArgs& a) {
  TokenArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.cols = a.size(1, 1, int64_t{1} << 30);
  z.dtype = a.act(0);
  z.logits = a.tensor(0, z.dtype, times(z.rows, z.cols));
  z.gmax = a.f32(1, z.rows);
  z.moment = a.f32(2, z.rows);
  return z;
}

inline TokenArgs read_token_values(OpArgs& a) {
  TokenArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.gmax = a.f32(0, z.rows);
  z.sums = a.f32(1, times(z.rows, 2));
  z.moment_in = a.f32(2, z.rows);
  z.logprob = a.f32(3, z.rows);
  z.entropy = a.f32(4, z.rows);
  return z;
}

inline TokenArgs read_token_grad(OpArgs& a) {
  const LossArgs logits = read_logits(a);
  TokenArgs z{};
  z.rows = logits.rows;
  z.cols = logits.cols;
  z.vstart = logits.vstart;
  z.dtype = logits.dtype;
  z.logits = logits.logits;
  z.targets = logits.targets;
  z.dlogprob = a.f32(2, z.rows);
  z.dentropy = a.f32(3, z.rows);
  z.entropy_in = a.f32(4, z.rows);
  z.gmax = a.f32(5, z.rows);
  z.sums = a.f32(6, times(z.rows, 2));
  return z;
}

struct RescaleArgs {
  int64_t rows;
  float* stats;
  const float* gmax;
};

inline RescaleArgs read_ce_rescale(OpArgs& a) {
  RescaleArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.stats = a.f32(0, times(z.rows, 3));
  z.gmax = a.f32(1, z.rows);
  return z;
}

}  // namespace mb
