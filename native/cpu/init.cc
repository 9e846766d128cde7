// Counter-based normal initialisation.
#include <cmath>

#include "core/philox.h"
#include "cpu/device.h"

namespace mb {

int op_init_normal(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("init_normal", t, nt, 1, s, ns, 10);
  const int64_t rows = args.size(0, "rows", 0);
  const int64_t cols = args.size(1, "cols", 0);
  const int64_t row0 = args.size(2, "row0", 0);
  const int64_t col0 = args.size(3, "col0", 0);
  const int64_t gcols = args.size(4, "gcols", col0 + cols);
  const double std = args.real(5, "std");
  const int64_t seed_lo = args.size(6, "seed_lo", 0);
  const int64_t seed_hi = args.size(7, "seed_hi", 0);
  const int64_t key_lo = args.size(8, "key_lo", 0);
  const int64_t key_hi = args.size(9, "key_hi", 0);
  constexpr int64_t kWord = 0xffffffff;
  args.require(seed_lo <= kWord && seed_hi <= kWord && key_lo <= kWord && key_hi <= kWord,
               "seed and key words below 2^32");
  float* out = args.f32(0, "out", rows * cols);
  if (!args.ok()) return args.status();
  const uint32_t k0 = static_cast<uint32_t>(seed_lo) ^ static_cast<uint32_t>(key_lo);
  const uint32_t k1 = static_cast<uint32_t>(seed_hi) ^ static_cast<uint32_t>(key_hi);
  constexpr double kTwoPi = 6.283185307179586476925;
  constexpr double kScale = 1.0 / 4294967296.0;
  device->rows(rows, 16 * cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const uint64_t index =
            static_cast<uint64_t>(row0 + r) * static_cast<uint64_t>(gcols) + static_cast<uint64_t>(col0 + c);
        const PhiloxWords words =
            philox4x32_10(static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0, k0, k1);
        const double u1 = (static_cast<double>(words.w[0]) + 1.0) * kScale;
        const double u2 = static_cast<double>(words.w[1]) * kScale;
        out[r * cols + c] = static_cast<float>(std::sqrt(-2.0 * std::log(u1)) * std::cos(kTwoPi * u2) * std);
      }
    }
  });
  return MB_OK;
}

}  // namespace mb
