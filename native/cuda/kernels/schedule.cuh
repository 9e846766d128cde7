// The learning rate of an update, as a plain function so that the host can test it.
#pragma once
#include <math.h>
#include <stdint.h>

namespace mbk {

enum : int { kConstant = 0, kLinear = 1, kCosine = 2, kWsd = 3 };

struct Schedule {
  double lr, min_lr, warmup, decay_iters;
  int style;
  double wsd_iters;
};

// Update n counts from 1. Warm-up is lr * n / warmup while n <= warmup; then p runs from 0 at warmup to 1 at
// decay_iters, where every style but constant reaches min_lr and stays.
__host__ __device__ inline double learning_rate(const Schedule& s, double n) {
  if (n <= s.warmup) return s.lr * n / s.warmup;
  const double span = s.decay_iters - s.warmup;
  double p = span > 0 ? (n - s.warmup) / span : 1.0;
  p = p > 1 ? 1.0 : p;
  switch (s.style) {
    case kLinear:
      return s.lr + (s.min_lr - s.lr) * p;
    case kCosine:
      return s.min_lr + (s.lr - s.min_lr) * 0.5 * (1.0 + cos(3.14159265358979323846 * p));
    case kWsd: {
      const double start = s.decay_iters - s.wsd_iters;
      if (n <= start) return s.lr;
      const double q = s.wsd_iters > 0 ? (n - start) / s.wsd_iters : 1.0;
      return s.lr + (s.min_lr - s.lr) * (q > 1 ? 1.0 : q);
    }
    default:
      return s.lr;
  }
}

}  // namespace mbk
