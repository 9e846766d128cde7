#include "cpu/kernels/functions.h"
#include "cpu/kernels/simd.h"

namespace mb::MB_ISA {

void rmsnorm_fwd(const RmsnormFwd& p, int64_t begin, int64_t end) {
  const int64_t n = p.cols;
  for (int64_t r = begin; r < end; ++r) {
    const float* x = p.x + r * n;
    V squares{};
    if (p.delta != nullptr) {
      const float* delta = p.delta + r * n;
      float* sum = p.sum + r * n;
      for_lanes(n, [&](int64_t i, auto lanes) {
        const V v = load(x + i, lanes) + load(delta + i, lanes);
        store(sum + i, v, lanes);
        squares += v * v;
      });
      x = sum;
    } else {
      for_lanes(n, [&](int64_t i, auto lanes) {
        const V v = load(x + i, lanes);
        squares += v * v;
      });
    }
    const float rstd = 1.0f / __builtin_sqrtf(sum_lanes(squares) / static_cast<float>(n) + p.eps);
    p.rstd[r] = rstd;
    float* y = p.y + r * n;
    for_lanes(n, [&](int64_t i, auto lanes) {
      store(y + i, load(p.w + i, lanes) * (load(x + i, lanes) * splat(rstd)), lanes);
    });
  }
}

// With xhat = x * rstd and g = w * dy: dx = rstd * (g - xhat * mean(g * xhat)), dw = sum over rows of dy * xhat.
void rmsnorm_bwd(const RmsnormBwd& p, int64_t begin, int64_t end, float* dw) {
  const int64_t n = p.cols;
  if (dw != nullptr) {
    for (int64_t i = 0; i < n; ++i) dw[i] = 0.0f;
  }
  for (int64_t r = begin; r < end; ++r) {
    const float* x = p.x + r * n;
    const float* dy = p.dy + r * n;
    float* dx = p.dx + r * n;
    const V rstd = splat(p.rstd[r]);
    V dots{};
    for_lanes(n, [&](int64_t i, auto lanes) {
      const V xhat = load(x + i, lanes) * rstd;
      const V g = load(dy + i, lanes);
      dots += g * load(p.w + i, lanes) * xhat;
      if (dw != nullptr) store(dw + i, load(dw + i, lanes) + g * xhat, lanes);
    });
    const V mean = splat(sum_lanes(dots) / static_cast<float>(n));
    for_lanes(n, [&](int64_t i, auto lanes) {
      const V xhat = load(x + i, lanes) * rstd;
      V v = rstd * (load(dy + i, lanes) * load(p.w + i, lanes) - xhat * mean);
      if (p.accumulate_dx) v += load(dx + i, lanes);
      store(dx + i, v, lanes);
    });
  }
}

void sum_parts(const float* in, int64_t parts, int64_t stride, float* out, bool accumulate, int64_t begin,
               int64_t end) {
  for_lanes(end - begin, [&](int64_t i, auto lanes) {
    V sum{};
    for (int64_t part = 0; part < parts; ++part) sum += load(in + part * stride + begin + i, lanes);
    if (accumulate) sum += load(out + begin + i, lanes);
    store(out + begin + i, sum, lanes);
  });
}

}  // namespace mb::MB_ISA
