#include <cmath>

#include "tests/harness.h"

namespace mb::test {
namespace {

struct Shape {
  int64_t rows, cols;
};
const Shape kShapes[] = {{1, 1}, {3, 7}, {5, 64}, {37, 96}, {70, 129}, {600, 48}, {2, 5000}};
constexpr double kEps = 1e-6;

struct Reference {
  Values y, rstd;
};

Reference forward(const Values& x, const Values& w, Shape z, int act) {
  Reference out{Values(x.size()), Values(static_cast<size_t>(z.rows))};
  for (int64_t r = 0; r < z.rows; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < z.cols; ++i) squares += x[size_t(r * z.cols + i)] * x[size_t(r * z.cols + i)];
    const double rstd = 1 / std::sqrt(squares / double(z.cols) + kEps);
    out.rstd[size_t(r)] = rstd;
    for (int64_t i = 0; i < z.cols; ++i) {
      const size_t at = size_t(r * z.cols + i);
      out.y[at] = w[size_t(i)] * rounded({x[at] * rstd}, act == MB_F32 ? MB_F64 : act)[0];
    }
  }
  return out;
}

void rmsnorm_fwd(Context& c, int act) {
  for (const Shape& z : kShapes) {
    const Tensor x(c, c.random.uniforms(z.rows * z.cols, -3, 3), act);
    const Tensor w(c, c.random.uniforms(z.cols, 0.5, 1.5), act);
    const Tensor y(c, z.rows * z.cols, act);
    const Tensor rstd(c, z.rows, MB_F32);
    c.run(MB_OP_RMSNORM_FWD, {&x, &w, &y, &rstd}, {double(z.rows), double(z.cols), kEps});
    const Reference expected = forward(x.values(), w.values(), z, act);
    c.close("y", y.read(), expected.y, tolerance(act));
    c.close("rstd", rstd.read(), expected.rstd, tolerance(MB_F32));
  }
}

void add_rmsnorm_fwd(Context& c, int act) {
  for (const Shape& z : kShapes) {
    for (const bool in_place : {false, true}) {
      const Tensor x(c, c.random.uniforms(z.rows * z.cols, -3, 3), act);
      const Tensor delta(c, c.random.uniforms(z.rows * z.cols), act);
      const Tensor w(c, c.random.uniforms(z.cols, 0.5, 1.5), act);
      const Tensor other(c, z.rows * z.cols, act);
      const Tensor& sum = in_place ? x : other;
      const Tensor y(c, z.rows * z.cols, act);
      const Tensor rstd(c, z.rows, MB_F32);
      c.run(MB_OP_ADD_RMSNORM_FWD, {&x, &delta, &w, &sum, &y, &rstd}, {double(z.rows), double(z.cols), kEps});
      Values total = x.values();
      for (size_t i = 0; i < total.size(); ++i) total[i] += delta.values()[i];
      total = rounded(total, act);
      const Reference expected = forward(total, w.values(), z, act);
      c.equal("sum", sum.read(), total);
      c.close("y", y.read(), expected.y, tolerance(act));
      c.close("rstd", rstd.read(), expected.rstd, tolerance(MB_F32));
    }
  }
}

void rmsnorm_bwd(Context& c, int act) {
  for (const Shape& z : kShapes) {
    for (int flags = 0; flags < 5; ++flags) {
      const bool accumulate_dx = flags & 1;
      const bool accumulate_dw = flags & 2;
      const bool with_dw = flags < 4;
      const int64_t n = z.rows * z.cols;
      const Tensor dy(c, c.random.uniforms(n), act);
      const Tensor x(c, c.random.uniforms(n, -3, 3), act);
      const Tensor w(c, c.random.uniforms(z.cols, 0.5, 1.5), act);
      const Reference saved = forward(x.values(), w.values(), z, act);
      const Tensor rstd(c, saved.rstd, MB_F32);
      Tensor dx(c, n, act);
      Tensor dw(c, z.cols, MB_F32);
      Values expected_dx(size_t(n), 0.0);
      Values expected_dw(size_t(z.cols), 0.0);
      if (accumulate_dx) {
        dx.write(c.random.uniforms(n, 10, 20));
        expected_dx = dx.values();
      }
      if (accumulate_dw) {
        dw.write(c.random.uniforms(z.cols, 10, 20));  // large: a sum near zero has no relative accuracy
        expected_dw = dw.values();
      }
      const Tensor ws(c, MB_REDUCE_PARTS * z.cols, MB_F32);
      for (int64_t r = 0; r < z.rows; ++r) {
        const double s = saved.rstd[size_t(r)];
        double mean = 0;
        for (int64_t i = 0; i < z.cols; ++i) {
          const size_t at = size_t(r * z.cols + i);
          mean += dy.values()[at] * w.values()[size_t(i)] * x.values()[at] * s / double(z.cols);
        }
        for (int64_t i = 0; i < z.cols; ++i) {
          const size_t at = size_t(r * z.cols + i);
          expected_dx[at] += s * (dy.values()[at] * w.values()[size_t(i)] - x.values()[at] * s * mean);
          expected_dw[size_t(i)] += dy.values()[at] * x.values()[at] * s;
        }
      }
      c.run(MB_OP_RMSNORM_BWD, {&dy, &x, &w, &rstd, &dx, with_dw ? &dw : nullptr, &ws},
            {double(z.rows), double(z.cols), double(accumulate_dx), double(accumulate_dw)});
      // With one column dx is a difference of equals: nothing is left to compare relatively.
      if (z.cols > 1) c.close("dx", dx.read(), expected_dx, tolerance(act));
      if (with_dw) c.close("dw", dw.read(), expected_dw, tolerance(act));
    }
  }
}

}  // namespace

const std::vector<Case> norm_cases = {
    {"rmsnorm_fwd", rmsnorm_fwd, true},
    {"add_rmsnorm_fwd", add_rmsnorm_fwd, true},
    {"rmsnorm_bwd", rmsnorm_bwd, true},
};

}  // namespace mb::test
