// e4m3: sign, 4 bits of exponent with bias 7, 3 of mantissa; subnormal numbers down to 2^-9, no infinity, 448 the
// largest.
#pragma once
#include <stdint.h>
#include <string.h>

#include "core/host_device.h"

namespace mb {

constexpr int64_t kFp8Block = 128;  // columns of a block, and its rows where it is square
constexpr uint8_t kFp8Nan = 0x7f;

// The code nearest to x, of two the even one; beyond 448 the largest. Every NaN has one code.
MB_HD inline uint8_t f32_to_e4m3(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t sign = bits >> 24 & 0x80u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return kFp8Nan;
  if (size >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);
  if (size >= 0x3c800000u) {  // 2^-6, the least normal number: 3 of 23 bits of mantissa stay
    const uint32_t near = size + 0x7ffffu + (size >> 20 & 1u);
    return static_cast<uint8_t>(sign | ((near >> 20) - (120u << 3)));
  }
  const uint32_t exponent = size >> 23;
  if (exponent < 117) return static_cast<uint8_t>(sign);                             // below 2^-10
  const uint32_t shift = 141 - exponent, mantissa = (size & 0x7fffffu) | 0x800000u;  // in units of 2^-9
  const uint32_t near = mantissa + (1u << (shift - 1)) - 1 + (mantissa >> shift & 1u);
  return static_cast<uint8_t>(sign | near >> shift);
}

MB_HD inline float e4m3_to_f32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, exponent = code >> 3 & 15, mantissa = code & 7;
  const float subnormal = static_cast<float>(mantissa) * 0x1p-9f;
  uint32_t bits;
  if (exponent == 0) {
    memcpy(&bits, &subnormal, 4);
  } else {
    bits = (code & 0x7f) == kFp8Nan ? 0x7fc00000u : (exponent + 120) << 23 | mantissa << 20;
  }
  bits |= sign;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// The scale of a block, and what x is multiplied by: a power of two has an exact inverse, and both are normal numbers.
struct Fp8Scale {
  float scale, inverse;
};

// largest: the bits of the block's largest |x| as a float, which order as integers do.
MB_HD inline Fp8Scale fp8_scale(uint32_t largest) {
  uint32_t scale = 0x7fc00000u, inverse = 0x7fc00000u;
  if (largest < 0x7f800000u) {
    // 448 = 1.75 * 2^8: a mantissa above 1.75 carries into the exponent.
    const uint32_t exponent = (largest + 0x1fffffu) >> 23;
    const uint32_t biased = largest == 0 ? 127 : exponent > 9 ? exponent - 8 : 1;
    scale = biased << 23;
    inverse = (254 - biased) << 23;
  }
  Fp8Scale z;
  memcpy(&z.scale, &scale, 4);
  memcpy(&z.inverse, &inverse, 4);
  return z;
}

}  // namespace mb
