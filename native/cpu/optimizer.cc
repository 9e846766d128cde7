// The step's scalars (norm, clipping, learning rate) and AdamW.
#include "core/args/optimizer.h"

#include "cpu/device.h"

namespace mb {

int op_optimizer_prepare(mb_device*, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_OPTIMIZER_PREPARE], t, nt, s, ns);
  const PrepareArgs z = read_optimizer_prepare(args);
  if (!args.ok()) return args.status();
  prepare_step(z.step, static_cast<double>(*z.normsq), static_cast<double>(z.acc[0]), static_cast<double>(z.acc[1]),
               z.state);
  return MB_OK;
}

int op_adamw(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ADAMW], t, nt, s, ns);
  args.only_f32(4);
  const AdamwArgs z = read_adamw(args);
  if (!args.ok()) return args.status();
  const double* state = z.state;
  if (state[MB_STATE_SKIP] != 0) return MB_OK;
  Adamw p{};
  p.p = z.p;
  p.m = z.m;
  p.v = z.v;
  p.g = z.g;
  p.out = static_cast<float*>(z.out);
  p.scale = static_cast<float>(state[MB_STATE_SCALE]);
  p.beta1 = static_cast<float>(z.beta1);
  p.rest1 = static_cast<float>(1 - z.beta1);
  p.beta2 = static_cast<float>(z.beta2);
  p.rest2 = static_cast<float>(1 - z.beta2);
  p.eps = static_cast<float>(z.eps);
  p.decay = static_cast<float>(1 - state[MB_STATE_LR] * z.weight_decay);
  p.step = static_cast<float>(state[MB_STATE_LR] / state[MB_STATE_BIAS1]);
  p.root = static_cast<float>(1 / state[MB_STATE_BIAS2]);
  device->rows(z.n, 1, [&](int64_t begin, int64_t end, int) { device->kernels.adamw(p, begin, end); });
  return MB_OK;
}

}  // namespace mb
