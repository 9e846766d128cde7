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

namespace {

// What an update multiplies by, of either op's arguments.
template <class Args>
Adamw factors(const Args& z) {
  const double* state = z.state;
  Adamw p{};
  p.scale = static_cast<float>(state[MB_STATE_SCALE]);
  p.beta1 = static_cast<float>(z.beta1);
  p.rest1 = static_cast<float>(1 - z.beta1);
  p.beta2 = static_cast<float>(z.beta2);
  p.rest2 = static_cast<float>(1 - z.beta2);
  p.eps = static_cast<float>(z.eps);
  p.decay = static_cast<float>(1 - state[MB_STATE_LR] * z.weight_decay);
  p.step = static_cast<float>(state[MB_STATE_LR] / state[MB_STATE_BIAS1]);
  p.root = static_cast<float>(1 / state[MB_STATE_BIAS2]);
  return p;
}

float value_at(const void* x, int dtype, int64_t i) {
  return dtype == MB_BF16 ? bf16_to_f32(static_cast<const uint16_t*>(x)[i]) : static_cast<const float*>(x)[i];
}

// What is kept of x.
float keep(void* to, int dtype, int64_t i, float x, uint32_t random) {
  if (dtype != MB_BF16) return static_cast<float*>(to)[i] = x;
  return bf16_to_f32(static_cast<uint16_t*>(to)[i] = bf16_at_random(x, random));
}

}  // namespace

int op_adamw(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ADAMW], t, nt, s, ns);
  args.only_f32(4);
  const AdamwArgs z = read_adamw(args);
  if (!args.ok()) return args.status();
  if (z.state[MB_STATE_SKIP] != 0) return MB_OK;
  Adamw p = factors(z);
  p.p = z.p;
  p.m = z.m;
  p.v = z.v;
  p.g = z.g;
  p.out = static_cast<float*>(z.out);
  device->rows(z.n, 1, [&](int64_t begin, int64_t end, int) { device->kernels.adamw(p, begin, end); });
  return MB_OK;
}

int op_adamw_rounded(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ADAMW_ROUNDED], t, nt, s, ns);
  args.only_f32(4);
  const AdamwRoundedArgs z = read_adamw_rounded(args);
  if (!args.ok()) return args.status();
  if (z.state[MB_STATE_SKIP] != 0) return MB_OK;
  const auto update = static_cast<uint32_t>(z.state[MB_STATE_STEP]);
  const Adamw k = factors(z);
  device->rows(z.n, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const PhiloxWords random = rounding_words(z.place.index(i), update, z.place);
      const float g = value_at(z.g, z.g_dtype, i) * k.scale;
      // The update is made of the moments before they are rounded.
      const float m = value_at(z.m, z.m_dtype, i) * k.beta1 + g * k.rest1;
      const float v = value_at(z.v, z.v_dtype, i) * k.beta2 + g * g * k.rest2;
      const float p = value_at(z.p, z.p_dtype, i) * k.decay - k.step * m / (__builtin_sqrtf(v * k.root) + k.eps);
      keep(z.m, z.m_dtype, i, m, random.w[0]);
      keep(z.v, z.v_dtype, i, v, random.w[0] >> 16);
      const float kept = keep(z.p, z.p_dtype, i, p, random.w[1]);
      if (z.out != nullptr) static_cast<float*>(z.out)[i] = kept;
    }
  });
  return MB_OK;
}

}  // namespace mb
