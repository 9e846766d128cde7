// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the counter-based generator
// that initial weights come from: the same element gets the same value on every layout and backend.
#pragma once
#include <math.h>
#include <stdint.h>

#include "core/host_device.h"

namespace mb {

struct PhiloxWords {
  uint32_t w[4];
};

MB_HD inline PhiloxWords philox4x32_10(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Standard normal deviate of element `index` of the stream with this key, by Box and Muller.
MB_HD inline double normal_at(uint64_t index, uint32_t k0, uint32_t k1) {
  const PhiloxWords r = philox4x32_10(static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0, k0, k1);
  const double u1 = (static_cast<double>(r.w[0]) + 1.0) / 4294967296.0;
  const double u2 = static_cast<double>(r.w[1]) / 4294967296.0;
  return sqrt(-2.0 * log(u1)) * cos(6.283185307179586476925 * u2);
}

}  // namespace mb
