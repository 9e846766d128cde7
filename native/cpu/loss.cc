// Losses over one vocabulary shard: cross entropy, and what a loss of tokens is made from.
#include <cmath>

#include "core/args/tokens.h"
#include "cpu/device.h"

namespace mb {
namespace {

Loss loss_of(const LossArgs& z) {
  Loss p{};
  p.logits = static_cast<float*>(z.logits);
  p.targets = z.targets;
  p.mask = z.mask;
  p.gmax = z.gmax;
  p.sums = z.sums;
  p.stats = z.stats;
  p.rowloss = z.rowloss;
  p.rows = z.rows;
  p.cols = z.cols;
  p.vstart = z.vstart;
  return p;
}

TokenLoss token_loss_of(const TokenArgs& z) {
  TokenLoss p{};
  p.logits = static_cast<float*>(z.logits);
  p.targets = z.targets;
  p.gmax = z.gmax;
  p.sums = z.sums;
  p.dlogprob = z.dlogprob;
  p.dentropy = z.dentropy;
  p.entropy = z.entropy_in;
  p.moment = z.moment;
  p.rows = z.rows;
  p.cols = z.cols;
  p.vstart = z.vstart;
  return p;
}

}  // namespace

int op_ce_stats(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_CE_STATS], t, nt, s, ns);
  args.only_f32(0);
  const Loss p = loss_of(read_ce_stats(args));
  if (!args.ok()) return args.status();
  device->rows(p.rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.ce_stats(p, begin, end); });
  return MB_OK;
}

int op_ce_rescale(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_CE_RESCALE], t, nt, s, ns);
  const RescaleArgs z = read_ce_rescale(args);
  if (!args.ok()) return args.status();
  device->kernels.ce_rescale(z.stats + z.rows, z.stats, z.gmax, 0, z.rows);
  return MB_OK;
}

int op_ce_grad(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_CE_GRAD], t, nt, s, ns);
  args.only_f32(0);
  const LossArgs z = read_ce_grad(args);
  if (!args.ok()) return args.status();
  const Loss p = loss_of(z);
  device->rows(p.rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.ce_grad(p, begin, end); });
  add_losses(p.rowloss, p.mask, p.rows, z.acc);
  return MB_OK;
}

int op_token_moment(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_TOKEN_MOMENT], t, nt, s, ns);
  args.only_f32(0);
  const TokenLoss p = token_loss_of(read_token_moment(args));
  if (!args.ok()) return args.status();
  device->rows(p.rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.token_moment(p, begin, end); });
  return MB_OK;
}

int op_token_values(mb_device*, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_TOKEN_VALUES], t, nt, s, ns);
  const TokenArgs z = read_token_values(args);
  if (!args.ok()) return args.status();
  for (int64_t i = 0; i < z.rows; ++i) {
    const float log_sum = std::log(z.sums[i]);
    z.logprob[i] = -(log_sum + z.gmax[i] - z.sums[z.rows + i]);
    z.entropy[i] = log_sum - z.moment_in[i] / z.sums[i];
  }
  return MB_OK;
}

int op_token_grad(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_TOKEN_GRAD], t, nt, s, ns);
  args.only_f32(0);
  const TokenLoss p = token_loss_of(read_token_grad(args));
  if (!args.ok()) return args.status();
  device->rows(p.rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.token_grad(p, begin, end); });
  return MB_OK;
}

}  // namespace mb
