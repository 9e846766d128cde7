// Stochastic rounding to bf16: up with the probability of what is cut off, so that small updates are not lost on
// average (Gupta et al., "Deep learning with limited numerical precision", ICML 2015).
#pragma once
#include <stdint.h>
#include <string.h>

#include "core/philox.h"

namespace mb {

// random: 16 bits. A NaN stays one, and what is finite stays finite.
MB_HD inline uint16_t bf16_at_random(float x, uint32_t random) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  const uint32_t up = bits + (random & 0xffffu);
  return static_cast<uint16_t>(((up & 0x7fffffffu) >= 0x7f800000u ? bits : up) >> 16);
}

// A rectangle of a global matrix whose elements are numbered row by row, and the key of the matrix's random stream.
struct RandomPlace {
  int64_t cols;
  uint64_t row0, col0, gcols;
  uint32_t key0, key1;

  MB_HD uint64_t index(int64_t i) const {
    return (row0 + static_cast<uint64_t>(i / cols)) * gcols + col0 + static_cast<uint64_t>(i % cols);
  }
};

// The random words with which element `index` is rounded in an update. Initial weights have streams of their own.
MB_HD inline PhiloxWords rounding_words(uint64_t index, uint32_t update, const RandomPlace& place) {
  return philox4x32_10(static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), update, 1, place.key0,
                       place.key1);
}

}  // namespace mb
