// What defines a sampled token: the noise of a token's score, the order of logits, the units of probability that top-p
// counts.
#pragma once
#include <math.h>
#include <stdint.h>

#include "core/philox.h"

namespace mb {

// Gumbel noise from one random word: finite, from -3.2 to 22.9.
MB_HD inline double gumbel(uint32_t word) { return -log(-log((static_cast<double>(word) + 0.5) / 4294967296.0)); }

constexpr double kMostGumbel = 23;

MB_HD inline PhiloxWords sample_words(uint32_t group, int32_t position, int32_t row, uint32_t seed_lo,
                                      uint32_t seed_hi) {
  return philox4x32_10(group, static_cast<uint32_t>(position) + 1, static_cast<uint32_t>(row), 1, seed_lo, seed_hi);
}

// A number whose order is that of floats; of a NaN 0, below all others.
MB_HD inline uint32_t float_order(float x) {
  union {
    float value;
    uint32_t bits;
  } u{x};
  if (!(x == x)) return 0;
  return (u.bits & 0x80000000u) != 0 ? ~u.bits : u.bits | 0x80000000u;
}

MB_HD inline float float_of_order(uint32_t order) {
  union {
    uint32_t bits;
    float value;
  } u{(order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order};
  return u.value;
}

// Probability of a logit beside that of the highest, in units of 2^-40: integers, so that their sums have no order.
MB_HD inline uint64_t probability_units(float logit, float highest, double temperature) {
  const double p = exp((static_cast<double>(logit) - static_cast<double>(highest)) / temperature);
  return p > 0 ? static_cast<uint64_t>(p * 1099511627776.0 + 0.5) : 0;
}

MB_HD inline int64_t shard_start(int64_t vocab, int64_t shard, int64_t shards) { return vocab * shard / shards; }

}  // namespace mb
