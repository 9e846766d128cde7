// The cache of keys and values, and attention of single queries over it.
//
// On the CPU keys lie as the scores want them, MB_CACHE_STEP of them side by side: k [slots][hkv][context /
// step][d][step]; v [slots][context][hkv][d].
#include "core/args/decode.h"

#include <cstring>

#include "cpu/device.h"

namespace mb {
namespace {

constexpr int64_t kStep = MB_CACHE_STEP;

bool has_place(const CacheArgs& z, int64_t t) {
  return z.cells[t] >= 0 && z.cells[t] < z.slots && z.positions[t] >= 0 && z.positions[t] < z.context;
}

}  // namespace

int op_kv_store(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_KV_STORE], t, nt, s, ns);
  args.only_f32(0);
  const KvStoreArgs z = read_kv_store(args);
  if (!args.ok()) return args.status();
  const auto* qkv = static_cast<const float*>(z.qkv);
  auto *k = static_cast<float*>(z.k), *v = static_cast<float*>(z.v);
  const int64_t kv = z.kv_width();
  device->rows(z.tokens, 2 * kv, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      if (!has_place(z, i)) continue;
      const int64_t slot = z.cells[i], position = z.positions[i];
      const float* from = qkv + i * z.width() + z.q_width();
      for (int64_t head = 0; head < z.hkv; ++head) {
        float* to = k + ((slot * z.hkv + head) * z.context + position / kStep * kStep) * z.d + position % kStep;
        for (int64_t c = 0; c < z.d; ++c) to[c * kStep] = from[head * z.d + c];
      }
      memcpy(v + (slot * z.context + position) * kv, from + kv, static_cast<size_t>(kv) * 4);
    }
  });
  return MB_OK;
}

int op_attention_decode(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ATTENTION_DECODE], t, nt, s, ns);
  args.only_f32(0);
  const DecodeArgs z = read_attention_decode(args);
  if (!args.ok()) return args.status();
  const int64_t group = z.hq / z.hkv;
  device->pool.split(z.tokens * z.hkv, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t token = i / z.hkv, head = i % z.hkv;
      Decode p{};
      p.q = static_cast<const float*>(z.q) + token * z.ldq + head * group * z.d;
      p.o = static_cast<float*>(z.o) + token * z.q_width() + head * group * z.d;
      p.heads = group;
      p.d = z.d;
      p.scale = z.scale;
      if (!has_place(z, token)) {
        memset(p.o, 0, static_cast<size_t>(group * z.d) * 4);
        continue;
      }
      const int64_t slot = z.cells[token];
      p.keys = z.positions[token] + 1;
      p.k = static_cast<const float*>(z.k) + (slot * z.hkv + head) * z.context * z.d;
      p.v = static_cast<const float*>(z.v) + slot * z.context * z.kv_width() + head * z.d;
      p.ldv = z.kv_width();
      device->kernels.attn_decode(p);
    }
  });
  return MB_OK;
}

}  // namespace mb
