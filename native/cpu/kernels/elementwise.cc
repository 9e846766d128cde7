#include "cpu/kernels/functions.h"
#include "cpu/kernels/simd.h"

namespace mb::MB_ISA {

void swiglu_fwd(const float* gu, float* out, int64_t f, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* gate = gu + t * 2 * f;
    for_lanes(f, [&](int64_t i, auto lanes) {
      const V g = load(gate + i, lanes);
      store(out + t * f + i, g * sigmoid(g) * load(gate + f + i, lanes), lanes);
    });
  }
}

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g)
void swiglu_bwd(const float* dout, const float* gu, float* dgu, int64_t f, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* gate = gu + t * 2 * f;
    float* out = dgu + t * 2 * f;
    for_lanes(f, [&](int64_t i, auto lanes) {
      const V d = load(dout + t * f + i, lanes);
      const V g = load(gate + i, lanes);
      const V u = load(gate + f + i, lanes);
      const V s = sigmoid(g);
      store(out + i, d * u * s * (splat(1.0f) + g * (splat(1.0f) - s)), lanes);
      store(out + f + i, d * g * s, lanes);
    });
  }
}

void add(const float* a, const float* b, float* out, int64_t begin, int64_t end) {
  for_lanes(end - begin, [&](int64_t i, auto lanes) {
    store(out + begin + i, load(a + begin + i, lanes) + load(b + begin + i, lanes), lanes);
  });
}

// Float lanes over a short run, then double: as exact as the squares themselves.
constexpr int64_t kRun = 64 * W;

double sumsq(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t at = 0; at < n; at += kRun) {
    V squares{};
    for_lanes(n - at < kRun ? n - at : kRun, [&](int64_t i, auto lanes) {
      const V v = load(x + at + i, lanes);
      squares += v * v;
    });
    sum += static_cast<double>(sum_lanes(squares));
  }
  return sum;
}

double sumsq_bf16(const uint16_t* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    const double v = static_cast<double>(__builtin_bit_cast(float, bits));
    sum += v * v;
  }
  return sum;
}

// A plain loop for the compiler to vectorise: the vector extension has no square root.
void adamw(const Adamw& a, int64_t begin, int64_t end) {
  const Adamw c = a;  // a copy: stores through its float pointers cannot change it
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    const float g = c.g[i] * c.scale;
    const float m = c.m[i] * c.beta1 + g * c.rest1;
    const float v = c.v[i] * c.beta2 + g * g * c.rest2;
    c.m[i] = m;
    c.v[i] = v;
    c.p[i] = c.p[i] * c.decay - c.step * m / (__builtin_sqrtf(v * c.root) + c.eps);
  }
  if (c.out == nullptr) return;
  for_lanes(end - begin, [&](int64_t i, auto lanes) { store(c.out + begin + i, load(c.p + begin + i, lanes), lanes); });
}

}  // namespace mb::MB_ISA
