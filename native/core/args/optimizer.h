// Arguments of OPTIMIZER_PREPARE, ADAMW and INIT_NORMAL of ops.def.
#pragma once
#include "core/lr_schedule.h"
#include "core/op_args.h"

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

struct InitNormalArgs {
  int64_t rows, cols;
  uint64_t row0, col0, gcols;
  double std;
  uint32_t key0, key1;
  int dtype;
  void* out;
};

inline InitNormalArgs read_init_normal(OpArgs& a) {
  InitNormalArgs z{};
  z.rows = a.size(0);
  z.cols = a.size(1);
  z.row0 = static_cast<uint64_t>(a.size(2));
  const int64_t col0 = a.size(3);
  z.col0 = static_cast<uint64_t>(col0);
  z.gcols = static_cast<uint64_t>(a.size(4, col0 + z.cols));
  z.std = a.real(5);
  constexpr int64_t kWord = 0xffffffff;
  z.key0 = static_cast<uint32_t>(a.size(6, 0, kWord)) ^ static_cast<uint32_t>(a.size(8, 0, kWord));
  z.key1 = static_cast<uint32_t>(a.size(7, 0, kWord)) ^ static_cast<uint32_t>(a.size(9, 0, kWord));
  z.dtype = a.act(0);
  z.out = a.tensor(0, z.dtype, times(z.rows, z.cols));
  return z;
}

}  // namespace mb
