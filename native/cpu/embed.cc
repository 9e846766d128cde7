// The vocabulary shard's rows: lookup, and the sum of gradients per row.
#include <cstring>

#include "core/args/tokens.h"
#include "cpu/device.h"

namespace mb {

int op_embed_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_EMBED_FWD], t, nt, s, ns);
  args.only_f32(1);
  const EmbedArgs z = read_embed_fwd(args);
  if (!args.ok()) return args.status();
  const int64_t h = z.h;
  const auto* w = static_cast<const float*>(z.in);
  auto* out = static_cast<float*>(z.out);
  device->rows(z.tokens, h, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = z.ids[i] - z.vstart;
      if (row >= 0 && row < z.vrows) {
        memcpy(out + i * h, w + row * h, static_cast<size_t>(h) * 4);
      } else {
        memset(out + i * h, 0, static_cast<size_t>(h) * 4);
      }
    }
  });
  return MB_OK;
}

int op_embed_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_EMBED_BWD], t, nt, s, ns);
  args.only_f32(2);
  const EmbedArgs z = read_embed_bwd(args);
  const int64_t tokens = z.tokens;
  const int64_t h = z.h;
  const int32_t *ids = z.ids, *order = z.order;
  const auto* dout = static_cast<const float*>(z.in);
  auto* dw = static_cast<float*>(z.out);
  for (int64_t i = 0; args.ok() && i < tokens; ++i) {
    if (order[i] < 0 || order[i] >= tokens || (i > 0 && ids[order[i - 1]] > ids[order[i]])) {
      args.fail("order[%lld] = %d: order must sort the %lld tokens by id", static_cast<long long>(i), order[i],
                static_cast<long long>(tokens));
    }
  }
  if (!args.ok()) return args.status();
  device->rows(tokens, h, [&](int64_t begin, int64_t end, int) {
    // A run of equal ids belongs to the task in which it starts, and is summed in order.
    int64_t i = begin;
    while (i > 0 && i < end && ids[order[i]] == ids[order[i - 1]]) ++i;
    for (bool any = i < end; any && i < tokens; ++i) {
      const int32_t id = ids[order[i]];
      if (i >= end && id != ids[order[i - 1]]) break;
      const int64_t row = id - z.vstart;
      if (row >= 0 && row < z.vrows) device->kernels.add(dw + row * h, dout + order[i] * h, dw + row * h, 0, h);
    }
  });
  return MB_OK;
}

}  // namespace mb
