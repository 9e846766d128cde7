#include <algorithm>
#include <numeric>

#include "tests/harness.h"

namespace mb::test {
namespace {

struct Shape {
  int64_t tokens, h, vocab, vstart, vrows;
};
// The last two: one id for all tokens, and a shard that no token is in.
const Shape kShapes[] = {{1, 1, 1, 0, 1},          {20, 5, 9, 0, 9},   {300, 48, 40, 10, 20},
                         {500, 130, 1000, 0, 500}, {700, 24, 1, 0, 1}, {30, 8, 10, 50, 4}};

void embed(Context& c, int act) {
  for (const Shape& z : kShapes) {
    Values ids(static_cast<size_t>(z.tokens));
    for (double& id : ids) id = double(c.random.below(z.vocab));
    const Tensor id(c, ids, MB_I32);
    const Tensor w(c, c.random.uniforms(z.vrows * z.h), act);
    const Tensor out(c, z.tokens * z.h, act);
    std::vector<int64_t> order(static_cast<size_t>(z.tokens));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return ids[size_t(a)] < ids[size_t(b)]; });
    const Tensor sorted(c, Values(order.begin(), order.end()), MB_I32);
    const Tensor dout(c, c.random.uniforms(z.tokens * z.h), act);
    const Tensor dw(c, c.random.uniforms(z.vrows * z.h), MB_F32);

    Values expected(size_t(z.tokens * z.h), 0.0);
    Values gradient = dw.values();
    for (int64_t t = 0; t < z.tokens; ++t) {
      const int64_t row = int64_t(ids[size_t(t)]) - z.vstart;
      if (row < 0 || row >= z.vrows) continue;
      for (int64_t i = 0; i < z.h; ++i) {
        expected[size_t(t * z.h + i)] = w.values()[size_t(row * z.h + i)];
        gradient[size_t(row * z.h + i)] += dout.values()[size_t(t * z.h + i)];
      }
    }
    const std::vector<double> sizes = {double(z.tokens), double(z.h), double(z.vstart), double(z.vrows)};
    c.run(MB_OP_EMBED_FWD, {&id, &w, &out}, sizes);
    c.equal("out", out.read(), expected);
    c.run(MB_OP_EMBED_BWD, {&id, &sorted, &dout, &dw}, sizes);
    c.close("dw", dw.read(), gradient, tolerance(MB_F32));
  }
}

}  // namespace

const std::vector<Case> embed_cases = {{"embed", embed, true}};

}  // namespace mb::test
