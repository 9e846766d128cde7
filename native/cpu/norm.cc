// RMSNorm, with and without the residual sum.
#include "core/args/norm.h"

#include "cpu/device.h"

namespace mb {
namespace {

int rmsnorm(mb_device* device, const OpArgs& args, const RmsnormFwdArgs& z) {
  if (!args.ok()) return args.status();
  RmsnormFwd p{};
  p.x = static_cast<const float*>(z.x);
  p.delta = static_cast<const float*>(z.delta);
  p.w = static_cast<const float*>(z.w);
  p.sum = static_cast<float*>(z.sum);
  p.y = static_cast<float*>(z.y);
  p.rstd = z.rstd;
  p.cols = z.cols;
  p.eps = z.eps;
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) { device->kernels.rmsnorm_fwd(p, begin, end); });
  return MB_OK;
}

}  // namespace

int op_rmsnorm_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_RMSNORM_FWD], t, nt, s, ns);
  args.only_f32(0);
  return rmsnorm(device, args, read_rmsnorm_fwd(args));
}

int op_add_rmsnorm_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ADD_RMSNORM_FWD], t, nt, s, ns);
  args.only_f32(0);
  return rmsnorm(device, args, read_add_rmsnorm_fwd(args));
}

int op_rmsnorm_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_RMSNORM_BWD], t, nt, s, ns);
  args.only_f32(0);
  const RmsnormBwdArgs z = read_rmsnorm_bwd(args);
  if (!args.ok()) return args.status();
  RmsnormBwd p{};
  p.dy = static_cast<const float*>(z.dy);
  p.x = static_cast<const float*>(z.x);
  p.w = static_cast<const float*>(z.w);
  p.rstd = z.rstd;
  p.dx = static_cast<float*>(z.dx);
  p.cols = z.cols;
  p.accumulate_dx = z.accumulate_dx;
  const int64_t parts = reduce_parts(z.rows);
  device->rows(parts, z.rows / parts * z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      device->kernels.rmsnorm_bwd(p, z.rows * part / parts, z.rows * (part + 1) / parts,
                                  z.ws == nullptr ? nullptr : z.ws + part * z.cols);
    }
  });
  if (z.dw != nullptr) sum_parts(device, z.ws, parts, z.cols, z.dw, z.accumulate_dw);
  return MB_OK;
}

}  // namespace mb
