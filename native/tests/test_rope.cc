#include <cmath>

#include "tests/harness.h"

namespace mb::test {
namespace {

struct Shape {
  int64_t tokens, hq, hkv, d;
};
const Shape kShapes[] = {{1, 1, 1, 8}, {5, 2, 1, 24}, {33, 4, 2, 32}, {70, 3, 3, 40}, {12, 4, 1, 128}};
constexpr double kEps = 1e-6;
constexpr double kTheta = 1e6;
constexpr int64_t kPositions = 50;

Values table(int64_t positions, int64_t d) {
  Values out(size_t(positions * d));
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < d / 2; ++i) {
      const double angle = double(p) * std::pow(kTheta, -2.0 * double(i) / double(d));
      out[size_t(p * d + i)] = std::cos(angle);
      out[size_t(p * d + d / 2 + i)] = std::sin(angle);
    }
  }
  return out;
}

void rope_table(Context& c, int) {
  for (const int64_t d : {2, 8, 40, 128}) {
    for (const int64_t positions : {1, 3, 700}) {
      const Tensor out(c, positions * d, MB_F32);
      c.run(MB_OP_ROPE_TABLE, {&out, nullptr}, {double(positions), double(d), kTheta, 1});
      c.close("table", out.read(), table(positions, d), tolerance(MB_F32));
      // Frequencies and a factor of one's own, as scaled tables have them.
      for (const int dtype : {MB_F64, MB_F32}) {
        const Tensor frequencies(c, c.random.uniforms(d / 2, 0, 1), dtype);
        const double scale = 1.25;
        Values expected(size_t(positions * d));
        for (int64_t p = 0; p < positions; ++p) {
          for (int64_t i = 0; i < d / 2; ++i) {
            const double angle = double(p) * frequencies.values()[size_t(i)];
            expected[size_t(p * d + i)] = scale * std::cos(angle);
            expected[size_t(p * d + d / 2 + i)] = scale * std::sin(angle);
          }
        }
        c.run(MB_OP_ROPE_TABLE, {&out, &frequencies}, {double(positions), double(d), kTheta, scale});
        c.close("table of frequencies", out.read(), expected, tolerance(MB_F32));
      }
    }
  }
}

struct Inputs {
  Shape z;
  Values qkv, wq, wk, table, positions;
  int64_t width() const { return (z.hq + 2 * z.hkv) * z.d; }
};

// out and rstd of every head, and optionally the gradient of qkv and the weights for a gradient of out.
struct Reference {
  Values out, rstd, dqkv, dwq, dwk;
};

Reference reference(const Inputs& in, const Values& dout, int act) {
  const auto [tokens, hq, hkv, d] = in.z;
  Reference r{in.qkv, Values(size_t(tokens * (hq + hkv))), dout, Values(size_t(d), 0.0), Values(size_t(d), 0.0)};
  for (int64_t t = 0; t < tokens; ++t) {
    const double* cosine = &in.table[size_t(int64_t(in.positions[size_t(t)]) * d)];
    const double* sine = cosine + d / 2;
    for (int64_t h = 0; h < hq + hkv; ++h) {
      const size_t at = size_t(t * in.width() + h * d);
      const Values& w = h < hq ? in.wq : in.wk;
      Values& dw = h < hq ? r.dwq : r.dwk;
      double squares = 0;
      for (int64_t i = 0; i < d; ++i) squares += in.qkv[at + size_t(i)] * in.qkv[at + size_t(i)];
      const double rstd = 1 / std::sqrt(squares / double(d) + kEps);
      r.rstd[size_t(t * (hq + hkv) + h)] = rstd;
      Values normed(static_cast<size_t>(d)), dn(static_cast<size_t>(d));
      for (int64_t i = 0; i < d; ++i) {
        normed[size_t(i)] = w[size_t(i)] * rounded({in.qkv[at + size_t(i)] * rstd}, act == MB_F32 ? MB_F64 : act)[0];
      }
      for (int64_t i = 0; i < d / 2; ++i) {
        const size_t a = size_t(i);
        const size_t b = size_t(i + d / 2);
        r.out[at + a] = normed[a] * cosine[i] - normed[b] * sine[i];
        r.out[at + b] = normed[b] * cosine[i] + normed[a] * sine[i];
        if (dout.empty()) continue;
        dn[a] = dout[at + a] * cosine[i] + dout[at + b] * sine[i];
        dn[b] = dout[at + b] * cosine[i] - dout[at + a] * sine[i];
      }
      if (dout.empty()) continue;
      double mean = 0;
      for (size_t i = 0; i < size_t(d); ++i) {
        mean += dn[i] * w[i] * in.qkv[at + i] * rstd / double(d);
        dw[i] += dn[i] * in.qkv[at + i] * rstd;
      }
      for (size_t i = 0; i < size_t(d); ++i) r.dqkv[at + i] = rstd * (dn[i] * w[i] - in.qkv[at + i] * rstd * mean);
    }
  }
  return r;
}

struct Tensors {
  Tensor qkv, wq, wk, table, positions;
  Tensors(Context& c, Shape z, int act)
      : qkv(c, c.random.uniforms(z.tokens * (z.hq + 2 * z.hkv) * z.d, -2, 2), act),
        wq(c, c.random.uniforms(z.d, 0.5, 1.5), act),
        wk(c, c.random.uniforms(z.d, 0.5, 1.5), act),
        table(c, test::table(kPositions, z.d), MB_F32),
        positions(c, c.random.uniforms(z.tokens, 0, kPositions - 0.5), MB_I32) {}
  Inputs inputs(Shape z) const {
    return {z, qkv.values(), wq.values(), wk.values(), table.values(), positions.values()};
  }
};

void qknorm_rope_fwd(Context& c, int act) {
  for (const Shape& z : kShapes) {
    for (const bool in_place : {false, true}) {
      const Tensors t(c, z, act);
      const Inputs in = t.inputs(z);
      const Tensor other(c, z.tokens * in.width(), act);
      const Tensor& out = in_place ? t.qkv : other;
      const Tensor rstd(c, z.tokens * (z.hq + z.hkv), MB_F32);
      c.run(MB_OP_QKNORM_ROPE_FWD, {&t.qkv, &t.wq, &t.wk, &t.table, &t.positions, &out, &rstd},
            {double(z.tokens), double(z.hq), double(z.hkv), double(z.d), kEps});
      const Reference expected = reference(in, {}, act);
      c.close("out", out.read(), expected.out, tolerance(act));
      c.close("rstd", rstd.read(), expected.rstd, tolerance(MB_F32));
    }
  }
}

void qknorm_rope_bwd(Context& c, int act) {
  for (const Shape& z : kShapes) {
    for (const bool accumulate : {false, true}) {
      const Tensors t(c, z, act);
      const Inputs in = t.inputs(z);
      const Tensor dqkv(c, c.random.uniforms(z.tokens * in.width()), act);
      Reference expected = reference(in, dqkv.values(), act);
      const Tensor rstd(c, expected.rstd, MB_F32);
      Tensor dwq(c, z.d, MB_F32);
      Tensor dwk(c, z.d, MB_F32);
      if (accumulate) {
        dwq.write(c.random.uniforms(z.d, 10, 20));
        dwk.write(c.random.uniforms(z.d, 10, 20));
        for (size_t i = 0; i < size_t(z.d); ++i) {
          expected.dwq[i] += dwq.values()[i];
          expected.dwk[i] += dwk.values()[i];
        }
      }
      const Tensor ws(c, MB_REDUCE_PARTS * 2 * z.d, MB_F32);
      c.run(MB_OP_QKNORM_ROPE_BWD, {&dqkv, &t.qkv, &t.wq, &t.wk, &t.table, &t.positions, &rstd, &dwq, &dwk, &ws},
            {double(z.tokens), double(z.hq), double(z.hkv), double(z.d), double(accumulate)});
      c.close("dqkv", dqkv.read(), expected.dqkv, tolerance(act));
      c.close("dwq", dwq.read(), expected.dwq, tolerance(act));
      c.close("dwk", dwk.read(), expected.dwk, tolerance(act));
    }
  }
}

// Heads without a norm, forward and back again.
void rotation(Context& c, int act) {
  for (const Shape& z : kShapes) {
    const std::vector<double> sizes = {double(z.tokens), double(z.hq), double(z.hkv), double(z.d)};
    for (const bool in_place : {false, true}) {
      const Tensors t(c, z, act);
      const Inputs in = t.inputs(z);
      Values expected = in.qkv, back = in.qkv;
      for (int64_t token = 0; token < z.tokens; ++token) {
        const double* cosine = &in.table[size_t(int64_t(in.positions[size_t(token)]) * z.d)];
        const double* sine = cosine + z.d / 2;
        for (int64_t h = 0; h < z.hq + z.hkv; ++h) {
          for (int64_t i = 0; i < z.d / 2; ++i) {
            const size_t a = size_t(token * in.width() + h * z.d + i), b = a + size_t(z.d / 2);
            expected[a] = in.qkv[a] * cosine[i] - in.qkv[b] * sine[i];
            expected[b] = in.qkv[b] * cosine[i] + in.qkv[a] * sine[i];
            back[a] = in.qkv[a] * cosine[i] + in.qkv[b] * sine[i];
            back[b] = in.qkv[b] * cosine[i] - in.qkv[a] * sine[i];
          }
        }
      }
      const Tensor gradient(c, in.qkv, act);
      const Tensor other(c, z.tokens * in.width(), act);
      const Tensor& out = in_place ? t.qkv : other;
      std::vector<double> forward = sizes, backward = sizes;
      forward.push_back(kEps);
      backward.push_back(0);
      c.run(MB_OP_QKNORM_ROPE_FWD, {&t.qkv, nullptr, nullptr, &t.table, &t.positions, &out, nullptr}, forward);
      c.close("rotated", out.read(), expected, tolerance(act));
      c.run(MB_OP_QKNORM_ROPE_BWD,
            {&gradient, nullptr, nullptr, nullptr, &t.table, &t.positions, nullptr, nullptr, nullptr, nullptr},
            backward);
      c.close("rotated back", gradient.read(), back, tolerance(act));
    }
  }
}

// Weights that are frozen: the gradient of the input alone, the same as with theirs.
void frozen(Context& c, int act) {
  const Shape z = kShapes[2];
  const Tensors t(c, z, act);
  const Inputs in = t.inputs(z);
  const Tensor dqkv(c, c.random.uniforms(z.tokens * in.width()), act);
  const Reference expected = reference(in, dqkv.values(), act);
  const Tensor rstd(c, expected.rstd, MB_F32);
  c.run(MB_OP_QKNORM_ROPE_BWD, {&dqkv, &t.qkv, &t.wq, &t.wk, &t.table, &t.positions, &rstd, nullptr, nullptr, nullptr},
        {double(z.tokens), double(z.hq), double(z.hkv), double(z.d), 0});
  c.close("dqkv", dqkv.read(), expected.dqkv, tolerance(act));
}

}  // namespace

const std::vector<Case> rope_cases = {
    {"rotation without a norm", rotation, true}, {"qknorm_rope_bwd of frozen weights", frozen, true},
    {"rope_table", rope_table, false},           {"qknorm_rope_fwd", qknorm_rope_fwd, true},
    {"qknorm_rope_bwd", qknorm_rope_bwd, true},
};

}  // namespace mb::test
