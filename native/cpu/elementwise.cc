// SwiGLU, sums, casts, fills and norms over flat runs.
#include <cstring>

#include "core/dtype.h"
#include "core/error.h"
#include "cpu/device.h"

namespace mb {

int op_swiglu_fwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("swiglu_fwd", t, nt, 2, s, ns, 2);
  const int64_t tokens = args.size(0, "T", 0);
  const int64_t f = args.size(1, "f");
  const float* gu = args.f32(0, "gu", tokens * 2 * f);
  float* out = args.f32(1, "out", tokens * f);
  if (!args.ok()) return args.status();
  device->rows(tokens, f, [&](int64_t begin, int64_t end, int) { device->kernels.swiglu_fwd(gu, out, f, begin, end); });
  return MB_OK;
}

int op_swiglu_bwd(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("swiglu_bwd", t, nt, 3, s, ns, 2);
  const int64_t tokens = args.size(0, "T", 0);
  const int64_t f = args.size(1, "f");
  const float* dout = args.f32(0, "dout", tokens * f);
  const float* gu = args.f32(1, "gu", tokens * 2 * f);
  float* dgu = args.f32(2, "dgu", tokens * 2 * f);
  if (!args.ok()) return args.status();
  device->rows(tokens, 2 * f,
               [&](int64_t begin, int64_t end, int) { device->kernels.swiglu_bwd(dout, gu, dgu, f, begin, end); });
  return MB_OK;
}

int op_add(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("add", t, nt, 3, s, ns, 1);
  const int64_t n = args.size(0, "n", 0);
  const float* a = args.f32(0, "a", n);
  const float* b = args.f32(1, "b", n);
  float* out = args.f32(2, "out", n);
  if (!args.ok()) return args.status();
  device->rows(n, 1, [&](int64_t begin, int64_t end, int) { device->kernels.add(a, b, out, begin, end); });
  return MB_OK;
}

int op_cast(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("cast", t, nt, 2, s, ns, 1);
  const int64_t n = args.size(0, "n", 0);
  const void* in = args.f32_or_bf16(0, "in", n);
  void* out = args.f32_or_bf16(1, "out", n);
  if (!args.ok()) return args.status();
  const int from = args.dtype(0);
  const int to = args.dtype(1);
  device->rows(n, 1, [&](int64_t begin, int64_t end, int) {
    if (from == to) {
      const int64_t size = dtype_size(from);
      memmove(static_cast<char*>(out) + begin * size, static_cast<const char*>(in) + begin * size,
              static_cast<size_t>((end - begin) * size));
    } else if (to == MB_BF16) {
      for (int64_t i = begin; i < end; ++i) {
        static_cast<uint16_t*>(out)[i] = f32_to_bf16(static_cast<const float*>(in)[i]);
      }
    } else {
      for (int64_t i = begin; i < end; ++i) {
        static_cast<float*>(out)[i] = bf16_to_f32(static_cast<const uint16_t*>(in)[i]);
      }
    }
  });
  return MB_OK;
}

int op_fill(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("fill", t, nt, 1, s, ns, 2);
  const int64_t n = args.size(0, "n", 0);
  void* out = args.any(0, "out", n);
  if (!args.ok()) return args.status();
  const double value = s[1];  // may be infinite or not a number
  const int dtype = args.dtype(0);
  const bool fits = dtype == MB_I32  ? value >= -2147483648.0 && value <= 2147483647.0
                    : dtype == MB_U8 ? value >= 0 && value <= 255
                                     : true;
  args.require(fits, "a value that the integer dtype holds");
  if (!args.ok()) return args.status();
  device->rows(n, 1, [&](int64_t begin, int64_t end, int) {
    const auto fill = [&](auto* p, auto x) {
      for (int64_t i = begin; i < end; ++i) p[i] = x;
    };
    switch (dtype) {
      case MB_F32:
        return fill(static_cast<float*>(out), static_cast<float>(value));
      case MB_BF16:
        return fill(static_cast<uint16_t*>(out), f32_to_bf16(static_cast<float>(value)));
      case MB_I32:
        return fill(static_cast<int32_t*>(out), static_cast<int32_t>(value));
      case MB_F64:
        return fill(static_cast<double*>(out), value);
      default:
        return fill(static_cast<uint8_t*>(out), static_cast<uint8_t>(value));
    }
  });
  return MB_OK;
}

int op_scale(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("scale", t, nt, 1, s, ns, 2);
  const int64_t n = args.size(0, "n", 0);
  const float alpha = static_cast<float>(args.real(1, "alpha"));
  float* x = args.f32(0, "x", n);
  if (!args.ok()) return args.status();
  device->rows(n, 1, [&](int64_t begin, int64_t end, int) { device->kernels.scale(x, alpha, begin, end); });
  return MB_OK;
}

int op_sumsq(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args("sumsq", t, nt, 3, s, ns, 2);
  const int64_t n = args.size(0, "n", 0);
  const bool accumulate = args.flag(1, "accumulate");
  const void* x = args.f32_or_bf16(0, "x", n);
  float* out = args.f32(1, "out", 1);
  float* ws = args.f32(2, "ws", MB_REDUCE_PARTS);
  if (!args.ok()) return args.status();
  const bool bf16 = args.dtype(0) == MB_BF16;
  // Parts depend on n only, and are added in order.
  const int64_t parts = reduce_parts(n / 128);
  device->rows(parts, n / parts, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t from = n * part / parts;
      const int64_t count = n * (part + 1) / parts - from;
      ws[part] = static_cast<float>(bf16 ? device->kernels.sumsq_bf16(static_cast<const uint16_t*>(x) + from, count)
                                         : device->kernels.sumsq(static_cast<const float*>(x) + from, count));
    }
  });
  double sum = accumulate ? static_cast<double>(*out) : 0.0;
  for (int64_t part = 0; part < parts; ++part) sum += static_cast<double>(ws[part]);
  *out = static_cast<float>(sum);
  return MB_OK;
}

}  // namespace mb
