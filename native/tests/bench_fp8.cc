// The linears of a layer of Qwen3 4B at 4,096 tokens: products of e4m3 in all pairs of blocks beside those of bf16, and
// what quantises their operands.
#include <cstdio>

#include "tests/fp8_matrix.h"

namespace mb::test {
namespace {

constexpr int64_t kTokens = 4096;
constexpr int kCalls = 20;  // that are timed together, so that waiting for the device counts little

struct Size {
  int64_t m, n, k;
};

struct Linear {
  const char* name;
  int64_t in, out;
};
constexpr Linear kLinears[] = {{"qkv", 2560, 6144}, {"o", 4096, 2560}, {"gate+up", 2560, 19456}, {"down", 9728, 2560}};

double time_of(Context& c, int op, const std::vector<const Tensor*>& tensors, const std::vector<double>& scalars) {
  return best_ms(c,
                 [&] {
                   for (int i = 0; i < kCalls; ++i) c.run(op, tensors, scalars);
                 }) /
         kCalls;
}

// Normal deviates, made on the device.
struct Normal : Tensor {
  Normal(Context& c, int64_t rows, int64_t cols) : Tensor(c, rows * cols, MB_BF16) {
    const double m = double(rows), n = double(cols);
    c.run(MB_OP_INIT_NORMAL, {this}, {m, n, 0, 0, n, 1, double(c.random.below(1 << 30)), 0, 0, 0});
  }
};

struct Quantized : Outputs {
  Quantized(Context& c, const Tensor& x, const Shape& z, int block) : Outputs(c, z, block) {
    c.run(MB_OP_FP8_QUANTIZE, {&x, &codes, &scales, nullptr, nullptr},
          {double(z.rows), double(z.cols), double(block), 1});
  }
};

// D[m,n] of operands in which k is contiguous. In bf16 as they lie in a model: ta and tb as GEMM has them.
void products(Context& c, const char* linear, const char* what, const Size& z, bool ta, bool tb) {
  const bool weights = ta;
  const double m = double(z.m), n = double(z.n), k = double(z.k), beta = weights ? 1 : 0, flops = 2 * m * n * k;
  const Normal a(c, z.m, z.k), b(c, z.n, z.k);
  const Tensor d(c, z.m * z.n, weights ? MB_F32 : MB_BF16);
  c.run(MB_OP_FILL, {&d}, {m * n, 0});
  const double bf16 = time_of(c, MB_OP_GEMM, {&a, &b, &d, &d},
                              {m, n, k, double(ta), double(tb), ta ? m : k, tb ? k : n, n, n, 1, beta, 0});
  printf("%-8s %-7s %5lld x %5lld x %5lld  bf16 %7.1f", linear, what, (long long)z.m, (long long)z.n, (long long)z.k,
         flops / bf16 * 1e-9);
  for (const auto& [a_block, b_block] : {std::pair<int, int>{1, 128}, {1, 1}, {128, 1}}) {
    const Quantized qa(c, a, {z.m, z.k}, a_block), qb(c, b, {z.n, z.k}, b_block);
    const std::vector<const Tensor*> tensors = {&qa.codes, &qa.scales, &qb.codes, &qb.scales, &d};
    const std::vector<double> scalars = {m, n, k, double(a_block), double(b_block), beta};
    const int failures = c.failures;
    c.run(MB_OP_GEMM_FP8, tensors, scalars);  // says why, where the library has none
    if (c.failures > failures) continue;
    printf("  %3dx%-3d %7.1f", a_block, b_block, flops / time_of(c, MB_OP_GEMM_FP8, tensors, scalars) * 1e-9);
  }
  printf("\n");
}

void report(const char* name, const Shape& z, double ms, double bytes) {
  printf("%-28s %5lld x %5lld %8.4f ms %7.0f GB/s\n", name, (long long)z.rows, (long long)z.cols, ms,
         bytes / ms * 1e-6);
}

void quantisation(Context& c, const Shape& z) {
  const Shape turned = {z.cols, z.rows};
  const Normal x(c, z.rows, z.cols);
  const double n = double(z.rows) * double(z.cols), rows = double(z.rows), cols = double(z.cols);
  for (const auto& [q_block, t_block] : {std::pair<int, int>{1, 128}, {1, 1}, {128, 128}, {1, 0}}) {
    const Outputs q(c, z, q_block), t(c, turned, t_block == 0 ? 1 : t_block);
    const bool both = t_block != 0;
    const double ms =
        time_of(c, MB_OP_FP8_QUANTIZE, {&x, &q.codes, &q.scales, both ? &t.codes : nullptr, both ? &t.scales : nullptr},
                {rows, cols, double(q_block), both ? double(t_block) : 1});
    char name[64];
    snprintf(name, sizeof name, both ? "fp8_quantize q %d t %d" : "fp8_quantize q %d", q_block, t_block);
    report(name, z, ms, n * (both ? 4 : 3));
  }
}

void swiglu(Context& c, int64_t f) {
  const Shape z = {kTokens, f}, wide = {kTokens, 2 * f};
  const Normal gu(c, kTokens, 2 * f), dout(c, kTokens, f);
  const Tensor out(c, kTokens * f, MB_BF16), dgu(c, kTokens * 2 * f, MB_BF16);
  const Outputs q(c, z, 1), t(c, {f, kTokens}, 128), dq(c, wide, 1), dt(c, {2 * f, kTokens}, 1);
  const double n = double(kTokens * f);
  const std::vector<double> sizes = {double(kTokens), double(f)};
  report("swiglu_fwd", z, time_of(c, MB_OP_SWIGLU_FWD, {&gu, &out}, sizes), 6 * n);
  report("swiglu_fwd_fp8", z,
         time_of(c, MB_OP_SWIGLU_FWD_FP8, {&gu, &q.codes, &q.scales, &t.codes, &t.scales},
                 {double(kTokens), double(f), 1, 128}),
         6 * n);
  report("swiglu_bwd", wide, time_of(c, MB_OP_SWIGLU_BWD, {&dout, &gu, &dgu}, sizes), 10 * n);
  report("swiglu_bwd_fp8", wide,
         time_of(c, MB_OP_SWIGLU_BWD_FP8, {&dout, &gu, &dq.codes, &dq.scales, &dt.codes, &dt.scales},
                 {double(kTokens), double(f), 1, 1}),
         10 * n);
}

}  // namespace

void bench_fp8(Context& c) {
  if (!c.cuda()) return;
  c.begin("bench fp8");
  mb_device_info info;
  c.table->info(c.device, &info);
  printf("products in TFLOP/s; of e4m3 in blocks of A x B rows\n");
  for (const Linear& z : kLinears) {
    if (info.capability != 90) break;
    products(c, z.name, "forward", {kTokens, z.out, z.in}, false, true);
    products(c, z.name, "dgrad", {kTokens, z.in, z.out}, false, false);
    products(c, z.name, "wgrad", {z.out, z.in, kTokens}, true, false);
  }
  for (const Shape& z : {Shape{kTokens, 2560}, Shape{kTokens, 6144}, Shape{kTokens, 9728}, Shape{19456, 2560}}) {
    quantisation(c, z);
  }
  swiglu(c, 9728);
}

}  // namespace mb::test
