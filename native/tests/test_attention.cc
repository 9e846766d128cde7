#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/harness.h"

namespace mb::test {
namespace {

enum class Bounds {
  kNone,
  kSegments,  // of a packed sequence: each query from its segment's first key on
  kRanges,    // any range, also an empty one, and one that ends before the query
};

struct Problem {
  int64_t b, sq, skv, hq, hkv, d;
  double spread;  // of the inputs: large ones make the softmax sharp
  int64_t offset = 0;
  Bounds bounds = Bounds::kNone;
  // Elements beside the heads of a row, and rows beside the keys of a sequence. -1: columns of one matrix.
  int64_t gap = -1, spare_rows = 0;
};

const Problem kPlain[] = {{1, 1, 1, 1, 1, 8, 1},      {2, 7, 7, 2, 1, 16, 1},     {1, 33, 33, 4, 2, 32, 1},
                          {2, 64, 64, 2, 2, 64, 1},   {1, 69, 69, 3, 1, 40, 1},   {1, 130, 130, 2, 1, 128, 1},
                          {1, 300, 300, 4, 2, 32, 1}, {1, 300, 300, 1, 1, 24, 12}};

const Problem kViews[] = {
    // The same mask over views of their own.
    {2, 70, 70, 2, 1, 32, 1, 0, Bounds::kNone, 8},
    // Queries that continue a cache: one, and some.
    {3, 1, 150, 4, 2, 64, 1, 149, Bounds::kNone, 0, 10},
    {2, 40, 100, 2, 2, 32, 1, 60, Bounds::kNone, 16, 3},
    {2, 128, 384, 4, 2, 64, 1, 256, Bounds::kNone, 8, 128},
    {1, 128, 256, 2, 2, 128, 1, 128, Bounds::kNone, 0},
    {2, 128, 128, 4, 2, 64, 1, 0, Bounds::kNone, 8, 128},
    // More queries than keys, keys after the queries, and queries before every key.
    {1, 90, 50, 2, 1, 40, 1, -20, Bounds::kNone, 0},
    {1, 33, 200, 2, 1, 16, 1, 10, Bounds::kNone, 8},
    {2, 65, 130, 2, 1, 128, 1, -65, Bounds::kNone, 0},
    // Nothing is causal.
    {1, 50, 77, 2, 1, 32, 1, 77, Bounds::kNone, 0},
    {2, 128, 128, 4, 2, 64, 1, 128, Bounds::kNone, 0},
    {1, 256, 128, 2, 2, 128, 1, 128, Bounds::kNone, 8},
    {2, 128, 384, 4, 1, 128, 1, 384, Bounds::kNone, 0, 128},
    {2, 300, 300, 2, 1, 32, 1, 0, Bounds::kSegments},
    {1, 140, 140, 4, 2, 64, 1, 0, Bounds::kSegments, 24},
    // Far more tiles than one segment has.
    {1, 900, 900, 2, 1, 64, 1, 0, Bounds::kSegments},
    {1, 260, 900, 2, 2, 128, 1, 620, Bounds::kSegments, 0},
    {2, 90, 120, 2, 2, 24, 1, 15, Bounds::kRanges, 8, 2},
    {3, 1, 130, 2, 1, 128, 1, 200, Bounds::kRanges, 0, 6},
    {1, 70, 300, 2, 1, 256, 1, 230, Bounds::kSegments, 0}};

// Heads of positions, `ld` elements apart in a tensor from `first` on.
struct View {
  Tensor* tensor;
  int64_t first, rows, width, ld;

  mb_buf buf() const { return tensor->part(first, (rows - 1) * ld + width); }
  size_t at(int64_t row, int64_t column) const { return size_t(first + row * ld + column); }
};

struct Tensors {
  std::vector<std::unique_ptr<Tensor>> owned;
  View q, k, v;

  Tensors(Context& c, const Problem& z, int act, bool random) {
    const int64_t keys = z.b * (z.skv + z.spare_rows), queries = z.b * z.sq;
    const auto make = [&](int64_t n) {
      owned.push_back(random ? std::make_unique<Tensor>(c, c.random.uniforms(n, -z.spread, z.spread), act)
                             : std::make_unique<Tensor>(c, n, act));
      return owned.back().get();
    };
    const int64_t wq = z.hq * z.d, wk = z.hkv * z.d;
    if (z.gap < 0) {
      Tensor* all = make(queries * (wq + 2 * wk));
      q = {all, 0, queries, wq, wq + 2 * wk};
      k = {all, wq, queries, wk, wq + 2 * wk};
      v = {all, wq + wk, queries, wk, wq + 2 * wk};
      return;
    }
    q = {make(queries * (wq + z.gap)), 0, queries, wq, wq + z.gap};
    k = {make(keys * (wk + z.gap)), 0, keys, wk, wk + z.gap};
    v = {make(keys * (wk + 2 * z.gap)), z.gap, keys, wk, wk + 2 * z.gap};
    v.first = 0;
  }
};

Values bounds_of(Context& c, const Problem& z) {
  Values bounds;
  for (int64_t b = 0; b < z.b; ++b) {
    for (int64_t i = 0; i < z.sq; ++i) {
      if (z.bounds == Bounds::kSegments) {
        const int64_t at = std::min(i + z.offset, z.skv - 1), length = 37 + 20 * b;
        bounds.push_back(double(at / length * length));
        bounds.push_back(double(z.skv));
      } else {
        const int64_t from = c.random.below(z.skv + 1);
        bounds.push_back(double(from - 5));
        bounds.push_back(double(i % 7 == 3 ? from - 5 : from + c.random.below(z.skv)));
      }
    }
  }
  return bounds;
}

struct Reference {
  Values o, lse, dq, dk, dv;  // contiguous: [b, sq, hq, d], [b, hq, sq], and by key [b, skv, hkv, d]
};

// All in float64; `o` and `lse` are what the backward is given.
Reference reference(const Tensors& t, const Values& dout, const Values& bounds, const Problem& z, double scale) {
  const Values &q = t.q.tensor->values(), &k = t.k.tensor->values(), &v = t.v.tensor->values();
  const int64_t kv_rows = z.skv + z.spare_rows, group = z.hq / z.hkv;
  const size_t keys = size_t(z.b * z.skv * z.hkv * z.d), queries = size_t(z.b * z.sq * z.hq * z.d);
  Reference r{Values(queries, 0.0), Values(size_t(z.b * z.hq * z.sq)), Values(queries, 0.0), Values(keys, 0.0),
              Values(keys, 0.0)};
  for (int64_t b = 0; b < z.b; ++b) {
    for (int64_t h = 0; h < z.hq; ++h) {
      const int64_t kv = h / group;
      for (int64_t i = 0; i < z.sq; ++i) {
        const int64_t row = b * z.sq + i;
        int64_t low = 0, high = std::min(i + z.offset + 1, z.skv);
        if (!bounds.empty()) {
          low = std::max<int64_t>(0, int64_t(bounds[size_t(2 * row)]));
          high = std::min(high, int64_t(bounds[size_t(2 * row + 1)]));
        }
        const size_t o = size_t((row * z.hq + h) * z.d);
        double& lse = r.lse[size_t((b * z.hq + h) * z.sq + i)];
        lse = -INFINITY;
        if (low >= high) continue;
        const size_t at_q = t.q.at(row, h * z.d);
        const auto at_k = [&](int64_t j) { return t.k.at(b * kv_rows + j, kv * z.d); };
        const auto at_v = [&](int64_t j) { return t.v.at(b * kv_rows + j, kv * z.d); };
        Values p(static_cast<size_t>(high - low));
        double highest = -INFINITY;
        for (int64_t j = low; j < high; ++j) {
          double dot = 0;
          for (size_t c = 0; c < size_t(z.d); ++c) dot += q[at_q + c] * k[at_k(j) + c];
          p[size_t(j - low)] = dot * scale;
          highest = std::fmax(highest, dot * scale);
        }
        double sum = 0;
        for (double& x : p) sum += (x = std::exp(x - highest));
        lse = highest + std::log(sum);
        double delta = 0;
        for (int64_t j = low; j < high; ++j) {
          p[size_t(j - low)] /= sum;
          for (size_t c = 0; c < size_t(z.d); ++c) r.o[o + c] += p[size_t(j - low)] * v[at_v(j) + c];
        }
        for (size_t c = 0; c < size_t(z.d); ++c) delta += dout[o + c] * r.o[o + c];
        for (int64_t j = low; j < high; ++j) {
          const size_t key = size_t(((b * z.skv + j) * z.hkv + kv) * z.d);
          double dp = 0;
          for (size_t c = 0; c < size_t(z.d); ++c) dp += dout[o + c] * v[at_v(j) + c];
          const double ds = p[size_t(j - low)] * (dp - delta) * scale;
          for (size_t c = 0; c < size_t(z.d); ++c) {
            r.dq[o + c] += ds * k[at_k(j) + c];
            r.dk[key + c] += ds * q[at_q + c];
            r.dv[key + c] += p[size_t(j - low)] * dout[o + c];
          }
        }
      }
    }
  }
  return r;
}

// The view's rows of the first `kept` positions of every `period`, together.
Values gather(const View& view, int64_t kept, int64_t period) {
  const Values all = view.tensor->read();
  Values out;
  for (int64_t row = 0; row < view.rows; ++row) {
    if (row % period >= kept) continue;
    for (int64_t i = 0; i < view.width; ++i) out.push_back(all[view.at(row, i)]);
  }
  return out;
}

void check(Context& c, int act, const Problem& z) {
  const double scale = 1 / std::sqrt(double(z.d));
  const Tensors in(c, z, act, true);
  const Tensor dout(c, c.random.uniforms(z.b * z.sq * z.hq * z.d), act);
  const Values limits = z.bounds == Bounds::kNone ? Values{} : bounds_of(c, z);
  const Tensor bounds(c, limits.empty() ? Values{0} : limits, MB_I32);
  const Reference expected = reference(in, dout.values(), limits, z, scale);

  int64_t bytes = 0;
  char kernel[64] = "";
  const int status =
      c.table->attention_workspace(c.device, act, z.b, z.sq, z.skv, z.hq, z.hkv, z.d, z.offset, 1, &bytes, kernel);
  c.is(status == MB_OK && kernel[0] != '\0', std::string("attention_workspace: ") + c.table->last_error());
  const Tensor ws(c, std::max<int64_t>(bytes, 16), MB_U8);

  char what[160];
  snprintf(what, sizeof(what), "b %lld sq %lld skv %lld hq %lld hkv %lld d %lld offset %lld bounds %d gap %lld (%s)",
           (long long)z.b, (long long)z.sq, (long long)z.skv, (long long)z.hq, (long long)z.hkv, (long long)z.d,
           (long long)z.offset, int(z.bounds), (long long)z.gap, kernel);
  const double kv_rows = double(z.skv + z.spare_rows), ldo = double(z.hq * z.d);
  std::vector<double> scalars = {double(z.b), double(z.sq),    double(z.skv),   double(z.hq),    double(z.hkv),
                                 double(z.d), double(in.q.ld), double(in.k.ld), double(in.v.ld), ldo};
  const mb_buf none = {nullptr, 0, MB_F32, 0}, seen = limits.empty() ? none : bounds.buf();
  const std::vector<double> rest = {kv_rows, double(z.offset), scale, 1};

  const Tensor o(c, z.b * z.sq * z.hq * z.d, act);
  const Tensor lse(c, z.b * z.hq * z.sq, MB_F32);
  std::vector<double> forward = scalars;
  forward.insert(forward.end(), rest.begin(), rest.end());
  forward.push_back(0);
  c.run_on(MB_OP_ATTENTION_FWD, {in.q.buf(), in.k.buf(), in.v.buf(), o.buf(), lse.buf(), seen, ws.buf()}, forward);
  // Sharp scores reach 150, where lse itself is rounded by 1e-5, and the exponential makes that relative.
  const double limit = tolerance(act) * (act == MB_F32 && z.spread > 1 ? 10 : 1);
  c.close(std::string("o ") + what, o.read(), expected.o, limit);
  // Of a query that sees nothing it is -inf.
  Values found_lse = lse.read(), expected_lse = expected.lse;
  for (size_t i = 0; i < expected_lse.size(); ++i) {
    if (expected_lse[i] == -INFINITY && found_lse[i] == -INFINITY) expected_lse[i] = found_lse[i] = 0;
  }
  // A logarithm near zero has no relative accuracy, and what the backward needs of it is absolute.
  c.close(std::string("lse ") + what, found_lse, expected_lse, tolerance(act), 1);

  // The backward of the reference's own forward.
  const Tensor given_o(c, expected.o, act);
  const Tensor given_lse(c, expected.lse, MB_F32);
  const Tensors out(c, z, act, false);
  for (const View* view : {&out.q, &out.k, &out.v}) scalars.push_back(double(view->ld));
  scalars.insert(scalars.end(), rest.begin(), rest.end());
  c.run_on(MB_OP_ATTENTION_BWD,
           {in.q.buf(), in.k.buf(), in.v.buf(), given_o.buf(), given_lse.buf(), dout.buf(), out.q.buf(), out.k.buf(),
            out.v.buf(), seen, ws.buf()},
           scalars);
  // Only together have they a size that an error can be measured by: where one key is seen, dq and dk are zero.
  Values found = gather(out.q, 1, 1), wanted = expected.dq;
  for (const auto& [view, values] : {std::pair{&out.k, &expected.dk}, std::pair{&out.v, &expected.dv}}) {
    const Values part = gather(*view, z.skv, z.skv + z.spare_rows);
    found.insert(found.end(), part.begin(), part.end());
    wanted.insert(wanted.end(), values->begin(), values->end());
  }
  c.close(std::string("dq, dk, dv ") + what, found, wanted, limit);
  // What lies between the rows is not written.
  if (z.gap > 0) {
    const Values all = out.q.tensor->read();
    for (int64_t row = 0; row < out.q.rows; ++row) {
      c.is(std::isnan(all[out.q.at(row, out.q.width)]), std::string("written beside dq: ") + what);
    }
  }
}

void attention(Context& c, int act) {
  for (const Problem& z : kPlain) check(c, act, z);
}

void views(Context& c, int act) {
  for (const Problem& z : kViews) check(c, act, z);
}

// Three attentions over different keys become one, in two joins.
void join(Context& c, int act) {
  struct Size {
    int64_t b, s, h, d;
  };
  for (const Size& z : {Size{1, 1, 1, 8}, Size{2, 7, 3, 40}, Size{1, 130, 2, 128}, Size{2, 33, 4, 64}}) {
    const int64_t rows = z.b * z.s * z.h, n = rows * z.d;
    const std::vector<double> sizes = {double(z.b), double(z.s), double(z.h), double(z.d)};
    const Tensor o(c, c.random.uniforms(n), act), lse(c, c.random.uniforms(rows, -3, 8), MB_F32), sum(c, n, MB_F32);
    Values joined = o.values(), total = lse.values();
    for (int part = 0; part < 2; ++part) {
      Values seen = c.random.uniforms(rows, -3, 8);
      if (rows > 2) seen[1] = -INFINITY;  // no key
      const Tensor o_part(c, c.random.uniforms(n), act), lse_part(c, seen, MB_F32);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t position = row % z.s, head = row / z.s % z.h, sequence = row / z.s / z.h;
        const double before = std::exp(total[size_t(row)]), added = std::exp(lse_part.values()[size_t(row)]);
        for (int64_t i = 0; i < z.d; ++i) {
          const size_t at = size_t(((sequence * z.s + position) * z.h + head) * z.d + i);
          joined[at] = (before * joined[at] + added * o_part.values()[at]) / (before + added);
        }
        total[size_t(row)] = std::log(before + added);
      }
      std::vector<double> scalars = sizes;
      scalars.push_back(part == 0);
      c.run(MB_OP_ATTENTION_JOIN, {&o_part, &lse_part, &o, &lse, &sum}, scalars);
      c.close("sum", sum.read(), joined, tolerance(MB_F32));
      c.equal("o", o.read(), rounded(sum.read(), act));
      c.close("lse", lse.read(), total, tolerance(MB_F32), 1);
    }
  }
  // Of a query that no part has a key for.
  const Tensor o(c, Values(8, 0.0), act), o_part(c, Values(8, 0.0), act), sum(c, 8, MB_F32);
  const Tensor lse(c, Values{-INFINITY}, MB_F32), lse_part(c, Values{-INFINITY}, MB_F32);
  c.run(MB_OP_ATTENTION_JOIN, {&o_part, &lse_part, &o, &lse, &sum}, {1, 1, 1, 8, 1});
  c.equal("o of no keys", o.read(), Values(8, 0.0));
  c.equal("lse of no keys", lse.read(), {-INFINITY});
}

}  // namespace

const std::vector<Case> attention_cases = {
    {"attention", attention, true}, {"attention of views", views, true}, {"attention_join", join, true}};

}  // namespace mb::test
