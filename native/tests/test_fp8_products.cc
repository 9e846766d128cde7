#include <cmath>
#include <cstdio>

#include "tests/fp8_matrix.h"

namespace mb::test {
namespace {

// Products of blocks are for Hopper alone, among GPUs.
bool has_products(Context& c) {
  mb_device_info info;
  c.table->info(c.device, &info);
  return !c.cuda() || info.capability == 90;
}

struct Operand {
  Scales layout;
  Values codes, scales;
};

// Every block has another scale, far from its neighbours'.
Operand operand(Context& c, int64_t rows, int64_t cols, int block) {
  Operand z{{rows, cols / kBlock, block}, {}, {}};
  for (int64_t i = 0; i < rows * cols; ++i) z.codes.push_back(double(c.random.below(0x40) | c.random.below(2) << 7));
  z.scales = Values(size_t(z.layout.count()), 0.0);
  for (int64_t r = 0; r < rows; r += block) {
    for (int64_t b = 0; b < cols / kBlock; ++b) {
      z.scales[z.layout.at(r, b)] = double(float(std::exp2(c.random.uniform(-3, 3))));
    }
  }
  return z;
}

// Another place of (row, block) than Scales says: what a library may mean.
struct Reading {
  const char* name;
  int64_t (*at)(const Scales&, int64_t row, int64_t block);
};
constexpr Reading kReadings[] = {
    {"as ops.def says", [](const Scales& z, int64_t row, int64_t b) { return int64_t(z.at(row, b)); }},
    {"blocks along k next to each other, not padded",
     [](const Scales& z, int64_t row, int64_t b) { return row / z.block * z.blocks + b; }},
    {"blocks along k next to each other, padded to 4",
     [](const Scales& z, int64_t row, int64_t b) { return row / z.block * z.stride() + b; }},
    {"blocks of rows next to each other, not padded",
     [](const Scales& z, int64_t row, int64_t b) { return b * (z.rows / z.block) + row / z.block; }},
    {"blocks of rows next to each other, padded to 4",
     [](const Scales& z, int64_t row, int64_t b) { return b * ((z.rows / z.block + 3) / 4 * 4) + row / z.block; }},
    {"all of them the first", [](const Scales&, int64_t, int64_t) { return int64_t(0); }},
};

Values dequantized(const Operand& z, const Reading& reading) {
  const int64_t cols = z.layout.blocks * kBlock;
  Values x(z.codes.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t at = reading.at(z.layout, int64_t(i) / cols, int64_t(i) % cols / kBlock);
    x[i] = value_of(int(z.codes[i])) * z.scales[size_t(at) % z.scales.size()];
  }
  return x;
}

Values product(const Values& a, const Values& b, int64_t m, int64_t n, int64_t k) {
  Values d(size_t(m * n), 0.0);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += a[size_t(i * k + l)] * b[size_t(j * k + l)];
      d[size_t(i * n + j)] = sum;
    }
  }
  return d;
}

double difference(const Values& found, const Values& expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    error += (found[i] - expected[i]) * (found[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

// Says under which reading of the scales the product is what was found.
void explain(const Operand& a, const Operand& b, const Values& found, int64_t m, int64_t n, int64_t k) {
  for (const Reading& of_a : kReadings) {
    for (const Reading& of_b : kReadings) {
      const double error = difference(found, product(dequantized(a, of_a), dequantized(b, of_b), m, n, k));
      if (error < 0.02) printf("  it is that of SA: %s; SB: %s (error %.2g)\n", of_a.name, of_b.name, error);
    }
  }
}

struct Size {
  int64_t m, n, k;
};

void products(Context& c, int) {
  const Size sizes[] = {{4, 16, 128},    {128, 128, 128},  {128, 256, 384}, {256, 384, 640},
                        {36, 144, 1152}, {128, 256, 2560}, {64, 128, 9728}, {640, 128, 256}};
  if (!has_products(c)) {
    const Tensor codes(c, Values(128 * 128, 0.0), MB_U8), scales(c, Values(128, 1.0), MB_F32), d(c, 128 * 128, MB_F32);
    c.refuses(MB_OP_GEMM_FP8, {codes.buf(), scales.buf(), codes.buf(), scales.buf(), d.buf()}, {128, 128, 128, 1, 1, 0},
              MB_ERR_UNSUPPORTED, "capability 9.0");
    return;
  }
  const std::vector<int> outputs = c.cuda() ? std::vector<int>{MB_F32, MB_BF16} : std::vector<int>{MB_F32};
  for (const auto& [a_block, b_block] : {std::pair<int, int>{1, 1}, {1, 128}, {128, 1}}) {
    bool explained = false;
    for (const Size& z : sizes) {
      if (z.m % a_block != 0 || z.n % b_block != 0) continue;
      const Operand a = operand(c, z.m, z.k, a_block), b = operand(c, z.n, z.k, b_block);
      const Tensor ta(c, a.codes, MB_U8), sa(c, a.scales, MB_F32), tb(c, b.codes, MB_U8), sb(c, b.scales, MB_F32);
      const Values exact = product(dequantized(a, kReadings[0]), dequantized(b, kReadings[0]), z.m, z.n, z.k);
      const Values base = c.random.uniforms(z.m * z.n, -50, 50);
      for (const int output : outputs) {
        for (const int beta : {0, 1}) {
          char what[120];
          snprintf(what, sizeof what, "m %lld n %lld k %lld blocks of %d and %d rows to %s beta %d", (long long)z.m,
                   (long long)z.n, (long long)z.k, a_block, b_block, output == MB_F32 ? "f32" : "bf16", beta);
          Values expected = exact, first;
          for (int run = 0; run < 2; ++run) {
            Tensor d(c, z.m * z.n, output);  // with beta 0 what is there is no number
            if (beta == 1) d.write(base);
            if (beta == 1 && run == 0) {
              for (size_t i = 0; i < expected.size(); ++i) expected[i] += d.values()[i];
            }
            c.run(MB_OP_GEMM_FP8, {&ta, &sa, &tb, &sb, &d},
                  {double(z.m), double(z.n), double(z.k), double(a_block), double(b_block), double(beta)});
            const Values found = d.read();
            if (run == 1) {
              c.equal(std::string(what) + ", again", found, first);
              continue;
            }
            first = found;
            // Tensor cores add up the 128 products of a block in about 14 bits.
            const int failures = c.failures;
            c.close(what, found, expected, output == MB_BF16 ? 1e-2 : c.cuda() ? 5e-3 : tolerance(MB_F32, z.k));
            const bool small = z.m * z.n * z.k < 1 << 24 && z.k > kBlock;
            if (c.failures > failures && beta == 0 && small && !explained) {
              explain(a, b, found, z.m, z.n, z.k);
              explained = true;
            }
          }
        }
      }
    }
  }
}

// A layer's three products of what FP8_QUANTIZE wrote: within what rounding to 4 bits leaves.
void linear(Context& c, int act) {
  if ((c.cuda() && act == MB_F32) || !has_products(c)) return;
  constexpr int64_t kTokens = 256, kIn = 384, kOut = 640;
  const Tensor x(c, c.random.uniforms(kTokens * kIn), act), w(c, c.random.uniforms(kOut * kIn), act),
      dy(c, c.random.uniforms(kTokens * kOut), act);
  const auto turned = [](const Values& v, int64_t rows, int64_t cols) {
    Values z(v.size());
    for (int64_t i = 0; i < rows * cols; ++i) z[size_t(i % cols * rows + i / cols)] = v[size_t(i)];
    return z;
  };
  const Outputs xq(c, {kTokens, kIn}, 1), xt(c, {kIn, kTokens}, 128), wq(c, {kOut, kIn}, 128), wt(c, {kIn, kOut}, 128),
      dyq(c, {kTokens, kOut}, 1), dyt(c, {kOut, kTokens}, 1);
  const auto quantized = [&](const Tensor& v, const Outputs& q, const Outputs& t, const std::vector<double>& scalars) {
    c.run(MB_OP_FP8_QUANTIZE, {&v, &q.codes, &q.scales, &t.codes, &t.scales}, scalars);
  };
  quantized(x, xq, xt, {kTokens, kIn, 1, 128});
  quantized(w, wq, wt, {kOut, kIn, 128, 128});
  quantized(dy, dyq, dyt, {kTokens, kOut, 1, 1});
  const auto check = [&](const char* what, const Outputs& a, const Outputs& b, int b_block, const Values& left,
                         const Values& right, const Size& z, int output) {
    const Tensor d(c, z.m * z.n, output);
    c.run(MB_OP_GEMM_FP8, {&a.codes, &a.scales, &b.codes, &b.scales, &d},
          {double(z.m), double(z.n), double(z.k), 1, double(b_block), 0});
    c.close(what, d.read(), product(left, right, z.m, z.n, z.k), 0.06);
  };
  const Values x_turned = turned(x.values(), kTokens, kIn), w_turned = turned(w.values(), kOut, kIn),
               dy_turned = turned(dy.values(), kTokens, kOut);
  check("forward", xq, wq, 128, x.values(), w.values(), {kTokens, kOut, kIn}, act);
  check("dgrad", dyq, wt, 128, dy.values(), w_turned, {kTokens, kIn, kOut}, act);
  check("wgrad", dyt, xt, 128, dy_turned, x_turned, {kOut, kIn, kTokens}, MB_F32);
}

// A block without a number spoils what it has a part in, and nothing else.
void not_a_number(Context& c, int act) {
  if ((c.cuda() && act == MB_F32) || !has_products(c)) return;
  constexpr int64_t kRows = 128, kCols = 256, kOut = 128, kBad = 70;
  Values values = c.random.uniforms(kRows * kCols);
  values[size_t(kBad * kCols + 200)] = INFINITY;
  const Tensor x(c, values, act), w(c, c.random.uniforms(kOut * kCols), act), d(c, kRows * kOut, act);
  const Outputs xq(c, {kRows, kCols}, 1), wq(c, {kOut, kCols}, 128);
  c.run(MB_OP_FP8_QUANTIZE, {&x, &xq.codes, &xq.scales, nullptr, nullptr}, {kRows, kCols, 1, 1});
  c.run(MB_OP_FP8_QUANTIZE, {&w, &wq.codes, &wq.scales, nullptr, nullptr}, {kOut, kCols, 128, 1});
  c.run(MB_OP_GEMM_FP8, {&xq.codes, &xq.scales, &wq.codes, &wq.scales, &d}, {kRows, kOut, kCols, 1, 128, 0});
  const Values found = d.read();
  bool right = true;
  for (size_t i = 0; i < found.size(); ++i) right = right && std::isnan(found[i]) == (int64_t(i) / kOut == kBad);
  c.is(right, "a row is not a number where its block has an infinity, and no other");
}

}  // namespace

const std::vector<Case> fp8_product_cases = {
    {"fp8 products", products, false},
    {"fp8 linear", linear, true},
    {"fp8 not a number", not_a_number, true},
};

}  // namespace mb::test
