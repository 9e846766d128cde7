// Arguments of the ops of distillation: TOP_K*, SOFT_SUMS and SOFT_KL of ops.def.
#pragma once
#include "core/op_args.h"

namespace mb {

struct TopKArgs {
  int64_t shards, rows, cols, k, vstart;
  double temperature;
  int dtype;
  const void* logits;
  const int32_t* lists;  // TOP_K_MERGE
  const float *gmax, *sums, *values_in;
  float* values;  // or log-probabilities
  int32_t* ids;
};

inline double read_temperature(OpArgs& a, int scalar) {
  const double temperature = a.real(scalar);
  a.require(temperature > 0, "a temperature above 0");
  return temperature;
}

inline TopKArgs read_top_k_logits(OpArgs& a) {
  TopKArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.cols = a.size(1, 1, int64_t{1} << 30);
  z.k = a.size(2, 1, MB_MOST_TOP_K);
  z.vstart = a.size(3, 0, int64_t{1} << 30);
  z.dtype = a.act(0);
  z.logits = a.tensor(0, z.dtype, times(z.rows, z.cols));
  return z;
}

inline TopKArgs read_top_k(OpArgs& a) {
  TopKArgs z = read_top_k_logits(a);
  z.values = a.f32(1, times(z.rows, z.k));
  z.ids = a.i32(2, times(z.rows, z.k));
  return z;
}

inline TopKArgs read_top_k_gather(OpArgs& a) {
  TopKArgs z = read_top_k_logits(a);
  z.lists = a.i32(1, times(z.rows, z.k));
  z.values = a.f32(2, times(z.rows, z.k));
  return z;
}

inline TopKArgs read_top_k_merge(OpArgs& a) {
  TopKArgs z{};
  z.shards = a.size(0, 1, 65535);
  z.rows = a.size(1, 0, INT32_MAX);
  z.k = a.size(2, 1, MB_MOST_TOP_K);
  z.temperature = read_temperature(a, 3);
  const int64_t listed = times(z.shards, times(z.rows, z.k));
  z.values_in = a.f32(0, listed);
  z.lists = a.i32(1, listed);
  z.gmax = a.f32(2, z.rows);
  z.sums = a.f32(3, z.rows);
  z.values = a.f32(4, times(z.rows, z.k));
  z.ids = a.i32(5, times(z.rows, z.k));
  a.distinct(0, 4);
  a.distinct(1, 5);
  return z;
}

struct KlArgs {
  int64_t rows, cols, k, vstart;
  double temperature;
  int dtype;
  void* logits;
  const void* teacher;  // logits of a teacher; null: none
  const int32_t* ids;
  const float *teacher_logprobs, *student;  // TOP_K_KL
  const float *mask, *gmax, *tmax;
  const float* sums;  // null: over the k tokens
  float *sums_out, *acc, *rowloss;
};

inline KlArgs read_kl_logits(OpArgs& a, int temperature) {
  KlArgs z{};
  z.rows = a.size(0, 0, INT32_MAX);
  z.cols = a.size(1, 1, int64_t{1} << 30);
  z.temperature = read_temperature(a, temperature);
  z.dtype = a.act(0);
  z.logits = a.tensor(0, z.dtype, times(z.rows, z.cols));
  return z;
}

inline KlArgs read_soft_sums(OpArgs& a) {
  KlArgs z = read_kl_logits(a, 2);
  z.gmax = a.f32(1, z.rows);
  a.require(a.present(2) == a.present(3), "teacher and tmax, or neither");
  if (a.present(2)) {
    z.teacher = a.tensor(2, z.dtype, times(z.rows, z.cols));
    z.tmax = a.f32(3, z.rows);
  }
  z.sums_out = a.f32(4, z.teacher == nullptr ? z.rows : times(z.rows, 3));
  return z;
}

inline KlArgs read_top_k_kl(OpArgs& a) {
  KlArgs z = read_kl_logits(a, 4);
  z.k = a.size(2, 1, MB_MOST_TOP_K);
  z.vstart = a.size(3, 0, int64_t{1} << 30);
  z.ids = a.i32(1, times(z.rows, z.k));
  z.teacher_logprobs = a.f32(2, times(z.rows, z.k));
  z.student = a.f32(3, times(z.rows, z.k));
  z.mask = a.f32(4, z.rows);
  z.gmax = a.f32(5, z.rows);
  z.sums = a.f32_opt(6, z.rows);
  z.acc = a.f32(7, 2);
  z.rowloss = a.f32(8, z.rows);
  return z;
}

inline KlArgs read_soft_kl(OpArgs& a) {
  KlArgs z = read_kl_logits(a, 2);
  z.teacher = a.tensor(1, z.dtype, times(z.rows, z.cols));
  z.mask = a.f32(2, z.rows);
  z.gmax = a.f32(3, z.rows);
  z.tmax = a.f32(4, z.rows);
  z.sums = a.f32(5, times(z.rows, 3));
  z.acc = a.f32(6, 2);
  z.rowloss = a.f32(7, z.rows);
  a.distinct(0, 1);
  return z;
}

}  // namespace mb
