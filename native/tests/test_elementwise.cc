#include <cmath>
#include <limits>

#include "tests/harness.h"

namespace mbt {
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

void scale(Context& c, int) {
  for (const int64_t n : kCounts) {
    const Tensor x(c, c.random.uniforms(n), MB_F32);
    Values expected = x.values();
    for (double& v : expected) v *= 0.25;  // exact in float32
    c.run(MB_OP_SCALE, {&x}, {double(n), 0.25});
    c.equal("x", x.read(), expected);
  }
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
    {"swiglu", swiglu, true}, {"add", add, true},      {"cast", cast, false},
    {"fill", fill, false},    {"scale", scale, false}, {"sumsq", sumsq, false},
};

}  // namespace mbt
