#include <cmath>
#include <limits>

#include "tests/harness.h"

namespace mb::test {
namespace {

const int64_t kCounts[] = {0, 1, 5, 16, 33, 1000, 100003};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void swiglu(Context& c, int act) {
  struct Shape {
    int64_t tokens, f;
  };
  for (const Shape& z : {Shape{1, 1}, Shape{3, 7}, Shape{37, 96}, Shape{200, 130}}) {
    for (const bool in_place : {false, true}) {
      Values input = c.random.uniforms(z.tokens * 2 * z.f, -6, 6);
      if (z.tokens > 1) {  // some gates far out, where the exponential over- or underflows
        input[0] = 95;
        input[size_t(z.tokens * 2 * z.f - z.f - 1)] = -95;
      }
      const Tensor gu(c, input, act);
      const Tensor dout(c, c.random.uniforms(z.tokens * z.f), act);
      const Tensor out(c, z.tokens * z.f, act);
      const Tensor other(c, z.tokens * 2 * z.f, act);
      const Tensor& dgu = in_place ? gu : other;
      Values expected(size_t(z.tokens * z.f)), gradient(size_t(z.tokens * 2 * z.f));
      for (int64_t t = 0; t < z.tokens; ++t) {
        for (int64_t i = 0; i < z.f; ++i) {
          const size_t at = size_t(t * 2 * z.f + i);
          const double g = gu.values()[at];
          const double u = gu.values()[at + size_t(z.f)];
          const double d = dout.values()[size_t(t * z.f + i)];
          const double s = sigmoid(g);
          expected[size_t(t * z.f + i)] = g * s * u;
          gradient[at] = d * u * s * (1 + g * (1 - s));
          gradient[at + size_t(z.f)] = d * g * s;
        }
      }
      c.run(MB_OP_SWIGLU_FWD, {&gu, &out}, {double(z.tokens), double(z.f)});
      c.run(MB_OP_SWIGLU_BWD, {&dout, &gu, &dgu}, {double(z.tokens), double(z.f)});
      c.close("out", out.read(), expected, tolerance(act));
      c.close("dgu", dgu.read(), gradient, tolerance(act));
    }
  }
}

void add(Context& c, int act) {
  for (const int64_t n : kCounts) {
    for (int where = 0; where < 3; ++where) {
      const Tensor a(c, c.random.uniforms(n), act);
      const Tensor b(c, c.random.uniforms(n), act);
      const Tensor other(c, n, act);
      const Tensor& out = where == 0 ? other : where == 1 ? a : b;
      Values expected = a.values();
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += b.values()[i];
      c.run(MB_OP_ADD, {&a, &b, &out}, {double(n)});
      c.equal("sum", out.read(), rounded(expected, act));
    }
  }
}

void accumulate(Context& c, int act) {
  struct Rectangle {
    int64_t rows, cols, ldx, ldout;
  };
  for (const Rectangle& z : {Rectangle{1, 8, 8, 8}, Rectangle{7, 16, 24, 16}, Rectangle{100, 136, 136, 400}}) {
    const Tensor out(c, c.random.uniforms(z.rows * z.ldout), act), sum(c, z.rows * z.cols, MB_F32);
    const auto at = [&](int64_t row, int64_t col, int64_t ld) { return size_t(row * ld + col); };
    Values all = out.values(), total(size_t(z.rows * z.cols));
    for (const bool first : {true, false, false}) {
      const Tensor x(c, c.random.uniforms(z.rows * z.ldx), act);
      for (int64_t row = 0; row < z.rows; ++row) {
        for (int64_t col = 0; col < z.cols; ++col) {
          double& t = total[at(row, col, z.cols)];
          t = (first ? all[at(row, col, z.ldout)] : t) + x.values()[at(row, col, z.ldx)];
          t = double(float(t));
          all[at(row, col, z.ldout)] = t;
        }
      }
      c.run(MB_OP_ACCUMULATE, {&x, &sum, &out},
            {double(z.rows), double(z.cols), double(z.ldx), double(z.ldout), double(first)});
      c.equal("sum", sum.read(), total);
      c.equal("out", out.read(), rounded(all, act));
    }
  }
}

void cast(Context& c, int) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const int from : {MB_F32, MB_BF16}) {
    for (const int to : {MB_F32, MB_BF16}) {
      for (const int64_t n : kCounts) {
        Values input = c.random.uniforms(n, -1e3, 1e3);
        // Ties go to the even neighbour; then what rounds up to infinity, denormals, and what is not a number.
        const Values special = {1.00390625, 1.01171875, -1.00390625, 3.4e38, inf, -inf, std::nan(""), 1e-40, -0.0, 0};
        for (size_t i = 0; i < special.size() && i + 20 < input.size(); ++i) input[i + 20] = special[i];
        const Tensor in(c, input, from);
        const Tensor out(c, n, to);
        c.run(MB_OP_CAST, {&in, &out}, {double(n)});
        c.equal("cast", out.read(), rounded(in.values(), to));
      }
    }
  }
}

void shift(Context& c, int) {
  for (const int64_t n : kCounts) {
    for (const bool in_place : {false, true}) {
      Values values(static_cast<size_t>(n));
      for (size_t i = 0; i < values.size(); ++i) values[i] = double(i % 1000) - 500;
      const Tensor in(c, values, MB_I32), other(c, n, MB_I32);
      const Tensor& out = in_place ? in : other;
      for (double& value : values) value -= 4096;
      c.run(MB_OP_SHIFT, {&in, &out}, {double(n), -4096});
      c.equal("shift", out.read(), values);
    }
  }
}

void fill(Context& c, int) {
  struct Fill {
    int dtype;
    double value;
  };
  for (const Fill& f : {Fill{MB_F32, 1.5}, Fill{MB_F32, -INFINITY}, Fill{MB_BF16, -0.1}, Fill{MB_I32, -100},
                        Fill{MB_F64, 1e-300}, Fill{MB_U8, 255}}) {
    for (const int64_t n : kCounts) {
      const Tensor out(c, n, f.dtype);
      c.run(MB_OP_FILL, {&out}, {double(n), f.value});
      c.equal("fill", out.read(), rounded(Values(size_t(n), f.value), f.dtype));
    }
  }
}

struct Rows {
  int64_t rows, cols;
};
constexpr Rows kRows[] = {{1, 1}, {3, 7}, {300, 24}, {17, 1000}, {1000, 136}, {5, 4096}};

// As gradients are added up.
void add_bf16(Context& c, int) {
  if (!c.cuda()) add(c, MB_BF16);
}

void bias_add(Context& c, int act) {
  for (const auto& [rows, cols] : kRows) {
    const Tensor y(c, c.random.uniforms(rows * cols), act);
    const Tensor bias(c, c.random.uniforms(cols), act);
    Values expected = y.values();
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias.values()[i % size_t(cols)];
    c.run(MB_OP_BIAS_ADD, {&y, &bias}, {double(rows), double(cols)});
    c.close("y", y.read(), expected, tolerance(act));
  }
}

void bias_grad(Context& c, int act) {
  for (const auto& [rows, cols] : kRows) {
    for (const bool accumulate : {false, true}) {
      const Tensor dy(c, c.random.uniforms(rows * cols, 0.5, 1.5), act);
      Tensor db(c, cols, MB_F32);
      Values expected(size_t(cols), 0.0);
      if (accumulate) {
        db.write(c.random.uniforms(cols, 10, 20));
        expected = db.values();
      }
      for (size_t i = 0; i < dy.values().size(); ++i) expected[i % size_t(cols)] += dy.values()[i];
      const Tensor ws(c, MB_REDUCE_PARTS * cols, MB_F32);
      c.run(MB_OP_BIAS_GRAD, {&dy, &db, &ws}, {double(rows), double(cols), double(accumulate)});
      c.close("db", db.read(), expected, tolerance(MB_F32, rows));
    }
  }
}

void copy_2d(Context& c, int) {
  struct Rectangle {
    int64_t rows, width, src_ld, dst_ld;  // elements
  };
  for (const int dtype : {MB_F32, MB_BF16, MB_U8}) {
    const int64_t size = dtype == MB_F32 ? 4 : dtype == MB_BF16 ? 2 : 1;
    for (const auto& [rows, width, src_ld, dst_ld] :
         {Rectangle{1, 5, 5, 5}, Rectangle{7, 3, 8, 5}, Rectangle{100, 40, 40, 64}, Rectangle{33, 129, 500, 129}}) {
      Values values(size_t(rows * src_ld));
      for (size_t i = 0; i < values.size(); ++i) values[i] = double(i % 100);
      const Tensor src(c, values, dtype);
      Values expected(size_t(rows * dst_ld), 101.0);
      const Tensor dst(c, expected, dtype);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < width; ++i) expected[size_t(r * dst_ld + i)] = values[size_t(r * src_ld + i)];
      }
      c.run(MB_OP_COPY_2D, {&src, &dst},
            {double(rows), double(width * size), double(src_ld * size), double(dst_ld * size)});
      c.equal("rectangle", dst.read(), expected);
    }
  }
  // Columns of one matrix beside each other.
  const int64_t rows = 20, cols = 12;
  const Tensor matrix(c, c.random.uniforms(rows * cols), MB_F32);
  Values expected = matrix.values();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < 4; ++i) expected[size_t(r * cols + 6 + i)] = expected[size_t(r * cols + i)];
  }
  const mb_buf from = matrix.part(0, (rows - 1) * cols + 4), to = matrix.part(6, (rows - 1) * cols + 4);
  c.run_on(MB_OP_COPY_2D, {from, to}, {double(rows), 16, cols * 4, cols * 4});
  c.equal("columns", matrix.read(), expected);
  c.refuses(MB_OP_COPY_2D, {from, matrix.part(3, (rows - 1) * cols + 4)}, {double(rows), 16, cols * 4, cols * 4},
            MB_ERR_ARGUMENT, "copy_2d: rows of src and dst overlap");
}

void sumsq(Context& c, int) {
  for (const int dtype : {MB_F32, MB_BF16}) {
    for (const int64_t n : kCounts) {
      const Tensor x(c, c.random.uniforms(n, -2, 2), dtype);
      const Tensor ws(c, MB_REDUCE_PARTS, MB_F32);
      Tensor out(c, 1, MB_F32);
      double expected = 0;
      for (const double v : x.values()) expected += v * v;
      c.run(MB_OP_SUMSQ, {&x, &out, &ws}, {double(n), 0});
      c.close("sum", out.read(), {expected}, tolerance(MB_F32));
      out.write({1000.0});
      c.run(MB_OP_SUMSQ, {&x, &out, &ws}, {double(n), 1});
      c.close("accumulated sum", out.read(), {expected + 1000}, tolerance(MB_F32));
    }
  }
  // What is not finite must reach the sum: it is how a bad gradient is found.
  for (const double bad : {double(INFINITY), std::nan("")}) {
    Values values = c.random.uniforms(5000);
    values[4321] = bad;
    const Tensor x(c, values, MB_F32);
    const Tensor ws(c, MB_REDUCE_PARTS, MB_F32);
    const Tensor out(c, 1, MB_F32);
    c.run(MB_OP_SUMSQ, {&x, &out, &ws}, {5000, 0});
    c.is(!std::isfinite(out.read()[0]), "a value that is not finite was lost");
  }
}

}  // namespace

const std::vector<Case> elementwise_cases = {
    {"swiglu", swiglu, true},         {"add", add, true},
    {"accumulate", accumulate, true}, {"add bf16 on the CPU", add_bf16, false},
    {"shift", shift, false},          {"bias_add", bias_add, true},
    {"bias_grad", bias_grad, true},   {"cast", cast, false},
    {"copy_2d", copy_2d, false},      {"fill", fill, false},
    {"sumsq", sumsq, false},
};

}  // namespace mb::test
