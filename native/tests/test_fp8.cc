#include <cmath>
#include <cstdio>

#include "tests/fp8_matrix.h"

namespace mb::test {
namespace {

constexpr int kBlocks[] = {1, 128};

// The code nearest to x, of two the even one.
int code_of(double x) {
  if (std::isnan(x)) return 127;
  const double size = std::fabs(x);
  int code = 0;
  for (int step = 64; step > 0; step /= 2) {
    const int next = code + step;
    if (next > 126) continue;
    const double middle = (value_of(next - 1) + value_of(next)) / 2;
    if (size > middle || (size == middle && next % 2 == 0)) code = next;
  }
  return std::signbit(x) ? code | 128 : code;
}

double scale_of(double largest) {
  if (!std::isfinite(largest)) return std::nan("");
  if (largest == 0) return 1;
  int exponent = -126;
  while (std::ldexp(largest, -exponent) > 448) ++exponent;
  return std::ldexp(1, exponent);
}

struct Quantized {
  Values codes, scales;
};

// Element (r, c) is x[r * row + c * col].
Quantized reference(const Values& x, int64_t rows, int64_t cols, int64_t row, int64_t col, int block) {
  const Scales layout = {rows, cols / kBlock, block};
  Quantized z{Values(size_t(rows * cols)), Values(size_t(layout.count()), 0.0)};
  for (int64_t r0 = 0; r0 < rows; r0 += block) {
    for (int64_t c0 = 0; c0 < cols; c0 += kBlock) {
      const auto each = [&](const auto& visit) {
        for (int64_t r = r0; r < r0 + block; ++r) {
          for (int64_t c = c0; c < c0 + kBlock; ++c) visit(x[size_t(r * row + c * col)], size_t(r * cols + c));
        }
      };
      double largest = 0;
      each([&](double v, size_t) { largest = std::isnan(v) || std::fabs(v) > largest ? std::fabs(v) : largest; });
      const double scale = scale_of(largest);
      z.scales[layout.at(r0, c0 / kBlock)] = scale;
      each([&](double v, size_t at) { z.codes[at] = code_of(v / scale); });
    }
  }
  return z;
}

// Rows and columns of many sizes; among the first 128 x 128 elements all codes, what lies half way between two, and
// beside that; blocks at the edge of a scale, of zeros, of the smallest numbers, with an infinity, without a number.
Values inputs(Context& c, int64_t rows, int64_t cols) {
  Values x = c.random.uniforms(rows * cols);
  const Values down = c.random.uniforms(rows, -12, 12), across = c.random.uniforms(cols, -12, 12);
  const auto set = [&](int64_t row, int64_t column, double value) {
    if (row < rows && column < cols) x[size_t(row * cols + column)] = value;
  };
  for (int64_t i = 0; i < rows * cols; ++i) {
    x[size_t(i)] *= std::exp2(std::floor(down[size_t(i / cols)]) + std::floor(across[size_t(i % cols)]));
  }
  for (int64_t i = 0; i < kBlock; ++i) {
    const double code = value_of(int(i) % 127), middle = i < 126 ? (code + value_of(int(i) + 1)) / 2 : 448;
    set(0, i, code);
    set(1, i, -code);
    set(2, i, middle);
    set(3, i, -middle);
    set(4, i, i == 0 ? 448 : middle * (1 + 0x1p-7));
    set(5, i, i == 0 ? 448 : -middle * (1 - 0x1p-8));
    set(6, i, i == 5 ? 1.75 : 1);
    set(7, i, i == 5 ? -1.7578125 : 1);
    set(8, i, i % 2 == 0 ? 0 : -0.0);
    set(9, i, std::ldexp(i % 3, -133));
    set(10, i, i == 77 ? INFINITY : 1);
    set(11, i, i == 78 ? std::nan("") : 1);
    set(12, i, i == 79 ? 3.3e38 : 1e30);
    set(13, i, i == 80 ? -INFINITY : -1);
  }
  return x;
}

void check_quantized(Context& c, const std::string& what, const Tensor& codes, const Tensor& scales,
                     const Quantized& expected) {
  c.equal(what + ": scales", scales.read(), expected.scales);
  c.equal(what + ": codes", codes.read(), expected.codes);
}

std::string name_of(const Shape& z, int block) {
  char text[80];
  snprintf(text, sizeof text, "%lld x %lld in blocks of %d", (long long)z.rows, (long long)z.cols, block);
  return text;
}

void quantize(Context& c, int act) {
  if (c.cuda() && act == MB_F32) {
    const Tensor x(c, 4 * kBlock, act), q(c, 4 * kBlock, MB_U8), qs(c, 4, MB_F32);
    const mb_buf none = {nullptr, 0, MB_F32, 0};
    c.refuses(MB_OP_FP8_QUANTIZE, {x.buf(), q.buf(), qs.buf(), none, none}, {4, 128, 1, 1}, MB_ERR_UNSUPPORTED,
              "on a GPU of bf16 alone");
    return;
  }
  for (const Shape& z : {Shape{4, 128}, Shape{20, 256}, Shape{132, 640}, Shape{128, 128}, Shape{256, 640}}) {
    const Tensor x(c, inputs(c, z.rows, z.cols), act);
    const Shape turned = {z.cols, z.rows};
    const double rows = double(z.rows), cols = double(z.cols);
    for (const int q_block : kBlocks) {
      if (z.rows % q_block != 0) continue;
      const Quantized expected = reference(x.values(), z.rows, z.cols, z.cols, 1, q_block);
      const Outputs q(c, z, q_block);
      c.run(MB_OP_FP8_QUANTIZE, {&x, &q.codes, &q.scales, nullptr, nullptr}, {rows, cols, double(q_block), 1});
      check_quantized(c, "q alone, " + name_of(z, q_block), q.codes, q.scales, expected);
      if (z.rows % kBlock != 0) continue;
      for (const int t_block : kBlocks) {
        const Quantized expected_t = reference(x.values(), z.cols, z.rows, 1, z.cols, t_block);
        const Outputs both(c, z, q_block), t(c, turned, t_block), alone(c, turned, t_block);
        c.run(MB_OP_FP8_QUANTIZE, {&x, &both.codes, &both.scales, &t.codes, &t.scales},
              {rows, cols, double(q_block), double(t_block)});
        check_quantized(c, "q, " + name_of(z, q_block), both.codes, both.scales, expected);
        check_quantized(c, "t, " + name_of(turned, t_block), t.codes, t.scales, expected_t);
        c.run(MB_OP_FP8_QUANTIZE, {&x, nullptr, nullptr, &alone.codes, &alone.scales},
              {rows, cols, 1, double(t_block)});
        check_quantized(c, "t alone, " + name_of(turned, t_block), alone.codes, alone.scales, expected_t);
      }
    }
  }
}

// SwiGLU and quantisation in one give the bits of the two.
void fused(Context& c, int act) {
  if (c.cuda() && act == MB_F32) return;
  for (const Shape& z : {Shape{128, 128}, Shape{256, 640}, Shape{36, 256}}) {
    const Tensor gu(c, c.random.uniforms(z.rows * 2 * z.cols, -6, 6), act);
    const Tensor dout(c, c.random.uniforms(z.rows * z.cols), act);
    const Tensor out(c, z.rows * z.cols, act), dgu(c, z.rows * 2 * z.cols, act);
    const std::vector<double> sizes = {double(z.rows), double(z.cols)};
    c.run(MB_OP_SWIGLU_FWD, {&gu, &out}, sizes);
    c.run(MB_OP_SWIGLU_BWD, {&dout, &gu, &dgu}, sizes);
    for (const bool backward : {false, true}) {
      const Shape wide = {z.rows, backward ? 2 * z.cols : z.cols}, turned = {wide.cols, wide.rows};
      for (const int q_block : kBlocks) {
        for (const int t_block : kBlocks) {
          const bool whole = z.rows % kBlock == 0;
          if (!whole && (q_block != 1 || t_block != 1)) continue;
          const Outputs q(c, wide, q_block), t(c, turned, t_block), q2(c, wide, q_block), t2(c, turned, t_block);
          const auto call = [&](int op, const std::vector<const Tensor*>& in, double cols, const Outputs& first,
                                const Outputs& second) {
            std::vector<const Tensor*> tensors = in;
            tensors.insert(tensors.end(), {&first.codes, &first.scales});
            tensors.insert(tensors.end(), {whole ? &second.codes : nullptr, whole ? &second.scales : nullptr});
            c.run(op, tensors, {double(z.rows), cols, double(q_block), double(t_block)});
          };
          call(MB_OP_FP8_QUANTIZE, {backward ? &dgu : &out}, double(wide.cols), q, t);
          if (backward) {
            call(MB_OP_SWIGLU_BWD_FP8, {&dout, &gu}, double(z.cols), q2, t2);
          } else {
            call(MB_OP_SWIGLU_FWD_FP8, {&gu}, double(z.cols), q2, t2);
          }
          const std::string what = std::string(backward ? "backward " : "forward ") + name_of(wide, q_block);
          c.equal(what + ": q", q2.codes.read(), q.codes.read());
          c.equal(what + ": qs", q2.scales.read(), q.scales.read());
          if (!whole) continue;
          c.equal(what + ": t", t2.codes.read(), t.codes.read());
          c.equal(what + ": ts", t2.scales.read(), t.scales.read());
        }
      }
    }
  }
}

void arguments(Context& c, int) {
  const Tensor x(c, Values(128 * 128, 0.0), c.cuda() ? MB_BF16 : MB_F32), codes(c, 128 * 128, MB_U8),
      turned(c, 128 * 128, MB_U8), scales(c, 128, MB_F32), others(c, 128, MB_F32), d(c, 128 * 128, MB_F32);
  const mb_buf none = {nullptr, 0, MB_F32, 0}, q = codes.buf(), qs = scales.buf(), t = turned.buf(), ts = others.buf();
  struct Bad {
    int op;
    std::vector<mb_buf> tensors;
    std::vector<double> scalars;
    const char* text;
  };
  const Bad table[] = {
      {MB_OP_FP8_QUANTIZE, {x.buf(), none, none, none, none}, {128, 128, 1, 1}, "expected q and qs, or t and ts"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, none, none, none}, {128, 128, 1, 1}, "tensor qs is absent"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, qs, none, ts}, {128, 128, 1, 1}, "tensor t is absent"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, qs, none, none}, {128, 128, 64, 1}, "blocks of 1 or 128 rows"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, qs, none, none}, {128, 64, 1, 1}, "columns that are multiples of 128"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, qs, none, none}, {6, 128, 1, 1}, "else of 4"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, qs, none, none}, {64, 128, 128, 1}, "multiples of 128 where t"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, qs, t, ts}, {64, 128, 1, 1}, "multiples of 128 where t"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, scales.part(0, 64), none, none}, {128, 128, 1, 1}, "qs has 256 bytes"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, scales.part(0, 2), none, none}, {128, 128, 128, 1}, "qs has 8 bytes"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), q, qs, q, ts}, {128, 128, 1, 1}, "q and t overlap"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), qs, qs, none, none}, {4, 128, 1, 1}, "q is f32, expected u8"},
      {MB_OP_FP8_QUANTIZE, {x.buf(), codes.part(8, 512), qs, none, none}, {4, 128, 1, 1}, "q is not aligned to 16"},
      {MB_OP_SWIGLU_FWD_FP8, {x.buf(), q, qs, none, none}, {128, 128, 1, 1}, "swiglu_fwd_fp8: gu has"},
      {MB_OP_SWIGLU_BWD_FP8, {x.buf(), x.buf(), q, qs, none, none}, {128, 64, 1, 1}, "multiples of 128"},
      {MB_OP_GEMM_FP8, {q, qs, t, ts, d.buf()}, {128, 128, 128, 128, 128, 0}, "A or B in blocks of 1 row"},
      {MB_OP_GEMM_FP8, {q, qs, t, ts, d.buf()}, {126, 128, 128, 1, 1, 0}, "m to be a multiple of 4"},
      {MB_OP_GEMM_FP8, {q, qs, t, ts, d.buf()}, {128, 24, 128, 1, 1, 0}, "n of 16"},
      {MB_OP_GEMM_FP8, {q, qs, t, ts, d.buf()}, {128, 128, 64, 1, 1, 0}, "k of 128"},
      {MB_OP_GEMM_FP8, {q, qs, t, ts, d.buf()}, {64, 128, 128, 128, 1, 0}, "in blocks of 128"},
      {MB_OP_GEMM_FP8, {q, qs, t, ts, d.buf()}, {128, 128, 128, 1, 1, 2}, "beta is 2"},
      {MB_OP_GEMM_FP8, {q, qs, t, ts, d.part(0, 64)}, {128, 128, 128, 1, 1, 0}, "D has 256 bytes"},
      {MB_OP_GEMM_FP8, {qs, qs, t, ts, d.buf()}, {4, 128, 128, 1, 1, 0}, "A is f32, expected u8"},
  };
  for (const Bad& bad : table) c.refuses(bad.op, bad.tensors, bad.scalars, MB_ERR_ARGUMENT, bad.text);
}

}  // namespace

const std::vector<Case> fp8_cases = {
    {"fp8 quantize", quantize, true},
    {"fp8 after swiglu", fused, true},
    {"fp8 argument errors", arguments, false},
};

}  // namespace mb::test
