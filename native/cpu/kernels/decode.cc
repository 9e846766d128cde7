// Attention of the query heads of one token over one kv head of a cache, with the bits of attn_fwd: scores are chains
// over d, the sum of exponentials and the output chains over keys, and blocks of kKeyBlock keys end where they do
// there.
#include "core/abi.h"
#include "cpu/kernels/attention.h"
#include "cpu/kernels/functions.h"
#include "cpu/kernels/tile.h"

namespace mb::MB_ISA {
namespace {

constexpr int kStep = MB_CACHE_STEP;
constexpr int kMostDim = 256;
constexpr int J = kStep / W < 4 ? kStep / W : 4;  // vectors of a panel of keys
static_assert(J * W == kStep);

// out[d] += sum over keys of p[key] * v[key][d].
MB_INLINE void weighted_values(const float* p, int64_t n, const float* v, int64_t ldv, int64_t d, float* out) {
  int64_t c = 0;
  for (; c + 2 * W <= d; c += 2 * W) {
    V acc[1][2] = {{load(out + c), load(out + c + W)}};
    tile(n, p, 0, 1, v + c, ldv, acc);
    store(out + c, acc[0][0]);
    store(out + c + W, acc[0][1]);
  }
  for (; c < d; c += 4) {  // d is a multiple of 8
    float x[4] = {out[c], out[c + 1], out[c + 2], out[c + 3]};
    for (int64_t k = 0; k < n; ++k) {
      for (int i = 0; i < 4; ++i) x[i] += p[k] * v[k * ldv + c + i];
    }
    for (int i = 0; i < 4; ++i) out[c + i] = x[i];
  }
}

}  // namespace

void attn_decode(const Decode& p) {
  float query[kMostDim], out[kMostDim + W], scores[kKeyBlock];
  const V minus_inf = splat(-__builtin_inff());
  for (int64_t head = 0; head < p.heads; ++head) {
    for (int64_t c = 0; c < p.d; ++c) {
      query[c] = p.q[head * p.d + c] * p.scale;
      out[c] = 0.0f;
    }
    float highest = -__builtin_inff(), sum = 0.0f;
    for (int64_t k0 = 0; k0 < p.keys; k0 += kKeyBlock) {
      const int64_t n = p.keys - k0 < kKeyBlock ? p.keys - k0 : kKeyBlock;
      V top = splat(highest);
      for (int64_t k = 0; k < n; k += kStep) {
        V acc[1][J] = {};
        tile(p.d, query, 0, 1, p.k + (k0 + k) * p.d, kStep, acc);
        for (int j = 0; j < J; ++j) {
          for (int64_t i = n - k - j * W; i < W; ++i) {
            if (i >= 0) acc[0][j][i] = minus_inf[0];
          }
          top = vmax(acc[0][j], top);
          store(scores + k + j * W, acc[0][j]);
        }
      }
      const float now = max_lanes(top);
      const float base = now == -__builtin_inff() ? 0.0f : now;
      if (k0 > 0) {
        const float shrink = vexp(splat(highest - base))[0];
        sum *= shrink;
        for (int64_t c = 0; c < p.d; ++c) out[c] *= shrink;
      }
      highest = now;
      for (int64_t k = 0; k < n; k += W) store(scores + k, vexp(load(scores + k) - splat(base)));
      for (int64_t k = 0; k < n; ++k) sum += scores[k];
      weighted_values(scores, n, p.v + k0 * p.ldv, p.ldv, p.d, out);
    }
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (int64_t c = 0; c < p.d; ++c) p.o[head * p.d + c] = out[c] * inverse;
  }
}

}  // namespace mb::MB_ISA
