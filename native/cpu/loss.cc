// Cross entropy over one vocabulary shard.
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
  double loss = 0;
  double count = 0;
  for (int64_t i = 0; i < p.rows; ++i) {
    loss += static_cast<double>(p.rowloss[i]);
    count += static_cast<double>(p.mask[i]);
  }
  z.acc[0] += static_cast<float>(loss);
  z.acc[1] += static_cast<float>(count);
  return MB_OK;
}

}  // namespace mb
