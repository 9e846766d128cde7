// Vectors of float32 as wide as the instruction set this file is compiled for, by the compiler's vector extension: no
// intrinsics, so every architecture is served by the same source.
//
// Files in this folder are compiled once per instruction set (MB_ISA names it), and the table to use is chosen when a
// device is opened. Everything here therefore lives in a namespace of its own per instruction set and calls no inline
// function of the standard library: the linker keeps one copy of those, which might use instructions that the machine
// does not have.
#pragma once
#include <stdint.h>

#define MB_INLINE static inline __attribute__((always_inline))

namespace mb::MB_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;          // floats in a vector
constexpr int kGemmRows = 12;  // rows of a gemm tile: kGemmRows x 2 accumulators fit the registers
constexpr int kAttnRows = 8;   // divides every head_dim
#elif defined(__AVX2__)
constexpr int W = 8;
constexpr int kGemmRows = 6;
constexpr int kAttnRows = 4;
#elif defined(__aarch64__)
constexpr int W = 4;
constexpr int kGemmRows = 8;
constexpr int kAttnRows = 8;
#else
constexpr int W = 4;
constexpr int kGemmRows = 4;
constexpr int kAttnRows = 4;
#endif

typedef float V __attribute__((vector_size(W * 4)));
typedef int32_t I __attribute__((vector_size(W * 4)));
typedef float UnalignedV __attribute__((vector_size(W * 4), aligned(4), may_alias));

MB_INLINE V splat(float x) { return x - V{}; }
MB_INLINE V load(const float* p) { return *reinterpret_cast<const UnalignedV*>(p); }
MB_INLINE void store(float* p, V v) { *reinterpret_cast<UnalignedV*>(p) = v; }

// The last n < W floats of a run; lanes beyond them are zero.
MB_INLINE V load_part(const float* p, int n) {
  V v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
MB_INLINE void store_part(float* p, V v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

// Which lanes a step of for_lanes covers: all of them, or the first n.
struct Full {};
struct Part {
  int n;
};
MB_INLINE V load(const float* p, Full) { return load(p); }
MB_INLINE V load(const float* p, Part part) { return load_part(p, part.n); }
MB_INLINE void store(float* p, V v, Full) { store(p, v); }
MB_INLINE void store(float* p, V v, Part part) { store_part(p, v, part.n); }

// Calls body(i, Full) for every whole vector of [0, n), then body(i, Part) for the rest.
template <class Body>
MB_INLINE void for_lanes(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + W <= n; i += W) body(i, Full{});
  if (i < n) body(i, Part{static_cast<int>(n - i)});
}

MB_INLINE V vmax(V a, V b) { return a > b ? a : b; }

// In a fixed order: a tree over the lanes.
MB_INLINE float sum_lanes(V v) {
  for (int width = W / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) v[i] += v[i + width];
  }
  return v[0];
}
MB_INLINE float max_lanes(V v) {
  float m = v[0];
  for (int i = 1; i < W; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// e^x within 2 ulp for x <= 88.37, where it stops growing; 0 below -87.33 (no denormals); NaN stays NaN.
// x = n ln2 + r with |r| <= ln2 / 2, e^r by a polynomial of degree 7 (Cephes' expf coefficients), 2^n by the exponent
// bits.
MB_INLINE V vexp(V x) {
  const V high = splat(88.37f);
  const V magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const V xc = x > high ? high : x;
  const V shifted = xc * splat(1.44269504f) + magic;
  const V n = shifted - magic;
  const V r = (xc - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  V p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * (r * r) + r + splat(1.0f);
  const I bits = (reinterpret_cast<I>(shifted) + 127) << 23;  // the magic's own bits shift out
  const V y = p * reinterpret_cast<V>(bits);
  return x < splat(-87.33f) ? V{} : y;
}

// 1 / (1 + e^-x)
MB_INLINE V sigmoid(V x) { return splat(1.0f) / (splat(1.0f) + vexp(-x)); }

}  // namespace mb::MB_ISA
