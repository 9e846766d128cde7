// FP8 as a GPU does it: the same scales and codes, products in float32.
#include "core/args/fp8.h"

#include <algorithm>
#include <vector>

#include "cpu/device.h"

namespace mb {
namespace {

// Element (r, c) of what is quantised is x[r * row + c * col].
struct Source {
  const float* x;
  int64_t row, col;

  float at(int64_t r, int64_t c) const { return x[r * row + c * col]; }
};

int64_t scale_at(const Fp8Matrix& z, int64_t row, int64_t block) {
  return z.block == 1 ? block * z.rows + row : row / z.block * fp8_scale_stride(z.cols) + block;
}

void quantize(mb_device* device, Source x, const Fp8Matrix& z) {
  if (z.codes == nullptr) return;
  const int64_t stride = fp8_scale_stride(z.cols);
  device->rows(z.rows / z.block, z.block * z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t first = begin * z.block; first < end * z.block; first += z.block) {
      for (int64_t block = 0; block < z.cols / kFp8Block; ++block) {
        const int64_t column = block * kFp8Block;
        uint32_t largest = 0;
        for (int64_t r = first; r < first + z.block; ++r) {
          for (int64_t c = column; c < column + kFp8Block; ++c) {
            const float value = x.at(r, c);
            uint32_t bits;
            memcpy(&bits, &value, 4);
            largest = std::max(largest, bits & 0x7fffffffu);
          }
        }
        const Fp8Scale scale = fp8_scale(largest);
        z.scales[scale_at(z, first, block)] = scale.scale;
        for (int64_t r = first; r < first + z.block; ++r) {
          for (int64_t c = column; c < column + kFp8Block; ++c) {
            z.codes[r * z.cols + c] = f32_to_e4m3(x.at(r, c) * scale.inverse);
          }
        }
      }
      if (z.block == 1) continue;
      for (int64_t i = z.cols / kFp8Block; i < stride; ++i) z.scales[first / z.block * stride + i] = 0;
    }
  });
}

// Both orientations of x [rows, cols].
void quantize(mb_device* device, const float* x, const Fp8QuantizeArgs& z) {
  quantize(device, {x, z.cols, 1}, z.q);
  quantize(device, {x, 1, z.cols}, z.t);
}

std::vector<float> dequantized(mb_device* device, const Fp8Matrix& z) {
  std::vector<float> x(static_cast<size_t>(z.rows * z.cols));
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * z.cols; i < end * z.cols; ++i) {
      const float scale = z.scales[scale_at(z, i / z.cols, i % z.cols / kFp8Block)];
      x[static_cast<size_t>(i)] = e4m3_to_f32(z.codes[i]) * scale;
    }
  });
  return x;
}

mb_buf buffer(const std::vector<float>& x) {
  return {const_cast<float*>(x.data()), static_cast<int64_t>(x.size() * sizeof(float)), MB_F32, 0};
}

}  // namespace

int op_fp8_quantize(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_FP8_QUANTIZE], t, nt, s, ns);
  args.only_f32(0);
  const Fp8QuantizeArgs z = read_fp8_quantize(args);
  if (args.ok()) quantize(device, static_cast<const float*>(z.x), z);
  return args.status();
}

int op_swiglu_fwd_fp8(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SWIGLU_FWD_FP8], t, nt, s, ns);
  args.only_f32(0);
  const Fp8QuantizeArgs z = read_swiglu_fwd_fp8(args);
  if (!args.ok()) return args.status();
  std::vector<float> out(static_cast<size_t>(z.rows * z.cols));
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) {
    device->kernels.swiglu_fwd(static_cast<const float*>(z.x), out.data(), z.cols, begin, end);
  });
  quantize(device, out.data(), z);
  return MB_OK;
}

int op_swiglu_bwd_fp8(mb_device* device, int, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_SWIGLU_BWD_FP8], t, nt, s, ns);
  args.only_f32(0);
  const Fp8QuantizeArgs z = read_swiglu_bwd_fp8(args);
  if (!args.ok()) return args.status();
  std::vector<float> dgu(static_cast<size_t>(z.rows * z.cols));
  device->rows(z.rows, z.cols, [&](int64_t begin, int64_t end, int) {
    device->kernels.swiglu_bwd(static_cast<const float*>(z.dout), static_cast<const float*>(z.x), dgu.data(),
                               z.cols / 2, begin, end);
  });
  quantize(device, dgu.data(), z);
  return MB_OK;
}

// Powers of two scale exactly: the product of GEMM, of what the codes stand for.
int op_gemm_fp8(mb_device* device, int stream, const mb_buf* t, int nt, const double* s, int ns) {
  OpArgs args(kOps[MB_OP_GEMM_FP8], t, nt, s, ns);
  args.only_f32(4);
  const GemmFp8Args z = read_gemm_fp8(args);
  if (!args.ok()) return args.status();
  const std::vector<float> a = dequantized(device, z.a), b = dequantized(device, z.b);
  const mb_buf tensors[] = {buffer(a), buffer(b), t[4], t[4]};
  const auto m = static_cast<double>(z.m), n = static_cast<double>(z.n), k = static_cast<double>(z.k);
  const double scalars[] = {m, n, k, 0, 1, k, k, n, n, 1, z.accumulate ? 1.0 : 0.0, 0};
  return op_gemm(device, stream, tensors, 4, scalars, 12);
}

}  // namespace mb
