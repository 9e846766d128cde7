// Arguments of OPTIMIZER_PREPARE, ADAMW, ADAMW_ROUNDED and INIT_NORMAL of ops.def.
#pragma once
#include "core/lr_schedule.h"
#include "core/op_args.h"
#include "core/stochastic.h"

namespace mb {

struct PrepareArgs {
  OptimizerStep step;
  const float *normsq, *acc;
  double* state;
};

inline PrepareArgs read_optimizer_prepare(OpArgs& a) {
  PrepareArgs z{};
  z.normsq = a.f32(0, 1);
  z.acc = a.f32(1, 2);
  z.state = a.f64(2, MB_STATE_COUNT);
  z.step.clip = a.real(0);
  z.step.beta1 = a.real(1);
  z.step.beta2 = a.real(2);
  LrSchedule& c = z.step.schedule;
  c.lr = a.real(3);
  c.min_lr = a.real(4);
  c.warmup = static_cast<double>(a.size(5));
  c.decay_iters = static_cast<double>(a.size(6));
  c.style = static_cast<int>(a.size(7, kConstantLr, kWsdLr));
  c.wsd_iters = static_cast<double>(a.size(8));
  return z;
}

struct AdamwArgs {
  int64_t n;
  double beta1, beta2, eps, weight_decay;
  float *p, *m, *v;
  const float* g;
  void* out;  // null where p itself is what the model reads
  int dtype;  // of out
  const double* state;
};

inline AdamwArgs read_adamw(OpArgs& a) {
  AdamwArgs z{};
  z.n = a.size(0);
  z.beta1 = a.real(1);
  z.beta2 = a.real(2);
  z.eps = a.real(3);
  z.weight_decay = a.real(4);
  z.p = a.f32(0, z.n);
  z.m = a.f32(1, z.n);
  z.v = a.f32(2, z.n);
  z.g = a.f32(3, z.n);
  z.dtype = MB_F32;
  if (a.present(4)) {
    z.dtype = a.act(4);
    z.out = a.tensor(4, z.dtype, z.n);
    if (z.out == z.p) {
      a.require(z.dtype == MB_F32, "out that is p to be f32");
      z.out = nullptr;
    } else {
      a.distinct(0, 4);
      a.distinct(3, 4);
    }
  }
  z.state = a.f64(5, MB_STATE_COUNT);
  return z;
}

// Scalars rows, cols, row0, col0, gcols from `first`, and the halves of seed and key from `halves`.
inline RandomPlace read_place(OpArgs& a, int first, int halves) {
  RandomPlace z{};
  z.cols = a.size(first + 1);
  z.row0 = static_cast<uint64_t>(a.size(first + 2));
  const int64_t col0 = a.size(first + 3);
  z.col0 = static_cast<uint64_t>(col0);
  z.gcols = static_cast<uint64_t>(a.size(first + 4, col0 + z.cols));
  constexpr int64_t kWord = 0xffffffff;
  const auto word = [&](int i) { return static_cast<uint32_t>(a.size(halves + i, 0, kWord)); };
  z.key0 = word(0) ^ word(2);
  z.key1 = word(1) ^ word(3);
  return z;
}

struct AdamwRoundedArgs {
  int64_t n;
  RandomPlace place;
  double beta1, beta2, eps, weight_decay;
  void *p, *m, *v, *out;  // out null where p is what the model reads
  int p_dtype, m_dtype, v_dtype, g_dtype, out_dtype;
  const void* g;
  const double* state;
};

inline AdamwRoundedArgs read_adamw_rounded(OpArgs& a) {
  AdamwRoundedArgs z{};
  z.place = read_place(a, 0, 9);
  z.n = times(a.size(0), z.place.cols);
  z.beta1 = a.real(5);
  z.beta2 = a.real(6);
  z.eps = a.real(7);
  z.weight_decay = a.real(8);
  z.p = a.tensor(0, z.p_dtype = a.act(0), z.n);
  z.m = a.tensor(1, z.m_dtype = a.act(1), z.n);
  z.v = a.tensor(2, z.v_dtype = a.act(2), z.n);
  z.g = a.tensor(3, z.g_dtype = a.act(3), z.n);
  if (a.present(4)) {
    z.out = a.tensor(4, z.out_dtype = a.act(4), z.n);
    a.distinct(0, 4);
    a.distinct(3, 4);
  }
  z.state = a.f64(5, MB_STATE_COUNT);
  return z;
}

struct InitNormalArgs {
  int64_t rows;
  RandomPlace place;
  double std;
  int dtype;
  void* out;
};

inline InitNormalArgs read_init_normal(OpArgs& a) {
  InitNormalArgs z{};
  z.rows = a.size(0);
  z.place = read_place(a, 0, 6);
  z.std = a.real(5);
  z.dtype = a.act(0);
  z.out = a.tensor(0, z.dtype, times(z.rows, z.place.cols));
  return z;
}

}  // namespace mb
