#include <cmath>

#include "tests/harness.h"

namespace mbt {
namespace {

struct Shape {
  int64_t b, s, hq, hkv, d;
  double spread;  // of the inputs: large ones make the softmax sharp
};
const Shape kShapes[] = {{1, 1, 1, 1, 8, 1},   {2, 7, 2, 1, 16, 1},    {1, 33, 4, 2, 32, 1},  {2, 64, 2, 2, 64, 1},
                         {1, 69, 3, 1, 40, 1}, {1, 130, 2, 1, 128, 1}, {1, 300, 4, 2, 32, 1}, {1, 300, 1, 1, 24, 12}};

struct Reference {
  Values o, lse, dqkv;
};

// All in float64; `o` and `lse` are what the backward is given.
Reference reference(const Values& qkv, const Values& dout, Shape z, double scale) {
  const int64_t width = (z.hq + 2 * z.hkv) * z.d;
  const int64_t group = z.hq / z.hkv;
  const size_t d = size_t(z.d);
  Reference r{Values(size_t(z.b * z.s * z.hq * z.d), 0.0), Values(size_t(z.b * z.hq * z.s)), Values(qkv.size(), 0.0)};
  for (int64_t b = 0; b < z.b; ++b) {
    for (int64_t h = 0; h < z.hq; ++h) {
      for (int64_t i = 0; i < z.s; ++i) {
        const size_t q = size_t((b * z.s + i) * width + h * z.d);
        const size_t o = size_t(((b * z.s + i) * z.hq + h) * z.d);
        const auto key = [&](int64_t j) { return size_t((b * z.s + j) * width + (z.hq + h / group) * z.d); };
        const size_t to_value = size_t(z.hkv * z.d);
        Values p(static_cast<size_t>(i + 1));
        double highest = -INFINITY;
        for (int64_t j = 0; j <= i; ++j) {
          double dot = 0;
          for (size_t c = 0; c < d; ++c) dot += qkv[q + c] * qkv[key(j) + c];
          p[size_t(j)] = dot * scale;
          highest = std::fmax(highest, dot * scale);
        }
        double sum = 0;
        for (double& x : p) sum += (x = std::exp(x - highest));
        r.lse[size_t((b * z.hq + h) * z.s + i)] = highest + std::log(sum);
        double delta = 0;
        for (int64_t j = 0; j <= i; ++j) {
          p[size_t(j)] /= sum;
          for (size_t c = 0; c < d; ++c) r.o[o + c] += p[size_t(j)] * qkv[key(j) + to_value + c];
        }
        for (size_t c = 0; c < d; ++c) delta += dout[o + c] * r.o[o + c];
        for (int64_t j = 0; j <= i; ++j) {
          double dp = 0;
          for (size_t c = 0; c < d; ++c) dp += dout[o + c] * qkv[key(j) + to_value + c];
          const double ds = p[size_t(j)] * (dp - delta) * scale;
          for (size_t c = 0; c < d; ++c) {
            r.dqkv[q + c] += ds * qkv[key(j) + c];
            r.dqkv[key(j) + c] += ds * qkv[q + c];
            r.dqkv[key(j) + to_value + c] += p[size_t(j)] * dout[o + c];
          }
        }
      }
    }
  }
  return r;
}

void attention(Context& c, int act) {
  for (const Shape& z : kShapes) {
    const double scale = 1 / std::sqrt(double(z.d));
    const Tensor qkv(c, c.random.uniforms(z.b * z.s * (z.hq + 2 * z.hkv) * z.d, -z.spread, z.spread), act);
    const Tensor dout(c, c.random.uniforms(z.b * z.s * z.hq * z.d), act);
    const Reference expected = reference(qkv.values(), dout.values(), z, scale);
    int64_t bytes = 0;
    char kernel[64] = "";
    const int status = c.table->attention_workspace(c.device, act, z.b, z.s, z.hq, z.hkv, z.d, 1, &bytes, kernel);
    c.is(status == MB_OK && kernel[0] != '\0', std::string("attention_workspace: ") + c.table->last_error());
    const Tensor ws(c, bytes, MB_U8);
    // ws may be empty where the kernel needs none; ops then take it as absent.
    mb_buf scratch = ws.buf();
    scratch.dtype = MB_F32;
    const std::vector<double> sizes = {double(z.b), double(z.s), double(z.hq), double(z.hkv), double(z.d), scale, 1};

    char what[120];
    snprintf(what, sizeof(what), "b %lld s %lld hq %lld hkv %lld d %lld (%s)", (long long)z.b, (long long)z.s,
             (long long)z.hq, (long long)z.hkv, (long long)z.d, kernel);
    const auto run = [&](int op, std::vector<mb_buf> bufs) {
      const int found = c.table->ops[op](c.device, 0, bufs.data(), int(bufs.size()), sizes.data(), int(sizes.size()));
      c.is(found == MB_OK, std::string(what) + ": " + (found == MB_OK ? "" : c.table->last_error()));
    };
    const Tensor o(c, z.b * z.s * z.hq * z.d, act);
    const Tensor lse(c, z.b * z.hq * z.s, MB_F32);
    run(MB_OP_ATTENTION_FWD, {qkv.buf(), o.buf(), lse.buf(), scratch});
    // Sharp scores reach 150, where lse itself is rounded by 1e-5, and the exponential makes that relative.
    const double limit = tolerance(act) * (act == MB_F32 && z.spread > 1 ? 10 : 1);
    c.close(std::string("o ") + what, o.read(), expected.o, limit);
    // A logarithm near zero has no relative accuracy, and what the backward needs of it is absolute.
    c.close(std::string("lse ") + what, lse.read(), expected.lse, tolerance(act), 1);

    // The backward of the reference's own forward.
    const Tensor given_o(c, expected.o, act);
    const Tensor given_lse(c, expected.lse, MB_F32);
    const Tensor dqkv(c, z.b * z.s * (z.hq + 2 * z.hkv) * z.d, act);
    run(MB_OP_ATTENTION_BWD, {qkv.buf(), given_o.buf(), given_lse.buf(), dout.buf(), dqkv.buf(), scratch});
    c.close(std::string("dqkv ") + what, dqkv.read(), expected.dqkv, limit);
  }
}

}  // namespace

const std::vector<Case> attention_cases = {{"attention", attention, true}};

}  // namespace mbt
