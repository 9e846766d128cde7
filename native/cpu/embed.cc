// The vocabulary shard's rows: lookup, and the sum of gradients per row.
#include <cstring>

#include "core/error.h"
#include "cpu/device.h"

namespace mb {

int op_embed_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("embed_fwd", t, nt, 3, s, ns, 4);
  const int64_t tokens = args.size(0, "T", 0);
  const int64_t h = args.size(1, "h");
  const int64_t vstart = args.size(2, "vstart", 0);
  const int64_t vrows = args.size(3, "vrows");
  const int32_t* ids = args.i32(0, "ids", tokens);
  const float* w = args.f32(1, "w", vrows * h);
  float* out = args.f32(2, "out", tokens * h);
  if (!args.ok()) return args.status();
  device->rows(tokens, h, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = ids[i] - vstart;
      if (row >= 0 && row < vrows) {
        memcpy(out + i * h, w + row * h, static_cast<size_t>(h) * 4);
      } else {
        memset(out + i * h, 0, static_cast<size_t>(h) * 4);
      }
    }
  });
  return MB_OK;
}

int op_embed_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("embed_bwd", t, nt, 4, s, ns, 4);
  const int64_t tokens = args.size(0, "T", 0);
  const int64_t h = args.size(1, "h");
  const int64_t vstart = args.size(2, "vstart", 0);
  const int64_t vrows = args.size(3, "vrows");
  const int32_t* ids = args.i32(0, "ids", tokens);
  const int32_t* order = args.i32(1, "order", tokens);
  const float* dout = args.f32(2, "dout", tokens * h);
  float* dw = args.f32(3, "dw", vrows * h);
  if (!args.ok()) return args.status();
  for (int64_t i = 0; i < tokens; ++i) {
    if (order[i] < 0 || order[i] >= tokens || (i > 0 && ids[order[i - 1]] > ids[order[i]])) {
      return fail(MB_ERR_ARGUMENT, "embed_bwd: order[%lld] = %d: order must sort the %lld tokens by id",
                  static_cast<long long>(i), order[i], static_cast<long long>(tokens));
    }
  }
  device->rows(tokens, h, [&](int64_t begin, int64_t end, int) {
    // A run of equal ids belongs to the task in which it starts, and is summed in order.
    int64_t i = begin;
    while (i > 0 && i < end && ids[order[i]] == ids[order[i - 1]]) ++i;
    for (bool any = i < end; any && i < tokens; ++i) {
      const int32_t id = ids[order[i]];
      if (i >= end && id != ids[order[i - 1]]) break;
      const int64_t row = id - vstart;
      if (row >= 0 && row < vrows) device->kernels.add(dw + row * h, dout + order[i] * h, dw + row * h, 0, h);
    }
  });
  return MB_OK;
}

}  // namespace mb
