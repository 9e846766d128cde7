// Cross entropy over one vocabulary shard.
#include "cpu/device.h"

namespace mb {

int op_ce_stats(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("ce_stats", t, nt, 3, s, ns, 3);
  Loss p{};
  p.rows = args.size(0, "T", 0);
  p.cols = args.size(1, "V");
  p.vstart = args.size(2, "vstart", 0);
  p.logits = args.f32(0, "logits", p.rows * p.cols);
  p.targets = args.i32(1, "targets", p.rows);
  p.stats = args.f32(2, "stats", 3 * p.rows);
  if (!args.ok()) return args.status();
  device->rows(p.rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.ce_stats(p, begin, end); });
  return MB_OK;
}

int op_ce_rescale(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("ce_rescale", t, nt, 2, s, ns, 1);
  const int64_t rows = args.size(0, "T", 0);
  float* stats = args.f32(0, "stats", 3 * rows);
  const float* gmax = args.f32(1, "gmax", rows);
  if (!args.ok()) return args.status();
  device->kernels.ce_rescale(stats + rows, stats, gmax, 0, rows);
  return MB_OK;
}

int op_ce_grad(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("ce_grad", t, nt, 7, s, ns, 3);
  Loss p{};
  p.rows = args.size(0, "T", 0);
  p.cols = args.size(1, "V");
  p.vstart = args.size(2, "vstart", 0);
  p.logits = args.f32(0, "logits", p.rows * p.cols);
  p.targets = args.i32(1, "targets", p.rows);
  p.mask = args.f32(2, "mask", p.rows);
  p.gmax = args.f32(3, "gmax", p.rows);
  p.sums = args.f32(4, "sums", 2 * p.rows);
  float* acc = args.f32(5, "acc", 2);
  p.rowloss = args.f32(6, "rowloss", p.rows);
  if (!args.ok()) return args.status();
  device->rows(p.rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.ce_grad(p, begin, end); });
  double loss = 0;
  double count = 0;
  for (int64_t i = 0; i < p.rows; ++i) {
    loss += static_cast<double>(p.rowloss[i]);
    count += static_cast<double>(p.mask[i]);
  }
  acc[0] += static_cast<float>(loss);
  acc[1] += static_cast<float>(count);
  return MB_OK;
}

}  // namespace mb
