// RMSNorm, with and without the residual sum.
#include "cpu/device.h"

namespace mb {
namespace {

int rmsnorm(mb_device* device, OpArgs& args, RmsnormFwd& p, int64_t rows) {
  if (!args.ok()) return args.status();
  device->rows(rows, p.cols, [&](int64_t begin, int64_t end, int) { device->kernels.rmsnorm_fwd(p, begin, end); });
  return MB_OK;
}

}  // namespace

int op_rmsnorm_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("rmsnorm_fwd", t, nt, 4, s, ns, 3);
  const int64_t rows = args.size(0, "rows", 0);
  RmsnormFwd p{};
  p.cols = args.size(1, "cols");
  p.eps = static_cast<float>(args.real(2, "eps"));
  p.x = args.f32(0, "x", rows * p.cols);
  p.w = args.f32(1, "w", p.cols);
  p.y = args.f32(2, "y", rows * p.cols);
  p.rstd = args.f32(3, "rstd", rows);
  return rmsnorm(device, args, p, rows);
}

int op_add_rmsnorm_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("add_rmsnorm_fwd", t, nt, 6, s, ns, 3);
  const int64_t rows = args.size(0, "rows", 0);
  RmsnormFwd p{};
  p.cols = args.size(1, "cols");
  p.eps = static_cast<float>(args.real(2, "eps"));
  p.x = args.f32(0, "x", rows * p.cols);
  p.delta = args.f32(1, "delta", rows * p.cols);
  p.w = args.f32(2, "w", p.cols);
  p.sum = args.f32(3, "sum", rows * p.cols);
  p.y = args.f32(4, "y", rows * p.cols);
  p.rstd = args.f32(5, "rstd", rows);
  return rmsnorm(device, args, p, rows);
}

int op_rmsnorm_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("rmsnorm_bwd", t, nt, 7, s, ns, 4);
  const int64_t rows = args.size(0, "rows", 0);
  RmsnormBwd p{};
  p.cols = args.size(1, "cols");
  p.accumulate_dx = args.flag(2, "accumulate_dx");
  const bool accumulate_dw = args.flag(3, "accumulate_dw");
  p.dy = args.f32(0, "dy", rows * p.cols);
  p.x = args.f32(1, "x", rows * p.cols);
  p.w = args.f32(2, "w", p.cols);
  p.rstd = args.f32(3, "rstd", rows);
  p.dx = args.f32(4, "dx", rows * p.cols);
  float* dw = args.f32_opt(5, "dw", p.cols);
  float* ws = dw == nullptr ? nullptr : args.f32(6, "ws", MB_REDUCE_PARTS * p.cols);
  if (!args.ok()) return args.status();
  const int64_t parts = reduce_parts(rows);
  device->rows(parts, rows / parts * p.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      device->kernels.rmsnorm_bwd(p, rows * part / parts, rows * (part + 1) / parts,
                                  ws == nullptr ? nullptr : ws + part * p.cols);
    }
  });
  if (dw != nullptr) {
    device->rows(p.cols, parts, [&](int64_t begin, int64_t end, int) {
      device->kernels.sum_parts(ws, parts, p.cols, dw, accumulate_dw, begin, end);
    });
  }
  return MB_OK;
}

}  // namespace mb
