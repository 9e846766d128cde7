// Sizes of the attention kernels' tiles.
#pragma once
#include "cpu/kernels/simd.h"

namespace mb::MB_ISA {

constexpr int kQueries = 2 * W;     // queries of a tile: the lanes of two vectors
constexpr int64_t kKeyBlock = 256;  // keys whose scores are held at once; a multiple of kAttnRows

MB_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace mb::MB_ISA
