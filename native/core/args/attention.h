// Arguments of ATTENTION_* of ops.def.
#pragma once
#include <initializer_list>

#include "core/op_args.h"

namespace mb {

struct AttentionSizes {
  int64_t b, sq, skv, hq, hkv, d;
};

constexpr int64_t kMostAttentionRows = int64_t{1} << 24, kMostAttentionHeads = 65535;

// For attention_workspace: MB_OK, or MB_ERR_UNSUPPORTED for sizes that the ops would refuse.
inline int check_sizes(const AttentionSizes& z) {
  const bool counts = z.b >= 1 && z.b <= 65535 && z.sq >= 1 && z.sq <= kMostAttentionRows && z.skv >= 1 &&
                      z.skv <= kMostAttentionRows && z.hq >= 1 && z.hq <= kMostAttentionHeads && z.hkv >= 1;
  if (counts && z.hq % z.hkv == 0 && z.d >= 8 && z.d <= 256 && z.d % 8 == 0) return MB_OK;
  using ll = long long;
  return fail(
      MB_ERR_UNSUPPORTED,
      "attention: b %lld, sq %lld, skv %lld, hq %lld, hkv %lld, d %lld: expected up to 65535 sequences and heads, "
      "2^24 positions, hq a multiple of hkv, and d one of 8 up to 256",
      static_cast<ll>(z.b), static_cast<ll>(z.sq), static_cast<ll>(z.skv), static_cast<ll>(z.hq),
      static_cast<ll>(z.hkv), static_cast<ll>(z.d));
}

struct AttentionArgs : AttentionSizes {
  int64_t ldq, ldk, ldv, ldo, lddq, lddk, lddv;  // ldd...: backward only
  int64_t kv_rows, offset;
  float scale;
  bool deterministic, fixed_order;
  int dtype;
  const void *q, *k, *v;
  void* o;  // read by the backward
  float* lse;
  const int32_t* bounds;  // null: none
  const void* d_o;
  void *dq, *dk, *dv;

  int64_t q_width() const { return times(hq, d); }
  int64_t kv_width() const { return times(hkv, d); }
  int64_t q_extent(int64_t ld) const { return extent(times(b, sq), ld, q_width()); }
  int64_t kv_extent(int64_t ld) const { return extent(times(b - 1, kv_rows) + skv, ld, kv_width()); }
  // Whether the last query sees all keys and only causality masks.
  bool is_causal() const { return bounds == nullptr && sq <= skv && offset == skv - sq; }
  // Whether every query sees all keys.
  bool is_full() const { return bounds == nullptr && offset >= skv - 1; }
};

// `lds`: scalar of ldq; `rest`: of kv_rows.
inline AttentionArgs read_attention_scalars(OpArgs& a, int lds, int rest) {
  AttentionArgs z{};
  z.b = a.size(0, 1, 65535);
  z.sq = a.size(1, 1, kMostAttentionRows);
  z.skv = a.size(2, 1, kMostAttentionRows);
  z.hq = a.size(3, 1, kMostAttentionHeads);
  z.hkv = a.size(4, 1, kMostAttentionHeads);
  z.d = a.size(5, 8, 256);
  a.require(z.hq % z.hkv == 0, "hq to be a multiple of hkv");
  a.require(z.d % 8 == 0, "d to be a multiple of 8");
  // Rows of lse are counted in 33 bits.
  a.require(times(times(z.b, z.sq), z.hq) <= int64_t{1} << 33, "b * sq * hq of at most 2^33");
  const auto leading = [&](int i, int64_t width) {
    const int64_t ld = a.size(i, width, INT32_MAX);
    a.require(ld % 8 == 0, "leading dimensions that are multiples of 8");
    return ld;
  };
  z.ldq = leading(lds, z.q_width());
  z.ldk = leading(lds + 1, z.kv_width());
  z.ldv = leading(lds + 2, z.kv_width());
  z.ldo = leading(lds + 3, z.q_width());
  if (rest > lds + 4) {
    z.lddq = leading(lds + 4, z.q_width());
    z.lddk = leading(lds + 5, z.kv_width());
    z.lddv = leading(lds + 6, z.kv_width());
  }
  z.kv_rows = a.size(rest, z.skv, kMostAttentionRows);
  z.offset = a.size(rest + 1, -kMostAttentionRows, kMostAttentionRows);
  z.scale = static_cast<float>(a.real(rest + 2));
  z.deterministic = a.flag(rest + 3);
  z.dtype = a.act(0);
  z.q = a.tensor16(0, z.dtype, z.q_extent(z.ldq));
  z.k = a.tensor16(1, z.dtype, z.kv_extent(z.ldk));
  z.v = a.tensor16(2, z.dtype, z.kv_extent(z.ldv));
  z.o = a.tensor16(3, z.dtype, z.q_extent(z.ldo));
  z.lse = a.f32(4, times(times(z.b, z.sq), z.hq));
  return z;
}

inline const int32_t* read_bounds(OpArgs& a, int i, const AttentionArgs& z) {
  return a.present(i) ? a.i32(i, times(times(z.b, z.sq), 2)) : nullptr;
}

struct AttentionView {
  int tensor;
  int64_t width, ld;
};

// What is written lies over nothing that is read; columns of one matrix may lie beside each other.
inline void check_apart(OpArgs& a, int dtype, std::initializer_list<AttentionView> written,
                        std::initializer_list<AttentionView> read) {
  const int64_t size = dtype_size(dtype);
  const auto apart = [&](const AttentionView& x, const AttentionView& y) {
    a.disjoint_rows(x.tensor, x.width * size, x.ld * size, y.tensor, y.width * size, y.ld * size);
  };
  for (const AttentionView& x : written) {
    for (const AttentionView& y : written) {
      if (x.tensor < y.tensor) apart(x, y);
    }
    for (const AttentionView& y : read) apart(y, x);
  }
}

inline AttentionArgs read_attention_fwd(OpArgs& a) {
  AttentionArgs z = read_attention_scalars(a, 6, 10);
  z.fixed_order = a.flag(14);
  z.bounds = read_bounds(a, 5, z);
  const int64_t q = z.q_width(), kv = z.kv_width();
  check_apart(a, z.dtype, {{3, q, z.ldo}}, {{0, q, z.ldq}, {1, kv, z.ldk}, {2, kv, z.ldv}});
  return z;
}

inline AttentionArgs read_attention_bwd(OpArgs& a) {
  AttentionArgs z = read_attention_scalars(a, 6, 13);
  z.d_o = a.tensor16(5, z.dtype, z.q_extent(z.ldo));
  z.dq = a.tensor16(6, z.dtype, z.q_extent(z.lddq));
  z.dk = a.tensor16(7, z.dtype, z.kv_extent(z.lddk));
  z.dv = a.tensor16(8, z.dtype, z.kv_extent(z.lddv));
  z.bounds = read_bounds(a, 9, z);
  const int64_t q = z.q_width(), kv = z.kv_width();
  check_apart(a, z.dtype, {{6, q, z.lddq}, {7, kv, z.lddk}, {8, kv, z.lddv}},
              {{0, q, z.ldq}, {1, kv, z.ldk}, {2, kv, z.ldv}, {3, q, z.ldo}, {5, q, z.ldo}});
  return z;
}

struct AttentionJoinArgs {
  int64_t b, s, h, d;
  bool first;
  int dtype;
  const void* o_part;
  const float* lse_part;
  void* o;
  float *lse, *sum;
};

inline AttentionJoinArgs read_attention_join(OpArgs& a) {
  AttentionJoinArgs z{};
  z.b = a.size(0, 1, 65535);
  z.s = a.size(1, 1, kMostAttentionRows);
  z.h = a.size(2, 1, kMostAttentionHeads);
  z.d = a.size(3, 8, 256);
  z.first = a.flag(4);
  a.require(z.d % 8 == 0, "d to be a multiple of 8");
  const int64_t rows = times(times(z.b, z.s), z.h), n = times(rows, z.d);
  z.dtype = a.act(0);
  z.o_part = a.tensor16(0, z.dtype, n);
  z.lse_part = a.f32(1, rows);
  z.o = a.tensor16(2, z.dtype, n);
  z.lse = a.f32(3, rows);
  z.sum = static_cast<float*>(a.tensor16(4, MB_F32, n));
  for (int i = 0; i < 5; ++i) {
    for (int j = i + 1; j < 5; ++j) a.distinct(i, j);
  }
  return z;
}

}  // namespace mb
