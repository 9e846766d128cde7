// Causal attention by tiles of kQueries queries that lie across vector lanes. Scores are kept transposed
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
  int64_t width;  // floats of a token in qkv
  int64_t lanes;  // head_dim padded to whole tiles, for gradients that have it across lanes
  explicit Shape(const Attention& p)
      : keys(round_up(p.s, R)), width((p.hq + 2 * p.hkv) * p.d), lanes(round_up(p.d, Q)) {}
};

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

// Scores of one panel of keys against a tile of queries; those of keys after the query become -inf.
// `first` is the panel's first key minus the tile's first query.
MB_INLINE void score_panel(const float* panel, const float* queries, int64_t d, int64_t first, V (&acc)[R][2]) {
  tile(d, panel, 1, R, queries, Q, acc);
  if (first + R <= 1) return;  // every key at or before the first query
  const V minus_inf = splat(-__builtin_inff());
  I lane;
  for (int i = 0; i < W; ++i) lane[i] = i;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const I least = I{} + static_cast<int32_t>(first + r);
    acc[r][0] = lane >= least ? acc[r][0] : minus_inf;
    acc[r][1] = lane + W >= least ? acc[r][1] : minus_inf;
  }
}

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
  const float* k = p.qkv + batch * p.s * shape.width + (p.hq + kv_head) * p.d;
  const float* v = k + p.hkv * p.d;
  pack_key_panels(k, shape.width, p.s, p.d, p.keys + at);
  if (backward) {
    pack_key_panels(v, shape.width, p.s, p.d, p.values + at);
    pack_dim_panels(k, shape.width, p.s, shape.keys, p.d, p.keys_by_dim + at);
  } else {
    pack_dim_panels(v, shape.width, p.s, shape.keys, p.d, p.values + at);
  }
}

void attn_fwd(const Attention& p, int64_t batch, int64_t head, int64_t index, float* scratch) {
  const Shape shape(p);
  const int64_t d = p.d;
  const int64_t q0 = index * Q;
  const int64_t rows = p.s - q0 < Q ? p.s - q0 : Q;
  const int64_t at = (batch * p.hkv + head / (p.hq / p.hkv)) * p.packed;
  float* queries = scratch;      // [d][Q], scaled
  float* out = queries + d * Q;  // [d][Q]
  float* scores = out + d * Q;   // [kKeyBlock][Q]
  transpose(p.qkv + (batch * p.s + q0) * shape.width + head * d, shape.width, rows, d, queries, Q, Q, p.scale);
  fill(out, d * Q, 0.0f);

  V highest[2] = {splat(-__builtin_inff()), splat(-__builtin_inff())};
  V sum[2] = {};
  const int64_t keys = round_up(q0 + rows, R);
  for (int64_t k0 = 0; k0 < keys; k0 += kKeyBlock) {
    const int64_t n = keys - k0 < kKeyBlock ? keys - k0 : kKeyBlock;
    V top[2] = {highest[0], highest[1]};
    for (int64_t k = 0; k < n; k += R) {
      V acc[R][2] = {};
      score_panel(p.keys + at + (k0 + k) * d, queries, d, k0 + k - q0, acc);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        top[0] = vmax(acc[r][0], top[0]);
        top[1] = vmax(acc[r][1], top[1]);
        store(scores + (k + r) * Q, acc[r][0]);
        store(scores + (k + r) * Q + W, acc[r][1]);
      }
    }
    if (k0 > 0) {
      const V shrink[2] = {vexp(highest[0] - top[0]), vexp(highest[1] - top[1])};
      for (int j = 0; j < 2; ++j) {
        sum[j] *= shrink[j];
        for (int64_t c = 0; c < d; ++c) store(out + c * Q + j * W, load(out + c * Q + j * W) * shrink[j]);
      }
    }
    highest[0] = top[0];
    highest[1] = top[1];
    for (int64_t k = 0; k < n; ++k) {
      const V a = vexp(load(scores + k * Q) - top[0]);
      const V b = vexp(load(scores + k * Q + W) - top[1]);
      sum[0] += a;
      sum[1] += b;
      store(scores + k * Q, a);
      store(scores + k * Q + W, b);
    }
    by_dim(p.values + at, shape.keys, k0, n, scores, d, out);
  }

  for (int j = 0; j < 2; ++j) {
    const V inverse = splat(1.0f) / sum[j];
    for (int64_t c = 0; c < d; ++c) store(out + c * Q + j * W, load(out + c * Q + j * W) * inverse);
    for (int64_t i = 0; i < W && j * W + i < rows; ++i) {
      p.lse[(batch * p.hq + head) * p.s + q0 + j * W + i] = highest[j][i] + __builtin_logf(sum[j][i]);
    }
  }
  // [d][Q] -> rows of o
  float* o = p.o + ((batch * p.s + q0) * p.hq + head) * d;
  transpose(out, Q, d, rows, o, p.hq * d, d, 1.0f);
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
  float* dk = p.dk + (batch * p.hq + head) * p.partial;
  float* dv = p.dv + (batch * p.hq + head) * p.partial;
  fill(dk, shape.keys * lanes, 0.0f);
  fill(dv, shape.keys * lanes, 0.0f);

  for (int64_t q0 = 0; q0 < p.s; q0 += Q) {
    const int64_t rows = p.s - q0 < Q ? p.s - q0 : Q;
    const float* q = p.qkv + (batch * p.s + q0) * shape.width + head * d;
    const float* d_o = p.d_o + ((batch * p.s + q0) * p.hq + head) * d;
    const float* o = p.o + ((batch * p.s + q0) * p.hq + head) * d;
    transpose(q, shape.width, rows, d, queries, Q, Q, p.scale);
    transpose(d_o, p.hq * d, rows, d, douts, Q, Q, 1.0f);
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
        const V g = load(d_o + i * p.hq * d + c, part);
        dot += g * load(o + i * p.hq * d + c, part);
        store(dout_rows + i * lanes + c, g, part);
        store(query_rows + i * lanes + c, load(q + i * shape.width + c, part) * splat(p.scale), part);
      });
      lse[i] = p.lse[(batch * p.hq + head) * p.s + q0 + i];
      delta[i] = sum_lanes(dot);
    }
    const int64_t keys = round_up(q0 + rows, R);
    for (int64_t k0 = 0; k0 < keys; k0 += kKeyBlock) {
      const int64_t n = keys - k0 < kKeyBlock ? keys - k0 : kKeyBlock;
      for (int64_t k = 0; k < n; k += R) {
        V prob[R][2] = {};
        score_panel(p.keys + at + (k0 + k) * d, queries, d, k0 + k - q0, prob);
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
    transpose(dq, Q, d, rows, p.dqkv + (batch * p.s + q0) * shape.width + head * d, shape.width, d, p.scale);
  }
}

void attn_reduce(const Attention& p, int64_t batch, int64_t kv_head, int64_t begin, int64_t end) {
  const Shape shape(p);
  const int64_t group = p.hq / p.hkv;
  const int64_t first = (batch * p.hq + kv_head * group) * p.partial;
  for (int64_t t = begin; t < end; ++t) {
    float* to = p.dqkv + (batch * p.s + t) * shape.width + (p.hq + kv_head) * p.d;
    for_lanes(p.d, [&](int64_t c, auto part) {
      V dk{};
      V dv{};
      for (int64_t g = 0; g < group; ++g) {
        dk += load(p.dk + first + g * p.partial + t * shape.lanes + c, part);
        dv += load(p.dv + first + g * p.partial + t * shape.lanes + c, part);
      }
      store(to + c, dk, part);
      store(to + p.hkv * p.d + c, dv, part);
    });
  }
}

}  // namespace mb::MB_ISA
