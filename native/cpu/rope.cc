// RoPE's table, and per-head RMSNorm with rotation of q and k.
#include <cmath>

#include "core/error.h"
#include "cpu/device.h"

namespace mb {
namespace {

// Positions index the table: one that lies outside is the caller's bug, found here before it reads foreign memory.
int check_positions(const char* op, const int32_t* positions, int64_t count, int64_t limit) {
  for (int64_t t = 0; t < count; ++t) {
    if (positions[t] < 0 || positions[t] >= limit) {
      return fail(MB_ERR_ARGUMENT, "%s: positions[%lld] is %d, and the table has %lld rows", op,
                  static_cast<long long>(t), positions[t], static_cast<long long>(limit));
    }
  }
  return MB_OK;
}

}  // namespace

int op_rope_table(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("rope_table", t, nt, 1, s, ns, 3);
  const int64_t positions = args.size(0, "positions", 0);
  const int64_t d = args.size(1, "d", 2);
  const double theta = args.real(2, "theta");
  args.require(d % 2 == 0, "an even d");
  args.require(theta > 0, "theta > 0");
  float* out = args.f32(0, "out", positions * d);
  if (!args.ok()) return args.status();
  device->rows(positions, 16 * d, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = 0; i < d / 2; ++i) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(d));
      for (int64_t p = begin; p < end; ++p) {
        const double angle = static_cast<double>(p) * frequency;
        out[p * d + i] = static_cast<float>(std::cos(angle));
        out[p * d + d / 2 + i] = static_cast<float>(std::sin(angle));
      }
    }
  });
  return MB_OK;
}

int op_qknorm_rope_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("qknorm_rope_fwd", t, nt, 7, s, ns, 5);
  const int64_t tokens = args.size(0, "T", 0);
  QknormFwd p{};
  p.hq = args.size(1, "hq");
  p.hkv = args.size(2, "hkv");
  p.d = args.size(3, "d", 2);
  p.eps = static_cast<float>(args.real(4, "eps"));
  args.require(p.d % 2 == 0, "an even d");
  const int64_t width = (p.hq + 2 * p.hkv) * p.d;
  p.qkv = args.f32(0, "qkv", tokens * width);
  p.wq = args.f32(1, "wq", p.d);
  p.wk = args.f32(2, "wk", p.d);
  p.table = args.f32(3, "table", p.d);
  p.positions = args.i32(4, "positions", tokens);
  p.out = args.f32(5, "out", tokens * width);
  p.rstd = args.f32(6, "rstd", tokens * (p.hq + p.hkv));
  if (!args.ok()) return args.status();
  if (const int status = check_positions("qknorm_rope_fwd", p.positions, tokens, args.bytes(3) / 4 / p.d))
    return status;
  device->rows(tokens, width, [&](int64_t begin, int64_t end, int) { device->kernels.qknorm_fwd(p, begin, end); });
  return MB_OK;
}

int op_qknorm_rope_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("qknorm_rope_bwd", t, nt, 10, s, ns, 5);
  const int64_t tokens = args.size(0, "T", 0);
  QknormBwd p{};
  p.hq = args.size(1, "hq");
  p.hkv = args.size(2, "hkv");
  p.d = args.size(3, "d", 2);
  const bool accumulate = args.flag(4, "accumulate_dw");
  args.require(p.d % 2 == 0, "an even d");
  const int64_t width = (p.hq + 2 * p.hkv) * p.d;
  p.dqkv = args.f32(0, "dqkv", tokens * width);
  p.qkv = args.f32(1, "qkv", tokens * width);
  p.wq = args.f32(2, "wq", p.d);
  p.wk = args.f32(3, "wk", p.d);
  p.table = args.f32(4, "table", p.d);
  p.positions = args.i32(5, "positions", tokens);
  p.rstd = args.f32(6, "rstd", tokens * (p.hq + p.hkv));
  float* dwq = args.f32(7, "dwq", p.d);
  float* dwk = args.f32(8, "dwk", p.d);
  float* ws = args.f32(9, "ws", MB_REDUCE_PARTS * 2 * p.d);
  if (!args.ok()) return args.status();
  if (const int status = check_positions("qknorm_rope_bwd", p.positions, tokens, args.bytes(4) / 4 / p.d))
    return status;
  const int64_t parts = reduce_parts(tokens);
  device->rows(parts, tokens / parts * width, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      device->kernels.qknorm_bwd(p, tokens * part / parts, tokens * (part + 1) / parts, ws + part * 2 * p.d);
    }
  });
  device->kernels.sum_parts(ws, parts, 2 * p.d, dwq, accumulate, 0, p.d);
  device->kernels.sum_parts(ws + p.d, parts, 2 * p.d, dwk, accumulate, 0, p.d);
  return MB_OK;
}

}  // namespace mb
