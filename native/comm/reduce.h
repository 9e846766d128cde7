// Element-wise reduction of several arrays in a fixed order.
#pragma once
#include <stdint.h>

namespace mb::comm {

// Whether reduce() takes this mb_dtype and mb_reduce.
bool can_reduce(int dtype, int op);

// out[i] = src[0][i] op src[1][i] op ... in that order, for i < n. bf16 is accumulated in float32 and rounded once (to
// nearest even); i32 sums wrap; MB_MAX passes a NaN on. out may be one of the sources. Same bits for any split of n.
void reduce(int dtype, int op, void* out, const void* const* src, int sources, int64_t n);

}  // namespace mb::comm
