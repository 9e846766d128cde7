// RoPE's table, and per-head RMSNorm with rotation of q and k.
#include "core/args/rope.h"

#include <cmath>

#include "cpu/device.h"

namespace mb {
namespace {

// Positions index the table: one that lies outside is the caller's bug, found here before it reads foreign memory.
void check_positions(OpArgs& args, const QknormArgs& z) {
  for (int64_t t = 0; args.ok() && t < z.tokens; ++t) {
    if (z.positions[t] < 0 || z.positions[t] >= z.table_rows) {
      args.fail("positions[%lld] is %d, and the table has %lld rows", static_cast<long long>(t), z.positions[t],
                static_cast<long long>(z.table_rows));
    }
  }
}

}  // namespace

int op_rope_table(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ROPE_TABLE], t, nt, s, ns);
  const RopeTableArgs z = read_rope_table(args);
  if (!args.ok()) return args.status();
  const int64_t d = z.d;
  device->rows(z.positions, 16 * d, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = 0; i < d / 2; ++i) {
      const double frequency = z.frequencies != nullptr ? z.frequencies[i]
                               : z.frequencies_f32 != nullptr
                                   ? static_cast<double>(z.frequencies_f32[i])
                                   : std::pow(z.theta, -2.0 * static_cast<double>(i) / static_cast<double>(d));
      for (int64_t p = begin; p < end; ++p) {
        const double angle = static_cast<double>(p) * frequency;
        z.out[p * d + i] = static_cast<float>(std::cos(angle) * z.scale);
        z.out[p * d + d / 2 + i] = static_cast<float>(std::sin(angle) * z.scale);
      }
    }
  });
  return MB_OK;
}

int op_qknorm_rope_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_QKNORM_ROPE_FWD], t, nt, s, ns);
  args.only_f32(0);
  const QknormFwdArgs z = read_qknorm_rope_fwd(args);
  check_positions(args, z);
  if (!args.ok()) return args.status();
  QknormFwd p{};
  p.qkv = static_cast<const float*>(z.qkv);
  p.wq = static_cast<const float*>(z.wq);
  p.wk = static_cast<const float*>(z.wk);
  p.table = z.table;
  p.positions = z.positions;
  p.out = static_cast<float*>(z.out);
  p.rstd = z.rstd;
  p.hq = z.hq;
  p.hkv = z.hkv;
  p.d = z.d;
  p.eps = z.eps;
  device->rows(z.tokens, z.width(),
               [&](int64_t begin, int64_t end, int) { device->kernels.qknorm_fwd(p, begin, end); });
  return MB_OK;
}

int op_qknorm_rope_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_QKNORM_ROPE_BWD], t, nt, s, ns);
  args.only_f32(0);
  const QknormBwdArgs z = read_qknorm_rope_bwd(args);
  check_positions(args, z);
  if (!args.ok()) return args.status();
  QknormBwd p{};
  p.dqkv = static_cast<float*>(z.dqkv);
  p.qkv = static_cast<const float*>(z.qkv);
  p.wq = static_cast<const float*>(z.wq);
  p.wk = static_cast<const float*>(z.wk);
  p.table = z.table;
  p.positions = z.positions;
  p.rstd = z.rstd;
  p.hq = z.hq;
  p.hkv = z.hkv;
  p.d = z.d;
  const int64_t parts = reduce_parts(z.tokens);
  device->rows(parts, z.tokens / parts * z.width(), [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      device->kernels.qknorm_bwd(p, z.tokens * part / parts, z.tokens * (part + 1) / parts,
                                 z.ws == nullptr ? nullptr : z.ws + part * 2 * z.d);
    }
  });
  if (z.dwq != nullptr) device->kernels.sum_parts(z.ws, parts, 2 * z.d, z.dwq, z.accumulate_dw, 0, z.d);
  if (z.dwk != nullptr) device->kernels.sum_parts(z.ws + z.d, parts, 2 * z.d, z.dwk, z.accumulate_dw, 0, z.d);
  return MB_OK;
}

}  // namespace mb
