// SwiGLU, sums, biases, casts, copies, fills and norms over rows and flat runs.
#include <cstring>

#include "core/args/pointwise.h"
#include "cpu/device.h"

namespace mb {

int op_swiglu_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SWIGLU_FWD], t, nt, s, ns);
  args.only_f32(0);
  const SwigluArgs z = read_swiglu_fwd(args);
  if (!args.ok()) return args.status();
  device->rows(z.tokens, z.f, [&](int64_t begin, int64_t end, int) {
    device->kernels.swiglu_fwd(static_cast<const float*>(z.gu), static_cast<float*>(z.out), z.f, begin, end);
  });
  return MB_OK;
}

int op_swiglu_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SWIGLU_BWD], t, nt, s, ns);
  args.only_f32(0);
  const SwigluArgs z = read_swiglu_bwd(args);
  if (!args.ok()) return args.status();
  device->rows(z.tokens, 2 * z.f, [&](int64_t begin, int64_t end, int) {
    device->kernels.swiglu_bwd(static_cast<const float*>(z.dout), static_cast<const float*>(z.gu),
                               static_cast<float*>(z.out), z.f, begin, end);
  });
  return MB_OK;
}

int op_add(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ADD], t, nt, s, ns);
  const AddArgs z = read_add(args);
  if (!args.ok()) return args.status();
  device->rows(z.n, 1, [&](int64_t begin, int64_t end, int) {
    if (z.dtype == MB_BF16) {
      const auto *a = static_cast<const uint16_t*>(z.a), *b = static_cast<const uint16_t*>(z.b);
      for (int64_t i = begin; i < end; ++i) {
        static_cast<uint16_t*>(z.out)[i] = f32_to_bf16(bf16_to_f32(a[i]) + bf16_to_f32(b[i]));
      }
      return;
    }
    device->kernels.add(static_cast<const float*>(z.a), static_cast<const float*>(z.b), static_cast<float*>(z.out),
                        begin, end);
  });
  return MB_OK;
}

int op_accumulate(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_ACCUMULATE], t, nt, s, ns);
  args.only_f32(0);
  const AccumulateArgs z = read_accumulate(args);
  if (!args.ok()) return args.status();
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = static_cast<const float*>(z.x) + row * z.ldx;
      float* sum = z.sum + row * z.cols;
      float* out = static_cast<float*>(z.out) + row * z.ldout;
      device->kernels.add(z.first ? out : sum, x, sum, 0, z.cols);
      memcpy(out, sum, static_cast<size_t>(z.cols) * sizeof(float));
    }
  });
  return MB_OK;
}

int op_bias_add(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_BIAS_ADD], t, nt, s, ns);
  args.only_f32(0);
  const BiasAddArgs z = read_bias_add(args);
  if (!args.ok()) return args.status();
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* y = static_cast<float*>(z.y) + row * z.cols;
      device->kernels.add(y, static_cast<const float*>(z.bias), y, 0, z.cols);
    }
  });
  return MB_OK;
}

int op_bias_grad(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_BIAS_GRAD], t, nt, s, ns);
  args.only_f32(0);
  const BiasGradArgs z = read_bias_grad(args);
  if (!args.ok()) return args.status();
  const auto* dy = static_cast<const float*>(z.dy);
  const int64_t parts = reduce_parts(z.rows);
  device->rows(parts, z.rows / parts * z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = z.rows * part / parts, last = z.rows * (part + 1) / parts;
      device->kernels.sum_parts(dy + first * z.cols, last - first, z.cols, z.ws + part * z.cols, false, 0, z.cols);
    }
  });
  sum_parts(device, z.ws, parts, z.cols, z.db, z.accumulate);
  return MB_OK;
}

int op_cast(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_CAST], t, nt, s, ns);
  const CastArgs z = read_cast(args);
  if (!args.ok()) return args.status();
  device->rows(z.n, 1, [&](int64_t begin, int64_t end, int) {
    if (z.from == z.to) {
      const int64_t size = dtype_size(z.from);
      memmove(static_cast<char*>(z.out) + begin * size, static_cast<const char*>(z.in) + begin * size,
              static_cast<size_t>((end - begin) * size));
    } else if (z.to == MB_BF16) {
      for (int64_t i = begin; i < end; ++i) {
        static_cast<uint16_t*>(z.out)[i] = f32_to_bf16(static_cast<const float*>(z.in)[i]);
      }
    } else {
      for (int64_t i = begin; i < end; ++i) {
        static_cast<float*>(z.out)[i] = bf16_to_f32(static_cast<const uint16_t*>(z.in)[i]);
      }
    }
  });
  return MB_OK;
}

int op_copy_2d(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_COPY_2D], t, nt, s, ns);
  const Copy2dArgs z = read_copy_2d(args);
  if (!args.ok() || z.row_bytes == 0) return args.status();
  device->rows(z.rows, (z.row_bytes + 3) / 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      memcpy(static_cast<char*>(z.dst) + row * z.dst_stride, static_cast<const char*>(z.src) + row * z.src_stride,
             static_cast<size_t>(z.row_bytes));
    }
  });
  return MB_OK;
}

int op_fill(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_FILL], t, nt, s, ns);
  const FillArgs z = read_fill(args);
  if (!args.ok()) return args.status();
  device->rows(z.n, 1, [&](int64_t begin, int64_t end, int) {
    const auto fill = [&](auto* p, auto x) {
      for (int64_t i = begin; i < end; ++i) p[i] = x;
    };
    switch (z.dtype) {
      case MB_F32:
        return fill(static_cast<float*>(z.out), static_cast<float>(z.value));
      case MB_BF16:
        return fill(static_cast<uint16_t*>(z.out), f32_to_bf16(static_cast<float>(z.value)));
      case MB_I32:
        return fill(static_cast<int32_t*>(z.out), static_cast<int32_t>(z.value));
      case MB_F64:
        return fill(static_cast<double*>(z.out), z.value);
      default:
        return fill(static_cast<uint8_t*>(z.out), static_cast<uint8_t>(z.value));
    }
  });
  return MB_OK;
}

int op_shift(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SHIFT], t, nt, s, ns);
  const ShiftArgs z = read_shift(args);
  if (!args.ok()) return args.status();
  device->rows(z.n, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) z.out[i] = z.in[i] + z.by;
  });
  return MB_OK;
}

int op_sumsq(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SUMSQ], t, nt, s, ns);
  const SumsqArgs z = read_sumsq(args);
  if (!args.ok()) return args.status();
  // Parts depend on n only, and are added in order.
  const int64_t n = z.n;
  const int64_t parts = reduce_parts(n / 128);
  device->rows(parts, n / parts, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t from = n * part / parts;
      const int64_t count = n * (part + 1) / parts - from;
      const double sum = z.dtype == MB_BF16
                             ? device->kernels.sumsq_bf16(static_cast<const uint16_t*>(z.x) + from, count)
                             : device->kernels.sumsq(static_cast<const float*>(z.x) + from, count);
      z.ws[part] = static_cast<float>(sum);
    }
  });
  double sum = z.accumulate ? static_cast<double>(*z.out) : 0.0;
  for (int64_t part = 0; part < parts; ++part) sum += static_cast<double>(z.ws[part]);
  *z.out = static_cast<float>(sum);
  return MB_OK;
}

}  // namespace mb
