// How ATTENTION_JOIN weighs its two attentions.
#pragma once
#include <math.h>

#include "core/host_device.h"

namespace mb {

// An attention over no keys has no share.
struct AttentionJoin {
  float lse, share, share_of_part;
};

MB_HD inline AttentionJoin join_attention(float lse, float lse_of_part) {
  const float highest = fmaxf(lse, lse_of_part);
  if (highest == -INFINITY) return {highest, 0, 0};
  const float joined = highest + logf(expf(lse - highest) + expf(lse_of_part - highest));
  return {joined, expf(lse - joined), expf(lse_of_part - joined)};
}

}  // namespace mb
