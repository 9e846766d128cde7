// Causal grouped-query attention: lays out ws and hands tiles to the threads (kernels/attention.cc).
//
// ws: packed keys and values (and, backward, keys by dimension) of every (batch, kv head); backward: partial dk and dv
// of every (batch, q head), added up per kv head in order afterwards; then scratch for each thread.
#include "cpu/device.h"

namespace mb {
namespace {

struct Layout {
  int64_t packed, partial, scratch, total;  // floats
};

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

Layout layout(mb_device* device, int64_t b, int64_t s, int64_t hq, int64_t hkv, int64_t d, bool backward) {
  const Kernels& kernels = device->kernels;
  const int64_t keys = up(s, kernels.attn_rows);
  Layout l;
  l.packed = up(keys * d + 16, 16);  // packing writes up to a vector beyond the last panel
  l.partial = backward ? up(keys * up(d, kernels.attn_queries), 16) : 0;
  l.scratch = up(kernels.attn_scratch(d, backward), 16);
  l.total = (backward ? 3 : 2) * b * hkv * l.packed + 2 * b * hq * l.partial + device->pool.threads() * l.scratch;
  return l;
}

Attention sizes(OpArgs& args) {
  Attention p{};
  p.b = args.size(0, "b");
  p.s = args.size(1, "s");
  p.hq = args.size(2, "hq");
  p.hkv = args.size(3, "hkv");
  p.d = args.size(4, "d");
  p.scale = static_cast<float>(args.real(5, "scale"));
  args.flag(6, "deterministic");  // always
  args.require(args.ok() && p.hq % p.hkv == 0, "hq to be a multiple of hkv");
  args.require(p.d % 8 == 0, "d to be a multiple of 8");
  return p;
}

void place(mb_device* device, Attention& p, float* ws, bool backward, float** scratch, int64_t* scratch_floats) {
  const Layout l = layout(device, p.b, p.s, p.hq, p.hkv, p.d, backward);
  p.packed = l.packed;
  p.partial = l.partial;
  p.keys = ws;
  p.values = p.keys + p.b * p.hkv * l.packed;
  p.keys_by_dim = p.values + p.b * p.hkv * l.packed;
  p.dk = backward ? p.keys_by_dim + p.b * p.hkv * l.packed : p.keys_by_dim;
  p.dv = p.dk + p.b * p.hq * l.partial;
  *scratch = p.dv + p.b * p.hq * l.partial;
  *scratch_floats = l.scratch;
}

}  // namespace

int64_t attention_bytes(mb_device* device, int64_t b, int64_t s, int64_t hq, int64_t hkv, int64_t d, bool backward) {
  return 4 * layout(device, b, s, hq, hkv, d, backward).total;
}

int op_attention_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("attention_fwd", t, nt, 4, s, ns, 7);
  Attention p = sizes(args);
  p.qkv = args.f32(0, "qkv", p.b * p.s * (p.hq + 2 * p.hkv) * p.d);
  p.o = args.f32(1, "o", p.b * p.s * p.hq * p.d);
  p.lse = args.f32(2, "lse", p.b * p.hq * p.s);
  float* ws = args.ok() ? args.f32(3, "ws", attention_bytes(device, p.b, p.s, p.hq, p.hkv, p.d, false) / 4) : nullptr;
  if (!args.ok()) return args.status();
  float* scratch;
  int64_t floats;
  place(device, p, ws, false, &scratch, &floats);
  const Kernels& kernels = device->kernels;
  device->pool.run(p.b * p.hkv, [&](int64_t i, int) { kernels.attn_pack(p, i / p.hkv, i % p.hkv, false); });
  const int64_t tiles = (p.s + kernels.attn_queries - 1) / kernels.attn_queries;
  device->pool.run(p.b * p.hq * tiles, [&](int64_t i, int slot) {
    const int64_t head = i / tiles;
    // The last tile has the most keys: longest first evens out the threads.
    kernels.attn_fwd(p, head / p.hq, head % p.hq, tiles - 1 - i % tiles, scratch + slot * floats);
  });
  return MB_OK;
}

int op_attention_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("attention_bwd", t, nt, 6, s, ns, 7);
  Attention p = sizes(args);
  p.qkv = args.f32(0, "qkv", p.b * p.s * (p.hq + 2 * p.hkv) * p.d);
  p.o = args.f32(1, "o", p.b * p.s * p.hq * p.d);
  p.lse = args.f32(2, "lse", p.b * p.hq * p.s);
  p.d_o = args.f32(3, "do", p.b * p.s * p.hq * p.d);
  p.dqkv = args.f32(4, "dqkv", p.b * p.s * (p.hq + 2 * p.hkv) * p.d);
  float* ws = args.ok() ? args.f32(5, "ws", attention_bytes(device, p.b, p.s, p.hq, p.hkv, p.d, true) / 4) : nullptr;
  args.require(args.ok() && p.dqkv != p.qkv, "dqkv apart from qkv");
  if (!args.ok()) return args.status();
  float* scratch;
  int64_t floats;
  place(device, p, ws, true, &scratch, &floats);
  const Kernels& kernels = device->kernels;
  device->pool.run(p.b * p.hkv, [&](int64_t i, int) { kernels.attn_pack(p, i / p.hkv, i % p.hkv, true); });
  device->pool.run(p.b * p.hq,
                   [&](int64_t i, int slot) { kernels.attn_bwd(p, i / p.hq, i % p.hq, scratch + slot * floats); });
  constexpr int64_t kRows = 64;
  const int64_t chunks = (p.s + kRows - 1) / kRows;
  device->pool.run(p.b * p.hkv * chunks, [&](int64_t i, int) {
    const int64_t first = i % chunks * kRows;
    const int64_t head = i / chunks;
    kernels.attn_reduce(p, head / p.hkv, head % p.hkv, first, first + kRows < p.s ? first + kRows : p.s);
  });
  return MB_OK;
}

}  // namespace mb
