#include <utility>

#include "tests/harness.h"

namespace mb::test {
namespace {

struct Size {
  int64_t m, n, k;
};

struct Variant {
  double alpha, beta;
  bool in_place;  // C is D
  int64_t pad;    // leading dimensions beyond the columns
};

Values matrix(Context& c, int64_t rows, int64_t ld) { return c.random.uniforms(rows * ld); }

void one(Context& c, Size z, bool ta, bool tb, Variant v, int in, int out) {
  const int64_t lda = (ta ? z.m : z.k) + v.pad;
  const int64_t ldb = (tb ? z.k : z.n) + 2 * v.pad;
  const int64_t ldc = z.n + (v.in_place ? v.pad : 3 * v.pad);
  const int64_t ldd = z.n + v.pad;
  const Tensor a(c, matrix(c, ta ? z.k : z.m, lda), in);
  const Tensor b(c, matrix(c, tb ? z.n : z.k, ldb), in);
  const Tensor other(c, matrix(c, z.m, ldc), out);
  Tensor d(c, z.m * ldd, out);
  const Values before = matrix(c, z.m, ldd);
  d.write(before);
  const Tensor* from = v.beta == 0 ? nullptr : v.in_place ? &d : &other;
  const Values base = from == nullptr ? Values() : from->values();

  Values expected = d.values();  // what lies between the rows stays
  for (int64_t i = 0; i < z.m; ++i) {
    for (int64_t j = 0; j < z.n; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < z.k; ++k) {
        sum += a.values()[static_cast<size_t>(ta ? k * lda + i : i * lda + k)] *
               b.values()[static_cast<size_t>(tb ? j * ldb + k : k * ldb + j)];
      }
      const double add = from == nullptr ? 0 : v.beta * base[static_cast<size_t>(i * ldc + j)];
      expected[static_cast<size_t>(i * ldd + j)] = v.alpha * sum + add;
    }
  }
  c.run(MB_OP_GEMM, {&a, &b, from, &d},
        {double(z.m), double(z.n), double(z.k), double(ta), double(tb), double(lda), double(ldb), double(ldc),
         double(ldd), v.alpha, v.beta, 0});
  const Values found = d.read();
  char what[160];
  snprintf(what, sizeof(what), "m %lld n %lld k %lld ta %d tb %d alpha %g beta %g in place %d pad %lld", (long long)z.m,
           (long long)z.n, (long long)z.k, ta, tb, v.alpha, v.beta, v.in_place, (long long)v.pad);
  // bf16 products are exact in float32, so a float32 output of bf16 inputs meets the float32 bar.
  c.close(what, found, expected, tolerance(out, z.k));
  bool kept = true;
  for (int64_t i = 0; i < z.m; ++i) {
    for (int64_t j = z.n; j < ldd; ++j) {
      const size_t at = static_cast<size_t>(i * ldd + j);
      kept = kept && found[at] == expected[at];
    }
  }
  c.is(kept, std::string(what) + ": wrote between rows");
}

const Size kSizes[] = {{1, 1, 1}, {3, 5, 7}, {12, 32, 16}, {17, 33, 65}, {130, 97, 300}, {9, 2100, 40}, {300, 20, 600}};
const Variant kVariants[] = {
    {1, 0, false, 0}, {0.5, 0, false, 3}, {1, 1, true, 0}, {2, -0.5, false, 5}, {-1, 1, true, 1}};

void sweep(Context& c, int in, int out) {
  for (const Size& z : kSizes) {
    for (int transposes = 0; transposes < 4; ++transposes) {
      for (const Variant& v : kVariants) one(c, z, transposes & 1, transposes & 2, v, in, out);
    }
  }
}

// Rows have the same bits however many they are: in tiles of every kind, in one of our own, and split by none.
void fixed_order(Context& c, int act) {
  if (c.cuda() && act == MB_F32) return;
  constexpr int64_t kMost = 300;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{64, 128}, {96, 2048}, {40, 200}, {1024, 640}, {1, 64}}) {
    const Tensor a(c, matrix(c, kMost, k), act), b(c, matrix(c, n, k), act);
    const auto product = [&](int64_t first, int64_t m) {
      const Tensor d(c, m * n, act);
      const mb_buf none = {nullptr, 0, MB_F32, 0};
      c.run_on(MB_OP_GEMM, {a.part(first * k, m * k), b.buf(), none, d.buf()},
               {double(m), double(n), double(k), 0, 1, double(k), double(k), double(n), double(n), 1, 0, 1});
      return d.read();
    };
    const Values all = product(0, kMost);
    Values expected;
    for (int64_t i = 0; i < 8 * n; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < k; ++j) sum += a.values()[size_t(i / n * k + j)] * b.values()[size_t(i % n * k + j)];
      expected.push_back(sum);
    }
    const std::string what = "n " + std::to_string(n) + " k " + std::to_string(k);
    c.close(what, Values(all.begin(), all.begin() + 8 * n), expected, tolerance(act, k));
    for (const int64_t m : {1, 2, 7, 8, 9, 16, 17, 33, 64, 100, 256}) {
      const int64_t first = kMost - m;
      c.equal(what + " m " + std::to_string(m), product(first, m), Values(all.begin() + first * n, all.end()));
    }
  }
}

void gemm(Context& c, int act) { sweep(c, act, act); }

void gemm_to_f32(Context& c, int) {
  if (c.cuda()) sweep(c, MB_BF16, MB_F32);
}

void gemm_to_bf16(Context& c, int) {
  if (!c.cuda()) sweep(c, MB_F32, MB_BF16);
}

// beta 0 must not read D or C: they hold NaN.
void gemm_poisoned(Context& c, int act) {
  const Tensor a(c, c.random.uniforms(40 * 24), act);
  const Tensor b(c, c.random.uniforms(24 * 56), act);
  const Tensor d(c, 40 * 56, act);
  c.run(MB_OP_GEMM, {&a, &b, &d, &d}, {40, 56, 24, 0, 0, 24, 56, 56, 56, 1, 0, 0});
  Values expected(40 * 56, 0.0);
  for (size_t i = 0; i < 40; ++i) {
    for (size_t k = 0; k < 24; ++k) {
      for (size_t j = 0; j < 56; ++j) expected[i * 56 + j] += a.values()[i * 24 + k] * b.values()[k * 56 + j];
    }
  }
  c.close("D", d.read(), expected, tolerance(act, 24));
}

// The sizes of a real step, with the long sums of a weight gradient.
void gemm_long(Context& c, int act) { one(c, {70, 66, 9000}, true, false, {1, 1, true, 0}, act, act); }

// What an adapter adds: a scaled product of low rank, of columns of one matrix into columns of another. On the CPU with
// the same bits whole and in parts.
void gemm_low_rank(Context& c, int act) {
  constexpr int64_t kRows = 70, kColumns = 96, kRank = 16, kWidth = 3 * kRank, kStride = 2 * kColumns;
  constexpr double kScale = 1.5;
  const Tensor low(c, matrix(c, kRows, kWidth), act), b(c, matrix(c, kColumns, kRank), act);
  const Values base = matrix(c, kRows, kStride);
  const auto add = [&](const Tensor& d, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    const int64_t at = row * kStride + kColumns + column, size = (rows - 1) * kStride + columns;
    c.run_on(MB_OP_GEMM,
             {low.part(row * kWidth + kRank, (rows - 1) * kWidth + kRank), b.part(column * kRank, columns * kRank),
              d.part(at, size), d.part(at, size)},
             {double(rows), double(columns), double(kRank), 0, 1, double(kWidth), double(kRank), double(kStride),
              double(kStride), kScale, 1, 0});
  };
  Tensor whole(c, kRows * kStride, act), parts(c, kRows * kStride, act);
  whole.write(base);
  parts.write(base);
  Values expected = whole.read();
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kColumns; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < kRank; ++k) {
        sum += low.values()[size_t(i * kWidth + kRank + k)] * b.values()[size_t(j * kRank + k)];
      }
      expected[size_t(i * kStride + kColumns + j)] += kScale * sum;
    }
  }
  add(whole, 0, kRows, 0, kColumns);
  c.close("whole", whole.read(), expected, tolerance(act, kRank));
  for (const auto& [row, rows] : {std::pair<int64_t, int64_t>{0, 13}, {13, 57}}) {
    for (const auto& [column, columns] : {std::pair<int64_t, int64_t>{0, 20}, {20, 33}, {53, 43}}) {
      add(parts, row, rows, column, columns);
    }
  }
  if (c.cuda())
    c.close("parts", parts.read(), expected, tolerance(act, kRank));
  else
    c.equal("parts", parts.read(), whole.read());
}

}  // namespace

const std::vector<Case> gemm_cases = {
    {"gemm", gemm, true},
    {"gemm bf16 to f32", gemm_to_f32, false},
    {"gemm f32 to bf16", gemm_to_bf16, false},
    {"gemm over poison", gemm_poisoned, true},
    {"gemm with a long sum", gemm_long, true},
    {"gemm in a fixed order", fixed_order, true},
    {"gemm of low rank", gemm_low_rank, true},
};

}  // namespace mb::test
