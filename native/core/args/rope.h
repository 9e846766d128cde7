// Arguments of RoPE's table and of the per-head norm with rotation: see ROPE_TABLE and QKNORM_ROPE_* in ops.def.
#pragma once
#include "core/op_args.h"

namespace mb {

struct RopeTableArgs {
  int64_t positions, d;
  double theta, scale;
  float* out;
  const double* frequencies;  // of one of the two dtypes, or both null: theta^(-2i/d)
  const float* frequencies_f32;
};

inline RopeTableArgs read_rope_table(OpArgs& a) {
  RopeTableArgs z{};
  z.positions = a.size(0);
  z.d = a.size(1, 2, 65536);
  z.theta = a.real(2);
  z.scale = a.real(3);
  a.require(z.d % 2 == 0, "an even d");
  a.require(z.theta > 0, "theta > 0");
  z.out = a.f32(0, times(z.positions, z.d));
  if (a.present(1) && a.dtype(1) == MB_F32) {
    z.frequencies_f32 = a.f32(1, z.d / 2);
  } else if (a.present(1)) {
    z.frequencies = a.f64(1, z.d / 2);
  }
  a.distinct(0, 1);
  return z;
}

struct QknormArgs {
  int64_t tokens, hq, hkv, d;
  int dtype;
  bool norm;  // whether heads are normed: wq and wk are there
  const void *qkv, *wq, *wk;
  const float* table;
  int64_t table_rows;
  const int32_t* positions;

  int64_t width() const { return times(hq + 2 * hkv, d); }
};

struct QknormFwdArgs : QknormArgs {
  float eps;
  void* out;
  float* rstd;  // null without norm
};

struct QknormBwdArgs : QknormArgs {
  bool accumulate_dw;
  void* dqkv;
  const float* rstd;
  float *dwq, *dwk, *ws;  // ws null where neither is wanted
};

// `first`: number of qkv among the tensors; wq, wk, table and positions follow it.
inline void read_qknorm(OpArgs& a, int first, QknormArgs* z) {
  z->tokens = a.size(0);
  z->hq = a.size(1, 1, 65536);
  z->hkv = a.size(2, 1, 65536);
  z->d = a.size(3, 2, 256);
  a.require(z->d % 2 == 0, "an even d");
  // Heads are counted in 32 bits, which a grid may overshoot.
  a.require(times(z->tokens, z->hq + 2 * z->hkv) < (int64_t{1} << 32) - (1 << 20),
            "T * (hq + 2 hkv) below 2^32 - 2^20");
  z->norm = a.present(first + 1);
  a.require(z->norm == a.present(first + 2), "wq and wk, or neither");
  if (z->norm) {
    z->wq = a.tensor(first + 1, z->dtype, z->d);
    z->wk = a.tensor(first + 2, z->dtype, z->d);
  }
  z->table = a.f32(first + 3, z->d);
  z->table_rows = a.bytes(first + 3) / 4 / (z->d > 0 ? z->d : 1);
  z->positions = a.i32(first + 4, z->tokens);
}

inline QknormFwdArgs read_qknorm_rope_fwd(OpArgs& a) {
  QknormFwdArgs z{};
  z.dtype = a.act(0);
  read_qknorm(a, 0, &z);
  z.eps = static_cast<float>(a.real(4));
  const int64_t n = times(z.tokens, z.width());
  z.qkv = a.tensor(0, z.dtype, n);
  z.out = a.tensor(5, z.dtype, n);
  if (z.norm) z.rstd = a.f32(6, times(z.tokens, z.hq + z.hkv));
  a.same_or_distinct(0, 5);
  return z;
}

inline QknormBwdArgs read_qknorm_rope_bwd(OpArgs& a) {
  QknormBwdArgs z{};
  z.dtype = a.act(0);
  read_qknorm(a, 1, &z);
  z.accumulate_dw = a.flag(4);
  const int64_t n = times(z.tokens, z.width());
  z.dqkv = a.tensor(0, z.dtype, n);
  if (!z.norm) return z;
  z.qkv = a.tensor(1, z.dtype, n);
  z.rstd = a.f32(6, times(z.tokens, z.hq + z.hkv));
  z.dwq = a.f32_opt(7, z.d);
  z.dwk = a.f32_opt(8, z.d);
  const bool wants_dw = z.dwq != nullptr || z.dwk != nullptr;
  z.ws = a.scratch(9, wants_dw ? times(MB_REDUCE_PARTS * 2 * 4, z.d) : 0);
  a.distinct(0, 1);
  return z;
}

}  // namespace mb
