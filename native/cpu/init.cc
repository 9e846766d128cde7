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
  device->rows(z.rows * z.place.cols, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      out[i] = static_cast<float>(normal_at(z.place.index(i), z.place.key0, z.place.key1) * z.std);
    }
  });
  return MB_OK;
}

}  // namespace mb
