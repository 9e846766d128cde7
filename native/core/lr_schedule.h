// The learning rate of an update, and the scalars of OPTIMIZER_PREPARE.
#pragma once
#include <math.h>

#include "core/abi.h"
#include "core/host_device.h"

namespace mb {

enum LrStyle { kConstantLr = 0, kLinearLr = 1, kCosineLr = 2, kWsdLr = 3 };

struct LrSchedule {
  double lr, min_lr, warmup, decay_iters;
  int style;
  double wsd_iters;
};

// Update n counts from 1. Warm-up is lr * n / warmup while n <= warmup; every style but constant is at min_lr from
// decay_iters on.
MB_HD inline double learning_rate(const LrSchedule& c, double n) {
  if (n <= c.warmup) return c.lr * n / c.warmup;
  if (c.style == kConstantLr) return c.lr;
  if (n >= c.decay_iters) return c.min_lr;
  if (c.style == kWsdLr) {
    const double start = c.decay_iters - c.wsd_iters;
    return n <= start ? c.lr : c.lr + (c.min_lr - c.lr) * (n - start) / c.wsd_iters;
  }
  const double p = (n - c.warmup) / (c.decay_iters - c.warmup);
  return c.style == kLinearLr ? c.min_lr + (c.lr - c.min_lr) * (1 - p)
                              : c.min_lr + (c.lr - c.min_lr) * 0.5 * (1 + cos(3.14159265358979323846 * p));
}

struct OptimizerStep {
  double clip, beta1, beta2;
  LrSchedule schedule;
};

// OPTIMIZER_PREPARE of ops.def.
MB_HD inline void prepare_step(const OptimizerStep& c, double normsq, double loss, double tokens, double* state) {
  const double divisor = fabs(tokens);
  const double norm = sqrt(normsq) / divisor;
  const bool skip = !isfinite(norm);
  double factor = 1.0;
  if (c.clip > 0) {
    const double ratio = c.clip / (norm + 1e-6);
    if (ratio < 1.0) factor = ratio;
  }
  state[MB_STATE_GRAD_NORM] = norm;
  state[MB_STATE_LOSS] = loss / divisor;
  state[MB_STATE_TOKENS] = tokens;
  state[MB_STATE_SKIP] = skip ? 1.0 : 0.0;
  state[MB_STATE_SKIPPED_IN_ROW] = skip ? state[MB_STATE_SKIPPED_IN_ROW] + 1.0 : 0.0;
  state[MB_STATE_SCALE] = skip ? 0.0 : factor / divisor;
  if (skip) return;
  const double step = state[MB_STATE_STEP] + 1.0;
  state[MB_STATE_STEP] = step;
  state[MB_STATE_LR] = learning_rate(c.schedule, step);
  state[MB_STATE_BIAS1] = 1.0 - pow(c.beta1, step);
  state[MB_STATE_BIAS2] = 1.0 - pow(c.beta2, step);
}

}  // namespace mb
