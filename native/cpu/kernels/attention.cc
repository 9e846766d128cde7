// Masked attention by tiles of kQueries queries that lie across vector lanes. Scores are kept transposed
// ([keys][queries]), so that the softmax over keys is plain vector arithmetic, and the scores of one product are the
// packed operand of the next: no data is shuffled between the products.
//
// Packed per (batch, kv head), keys padded with zeros to a multiple of kAttnRows:
//   keys         [keys / kAttnRows][d][kAttnRows]    for scores = K q
//   values       forward:  [d / kAttnRows][keys][kAttnRows], for out = V^T p; backward: as keys, for dp = V dout
//   keys_by_dim  backward: [d / kAttnRows][keys][kAttnRows], for dq = K^T ds
#include "cpu/kernels/attention.h"

#include "cpu/kernels/functions.h"
#include "cpu/kernels/tile.h"
#include "cpu/kernels/transpose.h"

namespace mb::MB_ISA {
namespace {

constexpr int R = kAttnRows;
constexpr int Q = kQueries;

struct Shape {
  int64_t keys;   // of a sequence, padded
  int64_t lanes;  // head_dim padded to whole tiles, for gradients that have it across lanes
  explicit Shape(const Attention& p) : keys(round_up(p.skv, R)), lanes(round_up(p.d, Q)) {}
};

// Which keys the queries of one tile see: those from `low` up to below `high`, lane by lane, where there are bounds;
// else those up to the query's own position. All of them lie in [begin, end), whole panels of R keys.
struct Mask {
  int64_t begin, end;
  int64_t diagonal;  // position of the tile's first query among the keys
  int64_t keys;
  bool bounded;
  I low[2], high[2];
};

Mask mask_of(const Attention& p, int64_t batch, int64_t q0, int64_t rows) {
  Mask mask{};
  mask.diagonal = q0 + p.offset;
  mask.keys = p.skv;
  mask.bounded = p.bounds != nullptr;
  int64_t begin = 0;
  int64_t end = mask.diagonal + rows < p.skv ? mask.diagonal + rows : p.skv;
  if (mask.bounded) {
    begin = p.skv;
    end = 0;
    for (int64_t i = 0; i < Q; ++i) {
      // Queries beyond the sequence see what the last one sees: nothing of theirs is kept.
      const int64_t query = q0 + (i < rows ? i : rows - 1);
      const int32_t* bounds = p.bounds + 2 * (batch * p.sq + query);
      const int64_t causal = query + p.offset + 1 < p.skv ? query + p.offset + 1 : p.skv;
      const int64_t high = bounds[1] < causal ? bounds[1] : causal;
      const int64_t low = bounds[0] > 0 ? bounds[0] : 0;
      mask.low[i / W][i % W] = static_cast<int32_t>(low);
      mask.high[i / W][i % W] = static_cast<int32_t>(high > 0 ? high : 0);
      if (low < high && low < begin) begin = low;
      if (low < high && high > end) end = high;
    }
  }
  mask.begin = begin / R * R;
  mask.end = end > 0 ? round_up(end, R) : 0;
  return mask;
}

void pack_key_panels(const float* src, int64_t ld, int64_t s, int64_t d, float* dst) {
  for (int64_t k = 0; k < s; k += R) {
    const int64_t rows = s - k < R ? s - k : R;
    if (rows == R && R <= W) {
      // Ascending panels: the spill of a strip is overwritten by the next; the last panel's lands in the slack.
      transpose_strip<true>(src + k * ld, ld, R, d, dst + k * d, R, 1.0f);
    } else {
      transpose(src + k * ld, ld, rows, d, dst + k * d, R, R, 1.0f);
    }
  }
}

void pack_dim_panels(const float* src, int64_t ld, int64_t s, int64_t keys, int64_t d, float* dst) {
  for (int64_t c = 0; c < d; c += R) {
    for (int64_t k = 0; k < keys; ++k) {
      float* to = dst + c * keys + k * R;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) to[r] = k < s ? src[k * ld + c + r] : 0.0f;
    }
  }
}

// Scores of one panel of keys, from `key` on, against a tile of queries; those of keys that are not seen become -inf.
MB_INLINE void score_panel(const float* panel, const float* queries, int64_t d, int64_t key, const Mask& mask,
                           V (&acc)[R][2]) {
  tile(d, panel, 1, R, queries, Q, acc);
  const V minus_inf = splat(-__builtin_inff());
  if (mask.bounded) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const I at = I{} + static_cast<int32_t>(key + r);
      acc[r][0] = (at >= mask.low[0]) & (at < mask.high[0]) ? acc[r][0] : minus_inf;
      acc[r][1] = (at >= mask.low[1]) & (at < mask.high[1]) ? acc[r][1] : minus_inf;
    }
    return;
  }
  const int64_t first = key - mask.diagonal;
  if (first + R > 1) {  // else every key is at or before the first query
    I lane;
    for (int i = 0; i < W; ++i) lane[i] = i;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const I least = I{} + static_cast<int32_t>(first + r);
      acc[r][0] = lane >= least ? acc[r][0] : minus_inf;
      acc[r][1] = lane + W >= least ? acc[r][1] : minus_inf;
    }
  }
  for (int r = 0; key + R > mask.keys && r < R; ++r) {
    if (key + r >= mask.keys) acc[r][0] = acc[r][1] = minus_inf;
  }
}

// What a maximum of scores is subtracted as: where nothing was seen yet it is -inf, and the difference would be no
// number.
MB_INLINE V finite(V top) { return top == splat(-__builtin_inff()) ? V{} : top; }

// out[d][Q] (+)= panels^T x: panels [d / R][keys][R] from key k0, x [n][Q].
MB_INLINE void by_dim(const float* panels, int64_t keys, int64_t k0, int64_t n, const float* x, int64_t d, float* out) {
  for (int64_t c = 0; c < d; c += R) {
    V acc[R][2];
    float* to = out + c * Q;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      acc[r][0] = load(to + r * Q);
      acc[r][1] = load(to + r * Q + W);
    }
    tile(n, panels + c * keys + k0 * R, 1, R, x, Q, acc);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      store(to + r * Q, acc[r][0]);
      store(to + r * Q + W, acc[r][1]);
    }
  }
}

// out[n][lanes] += x[n][Q] rows[Q][lanes].
MB_INLINE void by_key(const float* x, int64_t n, const float* rows, int64_t lanes, float* out) {
  for (int64_t c = 0; c < lanes; c += Q) {
    for (int64_t k = 0; k < n; k += R) {
      V acc[R][2];
      float* to = out + k * lanes + c;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        acc[r][0] = load(to + r * lanes);
        acc[r][1] = load(to + r * lanes + W);
      }
      tile(Q, x + k * Q, Q, 1, rows + c, lanes, acc);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        store(to + r * lanes, acc[r][0]);
        store(to + r * lanes + W, acc[r][1]);
      }
    }
  }
}

MB_INLINE void fill(float* p, int64_t n, float value) {
  for_lanes(n, [&](int64_t i, auto part) { store(p + i, splat(value), part); });
}

}  // namespace

int64_t attn_scratch(int64_t d, bool backward) {
  const int64_t lanes = round_up(d, Q);
  const int64_t forward = 2 * d * Q + kKeyBlock * Q;
  return backward ? 3 * d * Q + 2 * Q * lanes + 2 * kKeyBlock * Q + 2 * Q : forward;
}

void attn_pack(const Attention& p, int64_t batch, int64_t kv_head, bool backward) {
  const Shape shape(p);
  const int64_t at = (batch * p.hkv + kv_head) * p.packed;
  const float* k = p.k + batch * p.kv_rows * p.ldk + kv_head * p.d;
  const float* v = p.v + batch * p.kv_rows * p.ldv + kv_head * p.d;
  pack_key_panels(k, p.ldk, p.skv, p.d, p.keys + at);
  if (backward) {
    pack_key_panels(v, p.ldv, p.skv, p.d, p.values + at);
    pack_dim_panels(k, p.ldk, p.skv, shape.keys, p.d, p.keys_by_dim + at);
  } else {
    pack_dim_panels(v, p.ldv, p.skv, shape.keys, p.d, p.values + at);
  }
}

void attn_fwd(const Attention& p, int64_t batch, int64_t head, int64_t index, float* scratch) {
  const Shape shape(p);
  const int64_t d = p.d;
  const int64_t q0 = index * Q;
  const int64_t rows = p.sq - q0 < Q ? p.sq - q0 : Q;
  const int64_t at = (batch * p.hkv + head / (p.hq / p.hkv)) * p.packed;
  float* queries = scratch;      // [d][Q], scaled
  float* out = queries + d * Q;  // [d][Q]
  float* scores = out + d * Q;   // [kKeyBlock][Q]
  transpose(p.q + (batch * p.sq + q0) * p.ldq + head * d, p.ldq, rows, d, queries, Q, Q, p.scale);
  fill(out, d * Q, 0.0f);

  V highest[2] = {splat(-__builtin_inff()), splat(-__builtin_inff())};
  V sum[2] = {};
  const Mask mask = mask_of(p, batch, q0, rows);
  for (int64_t k0 = mask.begin; k0 < mask.end; k0 += kKeyBlock) {
    const int64_t n = mask.end - k0 < kKeyBlock ? mask.end - k0 : kKeyBlock;
    V top[2] = {highest[0], highest[1]};
    for (int64_t k = 0; k < n; k += R) {
      V acc[R][2] = {};
      score_panel(p.keys + at + (k0 + k) * d, queries, d, k0 + k, mask, acc);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        top[0] = vmax(acc[r][0], top[0]);
        top[1] = vmax(acc[r][1], top[1]);
        store(scores + (k + r) * Q, acc[r][0]);
        store(scores + (k + r) * Q + W, acc[r][1]);
      }
    }
    const V base[2] = {finite(top[0]), finite(top[1])};
    if (k0 > mask.begin) {
      const V shrink[2] = {vexp(highest[0] - base[0]), vexp(highest[1] - base[1])};
      for (int j = 0; j < 2; ++j) {
        sum[j] *= shrink[j];
        for (int64_t c = 0; c < d; ++c) store(out + c * Q + j * W, load(out + c * Q + j * W) * shrink[j]);
      }
    }
    highest[0] = top[0];
    highest[1] = top[1];
    for (int64_t k = 0; k < n; ++k) {
      const V a = vexp(load(scores + k * Q) - base[0]);
      const V b = vexp(load(scores + k * Q + W) - base[1]);
      sum[0] += a;
      sum[1] += b;
      store(scores + k * Q, a);
      store(scores + k * Q + W, b);
    }
    by_dim(p.values + at, shape.keys, k0, n, scores, d, out);
  }

  for (int j = 0; j < 2; ++j) {
    const V inverse = sum[j] == V{} ? V{} : splat(1.0f) / sum[j];
    for (int64_t c = 0; c < d; ++c) store(out + c * Q + j * W, load(out + c * Q + j * W) * inverse);
    for (int64_t i = 0; i < W && j * W + i < rows; ++i) {
      p.lse[(batch * p.hq + head) * p.sq + q0 + j * W + i] = highest[j][i] + __builtin_logf(sum[j][i]);
    }
  }
  // [d][Q] -> rows of o
  transpose(out, Q, d, rows, p.o + (batch * p.sq + q0) * p.ldo + head * d, p.ldo, d, 1.0f);
}

void attn_bwd(const Attention& p, int64_t batch, int64_t head, float* scratch) {
  const Shape shape(p);
  const int64_t d = p.d;
  const int64_t lanes = shape.lanes;
  const int64_t at = (batch * p.hkv + head / (p.hq / p.hkv)) * p.packed;
  float* queries = scratch;        // [d][Q], scaled
  float* douts = queries + d * Q;  // [d][Q]
  float* dq = douts + d * Q;       // [d][Q]
  float* query_rows = dq + d * Q;  // [Q][lanes], scaled
  float* dout_rows = query_rows + Q * lanes;
  float* probs = dout_rows + Q * lanes;  // [kKeyBlock][Q]
  float* dscores = probs + kKeyBlock * Q;
  float* lse = dscores + kKeyBlock * Q;  // [Q]
  float* delta = lse + Q;                // [Q]: dout . o of each query
  float* dk = p.partial_dk + (batch * p.hq + head) * p.partial;
  float* dv = p.partial_dv + (batch * p.hq + head) * p.partial;
  fill(dk, shape.keys * lanes, 0.0f);
  fill(dv, shape.keys * lanes, 0.0f);

  for (int64_t q0 = 0; q0 < p.sq; q0 += Q) {
    const int64_t rows = p.sq - q0 < Q ? p.sq - q0 : Q;
    const float* q = p.q + (batch * p.sq + q0) * p.ldq + head * d;
    const float* d_o = p.d_o + (batch * p.sq + q0) * p.ldo + head * d;
    const float* o = p.o + (batch * p.sq + q0) * p.ldo + head * d;
    transpose(q, p.ldq, rows, d, queries, Q, Q, p.scale);
    transpose(d_o, p.ldo, rows, d, douts, Q, Q, 1.0f);
    fill(dq, d * Q, 0.0f);
    for (int64_t i = 0; i < Q; ++i) {
      // Queries beyond the sequence: their rows are zero, so they add nothing to any gradient.
      fill(query_rows + i * lanes, lanes, 0.0f);
      fill(dout_rows + i * lanes, lanes, 0.0f);
      lse[i] = 0.0f;
      delta[i] = 0.0f;
      if (i >= rows) continue;
      V dot{};
      for_lanes(d, [&](int64_t c, auto part) {
        const V g = load(d_o + i * p.ldo + c, part);
        dot += g * load(o + i * p.ldo + c, part);
        store(dout_rows + i * lanes + c, g, part);
        store(query_rows + i * lanes + c, load(q + i * p.ldq + c, part) * splat(p.scale), part);
      });
      // A query that sees nothing has -inf here, and no score to subtract it from.
      const float log_sum = p.lse[(batch * p.hq + head) * p.sq + q0 + i];
      lse[i] = log_sum == -__builtin_inff() ? 0.0f : log_sum;
      delta[i] = sum_lanes(dot);
    }
    const Mask mask = mask_of(p, batch, q0, rows);
    for (int64_t k0 = mask.begin; k0 < mask.end; k0 += kKeyBlock) {
      const int64_t n = mask.end - k0 < kKeyBlock ? mask.end - k0 : kKeyBlock;
      for (int64_t k = 0; k < n; k += R) {
        V prob[R][2] = {};
        score_panel(p.keys + at + (k0 + k) * d, queries, d, k0 + k, mask, prob);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          store(probs + (k + r) * Q, vexp(prob[r][0] - load(lse)));
          store(probs + (k + r) * Q + W, vexp(prob[r][1] - load(lse + W)));
        }
        V dprob[R][2] = {};
        tile(d, p.values + at + (k0 + k) * d, 1, R, douts, Q, dprob);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const int64_t i = (k + r) * Q;
          store(dscores + i, load(probs + i) * (dprob[r][0] - load(delta)));
          store(dscores + i + W, load(probs + i + W) * (dprob[r][1] - load(delta + W)));
        }
      }
      by_dim(p.keys_by_dim + at, shape.keys, k0, n, dscores, d, dq);
      by_key(probs, n, dout_rows, lanes, dv + k0 * lanes);
      by_key(dscores, n, query_rows, lanes, dk + k0 * lanes);
    }
    transpose(dq, Q, d, rows, p.dq + (batch * p.sq + q0) * p.lddq + head * d, p.lddq, d, p.scale);
  }
}

void attn_reduce(const Attention& p, int64_t batch, int64_t kv_head, int64_t begin, int64_t end) {
  const Shape shape(p);
  const int64_t group = p.hq / p.hkv;
  const int64_t first = (batch * p.hq + kv_head * group) * p.partial;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t row = batch * p.kv_rows + t;
    float* to_k = p.dk + row * p.lddk + kv_head * p.d;
    float* to_v = p.dv + row * p.lddv + kv_head * p.d;
    for_lanes(p.d, [&](int64_t c, auto part) {
      V dk{};
      V dv{};
      for (int64_t g = 0; g < group; ++g) {
        dk += load(p.partial_dk + first + g * p.partial + t * shape.lanes + c, part);
        dv += load(p.partial_dv + first + g * p.partial + t * shape.lanes + c, part);
      }
      store(to_k + c, dk, part);
      store(to_v + c, dv, part);
    });
  }
}

}  // namespace mb::MB_ISA
