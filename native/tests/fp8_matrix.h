// What the tests of FP8 share: codes and scales by their definition, in float64.
#pragma once
#include <cmath>

#include "tests/harness.h"

namespace mb::test {

constexpr int64_t kBlock = 128;

inline double value_of(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 127) == 127) return std::nan("");
  const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 128 ? -size : size;
}

// Scales of a matrix [rows, 128 * blocks], and where that of (row, block) lies.
struct Scales {
  int64_t rows, blocks;
  int block;

  int64_t stride() const { return (blocks + 3) / 4 * 4; }
  int64_t count() const { return block == 1 ? rows * blocks : rows / kBlock * stride(); }
  size_t at(int64_t row, int64_t b) const { return size_t(block == 1 ? b * rows + row : row / kBlock * stride() + b); }
};

struct Shape {
  int64_t rows, cols;
};

// Codes and scales of x [rows, cols] or of its transpose.
struct Outputs {
  Outputs(Context& c, const Shape& z, int block)
      : codes(c, z.rows * z.cols, MB_U8), scales(c, Scales{z.rows, z.cols / kBlock, block}.count(), MB_F32) {}
  Tensor codes, scales;
};

}  // namespace mb::test
