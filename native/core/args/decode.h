// Arguments of the ops of generation: KV_STORE, ATTENTION_DECODE and SAMPLE* of ops.def.
#pragma once
#include <initializer_list>

#include "core/op_args.h"

namespace mb {

struct CacheArgs {
  int64_t tokens, hq, hkv, d, slots, context;
  int dtype;
  const int32_t *cells, *positions;
  void *k, *v;

  int64_t kv_width() const { return times(hkv, d); }
  int64_t q_width() const { return times(hq, d); }
  int64_t elements() const { return times(times(slots, context), kv_width()); }
};

// `slots`: scalar of slots, which context follows; `cells`: tensor of cells, which positions, k and v follow.
inline CacheArgs read_cache(OpArgs& a, int slots, int cells, int dtype) {
  CacheArgs z{};
  z.dtype = dtype;
  z.tokens = a.size(0, 0, 65535);
  z.hq = a.size(1, 1, 65535);
  z.hkv = a.size(2, 1, 65535);
  z.d = a.size(3, 8, 256);
  a.require(z.hq % z.hkv == 0, "hq to be a multiple of hkv");
  a.require(z.d % 8 == 0, "d to be a multiple of 8");
  z.slots = a.size(slots, 1, 65535);
  z.context = a.size(slots + 1, MB_CACHE_STEP, int64_t{1} << 24);
  a.require(z.context % MB_CACHE_STEP == 0, "a context that is a multiple of MB_CACHE_STEP");
  z.cells = a.i32(cells, z.tokens);
  z.positions = a.i32(cells + 1, z.tokens);
  z.k = a.tensor16(cells + 2, dtype, z.elements());
  z.v = a.tensor16(cells + 3, dtype, z.elements());
  return z;
}

struct KvStoreArgs : CacheArgs {
  const void* qkv;
  int64_t width() const { return q_width() + 2 * kv_width(); }
};

inline KvStoreArgs read_kv_store(OpArgs& a) {
  KvStoreArgs z{read_cache(a, 4, 1, a.act(0)), nullptr};
  z.qkv = a.tensor16(0, z.dtype, times(z.tokens, z.width()));
  for (const int written : {3, 4}) a.distinct(0, written);
  a.distinct(3, 4);
  return z;
}

struct DecodeArgs : CacheArgs {
  int64_t ldq;
  float scale;
  bool prompts;

  int64_t chunks() const { return (context + MB_CHUNK_KEYS - 1) / MB_CHUNK_KEYS; }

  const void* q;
  void* o;
  float* ws;
};

inline DecodeArgs read_attention_decode(OpArgs& a) {
  DecodeArgs z{read_cache(a, 5, 1, a.act(0)), 0, 0, false, nullptr, nullptr, nullptr};
  z.ldq = a.size(4, z.q_width(), INT32_MAX);
  a.require(z.ldq % 8 == 0, "a leading dimension that is a multiple of 8");
  z.scale = static_cast<float>(a.real(7));
  z.q = a.tensor16(0, z.dtype, extent(z.tokens, z.ldq, z.q_width()));
  z.o = a.tensor16(5, z.dtype, times(z.tokens, z.q_width()));
  z.prompts = a.flag(8);
  if (!z.prompts || z.dtype != MB_BF16) {
    z.ws = a.scratch(6, times(times(times(z.tokens, z.hq), z.chunks()), (z.d + 2) * 4));
  }
  for (const int read : {0, 3, 4}) a.distinct(read, 5);
  return z;
}

constexpr int64_t kMostTokenIds = int64_t{1} << 24;  // a float32 holds each

struct SampleArgs {
  int64_t rows, cols, vstart;
  double temperature;
  uint32_t seed_lo, seed_hi;
  int dtype;
  const void* logits;
  const int32_t *row_ids, *positions;
  const float* floor;  // null: none
  float* out;
};

inline SampleArgs read_sample(OpArgs& a) {
  SampleArgs z{};
  z.rows = a.size(0, 0, 65535);
  z.cols = a.size(1, 1, kMostTokenIds);
  z.vstart = a.size(2, 0, kMostTokenIds);
  a.require(z.vstart + z.cols <= kMostTokenIds, "a vocabulary of at most 2^24 tokens");
  z.temperature = a.real(3);
  a.require(z.temperature >= 0, "a temperature of at least 0");
  z.seed_lo = static_cast<uint32_t>(a.size(4, 0, UINT32_MAX));
  z.seed_hi = static_cast<uint32_t>(a.size(5, 0, UINT32_MAX));
  z.dtype = a.act(0);
  z.logits = a.tensor(0, z.dtype, times(z.rows, z.cols));
  z.row_ids = a.i32(1, z.rows);
  z.positions = a.i32(2, z.rows);
  z.floor = a.f32_opt(3, z.rows);
  z.out = a.f32(4, times(z.rows, 2 * MB_SAMPLE_PARTS));
  return z;
}

struct PickArgs {
  int64_t parts, rows;
  const float* scores;
  int32_t* tokens;
};

inline PickArgs read_sample_pick(OpArgs& a) {
  PickArgs z{};
  z.parts = a.size(0, 1, 1 << 20);
  z.rows = a.size(1, 0, 65535);
  z.scores = a.f32(0, times(times(z.parts, z.rows), 2));
  z.tokens = a.i32(1, z.rows);
  return z;
}

struct FloorArgs {
  int64_t shards, rows, vocab, room, top_k;
  double temperature, top_p;
  int dtype;
  const void* logits;
  float* floor;
};

inline FloorArgs read_sample_floor(OpArgs& a) {
  FloorArgs z{};
  z.shards = a.size(0, 1, 65535);
  z.rows = a.size(1, 0, 65535);
  z.vocab = a.size(2, 1, kMostTokenIds);
  z.room = a.size(3, (z.vocab + z.shards - 1) / z.shards, kMostTokenIds);
  z.temperature = a.real(4);
  a.require(z.temperature > 0, "a temperature above 0");
  z.top_k = a.size(5, 0, kMostTokenIds);
  z.top_p = a.real(6);
  a.require(z.top_p > 0 && z.top_p <= 1, "top_p above 0 and up to 1");
  z.dtype = a.act(0);
  z.logits = a.tensor(0, z.dtype, times(times(z.shards, z.rows), z.room));
  z.floor = a.f32(1, z.rows);
  return z;
}

}  // namespace mb
