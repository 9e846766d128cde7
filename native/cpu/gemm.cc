// D = alpha op(A) op(B) + beta C: blocks along k and n, packed panels, register tiles (kernels/gemm.cc).
#include "core/args/gemm.h"

#include <algorithm>
#include <vector>

#include "cpu/device.h"

namespace mb {
namespace {

constexpr int64_t kBlockK = 256;     // a panel of B (two vectors wide) stays in the first-level cache
constexpr int64_t kBlockN = 2048;    // packed B stays in the last levels
constexpr int64_t kBlockM = 144;     // packed A of a thread stays in the second level; a multiple of every tile's rows
constexpr double kShareFlops = 4e5;  // below this a second thread costs more than it saves

int64_t a_floats(int64_t rows) { return (rows + 15) / 16 * 16 * kBlockK + 64; }
int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Matrix {
  const float* p;
  int64_t row, col;  // strides of op(X)
};

struct Problem {
  int64_t m, n, k;
  Matrix a, b;
  float alpha, beta;
  const float* c;
  int64_t ldc;
  float* d;
  int64_t ldd;
};

// Few rows times the transpose of a matrix; false where that is not what is asked.
bool gemm_few(mb_device* device, const Problem& p) {
  const Kernels& kernels = device->kernels;
  const int64_t lanes = p.m <= kernels.gemm_few_lanes ? kernels.gemm_few_lanes : 2 * kernels.gemm_few_lanes;
  const bool plain = p.alpha == 1.0f && p.beta == 0.0f && p.a.col == 1 && p.b.row == 1 && p.k > 0;
  if (!plain || p.m > lanes || times(p.k, lanes) > kBlockN * kBlockK) return false;
  float* packed = static_cast<float*>(device->packing.ptr);
  kernels.pack_few(p.a.p, p.a.row, p.m, lanes, p.k, packed);
  const GemmFew g{packed, p.b.p, p.m, lanes, p.k, p.b.col, p.d, p.ldd};
  const auto grain = static_cast<int64_t>(kShareFlops / (2.0 * static_cast<double>(lanes * p.k))) + 1;
  device->pool.split(p.n, grain, [&](int64_t begin, int64_t end, int) { kernels.gemm_few(g, kBlockK, begin, end); });
  return true;
}

void gemm(mb_device* device, const Problem& p) {
  const Kernels& kernels = device->kernels;
  const int threads = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k) < kShareFlops
                          ? 1
                          : device->pool.threads();
  float* packed_b = static_cast<float*>(device->packing.ptr);
  float* packed_a = packed_b + kBlockN * kBlockK;
  // Some blocks a thread, so that the last ones even out; where m is short, columns are split too. Neither changes a
  // result: an element's sum runs along k only.
  const int64_t tasks = threads == 1 ? 1 : 4 * threads;
  const int64_t rows = std::min(kBlockM, up((p.m + tasks - 1) / tasks, kernels.gemm_rows));
  const int64_t row_blocks = (p.m + rows - 1) / rows;

  for (int64_t n0 = 0; n0 < p.n; n0 += kBlockN) {
    const int64_t n = std::min(kBlockN, p.n - n0);
    const int64_t panels = (n + kernels.gemm_cols - 1) / kernels.gemm_cols;
    const int64_t column_blocks = std::min(panels, std::max<int64_t>(1, tasks / row_blocks));
    for (int64_t k0 = 0; k0 < p.k; k0 += kBlockK) {
      const int64_t k = std::min(kBlockK, p.k - k0);
      const auto pack = [&](int64_t begin, int64_t end, int) {
        for (int64_t panel = begin; panel < end; ++panel) {
          const int64_t at = panel * kernels.gemm_cols;
          kernels.pack_b(p.b.p + k0 * p.b.row + (n0 + at) * p.b.col, p.b.row, p.b.col,
                         std::min(kernels.gemm_cols, n - at), k, packed_b + at * k);
        }
      };
      const auto multiply = [&](int64_t index, int slot) {
        const int64_t m0 = index / column_blocks * rows;
        const int64_t block = index % column_blocks;
        const int64_t first = panels * block / column_blocks * kernels.gemm_cols;
        const int64_t last = std::min(n, panels * (block + 1) / column_blocks * kernels.gemm_cols);
        float* a = packed_a + slot * a_floats(kBlockM);
        GemmBlock g;
        g.m = std::min(rows, p.m - m0);
        g.n = last - first;
        g.k = k;
        kernels.pack_a(p.a.p + m0 * p.a.row + k0 * p.a.col, p.a.row, p.a.col, g.m, k, a);
        g.a = a;
        g.b = packed_b + first * k;
        g.alpha = p.alpha;
        g.d = p.d + m0 * p.ldd + n0 + first;
        g.ldd = p.ldd;
        g.beta = k0 == 0 ? p.beta : 1.0f;
        g.c = k0 > 0 ? g.d : p.c == nullptr ? nullptr : p.c + m0 * p.ldc + n0 + first;
        g.ldc = k0 > 0 ? p.ldd : p.ldc;
        kernels.gemm_block(g);
      };
      if (threads == 1) {
        pack(0, panels, 0);
        for (int64_t i = 0; i < row_blocks * column_blocks; ++i) multiply(i, 0);
      } else {
        device->pool.split(panels, std::max<int64_t>(1, 16384 / (k * kernels.gemm_cols)), pack);
        device->pool.run(row_blocks * column_blocks, multiply);
      }
    }
  }
}

}  // namespace

int64_t gemm_packing_floats(const Kernels&, int threads) { return kBlockN * kBlockK + threads * a_floats(kBlockM); }

int op_gemm(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_GEMM], t, nt, s, ns);
  args.only_f32(0);
  const GemmArgs z = read_gemm(args);
  if (!args.ok()) return args.status();
  Problem p;
  // bf16 is rounded from float32, as a GPU does.
  std::vector<float> wide;
  p.m = z.m;
  p.n = z.n;
  p.k = z.k;
  p.a = {static_cast<const float*>(z.a), z.ta ? 1 : z.lda, z.ta ? z.lda : 1};
  p.b = {static_cast<const float*>(z.b), z.tb ? 1 : z.ldb, z.tb ? z.ldb : 1};
  p.alpha = z.alpha;
  p.beta = z.beta;
  p.c = static_cast<const float*>(z.c);
  p.ldc = z.ldc;
  p.d = static_cast<float*>(z.d);
  p.ldd = z.ldd;
  if (z.output == MB_BF16) {
    wide.resize(static_cast<size_t>(p.m * p.n));
    for (int64_t i = 0; z.c != nullptr && i < p.m * p.n; ++i) {
      wide[static_cast<size_t>(i)] = bf16_to_f32(static_cast<const uint16_t*>(z.c)[i / p.n * z.ldc + i % p.n]);
    }
    p.c = z.c == nullptr ? nullptr : wide.data();
    p.d = wide.data();
    p.ldc = p.ldd = p.n;
  }
  if (p.m > 0 && p.n > 0 && !gemm_few(device, p)) gemm(device, p);
  for (size_t i = 0; i < wide.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    static_cast<uint16_t*>(z.d)[at / p.n * z.ldd + at % p.n] = f32_to_bf16(wide[i]);
  }
  return MB_OK;
}

}  // namespace mb
