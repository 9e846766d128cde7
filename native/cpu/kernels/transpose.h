// Transposition of small blocks in registers, for packing.
#pragma once
#include <utility>

#include "cpu/kernels/simd.h"

namespace mb::MB_ISA {

// One butterfly: afterwards a holds the lanes whose bit `Step` is 0 of both, b the others, each at its partner's place.
template <int Step, int... L>
MB_INLINE void exchange(V& a, V& b, std::integer_sequence<int, L...>) {
#if defined(__clang__)
  const V low = __builtin_shufflevector(a, b, ((L & Step) == 0 ? L : W + L - Step)...);
  const V high = __builtin_shufflevector(a, b, ((L & Step) == 0 ? L + Step : W + L)...);
#else  // GCC has the above from 12 on only
  const V low = __builtin_shuffle(a, b, I{((L & Step) == 0 ? L : W + L - Step)...});
  const V high = __builtin_shuffle(a, b, I{((L & Step) == 0 ? L + Step : W + L)...});
#endif
  a = low;
  b = high;
}

template <int Step>
MB_INLINE void exchange_all(V (&v)[W]) {
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    if ((i & Step) == 0) exchange<Step>(v[i], v[i + Step], std::make_integer_sequence<int, W>{});
  }
}

MB_INLINE void transpose_registers(V (&v)[W]) {
  exchange_all<1>(v);
  exchange_all<2>(v);
  if constexpr (W > 4) exchange_all<4>(v);
  if constexpr (W > 8) exchange_all<8>(v);
}

// dst[c * dst_ld + r] = src[r * src_ld + c] * scale for r < rows, c < cols. rows <= W. Columns are written in ascending
// order as whole vectors when dst_ld < W, so up to W - rows floats after the last column are clobbered: see `slack`.
template <bool slack>
MB_INLINE void transpose_strip(const float* src, int64_t src_ld, int rows, int64_t cols, float* dst, int64_t dst_ld,
                               float scale) {
  int64_t c = 0;
  if (slack || rows == W) {
    for (; c + W <= cols; c += W) {
      V v[W];
#pragma GCC unroll 16
      for (int r = 0; r < W; ++r) v[r] = r < rows ? load(src + r * src_ld + c) * splat(scale) : V{};
      transpose_registers(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store(dst + (c + i) * dst_ld, v[i]);
    }
  }
  for (; c < cols; ++c) {
    for (int r = 0; r < rows; ++r) dst[c * dst_ld + r] = src[r * src_ld + c] * scale;
  }
}

// dst[c * dst_ld + r] = src[r * src_ld + c] * scale, and zero for rows <= r < padded_rows (padded_rows <= dst_ld).
MB_INLINE void transpose(const float* src, int64_t src_ld, int64_t rows, int64_t cols, float* dst, int64_t dst_ld,
                         int64_t padded_rows, float scale) {
  int64_t r = 0;
  for (; r + W <= rows; r += W) transpose_strip<false>(src + r * src_ld, src_ld, W, cols, dst + r, dst_ld, scale);
  if (r < rows) {
    transpose_strip<false>(src + r * src_ld, src_ld, static_cast<int>(rows - r), cols, dst + r, dst_ld, scale);
  }
  if (rows < padded_rows) {
    for (int64_t c = 0; c < cols; ++c) {
      for (int64_t i = rows; i < padded_rows; ++i) dst[c * dst_ld + i] = 0.0f;
    }
  }
}

}  // namespace mb::MB_ISA
