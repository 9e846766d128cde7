// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and the normal deviate of an
// element, as plain functions so that the host can test them.
#pragma once
#include <math.h>
#include <stdint.h>

namespace mbk {

struct Words {
  uint32_t w[4];
};

__host__ __device__ inline Words philox(Words counter, uint32_t key0, uint32_t key1) {
  uint32_t c0 = counter.w[0], c1 = counter.w[1], c2 = counter.w[2], c3 = counter.w[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ key0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ key1;
    c3 = uint32_t(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Standard normal deviate of element `index` of the stream with this key, by Box and Muller.
__host__ __device__ inline double normal_at(uint64_t index, uint32_t key0, uint32_t key1) {
  const Words r = philox({{uint32_t(index), uint32_t(index >> 32), 0, 0}}, key0, key1);
  const double u1 = (double(r.w[0]) + 1.0) / 4294967296.0, u2 = double(r.w[1]) / 4294967296.0;
  return sqrt(-2.0 * log(u1)) * cos(6.283185307179586476925 * u2);
}

}  // namespace mbk
