#include "cpu/kernels/functions.h"
#include "cpu/kernels/simd.h"

namespace mb::MB_ISA {

// RMSNorm of one head, then rotation of its halves: (a, b) -> (a cos - b sin, b cos + a sin). out may be x.
static void head_fwd(const float* x, const float* w, const float* cosine, const float* sine, int64_t d, float eps,
                     float* out, float* rstd_out) {
  V squares{};
  for_lanes(d, [&](int64_t i, auto lanes) {
    const V v = load(x + i, lanes);
    squares += v * v;
  });
  const float rstd = 1.0f / __builtin_sqrtf(sum_lanes(squares) / static_cast<float>(d) + eps);
  *rstd_out = rstd;
  const int64_t half = d / 2;
  for_lanes(half, [&](int64_t i, auto lanes) {
    const V a = load(w + i, lanes) * (load(x + i, lanes) * splat(rstd));
    const V b = load(w + half + i, lanes) * (load(x + half + i, lanes) * splat(rstd));
    const V c = load(cosine + i, lanes);
    const V s = load(sine + i, lanes);
    store(out + i, a * c - b * s, lanes);
    store(out + half + i, b * c + a * s, lanes);
  });
}

// Rotation by the angles, or, BACK, by their opposites; in place where out is x.
template <bool BACK>
static void rotate(const float* x, const float* cosine, const float* sine, int64_t d, float* out) {
  const int64_t half = d / 2;
  for_lanes(half, [&](int64_t i, auto lanes) {
    const V a = load(x + i, lanes);
    const V b = load(x + half + i, lanes);
    const V c = load(cosine + i, lanes);
    const V s = BACK ? -load(sine + i, lanes) : load(sine + i, lanes);
    store(out + i, a * c - b * s, lanes);
    store(out + half + i, b * c + a * s, lanes);
  });
}

void qknorm_fwd(const QknormFwd& p, int64_t begin, int64_t end) {
  const int64_t heads = p.hq + p.hkv;
  const int64_t width = (heads + p.hkv) * p.d;
  for (int64_t t = begin; t < end; ++t) {
    const float* x = p.qkv + t * width;
    float* out = p.out + t * width;
    const float* cosine = p.table + p.positions[t] * p.d;
    for (int64_t h = 0; h < heads; ++h) {
      if (p.wq == nullptr) {
        rotate<false>(x + h * p.d, cosine, cosine + p.d / 2, p.d, out + h * p.d);
        continue;
      }
      head_fwd(x + h * p.d, h < p.hq ? p.wq : p.wk, cosine, cosine + p.d / 2, p.d, p.eps, out + h * p.d,
               p.rstd + t * heads + h);
    }
    if (out != x) {
      for_lanes(p.hkv * p.d,
                [&](int64_t i, auto lanes) { store(out + heads * p.d + i, load(x + heads * p.d + i, lanes), lanes); });
    }
  }
}

// The rotation's inverse, then the norm's backward, in place over the gradient g of one head.
template <bool DW>
static void head_bwd(float* g, const float* x, const float* w, const float* cosine, const float* sine, int64_t d,
                     float rstd_value, float* dw) {
  const int64_t half = d / 2;
  const V rstd = splat(rstd_value);
  V dots{};
  for_lanes(half, [&](int64_t i, auto lanes) {
    const V a = load(g + i, lanes);
    const V b = load(g + half + i, lanes);
    const V c = load(cosine + i, lanes);
    const V s = load(sine + i, lanes);
    const V da = a * c + b * s;
    const V db = b * c - a * s;
    const V xa = load(x + i, lanes) * rstd;
    const V xb = load(x + half + i, lanes) * rstd;
    const V ga = da * load(w + i, lanes);
    const V gb = db * load(w + half + i, lanes);
    dots += ga * xa + gb * xb;
    if constexpr (DW) {
      store(dw + i, load(dw + i, lanes) + da * xa, lanes);
      store(dw + half + i, load(dw + half + i, lanes) + db * xb, lanes);
    }
    store(g + i, ga, lanes);
    store(g + half + i, gb, lanes);
  });
  const V mean = splat(sum_lanes(dots) / static_cast<float>(d));
  for_lanes(d, [&](int64_t i, auto lanes) {
    store(g + i, rstd * (load(g + i, lanes) - load(x + i, lanes) * rstd * mean), lanes);
  });
}

void qknorm_bwd(const QknormBwd& p, int64_t begin, int64_t end, float* dw) {
  for (int64_t i = 0; dw != nullptr && i < 2 * p.d; ++i) dw[i] = 0.0f;
  const int64_t heads = p.hq + p.hkv;
  const int64_t width = (heads + p.hkv) * p.d;
  for (int64_t t = begin; t < end; ++t) {
    const float* cosine = p.table + p.positions[t] * p.d;
    for (int64_t h = 0; h < heads; ++h) {
      const bool query = h < p.hq;
      float* g = p.dqkv + t * width + h * p.d;
      if (p.wq == nullptr) {
        rotate<true>(g, cosine, cosine + p.d / 2, p.d, g);
        continue;
      }
      const float* x = p.qkv + t * width + h * p.d;
      const float* w = query ? p.wq : p.wk;
      const float rstd = p.rstd[t * heads + h];
      if (dw == nullptr) {
        head_bwd<false>(g, x, w, cosine, cosine + p.d / 2, p.d, rstd, nullptr);
      } else {
        head_bwd<true>(g, x, w, cosine, cosine + p.d / 2, p.d, rstd, query ? dw : dw + p.d);
      }
    }
  }
}

}  // namespace mb::MB_ISA
