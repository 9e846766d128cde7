// Counter-based normal initialisation.
#include "core/args/optimizer.h"
#include "core/philox.h"
#include "cpu/device.h"

namespace mb {

int op_init_normal(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_INIT_NORMAL], t, nt, s, ns);
  args.only_f32(0);
  const InitNormalArgs z = read_init_normal(args);
  if (!args.ok()) return args.status();
  auto* out = static_cast<float*>(z.out);
  device->rows(z.rows, 16 * z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < z.cols; ++c) {
        const uint64_t index = (z.row0 + static_cast<uint64_t>(r)) * z.gcols + z.col0 + static_cast<uint64_t>(c);
        out[r * z.cols + c] = static_cast<float>(normal_at(index, z.key0, z.key1) * z.std);
      }
    }
  });
  return MB_OK;
}

}  // namespace mb
