#include "cpu/kernels/functions.h"
#include "cpu/kernels/tile.h"
#include "cpu/kernels/transpose.h"

namespace mb::MB_ISA {

constexpr int M = kGemmRows;
constexpr int N = 2 * W;

void pack_a(const float* a, int64_t row, int64_t col, int64_t m, int64_t k, float* dst) {
  for (int64_t r0 = 0; r0 < m; r0 += M, dst += M * k) {
    const int rows = static_cast<int>(m - r0 < M ? m - r0 : M);
    const float* src = a + r0 * row;
    if (rows == M && col == 1) {
      // Contiguous along k. Panels are written in ascending order, so a strip may spill into the next panel.
      for (int r = 0; r < M; r += W)
        transpose_strip<true>(src + r * row, row, M - r < W ? M - r : W, k, dst + r, M, 1.0f);
    } else if (rows == M && row == 1) {
      for (int64_t i = 0; i < k; ++i) {
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) dst[i * M + r] = src[i * col + r];
      }
    } else {
      for (int64_t i = 0; i < k; ++i) {
        for (int r = 0; r < M; ++r) dst[i * M + r] = r < rows ? src[r * row + i * col] : 0.0f;
      }
    }
  }
}

void pack_b(const float* b, int64_t row, int64_t col, int64_t n, int64_t k, float* dst) {
  if (n == N && col == 1) {
    for (int64_t i = 0; i < k; ++i) {
      store(dst + i * N, load(b + i * row));
      store(dst + i * N + W, load(b + i * row + W));
    }
  } else if (row == 1) {
    transpose(b, col, n, k, dst, N, N, 1.0f);
  } else {
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < N; ++j) dst[i * N + j] = j < n ? b[i * row + j * col] : 0.0f;
    }
  }
}

// D = alpha * acc + beta * C over the rows x cols of a tile that exist. Whole and cut tiles round alike: both go
// through whole vectors.
static void finish_tile(const GemmBlock& g, int64_t r0, int64_t c0, V (&acc)[M][2]) {
  const V alpha = splat(g.alpha);
  const V beta = splat(g.beta);
  const int64_t rows = g.m - r0 < M ? g.m - r0 : M;
  const int64_t cols = g.n - c0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int j = 0; j < 2 && j * W < cols; ++j) {
      const int width = static_cast<int>(cols - j * W < W ? cols - j * W : W);
      const int64_t at = c0 + j * W;
      V value = alpha * acc[r][j];
      if (g.beta != 0.0f) {
        const float* c = g.c + (r0 + r) * g.ldc + at;
        value += beta * (width == W ? load(c) : load_part(c, width));
      }
      float* d = g.d + (r0 + r) * g.ldd + at;
      if (width == W) {
        store(d, value);
      } else {
        store_part(d, value, width);
      }
    }
  }
}

void gemm_block(const GemmBlock& g) {
  const V alpha = splat(g.alpha);
  // Where a compiler contracts alpha * acc + C is its choice, which must be one for all tiles; of acc + C there is
  // none.
  const bool plain = g.beta == 0.0f || (g.beta == 1.0f && g.alpha == 1.0f);
  for (int64_t c0 = 0; c0 < g.n; c0 += N) {
    const float* b = g.b + c0 * g.k;
    for (int64_t r0 = 0; r0 < g.m; r0 += M) {
      V acc[M][2] = {};
      tile(g.k, g.a + r0 * g.k, 1, M, b, N, acc);
      if (plain && g.m - r0 >= M && g.n - c0 >= N) {
        float* d = g.d + r0 * g.ldd + c0;
        const float* c = g.beta == 0.0f ? nullptr : g.c + r0 * g.ldc + c0;
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) {
          V x = alpha * acc[r][0];
          V y = alpha * acc[r][1];
          if (c != nullptr) {
            x += load(c + r * g.ldc);
            y += load(c + r * g.ldc + W);
          }
          store(d + r * g.ldd, x);
          store(d + r * g.ldd + W, y);
        }
      } else {
        V copy[M][2];  // finish_tile indexes at run time: kept apart so that acc stays in registers
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) {
          copy[r][0] = acc[r][0];
          copy[r][1] = acc[r][1];
        }
        finish_tile(g, r0, c0, copy);
      }
    }
  }
}

}  // namespace mb::MB_ISA
