// Sizes, names and the bfloat16 conversions of mb_dtype.
#pragma once
#include <cstdint>
#include <cstring>

#include "core/abi.h"

namespace mb {

// Bytes of one element; 0 for an unknown dtype.
inline int dtype_size(int dtype) {
  switch (dtype) {
    case MB_F32:
      return 4;
    case MB_BF16:
      return 2;
    case MB_I32:
      return 4;
    case MB_F64:
      return 8;
    case MB_U8:
      return 1;
    default:
      return 0;
  }
}

inline const char* dtype_name(int dtype) {
  switch (dtype) {
    case MB_F32:
      return "f32";
    case MB_BF16:
      return "bf16";
    case MB_I32:
      return "i32";
    case MB_F64:
      return "f64";
    case MB_U8:
      return "u8";
    default:
      return "unknown dtype";
  }
}

inline float bf16_to_f32(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

// Rounds to nearest even; a NaN stays a (quiet) NaN.
inline uint16_t f32_to_bf16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace mb
