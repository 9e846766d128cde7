// The step's scalars (norm, clipping, learning rate) and AdamW.
#include <algorithm>
#include <cmath>

#include "cpu/device.h"

namespace mb {
namespace {

struct Schedule {
  double lr, min_lr, warmup, decay_iters, style, wsd_iters;
};

// Learning rate of update n (from 1).
double learning_rate(const Schedule& c, double n) {
  if (n <= c.warmup) return c.lr * n / c.warmup;
  if (c.style == 0) return c.lr;
  if (n >= c.decay_iters) return c.min_lr;
  if (c.style == 3) {
    const double start = c.decay_iters - c.wsd_iters;
    return n <= start ? c.lr : c.lr + (c.min_lr - c.lr) * (n - start) / c.wsd_iters;
  }
  const double p = (n - c.warmup) / (c.decay_iters - c.warmup);
  return c.style == 1 ? c.min_lr + (c.lr - c.min_lr) * (1 - p)
                      : c.min_lr + (c.lr - c.min_lr) * 0.5 * (1 + std::cos(3.14159265358979323846 * p));
}

}  // namespace

int op_optimizer_prepare(mb_device*, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("optimizer_prepare", t, nt, 3, s, ns, 9);
  const float* normsq = args.f32(0, "normsq", 1);
  const float* acc = args.f32(1, "acc", 2);
  double* state = args.f64(2, "state", MB_STATE_COUNT);
  const double clip = args.real(0, "clip");
  const double beta1 = args.real(1, "beta1");
  const double beta2 = args.real(2, "beta2");
  Schedule c;
  c.lr = args.real(3, "lr");
  c.min_lr = args.real(4, "min_lr");
  c.warmup = args.real(5, "warmup");
  c.decay_iters = args.real(6, "decay_iters");
  c.style = args.real(7, "decay_style");
  c.wsd_iters = args.real(8, "wsd_iters");
  args.require(c.style == 0 || c.style == 1 || c.style == 2 || c.style == 3, "decay_style 0, 1, 2 or 3");
  if (!args.ok()) return args.status();

  const double tokens = static_cast<double>(acc[1]);
  const double norm = std::sqrt(static_cast<double>(*normsq)) / tokens;
  const bool skip = !std::isfinite(norm);
  state[MB_STATE_GRAD_NORM] = norm;
  state[MB_STATE_LOSS] = static_cast<double>(acc[0]) / tokens;
  state[MB_STATE_TOKENS] = tokens;
  state[MB_STATE_SKIP] = skip ? 1 : 0;
  state[MB_STATE_SKIPPED_IN_ROW] = skip ? state[MB_STATE_SKIPPED_IN_ROW] + 1 : 0;
  state[MB_STATE_SCALE] = skip ? 0 : (clip == 0 ? 1.0 : std::min(1.0, clip / (norm + 1e-6))) / tokens;
  if (skip) return MB_OK;
  const double step = state[MB_STATE_STEP] + 1;
  state[MB_STATE_STEP] = step;
  state[MB_STATE_LR] = learning_rate(c, step);
  state[MB_STATE_BIAS1] = 1 - std::pow(beta1, step);
  state[MB_STATE_BIAS2] = 1 - std::pow(beta2, step);
  return MB_OK;
}

int op_adamw(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("adamw", t, nt, 6, s, ns, 5);
  const int64_t n = args.size(0, "n", 0);
  const double beta1 = args.real(1, "beta1");
  const double beta2 = args.real(2, "beta2");
  const double eps = args.real(3, "eps");
  const double weight_decay = args.real(4, "weight_decay");
  Adamw p{};
  p.p = args.f32(0, "p", n);
  p.m = args.f32(1, "m", n);
  p.v = args.f32(2, "v", n);
  p.g = args.f32(3, "g", n);
  p.out = args.f32(4, "out", n);
  const double* state = args.f64(5, "state", MB_STATE_COUNT);
  if (!args.ok()) return args.status();
  if (state[MB_STATE_SKIP] != 0) return MB_OK;
  if (p.out == p.p) p.out = nullptr;
  p.scale = static_cast<float>(state[MB_STATE_SCALE]);
  p.beta1 = static_cast<float>(beta1);
  p.rest1 = static_cast<float>(1 - beta1);
  p.beta2 = static_cast<float>(beta2);
  p.rest2 = static_cast<float>(1 - beta2);
  p.eps = static_cast<float>(eps);
  p.decay = static_cast<float>(1 - state[MB_STATE_LR] * weight_decay);
  p.step = static_cast<float>(state[MB_STATE_LR] / state[MB_STATE_BIAS1]);
  p.root = static_cast<float>(1 / state[MB_STATE_BIAS2]);
  device->rows(n, 1, [&](int64_t begin, int64_t end, int) { device->kernels.adamw(p, begin, end); });
  return MB_OK;
}

}  // namespace mb
