// Products of few rows with a matrix that is used once, as in generation: the rows lie across the lanes, and the matrix
// is read where it is instead of being packed. Every element is the chain of gemm_block.
#include "cpu/kernels/functions.h"
#include "cpu/kernels/tile.h"
#include "cpu/kernels/transpose.h"

namespace mb::MB_ISA {
namespace {

template <int R, int J>
MB_INLINE void columns(const GemmFew& g, int64_t block, int64_t n) {
  V total[R][J];
  for (int64_t k0 = 0; k0 < g.k; k0 += block) {
    const int64_t k = g.k - k0 < block ? g.k - k0 : block;
    V acc[R][J] = {};
    tile(k, g.b + n * g.ldb + k0, g.ldb, 1, g.a + k0 * J * W, J * W, acc);
#pragma GCC unroll 24
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int j = 0; j < J; ++j) total[r][j] = k0 == 0 ? acc[r][j] : acc[r][j] + total[r][j];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int64_t i = 0; i < g.m; ++i) g.d[i * g.ldd + n + r] = total[r][i / W][i % W];
  }
}

template <int R, int J>
MB_INLINE void run(const GemmFew& g, int64_t block, int64_t begin, int64_t end) {
  int64_t n = begin;
  for (; n + R <= end; n += R) columns<R, J>(g, block, n);
  for (; n < end; ++n) columns<1, J>(g, block, n);
}

}  // namespace

void pack_few(const float* a, int64_t lda, int64_t m, int64_t lanes, int64_t k, float* dst) {
  transpose(a, lda, m, k, dst, lanes, lanes, 1.0f);
}

void gemm_few(const GemmFew& g, int64_t block, int64_t begin, int64_t end) {
  if (g.lanes == W) {
    run<kGemmRows, 1>(g, block, begin, end);
  } else {
    run<kGemmRows, 2>(g, block, begin, end);
  }
}

}  // namespace mb::MB_ISA
