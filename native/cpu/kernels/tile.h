// The register-blocked inner product that gemm and attention are made of.
#pragma once
#include "cpu/kernels/simd.h"

namespace mb::MB_ISA {

// acc[r][j] += sum over k of a[r * a_row + k * a_k] * (vector j of b + k * b_k). Every element is one chain of
// multiply-adds in ascending k, whatever tile it falls in.
template <int R, int J>
MB_INLINE void tile(int64_t k, const float* a, int64_t a_row, int64_t a_k, const float* b, int64_t b_k,
                    V (&acc)[R][J]) {
  for (int64_t i = 0; i < k; ++i) {
    V row[J];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) row[j] = load(b + j * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V x = splat(a[r * a_row]);
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) acc[r][j] += x * row[j];
    }
    a += a_k;
    b += b_k;
  }
}

}  // namespace mb::MB_ISA
