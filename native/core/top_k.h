// What defines the order of the largest logits: by value, of equal ones the lowest token first.
#pragma once
#include <stdint.h>

#include "core/sampling.h"

namespace mb {

// The order of floats, not a number above all; 0 and -0 are equal.
MB_HD inline uint32_t top_order(float x) { return x == x ? float_order(x + 0.0f) : UINT32_MAX; }

// A number that is larger the earlier a token comes; no two tokens share one.
MB_HD inline uint64_t top_key(float x, int32_t token) {
  return static_cast<uint64_t>(top_order(x)) << 32 | ~static_cast<uint32_t>(token);
}

MB_HD inline int32_t token_of_key(uint64_t key) { return static_cast<int32_t>(~static_cast<uint32_t>(key)); }

// Entries of a list of descending keys that come before `key`; the list lies as values and tokens.
MB_HD inline int64_t keys_before(const float* values, const int32_t* tokens, int64_t count, uint64_t key) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (top_key(values[middle], tokens[middle]) > key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Where entry `i` of list `shard` stands when all lists [shards, rows, k] of a row are merged.
MB_HD inline int64_t merged_place(const float* values, const int32_t* tokens, int64_t shards, int64_t rows, int64_t k,
                                  int64_t row, int64_t shard, int64_t i) {
  const int64_t own = (shard * rows + row) * k + i;
  const uint64_t key = top_key(values[own], tokens[own]);
  int64_t place = i;
  for (int64_t s = 0; s < shards && place < k; ++s) {
    const int64_t first = (s * rows + row) * k;
    if (s != shard) place += keys_before(values + first, tokens + first, k, key);
  }
  return place;
}

}  // namespace mb
