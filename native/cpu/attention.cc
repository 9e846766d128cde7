// Causal grouped-query attention: lays out ws and hands tiles to the threads (kernels/attention.cc).
//
// ws: packed keys and values (and, backward, keys by dimension) of every (batch, kv head); backward: partial dk and dv
// of every (batch, q head), added up per kv head in order afterwards; then scratch for each thread.
#include "core/args/attention.h"

#include "core/attention_join.h"
#include "cpu/device.h"

namespace mb {
namespace {

struct Layout {
  int64_t packed, partial, scratch, total;  // floats
};

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

Layout layout(mb_device* device, const AttentionSizes& z, bool backward) {
  const Kernels& kernels = device->kernels;
  const int64_t keys = up(z.skv, kernels.attn_rows);
  Layout l;
  l.packed = up(keys * z.d + 16, 16);  // packing writes up to a vector beyond the last panel
  l.partial = backward ? up(keys * up(z.d, kernels.attn_queries), 16) : 0;
  l.scratch = up(kernels.attn_scratch(z.d, backward), 16);
  l.total = times((backward ? 3 : 2) * z.b * z.hkv, l.packed) + times(2 * z.b * z.hq, l.partial) +
            device->pool.threads() * l.scratch;
  return l;
}

Attention attention_of(const AttentionArgs& z) {
  Attention p{};
  p.q = static_cast<const float*>(z.q);
  p.k = static_cast<const float*>(z.k);
  p.v = static_cast<const float*>(z.v);
  p.o = static_cast<float*>(z.o);
  p.lse = z.lse;
  p.d_o = static_cast<const float*>(z.d_o);
  p.dq = static_cast<float*>(z.dq);
  p.dk = static_cast<float*>(z.dk);
  p.dv = static_cast<float*>(z.dv);
  p.bounds = z.bounds;
  p.b = z.b;
  p.sq = z.sq;
  p.skv = z.skv;
  p.hq = z.hq;
  p.hkv = z.hkv;
  p.d = z.d;
  p.ldq = z.ldq;
  p.ldk = z.ldk;
  p.ldv = z.ldv;
  p.ldo = z.ldo;
  p.lddq = z.lddq;
  p.lddk = z.lddk;
  p.lddv = z.lddv;
  p.kv_rows = z.kv_rows;
  p.offset = z.offset;
  p.scale = z.scale;
  return p;
}

// Places what p needs in ws; returns the threads' scratch, `floats` for each.
float* place(mb_device* device, Attention& p, const AttentionSizes& z, float* ws, bool backward, int64_t* floats) {
  const Layout l = layout(device, z, backward);
  p.packed = l.packed;
  p.partial = l.partial;
  p.keys = ws;
  p.values = p.keys + p.b * p.hkv * l.packed;
  p.keys_by_dim = p.values + p.b * p.hkv * l.packed;
  p.partial_dk = backward ? p.keys_by_dim + p.b * p.hkv * l.packed : p.keys_by_dim;
  p.partial_dv = p.partial_dk + p.b * p.hq * l.partial;
  *floats = l.scratch;
  return p.partial_dv + p.b * p.hq * l.partial;
}

}  // namespace

int64_t attention_bytes(mb_device* device, const AttentionSizes& z, bool backward) {
  return times(4, layout(device, z, backward).total);
}

int op_attention_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ATTENTION_FWD], t, nt, s, ns);
  args.only_f32(0);
  const AttentionArgs z = read_attention_fwd(args);
  float* ws = args.ok() ? args.scratch(6, attention_bytes(device, z, false)) : nullptr;
  if (!args.ok()) return args.status();
  Attention p = attention_of(z);
  int64_t floats;
  float* scratch = place(device, p, z, ws, false, &floats);
  const Kernels& kernels = device->kernels;
  device->pool.run(p.b * p.hkv, [&](int64_t i, int) { kernels.attn_pack(p, i / p.hkv, i % p.hkv, false); });
  const int64_t tiles = (p.sq + kernels.attn_queries - 1) / kernels.attn_queries;
  device->pool.run(p.b * p.hq * tiles, [&](int64_t i, int slot) {
    const int64_t head = i / tiles;
    // The last tile has the most keys: longest first evens out the threads.
    kernels.attn_fwd(p, head / p.hq, head % p.hq, tiles - 1 - i % tiles, scratch + slot * floats);
  });
  return MB_OK;
}

int op_attention_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ATTENTION_BWD], t, nt, s, ns);
  args.only_f32(0);
  const AttentionArgs z = read_attention_bwd(args);
  float* ws = args.ok() ? args.scratch(10, attention_bytes(device, z, true)) : nullptr;
  if (!args.ok()) return args.status();
  Attention p = attention_of(z);
  int64_t floats;
  float* scratch = place(device, p, z, ws, true, &floats);
  const Kernels& kernels = device->kernels;
  device->pool.run(p.b * p.hkv, [&](int64_t i, int) { kernels.attn_pack(p, i / p.hkv, i % p.hkv, true); });
  device->pool.run(p.b * p.hq,
                   [&](int64_t i, int slot) { kernels.attn_bwd(p, i / p.hq, i % p.hq, scratch + slot * floats); });
  constexpr int64_t kRows = 64;
  const int64_t chunks = (p.skv + kRows - 1) / kRows;
  device->pool.run(p.b * p.hkv * chunks, [&](int64_t i, int) {
    const int64_t first = i % chunks * kRows;
    const int64_t head = i / chunks;
    kernels.attn_reduce(p, head / p.hkv, head % p.hkv, first, first + kRows < p.skv ? first + kRows : p.skv);
  });
  return MB_OK;
}

int op_attention_join(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ATTENTION_JOIN], t, nt, s, ns);
  args.only_f32(0);
  const AttentionJoinArgs z = read_attention_join(args);
  if (!args.ok()) return args.status();
  const auto* o_part = static_cast<const float*>(z.o_part);
  auto* o = static_cast<float*>(z.o);
  // In the order of lse: sequence, head, position.
  device->rows(z.b * z.h * z.s, z.d, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t position = row % z.s, head = row / z.s % z.h, sequence = row / z.s / z.h;
      const int64_t at = ((sequence * z.s + position) * z.h + head) * z.d;
      const AttentionJoin join = join_attention(z.lse[row], z.lse_part[row]);
      for (int64_t i = at; i < at + z.d; ++i) {
        z.sum[i] = join.share * (z.first ? o[i] : z.sum[i]) + join.share_of_part * o_part[i];
        o[i] = z.sum[i];
      }
      z.lse[row] = join.lse;
    }
  });
  return MB_OK;
}

}  // namespace mb
